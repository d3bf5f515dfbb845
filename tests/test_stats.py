"""Statistics against enumeration, exact formulas and each other."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from plum_utils.data import paper
from plum_utils.evaluation.beside_paper import claimed_gains, problems_of_gain, whole_problems
from plum_utils.evaluation.tables import slices
from plum_utils.stats import (
    Spread,
    bootstrap_mean_interval,
    bootstrap_share_interval,
    compare,
    holm,
    mcnemar_exact,
    paired_permutation_test,
    pass_at_k,
    pass_at_k_by_problem,
    problem_rates,
)


@st.composite
def outcomes(draw):
    passed = draw(st.lists(st.booleans(), min_size=1, max_size=8))
    return passed, draw(st.integers(1, len(passed)))


@given(outcomes())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_pass(case):
    passed, k = case
    subsets = list(combinations(passed, k))
    assert pass_at_k(len(passed), sum(passed), k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@given(st.floats(0.001, 0.999), st.integers(1, 12), st.integers(1, 12))
def test_pass_at_k_is_unbiased(rate, n, k):
    k = min(k, n)
    mean = sum(binom.pmf(c, n, rate) * pass_at_k(n, c, k) for c in range(n + 1))
    assert mean == pytest.approx(1 - (1 - rate) ** k, abs=1e-9)


@given(st.integers(1, 30), st.data())
def test_pass_at_k_grows_with_k_and_with_passes(n, data):
    c = data.draw(st.integers(0, n))
    curve = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert curve == sorted(curve) and curve[0] == pytest.approx(c / n)
    if c < n:
        assert all(pass_at_k(n, c + 1, k) >= value for k, value in enumerate(curve, 1))


@pytest.mark.parametrize("n, c, k", [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_refuses_what_has_no_meaning(n, c, k):
    with pytest.raises(ValueError, match="needs 0 <= c <= n"):
        pass_at_k(n, c, k)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 3))
@settings(max_examples=40)
def test_bootstrap_interval_is_ordered_repeatable_and_inside_the_data(values, seed):
    low, high = bootstrap_mean_interval(values, 200, seed)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == bootstrap_mean_interval(values, 200, seed)


def test_bootstrap_interval_has_the_normal_width_on_many_values():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_mean_interval(values, 4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.04)


def test_bootstrap_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_mean_interval(rng.random(50), 300)
        covered += low <= 0.5 <= high
    assert 175 <= covered <= 199


def test_bootstrap_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no problems"):
        bootstrap_mean_interval([])


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 0.75, 1.0])),
                min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_permutation_p_is_that_of_all_sign_flips(pairs):
    """With at most 8 pairs scipy enumerates all flips; so do we, by hand."""
    before, after = zip(*pairs)
    difference = np.subtract(after, before)
    flipped = [abs(np.mean(difference * signs)) for signs in product((1, -1), repeat=len(pairs))]
    expected = np.mean([value >= abs(difference.mean()) - 1e-12 for value in flipped])
    assert paired_permutation_test(before, after) == pytest.approx(expected)


@given(st.integers(0, 8), st.integers(0, 8))
@settings(deadline=None, max_examples=30)
def test_mcnemar_is_the_permutation_test_of_pass_or_fail(wins, losses):
    before, after = [0] * wins + [1] * losses + [1, 0], [1] * wins + [0] * losses + [1, 0]
    assert mcnemar_exact(wins, losses) == pytest.approx(paired_permutation_test(before, after), abs=0.03)


def test_mcnemar_by_hand():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 0) == pytest.approx(2 / 2 ** 5)
    assert mcnemar_exact(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 2 ** 10)


def frame(**passes: list[bool]) -> pd.DataFrame:
    return pd.DataFrame([{"task_id": task, "base_passed": value}
                         for task, values in passes.items() for value in values])


def test_rates_by_problem():
    rows = frame(a=[True, False, False, True], b=[False] * 4)
    assert problem_rates(rows).to_dict() == {"a": 0.5, "b": 0.0}
    assert pass_at_k_by_problem(rows, 2).to_dict() == {"a": pytest.approx(5 / 6), "b": 0.0}


def test_pass_at_k_leaves_out_problems_with_too_few_samples():
    assert list(pass_at_k_by_problem(frame(a=[True], b=[True, False]), 2).index) == ["b"]


def test_compare_pairs_problems_by_name_and_not_by_place():
    before, after = pd.Series({"a": 0.0, "b": 0.5, "c": 1.0}), pd.Series({"c": 1.0, "b": 1.0, "a": 0.0})
    row = compare(before, after, 500)
    assert (row["problems"], row["wins"], row["losses"]) == (3, 1, 0)
    assert row["before"] == pytest.approx(50) and row["difference"] == pytest.approx(50 / 3)
    assert row["relative_percent"] == pytest.approx(100 / 3)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_compare_knows_a_loss_from_a_win():
    worse = compare(pd.Series(1.0, index=range(12)), pd.Series(0.0, index=range(12)), 200)
    assert worse["difference"] == worse["difference_high"] == -100 and worse["losses"] == 12
    assert worse["p_permutation"] < 0.001


def test_relative_gain_over_nothing_is_not_a_number():
    row = compare(pd.Series({"a": 0.0}), pd.Series({"a": 1.0}), 200)
    assert np.isnan(row["relative_percent"]) and row["p_permutation"] == 1.0


def test_compare_refuses_different_problems():
    with pytest.raises(ValueError, match="different problems"):
        compare(pd.Series({"a": 1.0}), pd.Series({"b": 1.0}))


def test_holm_on_the_textbook_case_and_its_order():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]).tolist() == [1.0, 1.0]


def test_holm_leaves_out_what_was_not_tested():
    adjusted = holm([0.02, float("nan"), 0.04])
    assert adjusted[[0, 2]].tolist() == pytest.approx([0.04, 0.04]) and np.isnan(adjusted[1])
    assert holm([]).size == 0


def test_compare_has_mcnemar_where_each_problem_is_solved_or_not():
    names = range(9)
    row = compare(pd.Series([0.0] * 7 + [1.0] * 2, names), pd.Series([1.0] * 6 + [0.0, 0.0, 1.0], names), 200)
    assert (row["wins"], row["losses"]) == (6, 1) and row["p_mcnemar"] == pytest.approx(mcnemar_exact(6, 1))
    sampled = compare(pd.Series([0.0, 1.0]), pd.Series([0.5, 1.0]), 200)
    assert np.isnan(sampled["p_mcnemar"])


@given(st.floats(0, 0.01), st.integers(2, 40))
def test_holm_adjusts_equal_p_values_as_bonferroni_does(p_value, tests):
    assert holm([p_value] * tests).tolist() == pytest.approx([min(1, tests * p_value)] * tests)


def test_six_wins_and_no_loss_are_the_fewest_that_the_exact_test_calls_significant():
    assert mcnemar_exact(5, 0) > 0.05 >= mcnemar_exact(6, 0)


def test_share_interval_of_clusters_is_wider_than_that_of_single_samples():
    hits, of = [5, 0, 5, 0, 5, 0, 0, 0], [5] * 8
    low, high = bootstrap_share_interval(hits, of)
    single = bootstrap_mean_interval([1] * 15 + [0] * 25)
    assert low < single[0] < 15 / 40 < single[1] < high


def test_share_interval_weighs_clusters_by_what_they_hold():
    low, high = bootstrap_share_interval([0, 99], [1, 99])
    assert low == 0 and high == 1  # resamples of the one or the other cluster alone
    assert np.isnan(bootstrap_share_interval([0, 0], [0, 0])).all()
    assert bootstrap_share_interval([1, 0], [1, 0]) == (1, 1)  # an empty cluster says nothing


def test_share_interval_of_equal_clusters_is_that_of_their_mean():
    rates = np.random.default_rng(3).integers(0, 5, 30)
    ours = bootstrap_share_interval(rates, [4] * 30, 500, 7)
    assert ours == pytest.approx(bootstrap_mean_interval(rates / 4, 500, 7))


def long_rows(policy: str, **passes: bool) -> list[dict]:
    return [{"suite": "s", "decoding": "greedy", "policy": policy, "task_id": task, "passed": value}
            for task, value in passes.items()]


def test_slices_compare_each_part_alone_and_average_over_seeds():
    scored = pd.DataFrame(long_rows("baseline", a=False, b=False, c=True)
                          + long_rows("kto-seed0", a=True, b=False, c=True)
                          + long_rows("kto-seed1", c=True, b=True, a=True))
    table = slices(scored, {"seen": {"a", "other"}, "clean": {"b", "c"}, "none": {"x"}}, 200).set_index("slice")
    assert table.loc["seen", ["problems", "before", "after", "wins"]].tolist() == [1, 0, 100, 1]
    assert table.loc["clean", ["problems", "before", "after", "wins"]].tolist() == [2, 50, 75, 1]
    assert table.loc["none", "problems"] == 0 and np.isnan(table.loc["none", "difference"])


def test_slices_refuse_policies_of_different_problems():
    scored = pd.DataFrame(long_rows("baseline", a=False, b=False) + long_rows("kto-seed0", a=True))
    with pytest.raises(ValueError, match="s, greedy: the policies were evaluated on different problems"):
        slices(scored, {"all": {"a", "b"}})


def test_a_gain_in_problems():
    assert problems_of_gain(2.5, 164) == pytest.approx(4.1) and problems_of_gain(-1, 400) == -4


@given(st.integers(50, 900), st.data())
def test_every_printed_score_is_a_whole_number_of_its_own_problems(n, data):
    assert whole_problems(round(100 * data.draw(st.integers(0, n)) / n, 1), n)


def test_scores_that_are_no_whole_number_of_problems():
    assert not whole_problems(75.4, 164)   # 123 are 75.0%, 124 are 75.6%
    assert whole_problems(68.4, 399) and not whole_problems(68.4, 378)
    assert whole_problems(80.4, 378) and not whole_problems(80.4, 399)


def test_claimed_gains_of_table_2():
    table = claimed_gains(paper.table(2)).set_index(["model", "benchmark"])
    assert len(table) == 40
    row = table.loc["MagiCoder-S-CL-7B", "HE"]
    assert (row.before, row.after, row.gain, row.problems, row["of"]) == (70.7, 73.8, 3.1, 5, 164)
    assert row.best_case_p == pytest.approx(2 / 2 ** 5) and row.fits
    same = table.loc["OpenCodeInterpreter-CL", "MBPP+"]
    assert same.problems == 0 and same.best_case_p == 1
    assert table.loc["MagiCoder-S-CL-7B", "MBPP"]["of"] == 399
    assert not table.loc["DeepSeek-Coder-Instruct-6.7B", "HE"].fits


def test_claimed_gains_of_other_rows_and_of_suites_of_unknown_size():
    falls = claimed_gains(paper.table(5), "SFT", "PLUM-KTO").set_index(["model", "benchmark"])
    row = falls.loc["SC2-7B-Base", "MBPP"]
    assert row.problems == -7 and row.best_case_p == pytest.approx(2 / 2 ** 7)
    assert set(falls.reset_index().benchmark) == set(paper.BENCHMARKS)  # no averages
    contests = claimed_gains(paper.table(4))
    assert len(contests) == 16 and contests.problems.isna().all() and contests.best_case_p.isna().all()


def test_claimed_gains_name_what_is_missing_or_double():
    with pytest.raises(ValueError, match="no model has both rows 'Baseline' and 'SFT'"):
        claimed_gains(paper.table(2), after="SFT")
    with pytest.raises(ValueError, match="'Baseline' or 'PLUM' twice"):
        claimed_gains(pd.concat([paper.table(2)] * 2))


def draw_differences(spread: Spread, problems: int, seeds: int, tries: int, mean: float = 0.0) -> np.ndarray:
    """Differences of so many runs, from the parts that ``Spread`` names: shape (tries, problems, seeds)."""
    rng = np.random.default_rng(4)
    parts = zip((spread.problems, spread.seeds, spread.rest), ((problems, 1), (1, seeds), (problems, seeds)))
    return mean + sum(rng.normal(0, np.sqrt(variance), (tries, *shape)) for variance, shape in parts)


def share_found(means: np.ndarray, variance: float) -> float:
    return float((np.abs(means) > 1.96 * np.sqrt(variance)).mean())


@given(st.integers(2, 400), st.data())
def test_the_variance_of_greedy_differences_follows_from_the_problems_won_and_lost(n, data):
    wins = data.draw(st.integers(0, n))
    losses = data.draw(st.integers(0, n - wins))
    spread = Spread.of(pd.DataFrame([1.0] * wins + [-1.0] * losses + [0.0] * (n - wins - losses)))
    w, l = wins / n, losses / n
    variance = (w + l - (w - l) ** 2) * n / (n - 1)
    assert spread.greedy
    assert spread.problems == pytest.approx(variance) if variance else np.isnan(spread.problems)


def test_the_smallest_difference_in_closed_form():
    """Two-sided 5%, power 80%: 1.960 + 0.842 standard errors."""
    spread = Spread(0.16, float("nan"), 0.0, greedy=False)
    assert spread.smallest(100) == pytest.approx((1.959964 + 0.841621) * 0.04, rel=1e-5)
    assert spread.smallest(400) == pytest.approx(spread.smallest(100) / 2)
    both = Spread(0.16, 0.0012, 0.09, greedy=False)
    assert both.smallest(100, 3) == pytest.approx(2.801585 * np.sqrt(0.16 / 100 + 0.0012 / 3 + 0.09 / 300), rel=1e-5)


@given(st.floats(0.001, 0.3), st.floats(0, 0.01), st.floats(0, 0.3), st.booleans(), st.floats(0.002, 0.9),
       st.integers(1, 5))
def test_problems_and_seeds_needed_are_the_fewest_that_show_the_difference(problems, seeds, rest, greedy, d, trained):
    spread = Spread(problems, seeds, rest, greedy)
    needed = spread.problems_needed(d, trained)
    if needed < 1e7:
        assert spread.smallest(needed, trained) <= d * (1 + 1e-6)
        assert needed == 1 or spread.smallest(needed - 1, trained) >= d * (1 - 1e-6)
    elif needed == np.inf:
        assert spread.smallest(10 ** 9, trained) > d
    needed = spread.seeds_needed(d, 150)
    if needed < 1e7:
        assert spread.smallest(150, needed) <= d * (1 + 1e-6)
        assert needed == 1 or spread.smallest(150, needed - 1) >= d * (1 - 1e-6)
    elif needed == np.inf:
        assert spread.smallest(150, 10 ** 9) > d


@pytest.mark.parametrize("problems, changed", [(60, 0.3), (164, 0.2), (378, 0.1), (1000, 0.05)])
def test_power_is_what_it_says_for_greedy_answers(problems, changed):
    """Toy suites of that difference and variance: the normal test finds it in 80%; McNemar's, careful, in less."""
    spread, tries = Spread(changed, float("nan"), 0.0, greedy=True), 20_000
    d = spread.smallest(problems)
    share = changed + d ** 2
    won, lost, _ = np.random.default_rng(5).multinomial(
        problems, [(share + d) / 2, (share - d) / 2, 1 - share], tries).T
    mean = (won - lost) / problems
    own = ((won + lost) / problems - mean ** 2) / problems
    assert share_found(mean, own) == pytest.approx(0.80, abs=0.02)
    exact = 2 * binom.cdf(np.minimum(won, lost), won + lost, 0.5) < 0.05
    assert 0.70 < exact.mean() < 0.80


def test_where_too_few_problems_changed_the_variance_is_that_of_wins_alone():
    """One problem of 164 changed: without the floor 1.3 points, two problems, would be said to be shown."""
    one = Spread.of(pd.DataFrame([1.0] + [0.0] * 163))
    d, square = one.smallest(164), (1.959964 + 0.841621) ** 2
    assert d == pytest.approx(square / (164 + square), rel=1e-5) and 7 < 164 * d < 8
    won = np.random.default_rng(6).binomial(164, d, 20_000)
    assert share_found(won / 164, d * (1 - d) / 164) == pytest.approx(0.80, abs=0.05)  # whole problems: coarse
    assert 0.7 < (2 * 0.5 ** won < 0.05).mean() < 0.8
    sampled = Spread(one.problems, float("nan"), 0.0, greedy=False)
    assert sampled.smallest(164) < d / 2


def test_the_parts_of_a_spread_are_estimated_without_bias():
    truth = Spread(0.04, 0.01, 0.09, greedy=False)
    found = [Spread.of(pd.DataFrame(one)) for one in draw_differences(truth, 40, 3, 2_000)]
    assert not any(one.greedy for one in found)
    means = [np.mean([getattr(one, part) for one in found]) for part in ("problems", "seeds", "rest")]
    assert means == pytest.approx([0.04, 0.01, 0.09], rel=0.07)


def test_power_is_what_it_says_with_several_seeds_and_nothing_is_counted_twice():
    truth, n, s = Spread(0.02, 0.001, 0.2, greedy=False), 50, 3
    d = truth.smallest(n, s)
    drawn = draw_differences(truth, n, s, 5_000, d)
    means = drawn.mean(axis=(1, 2))
    assert means.var() == pytest.approx(truth.variance(n, s), rel=0.06)
    assert share_found(means, truth.variance(n, s)) == pytest.approx(0.80, abs=0.02)
    added = (drawn.mean(axis=2).var(axis=1, ddof=1) / n + drawn.mean(axis=1).var(axis=1, ddof=1) / s).mean()
    assert added - truth.variance(n, s) == pytest.approx(truth.rest / (n * s), rel=0.15)  # rest, a second time


def test_what_cannot_be_told_is_never_a_small_difference():
    for rows in ([[0.0]] * 9, [[1.0]] * 9, [[0.1], [0.1]], [[1.0]], [[1.0, 0.0]], [[1.0, 0.0]] * 4):
        spread = Spread.of(pd.DataFrame(rows))
        assert np.isnan([spread.smallest(len(rows)), spread.problems_needed(0.1), spread.seeds_needed(0.1, 9)]).all()


def test_one_seed_holds_for_its_policy_alone():
    spread = Spread.of(pd.DataFrame([0.0, 0.5, -0.25, 0.5]))
    assert np.isnan(spread.seeds) and spread.smallest(200) > 0
    assert np.isnan(spread.smallest(200, 3)) and np.isnan(spread.seeds_needed(0.1, 200))


def test_some_suites_show_nothing_and_some_claims_need_more_of_the_other():
    spread = Spread(0.16, 0.001, 0.05, greedy=False)
    assert spread.smallest(1, 3) == np.inf and spread.problems_needed(0.0) == np.inf
    assert spread.problems_needed(0.03, 1) == np.inf and spread.problems_needed(0.03, 30) < np.inf
    assert spread.seeds_needed(0.03, 100) == np.inf and spread.seeds_needed(0.03, 5000) < np.inf
    assert spread.problems_needed(-0.1, 3) == spread.problems_needed(0.1, 3)
