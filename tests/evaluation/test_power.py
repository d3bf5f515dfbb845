"""What a suite can show, from small frames by hand, and its sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_tables import scored_rows

from plum_utils.data import paper
from plum_utils.evaluation.power import (
    claims_table,
    describe_claim,
    describe_power,
    paper_claims,
    power_curves,
    power_table,
)

Z = 1.959964 + 0.841621
# 20 problems: 8 won, 4 lost.
BEFORE = [[0]] * 8 + [[1]] * 4 + [[0]] * 8
AFTER = [[1]] * 8 + [[0]] * 4 + [[0]] * 8


def first(table: pd.DataFrame):
    return next(table.itertuples())


def test_one_seed_by_hand():
    row = first(power_table(scored_rows({0: AFTER}, BEFORE, "greedy")))
    sd = np.sqrt((0.4 + 0.2 - 0.2 ** 2) * 20 / 19)
    assert (row.suite, row.decoding, row.problems, row.seeds) == ("s", "greedy", 20, 1)
    assert row.sd == pytest.approx(100 * sd) and np.isnan(row.sd_seeds)
    assert row.smallest == pytest.approx(100 * Z * sd / np.sqrt(20), rel=1e-5)
    assert row.smallest_problems == pytest.approx(row.smallest * 20 / 100)
    assert row.difference == pytest.approx(20)
    assert describe_power(row) == (
        "s, greedy: 20 problems, 1 training seed show 48.1 points (9.6 problems) or more, four times in five; "
        "measured: +20.0, smaller than that: to find nothing would be no sign that there is nothing.")


def test_seeds_that_agree_add_nothing_and_seeds_apart_do():
    equal = first(power_table(scored_rows({0: AFTER, 1: AFTER, 2: AFTER}, BEFORE)))
    assert equal.seeds == 3 and equal.sd_seeds == pytest.approx(0, abs=1e-9)
    assert equal.smallest == pytest.approx(first(power_table(scored_rows({0: AFTER}, BEFORE))).smallest)
    before = [[0, 0], [0, 0], [0, 1], [0, 1]]
    low, high = [[0, 0], [0, 1], [0, 1], [1, 1]], [[1, 0], [1, 1], [1, 1], [1, 1]]
    row = first(power_table(scored_rows({0: low, 1: high}, before)))
    # differences 0, .5, 0, .5 and .5, 1, .5, .5: by problem .25, .75, .25, .5; by seed .25, .625
    rest = 2 * (3 * 0.0625 ** 2 + 0.1875 ** 2) / 3
    assert row.sd == pytest.approx(100 * np.std([0.25, 0.75, 0.25, 0.5], ddof=1)) and row.difference == 43.75
    seeds = np.var([0.25, 0.625], ddof=1) - rest / 4
    assert row.sd_seeds == pytest.approx(100 * np.sqrt(seeds))
    assert row.smallest == pytest.approx(100 * Z * np.sqrt((row.sd / 100) ** 2 / 4 + seeds / 2), rel=1e-5)


def test_claims_are_the_papers_numbers():
    claims = paper_claims().set_index("claim").points
    scores = paper.table(2).set_index(["model", "row"])[["HE", "MBPP"]]
    gains = (scores.xs("PLUM", level="row") - scores.xs("Baseline", level="row")).stack()
    assert claims.tolist()[:3] == pytest.approx([gains.min(), gains.median(), gains.max()])
    assert claims["Table 2, largest gain"] == pytest.approx(70.1 - 51.8)
    assert claims["Table 5, KTO over SFT, median"] == pytest.approx((1.2 + 2.0) / 2)
    assert claims["Table 6, KTO over DPO, median"] == pytest.approx((3.7 + 4.2) / 2)


def test_what_claims_need_with_one_seed():
    table = claims_table(scored_rows({0: AFTER}, BEFORE)).set_index("claim")
    variance = (0.4 + 0.2 - 0.2 ** 2) * 20 / 19
    assert len(table) == len(paper_claims())
    for row in table.itertuples():
        assert row.problems_needed == np.ceil(variance * (100 * Z / row.points) ** 2)
        assert np.isnan(row.seeds_needed)
    row = first(table.loc[["Table 2, median gain"]].reset_index())
    assert describe_claim(row) == ("Table 2, median gain (3.5 points) on s, T=0.8: with 1 training seed it needs "
                                   f"{row.problems_needed:,.0f} problems.")


def test_a_suite_shows_a_claim_where_it_has_the_problems_that_the_claim_needs():
    scored = scored_rows({0: AFTER * 40, 1: AFTER * 30 + BEFORE * 10}, BEFORE * 40)
    smallest = first(power_table(scored)).smallest
    claims = claims_table(scored)
    assert ((claims.points >= smallest) == (claims.problems_needed <= claims.problems)).all()
    shown = claims.points >= smallest
    assert shown.any() and not shown.all()


@pytest.mark.parametrize("needed, words", [
    ((120, 4), "with 3 training seeds it needs 120 problems; with 70 problems it needs 4 training seeds."),
    ((np.inf, 1), "no number of problems is enough; with 70 problems it needs 1 training seed."),
    ((90, np.inf), "it needs 90 problems; with 70 problems no number of training seeds is enough."),
    ((np.nan, np.nan), "what it needs cannot be told.")])
def test_sentences_on_claims(needed, words):
    row = {"claim": "c", "points": 3.5, "suite": "s", "decoding": "greedy", "problems": 70, "seeds": 3}
    row |= dict(zip(("problems_needed", "seeds_needed"), needed))
    assert describe_claim(first(pd.DataFrame([row]))).endswith(words)


@pytest.mark.parametrize("after, before, words", [
    ({0: [[0], [1]]}, [[0], [1]], "1 training seed: cannot be told"),
    ({0: [[1]]}, [[0]], "1 problem, 1 training seed: cannot be told"),
    ({0: [[1]], 1: [[0]]}, [[0]], "1 problem, 2 training seeds: cannot be told"),
    ({0: [[1], [0]]}, [[0], [0]], "no difference, however large (measured: +50.0 points)"),
    ({0: [[1, 0]] * 300 + [[0, 0]] * 300}, [[0, 0]] * 600, "measured: +25.0, as large as that.")])
def test_sentences_on_suites_of_any_size(after, before, words):
    assert words in describe_power(first(power_table(scored_rows(after, before))))


def test_curves_fall_to_the_suites_own_point_and_have_the_tables_rows():
    scored = pd.concat([scored_rows({0: AFTER * 5}, BEFORE * 5, "greedy"),
                        scored_rows({0: AFTER}, AFTER, "greedy").assign(suite="same")])
    curves = power_curves(scored)
    falling = curves[curves.suite == "s"]
    assert (falling.smallest.diff().dropna() < 0).all() and curves[curves.suite == "same"].smallest.isna().all()
    here = falling[falling.problems == 100].smallest.item()
    assert here == pytest.approx(first(power_table(scored)).smallest)


def test_policies_of_different_problems_are_refused():
    both = pd.concat([scored_rows({0: [[1], [0]]}, [[0], [0]]), scored_rows({1: [[1]]}, [[0]]).query("seed == 1")])
    with pytest.raises(ValueError, match="different problems"):
        power_table(both)
