"""The tables and sentences of stages 5 and 6, and their forms above the paper's rows."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from plum_utils.evaluation import tables
from plum_utils.evaluation.beside_paper import table2, table4
from plum_utils.evaluation.tables import (
    describe_change,
    describe_sharpness,
    difficulty_table,
    headline,
    long_form,
    pass_at_k_table,
    platform_table,
    results_table,
    window_table,
    wins_losses,
)


def scored_rows(after: dict[int, list[list[int]]], before: list[list[int]], decoding: str = "T=0.8") -> pd.DataFrame:
    """Rows of a suite: for each problem the outcomes of its samples; ``after`` by training seed."""
    rows = []
    for policy, seed, problems in [("baseline", None, before)] + [(f"kto-seed{s}", s, a) for s, a in after.items()]:
        rows += [{"suite": "s", "policy": policy, "seed": seed, "decoding": decoding, "temperature": 0.8,
                  "task_id": f"t{place}", "sample_index": index, "base_passed": bool(value), "plus_passed": None}
                 for place, samples in enumerate(problems) for index, value in enumerate(samples)]
    return long_form(rows)


def test_results_have_a_row_a_seed_and_one_for_the_mean():
    table = results_table(scored_rows({3: [[1, 1], [0, 0]], 5: [[1, 0], [1, 0]]}, [[0, 0], [0, 1]]), 200)
    assert list(table.seed) == ["3", "5", "mean"] and list(table.before) == [25.0] * 3
    assert list(table.after) == [50.0, 50.0, 50.0]
    assert headline(table).seed.tolist() == ["mean"] and headline(table)["spread"].item() == 0
    assert (table[table.seed == "3"].wins.item(), table[table.seed == "3"].losses.item()) == (1, 1)
    assert headline(table).wins.item() == 1 and headline(table).losses.item() == 1


def test_one_seed_has_no_mean():
    table = results_table(scored_rows({0: [[1], [0]]}, [[0], [0]]), 200)
    assert table.seed.tolist() == ["0"] and headline(table).equals(table)


def test_pass_at_k_stops_at_the_samples_there_are():
    curves = pass_at_k_table(scored_rows({0: [[1, 1], [0, 0]]}, [[1, 0], [0, 0]]), [1, 2, 5], 200)
    told = {(row.policy, row.k): row.value for row in curves.itertuples()}
    assert told == {("baseline", 1): 25, ("PLUM", 1): 50, ("baseline", 2): 50, ("PLUM", 2): 50}


def test_plus_tests_are_a_suite_of_their_own():
    rows = [{"suite": "humaneval", "policy": "baseline", "seed": None, "base_passed": True, "plus_passed": plus}
            for plus in (True, False)]
    told = long_form(rows).groupby("suite")["passed"].mean().to_dict()
    assert told == {"humaneval": 1.0, "humaneval+": 0.5}


def test_wins_and_losses_average_to_the_difference():
    scored = scored_rows({0: [[1, 1], [0, 0]], 1: [[0, 1], [0, 1]]}, [[0, 0], [1, 1]])
    assert wins_losses(scored).change.tolist() == [75.0, -75.0]
    assert wins_losses(scored).change.mean() == pytest.approx(headline(results_table(scored, 200))["difference"].item())


@pytest.mark.parametrize("before, after, word", [(0, 1, ": better:"), (1, 0, ": worse:"),
                                                 (1, 1, ": no difference beyond chance:")])
def test_sentences_follow_the_numbers(before, after, word):
    table = results_table(scored_rows({0: [[after]] * 20}, [[before]] * 20), 200)
    assert word in describe_change(next(table.itertuples()))


@pytest.mark.parametrize("one, many, words", [
    ((1, 3), (1, 3), "at this temperature"), ((1, 3), (-1, 2), "sharper: it finds"),
    ((1, 3), (-3, -1), "price of variety"),
    ((-1, 1), (-1, 1), "pass@1: no difference"), ((-3, -1), (-3, -1), "pass@1: worse; pass@10: worse")])
def test_better_or_only_sharper(one, many, words):
    table = pd.DataFrame([{"k": k, "difference": sum(interval) / 2, "difference_low": interval[0],
                           "difference_high": interval[1]} for k, interval in ((1, one), (10, many))])
    assert words in describe_sharpness(table)


def test_reach_gives_each_side_its_best_temperature():
    """A policy that is only sharper looks better at T=1, and is not once the baseline may be sampled colder."""
    cold = scored_rows({0: [[1, 1], [0, 0]]}, [[1, 0], [0, 0]])
    hot = scored_rows({0: [[1, 1], [0, 0]]}, [[0, 0], [0, 0]]).assign(temperature=1.0, decoding="T=1")
    both = pd.concat([cold, hot])
    at_one = pass_at_k_table(hot, [2], 200)
    assert at_one[(at_one.k == 2) & (at_one.policy == "PLUM")]["difference"].item() == 50
    row = next(tables.reach_table(both, 200).itertuples())
    assert (row.k, row.before_temperature, row.before, row.after, row.difference) == (2, 0.8, 50, 50, 0)
    assert "no sign that more problems" in tables.describe_reach(row)


def test_accuracy_is_compared_where_each_side_is_most_accurate_and_greedy_is_a_temperature():
    drawn = scored_rows({0: [[1, 1], [0, 1]]}, [[1, 0], [0, 0]])
    greedy = scored_rows({0: [[1], [0]]}, [[1], [0]], "greedy").assign(temperature=0.0)
    both = pd.concat([greedy, drawn])
    row = next(tables.reach_table(both, 200, k=1).itertuples())
    assert (row.k, row.before_temperature, row.before, row.after_temperature, row.after) == (1, 0, 50, 0.8, 75)
    assert "best pass@1 50.0% (baseline, T=0) against 75.0%" in tables.describe_reach(row)
    assert "no difference beyond chance" in tables.describe_reach(row)
    certain = row._replace(difference_low=1.0)
    assert tables.describe_reach(certain).endswith(": more often right.")


def test_reach_of_greedy_answers_is_not_asked():
    greedy = scored_rows({0: [[1]]}, [[0]], "greedy").assign(temperature=0.0)
    assert tables.reach_table(greedy).empty and tables.reach_table(greedy, k=1).empty


def test_a_tiny_p_value_is_not_zero():
    table = results_table(scored_rows({0: [[1]] * 30}, [[0]] * 30), 200)
    assert "p < 0.001" in describe_change(next(table.itertuples()))


def test_table2_puts_this_run_above_the_papers_rows():
    results = results_table(scored_rows({0: [[1], [1]]}, [[1], [0]], "greedy").assign(suite="humaneval"), 200)
    table = table2(results, "tiny")
    assert table[["data", "row", "HE"]].values.tolist()[:3] == [
        ["this run", "Baseline", 50.0], ["this run", "PLUM", 100.0], ["this run", "Rel. +", 100.0]]
    assert table.loc[table.model == "MagiCoder-S-CL-7B", "HE+"].tolist() == [66.5, 69.5, 4.5]
    assert table.MBPP[:3].isna().all()


def contest_rows(outcomes: dict[str, dict]) -> pd.DataFrame:
    levels = {"a": "easy", "b": "easy", "c": "hard"}
    sites = {"a": ("leetcode", "2023-08-21"), "b": ("codeforces", "2023-08-31"), "c": ("leetcode", "2023-10-01")}
    return pd.DataFrame([{"policy": policy, "seed": None if policy == "baseline" else int(policy[-1]), "task_id": task,
                          "difficulty": levels[task], "platform": sites[task][0], "contest_date": sites[task][1],
                          "passed": bool(value)}
                         for policy, values in outcomes.items() for task, value in values.items()])


def test_levels_average_problems_and_seeds():
    frame = contest_rows({"baseline": {"a": 1, "b": 0, "c": 0}, "kto-seed0": {"a": 1, "b": 1, "c": 0},
                    "kto-seed1": {"a": 1, "b": 0, "c": 0}})
    levels = difficulty_table(frame, 200).set_index("label")
    assert list(levels.index) == ["Easy", "Hard", "Overall"]
    assert levels["before"].tolist() == pytest.approx([50, 0, 100 / 3])
    assert levels["after"].tolist() == pytest.approx([75, 0, 50])


TWO = {"baseline": {"a": 1, "b": 0, "c": 0}, "kto-seed0": {"a": 1, "b": 1, "c": 0}}


def told(table: pd.DataFrame) -> dict[str, tuple]:
    return {row.label: (row.problems, row.before, row.after) for row in table.itertuples()}


def test_platforms_are_named_as_the_sites_are():
    assert told(platform_table(contest_rows(TWO), 200)) == {
        "LeetCode": (2, 50, 50), "Codeforces": (1, 0, 100),
        "Overall": (3, pytest.approx(100 / 3), pytest.approx(200 / 3))}


def test_windows_are_months_or_the_two_sides_of_a_day():
    months = told(window_table(contest_rows(TWO), n_resamples=200))
    assert list(months) == ["2023-08", "2023-10", "Overall"] and months["2023-08"] == (2, 50, 100)
    sides = told(window_table(contest_rows(TWO), date(2023, 8, 31), 200))  # the day itself is on the newer side
    assert list(sides) == ["before 2023-08-31", "from 2023-08-31", "Overall"]
    assert sides["before 2023-08-31"] == (1, 100, 100) and sides["from 2023-08-31"] == (2, 0, 50)
    assert list(told(window_table(contest_rows(TWO), date(2020, 1, 1), 200))) == ["from 2020-01-01", "Overall"]


def test_table4_keeps_the_papers_rows_as_printed():
    frame = contest_rows({"baseline": {"a": 1, "b": 0, "c": 0}, "kto-seed0": {"a": 1, "b": 1, "c": 0}})
    table = table4(difficulty_table(frame, 200), "tiny")
    assert table[["row", "Easy", "Overall"]].values.tolist()[:3] == [
        ["Baseline", 50.0, 33.3], ["PLUM", 100.0, 66.7], ["Rel. +", 100.0, 100.0]]
    assert table.Medium[:3].isna().all()
    printed = table[table.model == "CodeQwen-7B-Chat"].set_index("row")
    assert printed.loc["PLUM", ["Easy", "Medium", "Hard", "Overall"]].tolist() == [43.0, 23.2, 3.0, 25.8]
