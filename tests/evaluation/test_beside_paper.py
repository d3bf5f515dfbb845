"""The run's numbers beside the printed row it stands for."""

from __future__ import annotations

import pandas as pd
import pytest

from plum_utils.evaluation import beside_paper
from plum_utils.params import RowParams


def result(suite: str, decoding: str = "greedy", seed: str = "0") -> dict:
    numbers = {"before": 50.0, "after": 70.0, "difference": 20.0}
    ends = {f"{name}_{end}": value + shift for name, value in numbers.items() for end, shift in (("low", -5), ("high", 5))}
    return {"suite": suite, "decoding": decoding, "seed": seed, "label": suite} | numbers | ends


def test_each_metric_of_the_row_stands_beside_ours_with_its_interval():
    rows = [RowParams(table="2", model="Code-Qwen-7B-Base", data="OSS-Instruct", row="PLUM"),
            RowParams(table="5", model="CQ-7B-Base", row="PLUM-KTO")]
    results = pd.DataFrame([result("humaneval+"), result("humaneval", "T=0.8"), result("heldout_basics")])
    table = beside_paper.beside_table2(rows, results)
    assert table[["table", "metric", "paper_before", "paper_after", "paper_gain"]].values.tolist() == [
        ["2", "HE+", 45.7, 62.2, 16.5], ["5", "HE+", 45.7, 62.2, 16.5]]
    assert table.loc[0, ["before", "after", "gain", "gain_low", "gain_high"]].tolist() == [50, 70, 20, 15, 25]


def test_the_data_set_tells_rows_of_one_model_apart():
    rows = [RowParams(table="3", model="DeepSeek-Coder-Instruct-6.7B", data=data, row="PLUM")
            for data in ("Evol-Instruct", "ShareGPT")]
    table = beside_paper.beside_table2(rows, pd.DataFrame([result("mbpp")]))
    assert table.paper_after.tolist() == [77.7, 79.2]


def test_table_4_goes_by_difficulty():
    rows = [RowParams(table="4", model="CodeQwen-7B-Chat", row="PLUM")]
    table = beside_paper.beside_table4(rows, pd.DataFrame([result("Easy"), result("Overall")]))
    assert table[["metric", "paper_before", "paper_after"]].values.tolist() == [["Easy", 42.7, 43.0],
                                                                              ["Overall", 23.2, 25.8]]


@pytest.mark.parametrize("row", [RowParams(table="2", model="SmolLM2", row="PLUM"),
                                 RowParams(table="2", model="Code-Qwen-7B-Base", row="SFT"),
                                 RowParams(table="figure3", model="Code-Qwen-7B-Base", row="PLUM")])
def test_a_row_that_is_not_printed_is_left_out(row):
    assert beside_paper.beside_table2([row], pd.DataFrame([result("humaneval")])).empty
