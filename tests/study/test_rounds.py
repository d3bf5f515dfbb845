"""Rounds: each starts from the policy that the last one trained, and the table runs from the untrained one to the last."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from plum_utils.jsonl import sha256_file
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.study import batches, sweep_tables, sweeps
from plum_utils.study import pipeline as pipeline_module
from plum_utils.study.commands import main
from plum_utils.training.policy import save_adapter


def train_somehow(run: Run, model: str, seed: int) -> None:
    """What stage 04 leaves: an adapter that does something, and policies.json."""
    torch.manual_seed(seed)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model),
                             LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    folder = run.stage_dir("04_train_kto") / "adapter"
    save_adapter(adapted, folder, "tiny")
    (run.path / "04_train_kto" / "policies.json").write_text(json.dumps([{"adapter": "04_train_kto/adapter", "seed": 0}]))


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 12)[None]).logits


def test_the_merged_policy_is_the_trained_one_and_made_once(tiny, tmp_path):
    run = Run(tmp_path / "round1")
    train_somehow(run, tiny, 1)
    merged = batches.merged_policy(run, tiny, None, "policy-1", "float32")
    trained = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), run.path / "04_train_kto/adapter")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(merged)), logits(trained), atol=1e-4)
    assert not torch.allclose(logits(trained), logits(AutoModelForCausalLM.from_pretrained(tiny)), atol=1e-2)
    before = (merged / "model.safetensors").stat().st_mtime_ns
    batches.merged_policy(run, tiny, None, "policy-1", "float32")
    assert (merged / "model.safetensors").stat().st_mtime_ns == before


def test_another_adapter_or_an_interrupted_merge_is_merged_anew(tiny, tmp_path, monkeypatch):
    run = Run(tmp_path / "round1")
    train_somehow(run, tiny, 1)
    first = sha256_file(batches.merged_policy(run, tiny, None, "policy-1", "float32") / "model.safetensors")
    train_somehow(run, tiny, 2)

    def interrupted(model, adapter, folder, dtype):
        (Path(folder) / "model.safetensors").write_text("half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batches, "merge_adapter", interrupted)
        batches.merged_policy(run, tiny, None, "policy-1", "float32")
    second = batches.merged_policy(run, tiny, None, "policy-1", "float32")
    assert sha256_file(second / "model.safetensors") != first
    assert sorted(path.name for path in run.path.iterdir()) == ["04_train_kto", "policy-1"]


@pytest.fixture
def seen(monkeypatch):
    """(folder of the run, lesson, its policy) of each lesson that would have run."""
    seen = []

    def stand_in(source, folder, parameters, environment):
        run, policy = Run(parameters["run_dir"]), parameters["params"]["policy"]["model"]
        seen.append((run.path.name, source.stem[:2], policy.rsplit("/", 1)[-1]))
        (run.stage_dir(source.stem) / "rows.json").write_text(policy)
        if source.stem == "04_train_kto":
            train_somehow(run, policy, 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / source.name).write_text('{"cells": []}')
        return ""

    monkeypatch.setattr(pipeline_module, "run_notebook", stand_in)
    return seen


def test_each_round_samples_trains_and_is_measured_from_the_last_ones_policy(tiny, tmp_path, tiny_notebooks, seen):
    params = Params(name="r", rounds=2, policy={"model": tiny, "dtype": "float32"}, generator={"live_instructions": 0})
    batches.execute_rounds(params, tmp_path / "out", tiny_notebooks)
    name = tiny.rsplit("/", 1)[-1]
    assert [one for one in seen if one[0] == "round1"] == [("round1", f"0{n}", name) for n in range(1, 7)]
    assert [one for one in seen if one[0] == "round2"] == [("round2", f"0{n}", "policy-1") for n in range(2, 7)]
    seen.clear()
    batches.execute_rounds(params, tmp_path / "out", tiny_notebooks)
    assert seen == []
    beside = Run(tmp_path / "beside")
    (tmp_path / "out" / "round1").rename(beside.path)
    batches.execute_rounds(params, tmp_path / "out", tiny_notebooks)
    assert "round1" not in {one[0] for one in seen}
    assert Run(tmp_path / "out" / "round1").manifest()["stages"]["02_sampling"]["taken_from"] == "beside"


@pytest.fixture
def sweep_of_rounds(tiny, tmp_path):
    (tmp_path / "r.yaml").write_text(f"name: r\nrounds: 2\npolicy: {{model: {tiny}, dtype: float32}}\n"
                                     "generator: {live_instructions: 0}\n")
    (tmp_path / "s.yaml").write_text("title: T\ntable: rounds_controlled\nuntil: '05'\nruns:\n"
                                     "  - {params: r.yaml, model: M, row: a step}\n"
                                     "  - {params: r.yaml, name: alone, model: M, row: two steps, set: {rounds: 1}}\n")
    return sweeps.load_sweep(tmp_path / "s.yaml")


def test_in_a_sweep_each_round_is_a_row(sweep_of_rounds, tmp_path, tiny_notebooks, seen):
    sweep, experiments = sweep_of_rounds
    assert [(one.folder, one.row.row) for one in experiments] == [
        ("r/round1", "a step, round 1"), ("r/round2", "a step, round 2"), ("alone", "two steps")]
    assert batches.execute(sweep, experiments, tmp_path / "out", tiny_notebooks) == {}
    assert [one for one in seen if one[0] == "round2"] == [("round2", f"0{n}", "policy-1") for n in range(2, 7)]
    assert len(seen) == len(set(seen)), "a round is made once"
    for number, one in enumerate(experiments):
        measured(Run(tmp_path / "out" / one.folder), 10 * number, 10 * number + 10)
    table = sweep_tables.measured(experiments, tmp_path / "out")
    assert dict(zip(table.method, table.value)) == {"Baseline": 0, "a step, round 1": 10, "a step, round 2": 20, "two steps": 30}


def test_a_later_round_alone_makes_what_it_starts_from(sweep_of_rounds, tmp_path, tiny_notebooks, seen):
    sweep, experiments = sweep_of_rounds
    batches.execute(sweep, sweeps.of_row(experiments, 2), tmp_path / "out", tiny_notebooks)
    assert [one[:2] for one in seen if one[1] == "04"] == [("round1", "04"), ("round2", "04")]


def test_a_forced_sweep_makes_each_round_again_once(sweep_of_rounds, tmp_path, tiny_notebooks, seen):
    sweep, experiments = sweep_of_rounds
    batches.execute(sweep, experiments[:2], tmp_path / "out", tiny_notebooks)
    first = list(seen)
    seen.clear()
    batches.execute(sweep, experiments[:2], tmp_path / "out", tiny_notebooks, force=True)
    assert [one for one in seen if one[0] == "round1"] == [one for one in first if one[0] == "round1"]
    assert len(seen) == len(set(seen)) >= len(first)


def test_rounds_that_fail_are_told(sweep_of_rounds, tmp_path, tiny_notebooks, monkeypatch):
    def fails(*arguments):
        raise pipeline_module.StageFailed("it broke")

    monkeypatch.setattr(batches, "execute_rounds", fails)
    sweep, experiments = sweep_of_rounds
    assert batches.execute(sweep, experiments[:2], tmp_path / "out", tiny_notebooks) == {"r": "it broke"}


def measured(run: Run, before: float, after: float) -> Run:
    sides = {"before": before, "after": after, "difference": after - before}
    interval = {f"{side}_{end}": value for side, value in sides.items() for end in ("low", "high")}
    run.save_table(pd.DataFrame([{"suite": "heldout_basics", "decoding": "greedy", "seed": 0, "problems": 10}
                                 | sides | interval]), "results")
    run.save_table(pd.DataFrame([{"suite": "heldout_basics", "temperature": 0.8, "k": k, "policy": policy,
                                  "value": value, "low": value, "high": value}
                                 for k in (1, 5) for policy, value in (("baseline", before + k), ("PLUM", after + k))]),
                   "pass_at_k")
    return run


def test_the_table_starts_with_the_untrained_policy_and_ends_with_the_last(tmp_path):
    runs = [measured(Run(tmp_path / "1"), 20, 30), measured(Run(tmp_path / "2"), 30, 35)]
    table = sweep_tables.rounds_table(runs)
    greedy, reach = (table[table.metric == name] for name in
                     ("heldout_basics, greedy", "heldout_basics, T=0.8, pass@5"))
    assert list(zip(greedy["round"], greedy.value)) == [(0, 20), (1, 30), (2, 35)]
    assert greedy.gain.tolist()[1:] == [10, 5] and set(greedy.problems) == {10}
    assert list(zip(reach["round"], reach.value)) == [(0, 25), (1, 35), (2, 40)]


def test_rounds_refuse_a_part_of_the_stages(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text("name: r\nrounds: 2\n")
    assert main(["run", str(path), "--only", "03"]) == 2
    assert "rounds run all stages" in capsys.readouterr().err
