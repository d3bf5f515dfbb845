"""Which rows an objective gets."""

from __future__ import annotations

import json

import pytest

from plum_utils.params import Params
from plum_utils.training.objectives import gold_rows


def gold_params(tmp_path, *solutions: str) -> Params:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"id": f"i{place}", "instruction": f"Write f{place}."}
                                       | ({"solution": text} if text else {})) + "\n"
                            for place, text in enumerate(solutions)))
    return Params(name="x", policy={"prompt": "base"}, data={"train": str(path)})


def test_gold_rows_are_the_data_sets_own_solutions_under_the_policys_prompt(tmp_path):
    p = gold_params(tmp_path, "x = 1", "")
    (row,) = gold_rows(p)
    assert row["instruction_id"] == "i0" and row["completion"][0]["content"] == "x = 1<|im_end|>"
    assert row["prompt"][0]["content"] == ("### Instruction\nWrite f0.\n\nAnswer with one python code block.\n\n"
                                           "### Response\n")


def test_a_data_set_without_solutions_cannot_be_sft_gold(tmp_path):
    with pytest.raises(ValueError, match="training.sft_solutions: .*data.jsonl' brings no solutions of its own; use chosen"):
        gold_rows(gold_params(tmp_path, "", ""))
