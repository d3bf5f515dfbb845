"""What the paper's printed scores say beside published ones (docs/published.py): each finding of docs/paper_notes.md."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from docs import published
from plum_utils.data import paper
from plum_utils.evaluation.beside_paper import whole_problems


@pytest.mark.parametrize(("name", "size"), [("2024-04", 399), ("2024-05", 378)])
def test_the_leaderboards_mbpp_scores_are_whole_numbers_of_its_suite(name, size):
    frame = published.published(name)
    assert f"({size} problems)" in frame.attrs["source"]
    scores = frame[["MBPP", "MBPP+"]].stack().dropna()
    assert len(scores) >= 16 and all(whole_problems(score, size) for score in scores)


def test_sources_name_revision_date_and_licence():
    for name, words in {"2024-04": ("ba37a9f", "April 2024", "Apache-2.0"), "2024-05": ("b6d798c", "May 2024", "Apache-2.0"),
                        "authors": ("3ef43f0", "9674d8a", "b082fc3"), "contests": ("8ed5690", "April 2024", "CC BY-SA")}.items():
        assert all(word in published.published(name).attrs["source"] for word in words)


# --- baselines of Tables 2 and 3 --------------------------------------------------------------------------------------

def test_all_but_six_printed_baselines_were_published():
    absent = published.baselines().set_index("model")["in none"]
    assert len(absent) == 11
    assert absent[absent != ""].to_dict() == {
        "DeepSeek-Coder-Instruct-6.7B": "HE 75.4", "OpenCodeInterpreter-CL": "HE+ 65.2",
        "WizardCoder-CL-7B": "MBPP 48.2, MBPP+ 40.9, HE 56.6, HE+ 47.1"}


def test_a_humaneval_baseline_that_is_no_whole_number_is_a_point_above_the_leaderboards():
    row = published.published("2024-05").set_index("model").loc["DeepSeek-Coder-Instruct-6.7B"]
    assert (row.HE, row["HE+"], row.MBPP, row["MBPP+"]) == (74.4, 71.3, 74.9, 65.6)
    assert whole_problems(74.4, 164) and not whole_problems(75.4, 164)


def test_the_published_he_plus_of_opencodeinterpreter_cl_is_plums():
    rows = paper.table(2).query("model == 'OpenCodeInterpreter-CL'").set_index("row")["HE+"]
    theirs = published.published("authors").set_index("model").at["OpenCodeInterpreter-CL", "HE+"]
    assert (rows.Baseline, theirs, rows.PLUM) == (65.2, 67.7, 67.7)


def test_wizardcoders_scores_stand_under_exchanged_headings():
    """Published so, whole numbers of problems only so, and the printed gains belong to the right headings."""
    rows = paper.table(3).query("model == 'WizardCoder-CL-7B'").set_index("row")
    names = {"MBPP": "HE", "MBPP+": "HE+", "HE": "MBPP", "HE+": "MBPP+"}
    exchanged = rows.loc[["Baseline", "PLUM"]].rename(columns=names)
    theirs = published.published("2024-04").set_index("model").loc["WizardCoder-CL-7B"]
    assert all(exchanged.at["Baseline", name] == theirs[name] for name in paper.BENCHMARKS)
    for printed, right in zip(rows.loc[["Baseline", "PLUM"]].to_dict("records"), exchanged.to_dict("records")):
        assert published.suites(printed) == [] and 399 in published.suites(right)
        assert all(whole_problems(right[name], 164) for name in ("HE", "HE+"))
    gains = 100 * (exchanged.loc["PLUM", list(names)] / exchanged.loc["Baseline", list(names)] - 1)
    assert (gains - rows.loc["Rel. +", list(names)]).abs().max() < 0.15


def test_base_models_baselines_are_direct_completion():
    asked = published.baselines().set_index("model").asked
    kinds = pd.concat([paper.table(2), paper.table(3)]).drop_duplicates("model").set_index("model").type
    assert set(kinds[kinds == "Base"].index) == set(asked[asked == "completion"].index)
    assert "direct completion" in published.published("2024-04").attrs["source"]


# --- MBPP of 399 problems and of 378 ----------------------------------------------------------------------------------

def test_every_printed_pair_but_wizardcoders_is_of_one_suite():
    frame = pd.concat([paper.table(number) for number in (2, 3, 5, 6)]).query("row != 'Rel. +'")
    pairs = frame[frame.model != "WizardCoder-CL-7B"].drop_duplicates(["MBPP", "MBPP+"])
    sizes = [tuple(published.suites(row)) for row in pairs.to_dict("records")]
    assert {size: sizes.count(size) for size in set(sizes)} == {(399,): 26, (378,): 5, (399, 378): 2}


def test_comparisons_of_two_suites_and_what_remains_on_one():
    found = published.mixed_suites().drop(columns=["rows", "before", "after", "one suite"])
    assert [tuple(row) for row in found.itertuples(index=False)] == [
        (2, "OSS-Instruct", "MagiCoder-S-CL-7B", "+3.0/+4.2", "+0.8/+0.7"),
        (2, "OSS-Instruct", "MagiCoder-S-DS-6.7B", "+4.7/+4.9", "+1.0/+0.3"),
        (2, "OSS-Instruct", "DeepSeek-Coder-Instruct-6.7B", "+2.0/+2.3", "+3.7/+4.5"),
        (2, "OSS-Instruct", "Code-Qwen-7B-Chat", "+3.3/+1.8", "+1.6/+0.0"),
        (3, "Evol-Instruct", "DeepSeek-Coder-Instruct-6.7B", "+2.8/+2.1", "+4.5/+4.3"),
        (3, "ShareGPT", "DeepSeek-Coder-Instruct-6.7B", "+4.3/+2.3", "+6.0/+4.5"),
        (6, "", "MagiCoder-DS-6.7B", "+3.7/+3.3", ""), (6, "", "MagiCoder-S-CL-7B", "+2.5/+4.9", ""),
        (6, "", "MagiCoder-S-DS-6.7B", "+4.2/+4.6", "")]


def test_magicoder_ds_was_published_before_the_smaller_suite_and_plum_fits_that_alone():
    rows = paper.table(2).query("model == 'MagiCoder-DS-6.7B'").set_index("row").to_dict("index")
    assert published.suites(rows["Baseline"]) == [399, 378] and published.suites(rows["PLUM"]) == [378]
    authors = published.published("authors")
    assert authors.set_index("model").at["MagiCoder-DS-6.7B", "MBPP"] == rows["Baseline"]["MBPP"]
    assert "since 3 December 2023" in authors.attrs["source"]


# --- Table 4 ----------------------------------------------------------------------------------------------------------

def test_the_published_results_are_of_the_400_problems_of_release_v1():
    counts = published.published("contests")
    window = counts[counts.month >= published.WINDOW]
    assert counts.groupby("difficulty").problems.sum().to_dict() == {"Easy": 142, "Medium": 168, "Hard": 90}
    assert window.groupby("difficulty").problems.sum().to_dict() == {"Easy": 85, "Medium": 98, "Hard": 55}


@pytest.mark.parametrize(("model", "whole", "window"), [
    ("MagiCoder-S-CL-7B", [29.9, 2.0, 0.0, 11.4], [33.8, 2.8, 0.0, 13.2]),
    ("MagiCoder-S-DS-6.7B", [48.6, 12.7, 0.1, 22.6], [48.0, 7.9, 0.0, 20.4]),
    ("OpenCodeInterpreter-DS", [49.6, 9.9, 0.4, 21.9], [47.6, 5.7, 0.2, 19.4]),
    ("CodeQwen-7B-Chat", [43.7, 21.1, 2.7, 25.0], [42.7, 18.8, 0.9, 23.2])])
def test_published_scores_by_difficulty(model, whole, window):
    assert list(published.contest_scores(model).values()) == whole
    assert list(published.contest_scores(model, published.WINDOW).values()) == window


def test_two_printed_baselines_of_table_4_are_nowhere_and_one_gain_is_a_fall():
    frame = published.contest_baselines().set_index(["model", "difficulty"])
    nowhere = frame[frame.fits == ""]
    assert nowhere[["printed", "all 400", "gain", "gain over all 400"]].to_dict("index") == {
        ("MagiCoder-S-CL-7B", "Medium"): {"printed": 1.0, "all 400": 2.0, "gain": "+0.8", "gain over all 400": "-0.2"},
        ("MagiCoder-S-DS-6.7B", "Medium"): {"printed": 12.1, "all 400": 12.7, "gain": "+3.4", "gain over all 400": "+2.8"}}
    assert frame.at[("MagiCoder-S-CL-7B", "Medium"), "PLUM"] < frame.at[("MagiCoder-S-CL-7B", "Medium"), "from 2023-09"]
    assert frame.at[("CodeQwen-7B-Chat", "Overall"), "gain over all 400"] == "+0.8"


def test_codeqwens_baseline_is_of_a_later_window_than_the_others():
    found = published.best_windows().set_index("model")
    assert found.agree.to_dict() == {"MagiCoder-S-CL-7B": 3, "MagiCoder-S-DS-6.7B": 3, "OpenCodeInterpreter-DS": 4,
                                     "CodeQwen-7B-Chat": 4}
    assert set(found.windows[:3]) == {"2023-05 to 2024-03"} and found.windows["CodeQwen-7B-Chat"] == "2023-09 to 2024-03"


def test_release_v2_gives_one_of_the_eight_printed_overalls():
    fits = published.contest_mixtures().set_index(["model", "row"]).fits
    assert published.published("release_v2").iloc[0].sum() == 511
    assert fits[fits.str.contains("release_v2")].index.tolist() == [("MagiCoder-S-CL-7B", "PLUM")]
    assert fits[fits == ""].index.tolist() == [("MagiCoder-S-CL-7B", "Baseline"), ("MagiCoder-S-DS-6.7B", "Baseline"),
                                               ("CodeQwen-7B-Chat", "PLUM")]


def test_a_finding_follows_the_numbers(monkeypatch):
    """With 2.0 printed nothing is amiss, and the levels give the printed Overall: nothing is typed."""
    def mended(number: int) -> pd.DataFrame:
        frame = paper.table(number)
        frame.loc[(frame.model == "MagiCoder-S-CL-7B") & (frame.row == "Baseline"), "Medium"] = 2.0
        return frame

    monkeypatch.setattr(published, "table", mended)
    row = published.contest_baselines().set_index(["model", "difficulty"]).loc[("MagiCoder-S-CL-7B", "Medium")]
    assert (row.fits, row.gain) == ("all 400", "-0.2")
    assert published.contest_mixtures().fits[0].startswith("release_v1")


@pytest.mark.skipif("LIVECODEBENCH_RESULTS" not in os.environ,
                    reason="LIVECODEBENCH_RESULTS: LiveCodeBench's performances_generation.json of 17 April 2024")
def test_the_counts_are_those_of_the_published_results():
    counted = published.count_contests(Path(os.environ["LIVECODEBENCH_RESULTS"]))
    ours, keys = published.published("contests"), ["month", "difficulty"]
    assert counted.set_index(keys).sort_index().equals(ours.set_index(keys).sort_index())
