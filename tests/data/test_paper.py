"""The paper's printed numbers: transcribed whole, looked up, recomputed, and what does not follow from them."""

from __future__ import annotations

import pandas as pd
import pytest

from docs import paper_claims
from plum_utils.data import paper

# Rows and sums of each column, counted in the paper's text and not in the data file.
TRANSCRIPT = {
    1: (3, {"Self-Consistency Pass Rate": 151.83}),
    2: (30, {"MBPP": 1500.9, "MBPP+": 1273.1, "HE": 1497.1, "HE+": 1390.3}),
    3: (24, {"MBPP": 1197.34, "MBPP+": 1014.0, "HE": 1227.0, "HE+": 1136.4}),
    4: (12, {"Easy": 377.4, "Medium": 262.5, "Hard": 435.8, "Overall": 215.5}),
    5: (9, {"MBPP": 612.8, "MBPP+": 502.2, "HE": 473.2, "HE+": 409.1, "Avg. (Base)": 543.2, "Avg. (+)": 507.1,
            "Avg. (All)": 512.7}),
    6: (9, {"MBPP": 671.9, "MBPP+": 563.7, "HE": 650.6, "HE+": 600.7, "Avg. (Base)": 661.6, "Avg. (+)": 599.9,
            "Avg. (All)": 627.0}),
}


@pytest.mark.parametrize("number", TRANSCRIPT)
def test_every_table_is_the_papers(number):
    rows, sums = TRANSCRIPT[number]
    frame = paper.table(number)
    assert len(frame) == rows
    assert frame[list(sums)].sum().to_dict() == pytest.approx(sums, abs=1e-6)
    assert f"Table {number}" in frame.attrs["source"]


@pytest.mark.parametrize(("number", "model", "row", "column", "value"), [
    (2, "MagiCoder-S-CL-7B", "Baseline", "MBPP", 68.4),
    (2, "Code-Qwen-7B-Chat", "PLUM", "HE+", 81.1),
    (2, "StarCoder2-7B-Base", "Rel. +", "HE", 30.8),
    (4, "OpenCodeInterpreter-DS", "Rel. +", "Easy", -7.7),
    (5, "SC2-7B-Base", "PLUM-KTO", "Avg. (All)", 62.2),
    (6, "MagiCoder-S-DS-6.7B", "KTO", "HE+", 73.8),
])
def test_lookups_by_eye(number, model, row, column, value):
    frame = paper.table(number)
    assert frame[(frame.model == model) & (frame.row == row)][column].item() == value


def test_each_model_has_its_three_rows():
    for number, rows in ((2, ["Baseline", "PLUM", "Rel. +"]), (3, ["Baseline", "PLUM", "Rel. +"]),
                         (4, ["Baseline", "PLUM", "Rel. +"]), (5, ["Baseline", "SFT", "PLUM-KTO"]),
                         (6, ["Baseline", "DPO", "KTO"])):
        frame = paper.table(number)
        keys = [key for key in ("data", "model") if key in frame]
        assert all(list(group.row) == rows for _, group in frame.groupby(keys))


def test_a_table_that_is_not_there():
    with pytest.raises(ValueError, match="no Table 7; one of 1, 2, 3, 4, 5, 6"):
        paper.table(7)


def test_changing_a_table_does_not_change_the_next():
    mine = paper.table(1)
    mine.loc[0, "Self-Consistency Pass Rate"] = 0
    assert paper.table(1).loc[0, "Self-Consistency Pass Rate"] == 63.76


def test_relative_gains_are_recomputed_from_the_scores():
    gains = paper_claims.relative_gains(2).set_index("model")
    assert gains.at["MagiCoder-S-CL-7B", "MBPP"] == pytest.approx(100 * (71.4 - 68.4) / 68.4)
    assert len(gains) == 10


def test_table_2_adds_up():
    """Every gain that the paper prints in its main table follows from its scores."""
    assert 2 not in set(paper_claims.inconsistencies().table)


def test_a_gain_over_nothing_is_undefined():
    gains = paper_claims.relative_gains(4).set_index("model")
    assert pd.isna(gains.at["MagiCoder-S-CL-7B", "Hard"])


def found(table: int, model: str, row: str, column: str) -> pd.Series:
    frame = paper_claims.inconsistencies()
    match = frame[(frame.table == table) & (frame.model == model) & (frame.row == row) & (frame.column == column)]
    return match.iloc[0]


def test_the_known_slips_are_found():
    assert found(5, "SC2-7B-Base", "PLUM-KTO", "Avg. (All)").recomputed == 48.85
    assert found(4, "CodeQwen-7B-Chat", "Rel. +", "Medium").recomputed == 23.4
    assert found(3, "Deepseek-Coder-Base", "Rel. +", "MBPP").difference == pytest.approx(-1.01)


def test_every_wrong_avg_plus_is_one_slip():
    """All of them equal the mean of MBPP+ and Avg. (Base): a range one column short in a sheet, as it seems."""
    frame = paper_claims.inconsistencies()
    wrong = frame[frame.column == "Avg. (+)"]
    assert len(wrong) == 12 and set(wrong.fits) == {"mean of MBPP+ and Avg. (Base)"}


def test_wizardcoders_gains_fit_exchanged_headings():
    fits = {column: found(3, "WizardCoder-CL-7B", "Rel. +", column).fits for column in paper.BENCHMARKS}
    assert fits == {"MBPP": "gain of HE", "HE": "gain of MBPP", "MBPP+": "gain of HE+", "HE+": "gain of MBPP+"}


def test_rounding_explains_what_it_can_and_no_more():
    assert found(4, "CodeQwen-7B-Chat", "Rel. +", "Hard").fits == "gain of rounded scores"
    assert found(4, "CodeQwen-7B-Chat", "Rel. +", "Medium").fits == ""


def test_the_tolerance_decides():
    assert len(paper_claims.inconsistencies(tolerance=20)) == 1  # the undefined one
    assert len(paper_claims.inconsistencies(tolerance=0.0)) > len(paper_claims.inconsistencies())


@pytest.mark.parametrize("number", [5, 6])
def test_averages_stand_beside_the_recomputed_ones(number):
    frame, scores = paper_claims.averages(number), paper.table(number)
    assert list(frame.columns[:4]) == ["model", "row", "Avg. (Base)", "Avg. (Base), recomputed"]
    assert frame["Avg. (All)"].tolist() == scores["Avg. (All)"].tolist()
    assert frame["Avg. (+), recomputed"].tolist() == pytest.approx((scores["MBPP+"] + scores["HE+"]).div(2).tolist())


def test_every_wrong_average_is_an_inconsistency():
    frame = paper_claims.averages(5).set_index(["model", "row"])
    off = (frame["Avg. (+)"] - frame["Avg. (+), recomputed"]).abs() > 0.15
    assert int(off.sum()) == len(paper_claims.inconsistencies().query("table == 5 and column == 'Avg. (+)'"))


def test_other_tables_have_no_averages():
    with pytest.raises(ValueError, match="Table 2 prints no averages; expected 5 or 6"):
        paper_claims.averages(2)


def test_every_model_of_tables_2_and_3_has_a_setting():
    known = paper_claims.settings()
    printed = pd.concat([paper.table(2), paper.table(3)])[["data", "model"]].drop_duplicates()
    assert len(printed.merge(known, on=["data", "model"])) == len(printed) == len(known)
    assert set(known.setting) == {"same", "unseen", "none", "unknown"}
    assert known[known.setting != "unknown"].said.ne("").all()


@pytest.mark.parametrize(("model", "setting"), [
    ("MagiCoder-S-DS-6.7B", "same"), ("OpenCodeInterpreter-CL", "same"), ("DeepSeek-Coder-Instruct-6.7B", "unseen"),
    ("Code-Qwen-7B-Chat", "unknown"), ("StarCoder2-7B-Base", "none")])
def test_settings_are_those_of_section_4_1(model, setting):
    frame = paper_claims.settings()
    assert frame[(frame.data == "OSS-Instruct") & (frame.model == model)].setting.item() == setting


def test_a_model_without_sft_is_printed_as_a_base_model():
    both = pd.concat([paper.table(2), paper.table(3)]).merge(paper_claims.settings(), on=["data", "model"])
    assert ((both.type == "Base") == (both.setting == "none")).all()


def claim(words: str) -> pd.Series:
    frame = paper_claims.claims()
    return frame[frame.claim.str.contains(words, regex=False)].iloc[0]


def test_claims_have_evidence_and_a_verdict():
    frame = paper_claims.claims()
    assert list(frame.columns) == ["claim", "section", "holds", "evidence"]
    assert all(verdict in (True, False, None) for verdict in frame.holds) and frame.evidence.ne("").all()


def test_one_score_that_stays_is_not_a_consistent_improvement():
    row = claim("improves every model consistently")
    assert row.holds is False
    assert "71 of 72 scores rise, 1 equal, 0 fall (OpenCodeInterpreter-CL MBPP+ 55.4 to 55.4)" in row.evidence
    assert "none 24 of 24, same 19 of 20, unknown 24 of 24, unseen 4 of 4" in row.evidence


def test_three_percent_on_average_is_right():
    row = claim("3% (relative)")
    assert row.holds is True and "OSS-Instruct 3.24%" in row.evidence and "ShareGPT 2.82%" in row.evidence


def test_overall_rises_on_contests_though_one_difficulty_falls():
    row = claim("every model improves overall")
    assert row.holds is True and "OpenCodeInterpreter-DS Easy 49.6 to 45.8" in row.evidence


def test_kto_beats_dpo_on_the_average_though_not_on_every_score():
    row = claim("KTO is better than DPO")
    assert row.holds is True and "11 of 12 scores higher, 1 equal, 0 lower" in row.evidence
    assert claim("DPO can harm").holds is True and "4 fall" in claim("DPO can harm").evidence


def test_plum_beats_sft_on_the_average_though_two_scores_are_lower():
    row = claim("better than SFT")
    assert row.holds is True and "9 of 12 scores higher, 1 equal, 2 lower" in row.evidence


def test_the_number_of_examples_counts_samples_once_for_each_response():
    row = claim("60,000 and 120,000")
    assert row.holds is False and "1,000 x 20 = 20,000 samples, x 3 responses = 60,000" in row.evidence
    assert (paper_claims.sizes().eval("instructions * samples * responses") == paper_claims.sizes().examples).all()
    assert claim("as many initial samples").holds is True and claim("K is 20").holds is False


def test_rows_that_are_printed_twice_agree():
    row = claim("in several tables")
    assert row.holds is True and row.evidence.startswith("19 of 19")


def test_what_has_no_numbers_is_neither_right_nor_wrong():
    assert claim("Un-runnable").holds is None
    assert "| not printed |" in " ".join(paper_claims.claims_markdown().split())


def test_a_claim_follows_the_numbers(monkeypatch):
    """With other numbers the verdict is another one: nothing is typed."""
    real = paper.table

    def better(number: int) -> pd.DataFrame:
        frame = real(number)
        frame.loc[(frame.model == "OpenCodeInterpreter-CL") & (frame.row == "PLUM"), "MBPP+"] += 1
        return frame

    monkeypatch.setattr(paper_claims, "table", lambda number: better(number) if number == 2 else real(number))
    assert claim("improves every model consistently").holds is True
