"""Stages taken over from another run: what is equal is not made twice, what is not equal is never taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.stages import STAGES
from plum_utils.study import pipeline as pipeline_module
from plum_utils.study.pipeline import Pipeline

PARAMS = Params(name="one", generator={"live_instructions": 0})


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """Names of the notebooks that would run; a stand-in writes an artifact, a shard of the baseline and a table."""
    names: list[str] = []

    def stand_in(source, folder, parameters, environment):
        run, params = Run(parameters["run_dir"]), parameters["params"]
        names.append(source.stem)
        stage = run.stage_dir(source.stem)
        (stage / "rows.json").write_text(json.dumps([source.stem, params["seed"], params["training"]["objective"]
                                                     if source.stem >= "04" else ""]))
        shard = stage / "shards" / "greedy-baseline.jsonl"
        shard.parent.mkdir(exist_ok=True)
        shard.exists() or shard.write_text(params["name"])
        (run.path / "tables").mkdir(exist_ok=True)
        (run.path / "tables" / f"{source.stem}.csv").write_text("a\n1\n")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / source.name).write_text("{}")
        return ""

    monkeypatch.setattr(pipeline_module, "run_notebook", stand_in)
    return names


def line(params: Params, path: Path, notebooks: Path, *others: Path) -> Pipeline:
    return Pipeline(params, Run(path), notebooks, others=tuple(map(Run, others)))


@pytest.fixture
def first(tmp_path, tiny_notebooks, executed) -> Path:
    line(PARAMS, tmp_path / "one", tiny_notebooks).execute(list(STAGES))
    executed.clear()
    return tmp_path / "one"


def test_only_stages_that_differ_run_again(first, tmp_path, tiny_notebooks, executed, capsys):
    other = Params(name="two", generator={"live_instructions": 0}, training={"objective": "dpo"})
    second = line(other, tmp_path / "two", tiny_notebooks, first)
    second.execute(list(STAGES))
    assert [name[:2] for name in executed] == ["04", "05", "06"]
    assert "[2/6] 02_sampling: taken from one" in capsys.readouterr().out
    assert all(second.state(stage)[0] == "up to date" for stage in STAGES)
    entry = second.run.manifest()["stages"]["02_sampling"]
    assert entry["taken_from"] == "one"
    assert (tmp_path / "two/tables/01_testgen.csv").read_text() == "a\n1\n"


def test_another_policy_shares_the_tests_but_not_the_samples(first, tmp_path, tiny_notebooks, executed):
    other = Params(name="two", generator={"live_instructions": 0}, policy={"model": "org/other"})
    line(other, tmp_path / "two", tiny_notebooks, first).execute(list(STAGES[:2]))
    assert executed == ["02_sampling"]


def test_a_live_generator_ties_the_tests_to_the_model(tmp_path, tiny_notebooks, executed):
    asks, other = (Params(name=name, generator={"live_instructions": 2}, policy={"model": name})
                   for name in ("one", "two"))
    line(asks, tmp_path / "one", tiny_notebooks).execute([STAGES[0]])
    line(other, tmp_path / "two", tiny_notebooks, tmp_path / "one").execute([STAGES[0]])
    assert executed == ["01_testgen", "01_testgen"]


def test_a_damaged_stage_is_not_taken(first, tmp_path, tiny_notebooks, executed):
    (first / "02_sampling/rows.json").write_text("damaged")
    line(PARAMS, tmp_path / "two", tiny_notebooks, first).execute(list(STAGES[:2]))
    assert executed == ["02_sampling"]
    assert (tmp_path / "two/02_sampling/rows.json").read_text() != "damaged"


def test_force_takes_nothing(first, tmp_path, tiny_notebooks, executed):
    line(PARAMS, tmp_path / "two", tiny_notebooks, first).execute([STAGES[0]], force=True)
    assert executed == ["01_testgen"]


def test_writing_anew_leaves_the_lender_as_it_was(first, tmp_path, tiny_notebooks, executed):
    second = line(PARAMS, tmp_path / "two", tiny_notebooks, first)
    second.execute([STAGES[1]])
    assert (tmp_path / "two/02_sampling/rows.json").stat().st_nlink == 2
    second.execute([STAGES[1]], force=True)
    assert (first / "02_sampling/shards/greedy-baseline.jsonl").read_text() == "one"
    assert line(PARAMS, first, tiny_notebooks).state(STAGES[1])[0] == "up to date"


@pytest.mark.parametrize(("policy", "lent"), [({}, True), ({"model": "org/other"}, False)])
def test_the_baselines_shards_are_lent_to_runs_of_the_same_policy(first, tmp_path, tiny_notebooks, executed, policy,
                                                                  lent):
    other = Params(name="two", generator={"live_instructions": 0}, training={"objective": "dpo"}, policy=policy)
    line(other, tmp_path / "two", tiny_notebooks, first).execute(list(STAGES[:5]))
    shard = tmp_path / "two/05_evalplus_eval/shards/greedy-baseline.jsonl"
    assert shard.read_text() == ("one" if lent else "two")
