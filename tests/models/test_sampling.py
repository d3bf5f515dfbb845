"""Lesson 02's loop over a model that lives in memory: rows, seeds, resume."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stand_ins import INSTRUCTIONS, Memory, P, TwoMemories, Words

from plum_utils.models import ray_engines, sampling
from plum_utils.models.sampling import open_policy_backend, sample_policy
from plum_utils.params import EngineParams, Params
from plum_utils.stages import BY_NAME, SAMPLING


def test_k_samples_of_each_instruction_in_order(tmp_path):
    backend = Memory()
    rows = sample_policy(P, backend, Words(), INSTRUCTIONS, tmp_path)
    assert [(row["instruction_id"], row["sample_index"]) for row in rows] == \
        [(item.instruction_id, index) for item in INSTRUCTIONS for index in range(3)]
    assert set(rows[0]) == {"instruction_id", "sample_index", "prompt", "completion", "code", "finish_reason",
                            "end", "n_tokens", "seed"}
    assert rows[0]["code"] == rows[0]["completion"].split("\n")[1]
    assert [len(call["prompts"]) for call in backend.calls] == [2, 2, 1]
    assert {(call["n"], call["temperature"], call["top_p"], call["max_tokens"]) for call in backend.calls} == {
        (3, 1.0, 1.0, 9)}


@pytest.mark.parametrize(("changes", "kind"), [
    ({}, "one"), ({"ray": "auto"}, "several"), ({"replicas": 3}, "several"), ({"ray": "auto", "replicas": 3}, "several")])
def test_the_policys_engines_are_opened_where_the_parameters_say(monkeypatch, changes, kind):
    p = Params(name="x", policy={"dtype": "float32"}, sampling={"backend": "vllm", "adapters": "merge", **changes},
               engine={"max_model_len": 512})
    settings = {"dtype": "float32", "lora_rank": 8, "adapters": "merge", "engine": EngineParams(max_model_len=512)}
    monkeypatch.setattr(sampling, "open_backend", lambda *which, **how: ("one", which, how))
    monkeypatch.setattr(ray_engines, "RayBackend", lambda *which, **how: ("several", which, how))
    where = (changes.get("replicas", 1), changes.get("ray")) if kind == "several" else ()
    assert open_policy_backend(p, "model", 8) == (kind, ("vllm", "model", *where), settings)


def test_as_many_shards_are_sampled_at_a_time_as_the_backend_has_replicas(tmp_path):
    rows = sample_policy(P, TwoMemories(), Words(), INSTRUCTIONS[:4], tmp_path / "two")
    assert rows == sample_policy(P, Memory(), Words(), INSTRUCTIONS[:4], tmp_path / "one")


def test_a_prompts_seed_does_not_depend_on_its_shard(tmp_path):
    larger = P.model_copy(update={"sampling": P.sampling.model_copy(update={"shard_size": 5})})
    rows = [sample_policy(p, Memory(), Words(), INSTRUCTIONS, tmp_path / str(p.sampling.shard_size)) for p in (P, larger)]
    assert rows[0] == rows[1]


def test_sampling_goes_on_after_the_last_finished_shard(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sample_policy(P, Memory(fail_at_call=2), Words(), INSTRUCTIONS, tmp_path / "a")
    again = Memory()
    resumed = sample_policy(P, again, Words(), INSTRUCTIONS, tmp_path / "a")
    assert [len(call["prompts"]) for call in again.calls] == [1]
    assert resumed == sample_policy(P, Memory(), Words(), INSTRUCTIONS, tmp_path / "b")


@pytest.mark.parametrize("change", [
    lambda p: p.model_copy(update={"seed": 1}),
    lambda p: p.model_copy(update={"sampling": p.sampling.model_copy(update={"temperature": 0.5})}),
    lambda p: p.model_copy(update={"policy": p.policy.model_copy(update={"system": None})}),
    lambda p: p.model_copy(update={"engine": EngineParams(quantization="fp8_per_tensor")}),
], ids=["seed", "temperature", "prompt", "quantization"])
def test_samples_of_other_settings_are_not_taken_for_these(tmp_path, change):
    sample_policy(P, Memory(), Words(), INSTRUCTIONS, tmp_path)
    backend = Memory()
    sample_policy(change(P), backend, Words(), INSTRUCTIONS, tmp_path)
    assert len(backend.calls) == 3


def test_another_share_of_memory_or_number_of_engines_changes_no_sample(tmp_path):
    sample_policy(P, Memory(), Words(), INSTRUCTIONS, tmp_path)
    idle, stage, elsewhere = Memory(), BY_NAME[SAMPLING], P.model_copy(update={
        "engine": EngineParams(gpu_memory_utilization=0.5, tensor_parallel_size=2, max_model_len=2048),
        "sampling": P.sampling.model_copy(update={"replicas": 2, "ray": "auto"})})
    sample_policy(elsewhere, idle, Words(), INSTRUCTIONS, tmp_path)
    assert not idle.calls and stage.parameters(elsewhere) == stage.parameters(P)


def test_only_the_shard_with_another_instruction_is_sampled_again(tmp_path):
    others = [replace(INSTRUCTIONS[0], instruction="Write g."), *INSTRUCTIONS[1:]]
    sample_policy(P, Memory(), Words(), INSTRUCTIONS, tmp_path)
    backend = Memory()
    rows = sample_policy(P, backend, Words(), others, tmp_path)
    assert [len(call["prompts"]) for call in backend.calls] == [2]
    assert rows == sample_policy(P, Memory(), Words(), others, tmp_path / "fresh")


def test_shards_of_a_version_that_told_fewer_endings_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "get_args", lambda _: ("stop", "length"))
    sample_policy(P, Memory(), Words(), INSTRUCTIONS, tmp_path)
    monkeypatch.undo()
    backend = Memory()
    sample_policy(P, backend, Words(), INSTRUCTIONS, tmp_path)
    assert len(backend.calls) == 3
