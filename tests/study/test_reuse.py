"""A notebook opened by itself: its inputs are there, or in a run like it, or it says what to run first."""

from __future__ import annotations

from pathlib import Path

import pytest

from plum_utils.jsonl import sha256_file
from plum_utils.params import Params, ParamsError
from plum_utils.runs import Run
from plum_utils.stages import STAGES
from plum_utils.study.commands import _chosen, _parser
from plum_utils.study.reuse import MissingInputs, find_inputs

P = Params(name="one", sampling={"k": 3})


def finished(folder: Path, params: Params, day: int = 1, until: str = "04_train_kto") -> Run:
    """A run whose stages up to ``until`` are done; every file holds the run's name."""
    run = Run(folder)
    for stage in STAGES:
        if stage.name > until:
            break
        names = {name for one in STAGES for name in one.reads if name.startswith(stage.name)}
        for name in sorted(names):
            (run.stage_dir(stage.name) / Path(name).name).write_text(folder.name)
        run.update_stage(stage.name, {
            "status": "done", "params": stage.parameters(params), "finished": f"2026-01-0{day}T00:00:00",
            "outputs": {name: sha256_file(run.path / name) for name in names}})
    return run


def test_a_stage_that_reads_nothing_needs_nothing(tmp_path):
    find_inputs(P, Run(tmp_path / "one"), "01_testgen")
    find_inputs(P, Run(tmp_path / "one"), "02_sampling")


def test_files_of_the_own_run_are_used_as_they_are(tmp_path, capsys):
    run = finished(tmp_path / "one", P)
    finished(tmp_path / "two", P, day=2)
    find_inputs(P, run, "05_evalplus_eval")
    assert (run.path / "04_train_kto/policies.json").read_text() == "one" and capsys.readouterr().out == ""


def test_the_latest_run_with_these_parameters_lends_its_stages(tmp_path, capsys):
    finished(tmp_path / "old", P, day=1)
    finished(tmp_path / "new", P, day=2)
    finished(tmp_path / "other", Params(name="x", sampling={"k": 4}), day=3)
    run = Run(tmp_path / "mine")
    find_inputs(P, run, "04_train_kto")
    assert (run.path / "03_preferences/kto.jsonl").read_text() == "new"
    assert (run.path / "02_sampling/samples.jsonl").read_text() == "new"
    assert run.manifest()["stages"]["03_preferences"]["taken_from"] == "new"
    assert "latest run with these parameters" in capsys.readouterr().out


def test_a_run_whose_earlier_stages_differ_is_not_used(tmp_path):
    """03's own parameters are equal, but the tests of 01 came from another generator."""
    finished(tmp_path / "other", Params(name="x", sampling={"k": 3}, generator={"live_instructions": 0}), day=3)
    with pytest.raises(MissingInputs):
        find_inputs(Params(name="one", sampling={"k": 3}, generator={"live_instructions": 2}), Run(tmp_path / "mine"),
                    "04_train_kto")


def test_a_run_with_a_changed_file_is_not_used(tmp_path):
    other = finished(tmp_path / "other", P)
    (other.path / "02_sampling/samples.jsonl").write_text("changed")
    with pytest.raises(MissingInputs):
        find_inputs(P, Run(tmp_path / "mine"), "03_preferences")


@pytest.mark.parametrize(("stage", "first", "until"), [
    ("03_preferences", "01_testgen and 02_sampling", "--until 02"),
    ("04_train_kto", "01_testgen and 02_sampling and 03_preferences", "--until 03"),
    ("06_livecodebench_eval", "01_testgen and 02_sampling and 03_preferences and 04_train_kto", "--until 04"),
])
def test_what_to_run_first_is_said_with_its_command(tmp_path, stage, first, until):
    with pytest.raises(MissingInputs) as error:
        find_inputs(P, Run(tmp_path / "one"), stage, "params/mini.yaml")
    assert f"Run {first} first" in str(error.value)
    command = next(line for line in str(error.value).splitlines() if "-m plum_utils" in line)
    arguments = _parser().parse_args(command.split("-m plum_utils")[1].split())
    assert until in command and "params/mini.yaml" in command
    assert [one.name for one in _chosen(arguments)] == [one.name for one in STAGES if one.number <= until[-2:]]


def test_only_what_is_missing_has_to_run(tmp_path):
    run = finished(tmp_path / "one", P, until="02_sampling")
    with pytest.raises(MissingInputs, match="Run 03_preferences first"):
        find_inputs(P, run, "04_train_kto")


def test_the_error_is_shown_without_a_traceback(tmp_path):
    with pytest.raises(MissingInputs) as error:
        find_inputs(P, Run(tmp_path / "one"), "03_preferences")
    (shown,) = error.value._render_traceback_()
    assert shown.startswith("MissingInputs: 03_preferences reads") and "Traceback" not in shown


def test_inputs_made_with_other_parameters_are_named(tmp_path, capsys):
    run = finished(tmp_path / "one", Params(name="one", sampling={"k": 4}))
    find_inputs(P, run, "03_preferences", "params/one.yaml")
    said = capsys.readouterr().out
    assert "02_sampling was made with other parameters (sampling)" in said and "--until 02" in said


def test_stages_from_one_to_another():
    def chosen(*more: str) -> list[str]:
        return [stage.number for stage in _chosen(_parser().parse_args(["run", "x.yaml", *more]))]

    assert chosen("--until", "02") == ["01", "02"]
    assert chosen("--from", "02", "--until", "04_train_kto") == ["02", "03", "04"]
    with pytest.raises(ParamsError, match="--from 05 comes after --until 02"):
        chosen("--from", "05", "--until", "02")
    with pytest.raises(ParamsError, match="unknown stage '07'"):
        chosen("--until", "07")


def test_an_unknown_stage_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown stage '03'"):
        find_inputs(P, Run(tmp_path), "03")
