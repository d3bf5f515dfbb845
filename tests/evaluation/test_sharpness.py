"""The entropy of a policy on its own answers, and policies compared at equal entropy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from stand_ins import P
from tiny_llama import END
from transformers import AutoModelForCausalLM

from plum_utils.evaluation import sharpness
from plum_utils.evaluation.sharpness import (
    curves,
    describe_entropy,
    describe_equal_entropy,
    equal_entropy,
    equal_entropy_table,
    measure_entropies,
    sharpness_table,
)
from plum_utils.evaluation.tables import long_form
from plum_utils.models.adapters import Policy
from plum_utils.models.transformers_engine import TransformersBackend
from plum_utils.params import Decoding

HOT, GREEDY = Decoding("T=0.1", 2, 0.1), Decoding("greedy", 1, 0.0)


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    """Folder of an adapter for the tiny model that changes what it says."""
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def solution(task: str, index: int, completion: str) -> dict:
    return {"task_id": task, "sample_index": index, "prompt": f"{task}?\n", "completion": completion, "end": END}


def jobs(adapter) -> dict:
    rows = [solution(task, index, f"{task} {index}") for task in ("t0", "t1") for index in (0, 1)]
    policies = [Policy("baseline", None, None), Policy("kto-seed0", 0, adapter)]
    return {(policy, "s", decoding): rows for policy in policies for decoding in (GREEDY, HOT)}


def test_each_policys_first_samples_are_read_by_itself_and_its_adapter_counts(tiny, adapter, tmp_path):
    exact = P.model_copy(update={"policy": P.policy.model_copy(update={"dtype": "float32"})})  # auto is bfloat16 on some
    found = measure_entropies(exact, tiny, jobs(adapter), tmp_path)
    assert found[["suite", "temperature", "policy", "task_id"]].values.tolist() == [
        ["s", 0.1, policy, task] for policy in ("baseline", "kto-seed0") for task in ("t0", "t1")]
    assert found.tokens_read.tolist() == [5] * 4
    assert found.entropy_per_answer.tolist() == pytest.approx((5 * found.entropy_per_token).tolist())
    whole = TransformersBackend(tiny, "float32").entropies(["t0?\n"], ["t0 0" + END], 0.1, str(adapter))
    assert found.entropy_per_answer[2] == pytest.approx(sum(whole[0]), abs=1e-6)
    assert abs(found.entropy_per_answer[2] - found.entropy_per_answer[0]) > 0.1
    greedy = {job: rows for job, rows in jobs(adapter).items() if job[2] == GREEDY}
    assert measure_entropies(exact, "no model is loaded", greedy, tmp_path).empty


def test_what_was_read_before_a_kill_is_not_read_again(tiny, adapter, tmp_path, monkeypatch):
    calls, read = [], TransformersBackend.entropies

    def killed_at_second(self, prompts, *how):
        calls.append(how[-1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read(self, prompts, *how)

    monkeypatch.setattr(TransformersBackend, "entropies", killed_at_second)
    with pytest.raises(KeyboardInterrupt):
        measure_entropies(P, tiny, jobs(adapter), tmp_path)
    whole = measure_entropies(P, tiny, jobs(adapter), tmp_path)
    assert calls == [None, str(adapter), str(adapter)] and len(whole) == 4
    assert measure_entropies(P, "no model is loaded", jobs(adapter), tmp_path).equals(whole)
    other = {job: [row | {"completion": row["completion"] + "!"} for row in rows] for job, rows in jobs(adapter).items()}
    assert measure_entropies(P, tiny, other, tmp_path).tokens_read.tolist() == [6] * 4 and len(calls) == 5


def rows_of(policy: str, temperature: float, passes: list[list[int]], programs: list[list[str]] | None = None) -> list[dict]:
    """Rows of suite ``s``: for each problem the outcomes of its samples, all alike where no ``programs`` are given."""
    return [{"suite": "s", "policy": policy, "seed": None if policy == "baseline" else int(policy[-1]),
             "decoding": f"T={temperature:g}" if temperature else "greedy", "temperature": temperature, "task_id": f"t{place}",
             "base_passed": bool(value), "plus_passed": None, "n_tokens": 10 if policy == "baseline" else 6,
             "solution": programs[place][index] if programs else "x = 1"}
            for place, samples in enumerate(passes) for index, value in enumerate(samples)]


def entropies_of(nats: dict[tuple[str, float], list[float]]) -> pd.DataFrame:
    return pd.DataFrame([{"suite": "s", "temperature": temperature, "policy": policy, "task_id": f"t{place}",
                          "entropy_per_token": value / 10, "entropy_per_answer": value, "tokens_read": 10}
                         for (policy, temperature), values in nats.items() for place, value in enumerate(values)])


def test_the_table_averages_samples_then_seeds_then_problems():
    scored = long_form(rows_of("baseline", 0.8, [[1, 0], [0, 0]], [["x = 1", "x = 1  \n\n"], ["x = 1", "x = 2"]])
                       + rows_of("kto-seed0", 0.8, [[1, 1], [0, 0]]) + rows_of("kto-seed1", 0.8, [[1, 0], [0, 0]])
                       + rows_of("baseline", 0.0, [[1], [1]]) + rows_of("kto-seed0", 0.0, [[1], [1]]))
    read = entropies_of({("baseline", 0.8): [30, 10], ("kto-seed0", 0.8): [8, 4], ("kto-seed1", 0.8): [6, 2]})
    table = sharpness_table(scored, read, 200).set_index("policy")
    assert table.index.tolist() == ["baseline", "PLUM"] and set(table.temperature) == {0.8}
    assert table.loc["baseline", ["entropy_per_answer", "entropy_per_token", "tokens", "distinct", "pass_at_1"]].tolist() == [
        20, 2, 10, 75, 25]
    assert table.loc["PLUM", ["entropy_per_answer", "tokens", "distinct", "pass_at_1"]].tolist() == [5, 6, 50, 37.5]
    assert table.loc["PLUM", ["entropy_per_answer_change", "entropy_per_answer_change_low",
                              "entropy_per_answer_change_high"]].tolist() == [-15, -23, -7]
    assert table.loc["baseline"].isna().sum() == 9
    one_seed = scored[scored.policy != "kto-seed1"]
    assert sharpness_table(one_seed, read[read.policy != "kto-seed1"], 200).pass_at_1.tolist() == [25, 50]


def test_problems_that_were_not_read_count_for_everything_but_the_entropies():
    scored = long_form(rows_of("baseline", 0.8, [[1], [0]]) + rows_of("kto-seed0", 0.8, [[1], [1]]))
    read = entropies_of({("baseline", 0.8): [30], ("kto-seed0", 0.8): [10]})
    table = sharpness_table(scored, read, 200)
    assert table.pass_at_1.tolist() == [50, 100] and table.entropy_per_answer.tolist() == [30, 10]
    assert table.entropy_per_answer_change[1] == -20 and table.tokens_change[1] == -4


def test_greedy_answers_alone_have_no_table():
    scored = long_form(rows_of("baseline", 0.0, [[1]]) + rows_of("kto-seed0", 0.0, [[1]]))
    table = sharpness_table(scored, entropies_of({}).reindex(columns=[*sharpness.KEY, *sharpness.MEASURES]), 200)
    assert table.empty and list(table) == sharpness.SHARPNESS
    assert equal_entropy_table(scored, table).empty


def curve(rates: dict[float, list[float]], nats: dict[float, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    measured = pd.DataFrame({"entropy_per_token": nats, "entropy_per_answer": nats})
    return pd.DataFrame(rates, index=["a", "b", "c", "d"]), measured


COLD_AND_HOT = {0.4: [1, 1, 1, 0], 0.8: [1, 0, 0, 0]}


@pytest.mark.parametrize(("rates", "nats", "difference"), [
    (COLD_AND_HOT, {0.4: 10, 0.8: 20}, 0), (COLD_AND_HOT, {0.8: 20, 0.4: 10}, 0),
    ({0.8: [1, 1, 1, 0], 1.0: [1, 0, 0, 0]}, {0.8: 10, 1.0: 20}, 0),  # the same curve, reached at other temperatures
    ({0.4: [1, 1, 1, 1], 0.8: [1, 1, 0, 0]}, {0.4: 10, 0.8: 20}, 25),
    ({0.4: [1, 1, 1, 0], 0.8: [1, 1, 1, 0]}, {0.4: 5, 0.8: 15}, 75 - 62.5)])
def test_at_equal_entropy_a_policy_that_moved_along_the_line_is_no_better(rates, nats, difference):
    row = equal_entropy(curve(COLD_AND_HOT, {0.4: 10, 0.8: 20}), curve(rates, nats), 200)[0]
    assert row["entropy"] == (15 if nats[max(nats)] == 20 else 12.5) and row["difference"] == pytest.approx(difference)
    assert row["difference_low"] <= row["difference"] + 1e-9 and row["difference"] <= row["difference_high"] + 1e-9
    assert row["problems"] == 4


@pytest.mark.parametrize("nats", [{0.4: 21, 0.8: 30}, {0.4: 2, 0.8: 10}])
def test_where_the_ranges_do_not_meet_nothing_is_compared(nats):
    row = equal_entropy(curve(COLD_AND_HOT, {0.4: 10, 0.8: 20}), curve(COLD_AND_HOT, nats), 200)[1]
    assert np.isnan(row["entropy"]) and np.isnan(row["difference"]) and row["after_least"] == min(nats.values())
    said = describe_equal_entropy(pd.Series(row | {"suite": "s"}))
    assert "share no range" in said and "evaluation.suites[].temperatures" in said


def test_sentences_follow_the_numbers():
    passes = {("baseline", 0.8): 0, ("baseline", 1.0): 0, ("kto-seed0", 0.8): 1, ("kto-seed0", 1.0): 1}
    scored = long_form([row for (policy, temperature), value in passes.items()
                        for row in rows_of(policy, temperature, [[value]] * 20)])
    read = entropies_of({(policy, temperature): [nats * (1 if policy == "baseline" else 0.9)] * 20
                         for policy, _ in passes for temperature, nats in ((0.8, 10), (1.0, 20))})
    table = sharpness_table(scored, read, 200)
    told = [describe_entropy(row) for row in table[table.policy == "PLUM"].itertuples()]
    assert "T=0.8: PLUM is sharper than the baseline: 1.00 to 0.90 nats a token (-0.10, -0.10 to -0.10), 10.00 to" in told[0]
    found = equal_entropy_table(scored, table, 200)
    assert found.entropy.tolist() == pytest.approx([1.4, 14]) and found.wins.tolist() == [20, 20]
    assert "+100.0 points (+100.0 to +100.0): it learned" in describe_equal_entropy(next(found.itertuples()))
    row = next(found.assign(difference_low=-1).itertuples())
    assert "can be sharpness alone" in describe_equal_entropy(row)
    assert set(curves(scored, table)) == {("s", "baseline"), ("s", "PLUM")}
