"""The search: validation instructions only, one row a candidate, nothing measured twice."""

from __future__ import annotations

import json
import os

import pandas as pd
import pytest

from plum_utils.data.instructions import load_instructions
from plum_utils.jsonl import write_json, write_jsonl
from plum_utils.models.completions import Completion
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.study import search as module
from plum_utils.testgen.response import parse_response

ITEMS = load_instructions("basics_train", 6)
KEPT_OUT = [item.instruction_id for item in ITEMS[:4]]
SOLUTIONS = {item.instruction: parse_response(item.responses[0]).solution for item in ITEMS}


class Backend:
    """Answers every prompt rightly with an adapter, and half of them without."""

    name = "fake"

    def __init__(self):
        self.prompts: list[str] = []

    def generate(self, prompts, n=1, adapter=None, **_):
        self.prompts += prompts
        rows = []
        for place, prompt in enumerate(prompts):
            code = next(code for text, code in SOLUTIONS.items() if text in prompt)
            right = adapter is not None or place % 2 == 0
            wrong = code.partition(":\n")[0] + ":\n    while True: pass"
            rows.append([Completion(f"```python\n{code if right else wrong}\n```\n", "end_token", 9)] * n)
        return rows

    def close(self):
        pass


def spend() -> float:
    """Seconds of processor time of all ended processes of this one."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A run after notebook 03, with a model and a trainer that only look like ones."""
    run, backend, trained = Run(tmp_path), Backend(), []
    rows = [{"instruction_id": item.instruction_id, "attempt": 0, "consistent": True,
             "test_code": parse_response(item.responses[0]).test_code, "solution": SOLUTIONS[item.instruction]} for item in ITEMS]
    write_jsonl(run.stage_dir("01_testgen") / "testgen.jsonl", rows)
    write_json(run.stage_dir("03_preferences") / "validation_ids.json", KEPT_OUT)
    for name in ("kto", "dpo", "sft"):
        write_jsonl(run.stage_dir("03_preferences") / f"{name}.jsonl",
                    [{"instruction_id": ITEMS[4].instruction_id, "label": n % 2 == 0} for n in range(6)])

    def train(objective, model, sets, params, folder, seed, dtype):
        trained.append((params.learning_rate, len(sets["kto"])))
        adapter = folder / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_text(json.dumps(params.learning_rate))
        return adapter, pd.DataFrame({"objective": [objective] * 2, "step": [1, 2]})

    class Tokenizer:
        chat_template = "x"

        def apply_chat_template(self, messages, **_):
            return messages[-1]["content"]

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "settle", lambda training, *_: training)
    monkeypatch.setattr(module, "open_policy_backend", lambda *_: backend)
    monkeypatch.setattr(module, "resolve_model", lambda *_: "model")
    monkeypatch.setattr(module, "load_tokenizer", lambda *_: Tokenizer())
    return run, backend, trained


def params(**search) -> Params:
    return Params(name="x", data={"train_limit": 6}, training={"max_per_side": 2},
                  search={"n": 2, "candidates": [{"learning_rate": 1e-4}, {"learning_rate": 2e-4}]} | search)


def test_each_candidate_is_trained_and_measured_on_validation_instructions_only(stage):
    run, backend, trained = stage
    judged = spend()
    table = module.search(params(), run)
    assert spend() - judged < 30, "endless programs are to cost a second each, not the minute of EvalPlus' limits"
    assert trained == [(1e-4, 4), (2e-4, 4)]  # two rows of each label
    assert table.candidate.tolist() == ["baseline", "learning_rate=0.0001", "learning_rate=0.0002"]
    assert table.greedy.tolist() == [50, 100, 100] and table.sampled.tolist() == [50, 100, 100]
    assert table.sampled_change.tolist() == [0, 50, 50] and (table.sampled_change_low[1:] < 50).all()
    assert table.steps.tolist() == [0, 2, 2]
    assert all(any(item.instruction in prompt for item in ITEMS[:4]) for prompt in backend.prompts)
    assert (run.path / "tables/search.csv").exists()


def test_finished_candidates_are_not_measured_again(stage):
    run, backend, trained = stage
    first = module.search(params(), run)
    asked = len(backend.prompts)
    again = module.search(params(), run)
    assert len(trained) == 2 and len(backend.prompts) == asked
    pd.testing.assert_frame_equal(first, again, check_dtype=False)


def test_without_a_validation_split_it_says_what_to_do(stage):
    run, *_ = stage
    write_json(run.stage_dir("03_preferences") / "validation_ids.json", [])
    with pytest.raises(ValueError, match="data.validation_fraction"):
        module.search(params(), run)


def test_a_candidate_out_of_bounds_is_refused(stage):
    with pytest.raises(ValueError, match="learning_rate"):
        module.search(params(candidates=[{"learning_rate": -1}]), stage[0])


def test_a_candidate_trains_on_the_rejected_side_that_it_names(stage):
    run, _, trained = stage
    write_jsonl(run.stage_dir("03_preferences") / "defining.jsonl",
                [{"instruction_id": ITEMS[4].instruction_id, "label": n > 0} for n in range(3)])
    module.search(params(candidates=[{"learning_rate": 1e-4, "negatives": "defining"}]), run)
    assert trained == [(1e-4, 3)]
