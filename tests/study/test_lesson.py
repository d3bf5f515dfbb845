"""The loops of sampling and judging over a model that lives in memory: rows, resume, what a verdict says."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins import Words

from plum_utils.models.number_types import settled
from plum_utils.models.prompts import policy_prompt
from plum_utils.params import Params, ParamsError
from plum_utils.study.lesson import caption, open_stage

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


def test_small_runs_are_stamped():
    assert "not evidence" in caption(P.model_copy(update={"name": "smoke"}), "Finding.").data
    assert "not evidence" not in caption(P, "Finding.").data


def test_the_prompt_holds_system_instruction_and_how_to_answer():
    assert policy_prompt(P, Words(), "Add.") == ("<system>Be brief.<user>Add.\n\nAnswer with one python code block."
                                                 "<assistant>")
