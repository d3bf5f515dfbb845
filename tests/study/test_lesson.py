"""The loops of sampling and judging over a model that lives in memory: rows, resume, what a verdict says."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure
from stand_ins import Words

from plum_utils.models.number_types import settled
from plum_utils.models.prompts import policy_prompt
from plum_utils.params import Params, ParamsError
from plum_utils.runs import Run
from plum_utils.study import lesson
from plum_utils.study.lesson import open_stage, save_and_show
from plum_utils.study.notebooks import run_notebook
from plum_utils.study.page import captions_of

P = Params(name="x", policy={"system": "Be brief."}, sampling={"k": 3, "shard_size": 2, "max_tokens": 9})
GOOD = "```python\ndef f(x):\n    return x + 1\n```"


def test_a_stage_takes_what_the_pipeline_passes(tmp_path):
    p, run = open_stage(P.model_dump(mode="json"), str(tmp_path), "01_testgen")
    assert p == settled(P) and run.path == tmp_path


@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_a_notebook_opened_by_hand_finds_the_root(tmp_path, monkeypatch, folder):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "x.yaml").write_text("name: x\n")
    monkeypatch.chdir(tmp_path / folder)
    p, run = open_stage("x.yaml", "outputs/x", "02_sampling")
    assert p.name == "x" and run.path == tmp_path / "outputs/x"
    assert Path.cwd() == tmp_path, "a relative path in the parameters would mean something else than in a run"


def test_a_wrong_parameter_is_told_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("name: x\nsampling: {kk: 1}\n")
    with pytest.raises(ParamsError, match="sampling.kk: unknown parameter"):
        open_stage("x.yaml", "outputs/x", "02_sampling")


@pytest.fixture
def displayed(monkeypatch) -> list[tuple[object, dict | None]]:
    """What a cell shows: objects, each with the metadata of its output."""
    seen: list[tuple[object, dict | None]] = []
    monkeypatch.setattr(lesson, "display", lambda shown, metadata=None: seen.append((shown, metadata)))
    return seen


def test_what_is_saved_is_shown_with_its_caption_below(tmp_path, displayed):
    figure, table = Figure(), pd.DataFrame({"a": [1, 2]})
    save_and_show(P, Run(tmp_path), figure, "line", "Figure: of `a`.")
    save_and_show(P, Run(tmp_path), table, "rows", "Table: both.", shown=table.head(1))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        "figures/line.png", "figures/line.svg", "tables/rows.csv", "tables/rows.md"]
    (first, kept), (below, nothing), (part, table_kept), _ = displayed
    assert first is figure and kept == {"saved": "figures/line", "caption": "Figure: of a. Parameters: x."}
    assert below.data == "*Figure: of `a`. Parameters: `x`.*" and nothing is None
    assert len(part) == 1 and table_kept["saved"] == "tables/rows"


def test_without_a_caption_nothing_stands_below(tmp_path, displayed):
    save_and_show(P, Run(tmp_path), table := pd.DataFrame({"a": [1]}), "rows")
    assert len(displayed) == 1 and displayed[0][0] is table and displayed[0][1] is None


def test_small_runs_are_stamped(tmp_path, displayed):
    for name in ("smoke", "mini"):
        save_and_show(P.model_copy(update={"name": name}), Run(tmp_path), Figure(), "line", "Finding.")
    assert ["not evidence" in below.data for below, _ in displayed[1::2]] == [True, False]
    assert displayed[0][1]["caption"] == "Finding. Parameters: smoke. Smoke run: not evidence."


def test_captions_are_found_in_the_executed_notebook(tmp_path):
    cells = ['run_dir = "."', """import pandas as pd
from matplotlib.figure import Figure
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.study import save_and_show

p, run = Params(name="x"), Run(run_dir)
for name in ("a", "b"):
    save_and_show(p, run, Figure(), f"line_{name}", f"Figure: of {name}.")
save_and_show(p, run, pd.DataFrame({"c": [1]}), "rows", "Table: one row.", shown=pd.Series([1]))"""]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, tmp_path / "01_tiny.ipynb")
    assert run_notebook(tmp_path / "01_tiny.ipynb", tmp_path / "notebooks", {"run_dir": str(tmp_path)}, {}) == ""
    assert captions_of(tmp_path / "notebooks" / "01_tiny.ipynb") == {
        "figures/line_a": "Figure: of a. Parameters: x.", "figures/line_b": "Figure: of b. Parameters: x.",
        "tables/rows": "Table: one row. Parameters: x."}


def test_the_prompt_holds_system_instruction_and_how_to_answer():
    assert policy_prompt(P, Words(), "Add.") == ("<system>Be brief.<user>Add.\n\nAnswer with one python code block."
                                                 "<assistant>")
