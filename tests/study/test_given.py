"""papermill as people use it: single values, parts and whole files count, or it says in one line how they would."""

import base64
import subprocess
import sys

import nbformat
import pytest
import yaml
from papermill.translators import PythonTranslator

from plum_utils.params import ParamsError, load_params
from plum_utils.provenance import ROOT
from plum_utils.study import given

FILE = {"name": "mine", "seed": 7, "policy": {"dtype": "float32"}, "training": {"beta": 0.3, "learning_rate": 0.002}}


@pytest.fixture
def folder(tmp_path):
    """A lesson of two cells and a parameter file, in a root of their own."""
    nb = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "P"}})
    lesson = nbformat.read(ROOT / "notebooks" / "01_testgen.ipynb", as_version=4)
    start = next(cell for cell in lesson.cells if "parameters" in cell.metadata.get("tags", []))
    start = nbformat.from_dict(start | {"source": start.source.replace("params/mini.yaml", "mine.yaml")})
    show = ("import json\nfrom plum_utils.study import open_stage\np, run = open_stage(params, run_dir, '01_testgen')\n"
            "print(json.dumps([p.name, p.seed, p.training.beta, p.training.learning_rate, p.sampling.k, run.path.name]))")
    nb.cells = [start, nbformat.v4.new_code_cell(show)]
    nbformat.write(nb, tmp_path / "lesson.ipynb")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(FILE))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"name": "other", "sampling": {"k": 9}, "policy": {"dtype": "float32"}}))
    (tmp_path / "child.yaml").write_text("extends: mine.yaml\nname: child\n")
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"name": "bad", "training": {"betta": 1}}))
    return tmp_path


def papermill(folder, *arguments):
    """What the lesson printed, or the last line of its error."""
    ran = subprocess.run([sys.executable, "-m", "papermill", "lesson.ipynb", "out.ipynb", "--cwd", str(folder), *arguments],
                         cwd=folder, capture_output=True, text=True, timeout=120)
    if ran.returncode:
        return ran.stderr.strip().split("\n")[-1]
    cells = nbformat.read(folder / "out.ipynb", as_version=4).cells
    return next(out.text for out in cells[-1].outputs if out.output_type == "stream").strip().split("\n")[-1]


PART = base64.b64encode(b"training: {beta: 0.9}").decode()


@pytest.mark.parametrize(("arguments", "expected"), [
    (["-p", "params", "other.yaml", "-p", "run_dir", "outputs/x"], '["other", 0, 0.1, 5e-05, 9, "x"]'),  # docs/experiments.md
    (["-p", "training.learning_rate", "1e-4", "-p", "sampling.k", "3"], '["mine", 7, 0.3, 0.0001, 3, "mini"]'),
    pytest.param(["-f", "other.yaml", "-p", "sampling.k", "2"], '["other", 0, 0.1, 5e-05, 2, "other"]',
                 marks=pytest.mark.long("seconds")),
    pytest.param(["-y", "training: {beta: 0.5}\nseed: 8"], '["mine", 8, 0.5, 0.002, 20, "mini"]',
                 marks=pytest.mark.long("seconds")),
    pytest.param(["-b", PART], '["mine", 7, 0.9, 0.002, 20, "mini"]', marks=pytest.mark.long("seconds")),
    pytest.param(["-f", "other.yaml"], '["other", 0, 0.1, 5e-05, 9, "other"]', marks=pytest.mark.long("seconds")),
    (["-f", "child.yaml"], "pass its path instead, -p params <file> -p run_dir outputs/<name>"),
    pytest.param(["-f", "bad.yaml"], "training.betta: ", marks=pytest.mark.long("seconds")),
    pytest.param(["-p", "training.betta", "1"], "training.betta: ", marks=pytest.mark.long("seconds")),
], ids=lambda one: " ".join(one)[:30] if isinstance(one, list) else "")
def test_what_papermill_is_told_counts_or_is_an_error(folder, arguments, expected):
    assert expected in papermill(folder, *arguments)


@pytest.fixture
def inject(monkeypatch):
    """A function that does with parameters what papermill and the kernel do; returns the lines that are run."""
    monkeypatch.setattr(given, "_lines", [])
    return lambda values: given._taken(PythonTranslator.codify(values, "Parameters").splitlines(keepends=True))


@pytest.mark.parametrize(("values", "expected"), [
    ({"training.beta": 0.5, "seed": 3}, ({"training.beta": 0.5, "seed": 3}, False)),
    ({"training": {"beta": 0.5}, "training.epochs": 2, "sampling": {"k": 3}},
     ({"training.beta": 0.5, "training.epochs": 2, "sampling.k": 3}, False)),
    ({"sampling.k": 3, "sampling": {"k": 2}}, ({"sampling.k": 2}, False)),
    ({"name": "x", "policy": {"dtype": "float32"}, "policy.system": ""},
     ({"name": "x", "policy.dtype": "float32", "policy.system": ""}, True)),
    ({"name": "x", "seed": 2}, ({"name": "x", "seed": 2}, False)),
    ({"training.seeds": "[1, 2]", "policy.system": "[INST] a", "sampling": "{k: 3}", "sampling.stop": ["a = b\n"]},
     ({"training.seeds": [1, 2], "policy.system": "[INST] a", "sampling.k": 3, "sampling.stop": ["a = b\n"]}, False)),
    ({"params": "mine.yaml", "run_dir": "outputs/x", "no.such": 1}, ({"run_dir": "outputs/x", "no.such": 1}, False)),
    ({"params": {"name": "x", "policy": {}}, "run_dir": "outputs/x"}, ({"run_dir": "outputs/x"}, False)),
])
def test_what_was_told(inject, values, expected):
    ran = inject(values)
    assert [line.partition(" = ")[0].strip() for line in ran[1:]] == [key for key in values if key in ("params", "run_dir")]
    assert given.told() == expected


@pytest.mark.parametrize(("values", "message"), [
    ({"extends": "a.yaml", "name": "x"}, "pass its path instead"), ({"training": {"beta": float("nan")}}, "a plain value"),
    ({"name": "x", "policy": {"dtype": "auto"}, "params": "mine.yaml"}, "give one of them")])
def test_what_cannot_count_is_an_error(inject, values, message):
    inject(values)
    with pytest.raises(ParamsError, match=message):
        given.told()


def test_other_cells_are_left_as_they_are():
    lines = ["# Parameters of mine\n", "x = 1\n"]
    assert given._taken(lines) is lines


@pytest.mark.parametrize("key", ["trainng.beta", "training.betta", "bogus"])
def test_a_name_that_is_none_is_said_to_be_told(folder, key):
    with pytest.raises(ParamsError, match=rf"^-p {key.partition('.')[0]}.*: unknown parameter"):
        load_params(folder / "mine.yaml", {key: 1})
