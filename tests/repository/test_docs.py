"""README and paper notes: every function, test, file, parameter and command they name exists."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from notebook_rules import MACHINE_PATH

from benchmarks.reference import LIMIT
from docs import paper_audit
from plum_utils.data import paper
from plum_utils.data.instructions import load_instructions
from plum_utils.evaluation.beside_paper import claimed_gains, whole_problems
from plum_utils.params import Params, load_params
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.sandbox import Sandbox
from plum_utils.stages import STAGES
from plum_utils.study.commands import _parser, main
from plum_utils.study.report import END, START, results_block
from plum_utils.study.sweeps import sweep_of_table
from plum_utils.testgen.suites import build_suites

README, NOTES, SANDBOX = ROOT / "README.md", ROOT / "docs" / "paper_notes.md", ROOT / "docs" / "sandbox.md"
EXPERIMENTS, FINDINGS = ROOT / "docs" / "experiments.md", ROOT / "docs" / "findings.md"
SPEED, BOXES = ROOT / "docs" / "speed.md", ROOT / "docs" / "boxes.md"
COURSE, TEACHING = ROOT / "docs" / "course.md", ROOT / "teaching" / "README.md"
DOCS = [README, NOTES, SANDBOX, EXPERIMENTS, FINDINGS, SPEED, BOXES, COURSE, TEACHING]
MINE = Path("params/mine.yaml")  # the reader's own file


def functions_named(text: str) -> set[str]:
    return set(re.findall(r"`(plum_utils(?:\.\w+){2,})", text))


def cited_tests(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text))


@pytest.mark.parametrize("name", sorted(functions_named(NOTES.read_text())))
def test_functions_named_in_the_notes_exist(name):
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize(("file", "name"), sorted(cited_tests(NOTES.read_text())))
def test_tests_named_in_the_notes_exist(file, name):
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_rule_has_a_function_and_a_test():
    rows = [line for line in NOTES.read_text().split("## 3 ")[0].splitlines()
            if line.startswith("| ") and not line.startswith(("| rule", "| open"))]
    assert len(rows) > 30
    assert [row for row in rows if not functions_named(row) or not cited_tests(row)] == []


def test_the_tables_of_the_notes_are_what_the_audit_prints(capsys):
    page = NOTES.read_text()
    assert page == paper_audit.filled(page), "python -m docs.paper_audit --write"
    paper_audit.main([])
    tables = re.findall(r"<!-- (\w+):start -->\n(.*?)\n<!-- \1:end -->", page, re.DOTALL)
    assert capsys.readouterr().out == "\n\n".join(f"## {name}\n\n{text}" for name, text in sorted(
        tables, key=lambda one: list(paper_audit.BLOCKS).index(one[0]))) + "\n"


def test_as_many_gains_are_small_as_the_notes_say():
    claimed = claimed_gains(paper.table(2))
    assert (int((claimed.best_case_p > 0.05).sum()), len(claimed)) == (10, 40)
    assert "Ten of the forty gains of Table 2 amount to fewer than six" in NOTES.read_text()


def test_printed_scores_fit_the_sizes_that_the_notes_say():
    tables = [frame[frame.row != "Rel. +"] for frame in map(paper.table, (2, 3, 5, 6))]
    scores = {score for frame in tables for name in ("MBPP", "MBPP+") for score in frame[name]}
    assert [len(scores), *(sum(whole_problems(score, size) for score in scores) for size in (399, 378))] == [60, 51, 26]
    assert [[whole_problems(score, size) for size in (399, 378)] for score in (64.4, 69.3)] == [[True, False],
                                                                                               [False, True]]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_repository(path):
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    assert [link for link in links if "://" in link] == []
    missing = [link for link in links if not (path.parent / link).exists()]
    if not (ROOT / "outputs" / "reference").exists():
        missing = [link for link in missing if not link.startswith("outputs/reference/")]
    assert missing == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_named_in_the_docs_exist(path):
    named = re.findall(r"`((?:params|plum_utils|notebooks|docs|tests)/[\w./-]*)`", path.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_parameters_named_in_the_docs_exist(path):
    sections = "|".join(Params.model_fields)
    for section, field in re.findall(rf"`({sections})\.(\w+)`", path.read_text()):
        assert field in Params.model_fields[section].annotation.model_fields, f"{section}.{field}"


@pytest.mark.parametrize(("path", "least"), [(README, 7), (EXPERIMENTS, 7), (COURSE, 3)],
                         ids=["README", "experiments", "course"])
def test_commands_in_the_docs_are_understood(path, least):
    lines = re.findall(r"-m plum_utils ([^#\n`]+)", path.read_text())
    assert len(lines) >= least
    for line in lines:
        arguments = _parser().parse_args(line.split())
        if str(getattr(arguments, "params", None)).startswith("params/") and arguments.params != MINE:
            assert (ROOT / arguments.params).is_file(), line
        if getattr(arguments, "table", None):
            assert sweep_of_table(arguments.table).is_file(), line


def commands(verbs: set[str]) -> list[str]:
    """The docs' commands that start with one of these words, each once."""
    lines = [line.strip() for path in DOCS for line in re.findall(r"-m plum_utils ([^#\n`]+)", path.read_text())]
    return sorted({line for line in lines if line.split()[0] in verbs})


@pytest.mark.parametrize("line", commands({"list", "plan"}))
def test_commands_that_only_look_run_as_printed(line, capsys):
    assert main(line.split()) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_make_targets_in_the_docs_exist(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    named = set(re.findall(r"`make ([\w-]+)`", text)) | set(re.findall(r"^make ([\w-]+)", text, re.MULTILINE))
    assert named <= targets and (path != README or named >= {"study", "test", "lab", "docs"})


def fenced(path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def test_bringing_ones_own_takes_less_than_ten_lines_and_works(tmp_path, monkeypatch):
    """The README's own blocks: the data file is written and its tests agree with its solution, the parameters load."""
    (script,), yamls = fenced(README, "python"), fenced(README, "yaml")
    assert len(yamls) == 2 and all(len(block.splitlines()) < 10 for block in [script, *yamls])
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    (row,) = build_suites(load_instructions(str(tmp_path / "mine.jsonl")), Sandbox(1), progress=False)
    assert row["consistent"] and row["n_tests"] == 2
    params = tmp_path / "params"
    params.mkdir()
    shutil.copy(ROOT / "params" / "mini.yaml", params)
    loaded = []
    for block in yamls:
        (params / MINE.name).write_text(block)
        loaded.append(load_params(params / MINE.name, {}))
    assert loaded[0].policy.model != Params(name="x").policy.model and loaded[1].data.train == "mine.jsonl"
    assert [one.name for one in loaded] == ["mine", "mine"]


def test_the_readme_has_one_place_for_results_and_all_lessons():
    text = README.read_text()
    assert text.count(START) == text.count(END) == 1
    assert [f"notebooks/{stage.name}.ipynb" in text for stage in STAGES] == [True] * 6


def test_the_readmes_results_are_the_reference_runs():
    if not (ROOT / "outputs" / "reference" / "manifest.json").exists():
        pytest.skip("no reference run yet")
    block = README.read_text().split(START)[1].split(END)[0]
    assert block.strip() == results_block(Run(ROOT / "outputs" / "reference")).strip()


@pytest.mark.parametrize("path", [*DOCS, *sorted((ROOT / "params").rglob("*.yaml"))], ids=lambda path: path.name)
def test_no_path_of_a_machine(path):
    text = path.read_text()
    assert not MACHINE_PATH.search(text) and not re.search(r"https?://(pypi|files\.pythonhosted|localhost)", text)


def test_bundled_data_is_what_the_licence_section_lists():
    names = {path.name for path in (ROOT / "plum_utils" / "data").iterdir() if path.suffix != ".py"} - {"__pycache__", "judges"}
    assert names == {"recorded", "paper_tables.json", "livecodebench_mini.jsonl", "livecodebench_examples.json", "heldout_basics.jsonl",
                     "heldout_intermediate.jsonl", "heldout_public.jsonl", "report.html.j2", "report.md.j2",
                     "model_shapes.json", "jupyter"}
    assert "CC0" in README.read_text() and (ROOT / "LICENSE").read_text().startswith("MIT")


def test_the_reference_run_is_small_whole_and_names_no_machine():
    """The committed outputs: at most 12 MB, every stage done, nothing of the machine they were made on."""
    folder = ROOT / "outputs" / "reference"
    if not folder.exists():
        pytest.skip("no reference run yet")
    tracked = subprocess.run(["git", "ls-files", "outputs/reference"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in tracked.stdout.splitlines()] or [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    assert [stages[stage.name]["status"] for stage in STAGES] == ["done"] * 6
    texts = [path for path in files if path.suffix in {".json", ".jsonl", ".md", ".csv", ".ipynb", ".yaml"}]
    assert [path.name for path in texts if MACHINE_PATH.search(path.read_text(errors="replace"))] == []


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_notebooks_name_only_parameters_that_exist(stage):
    path = ROOT / "notebooks" / f"{stage.name}.ipynb"
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    sections = [name for name, field in Params.model_fields.items() if hasattr(field.annotation, "model_fields")]
    found = re.findall(rf"\bp\.({'|'.join(sections)})\.(\w+)", text)
    assert found
    methods = ["model_dump", "model_copy", "sets"]
    for section, field in found:
        assert field in [*Params.model_fields[section].annotation.model_fields, *methods], f"{section}.{field}"


def test_the_figures_of_the_pages_are_those_of_the_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tables

    pages = [path.read_text() for path in tables.PAGES]
    assert [name for name in tables.BLOCKS if not any(f"<!-- {name}:start -->" in page for page in pages)] == []
    assert pages == [tables.filled(page) for page in pages], "python benchmarks/tables.py"
