"""Statistics against enumeration, exact formulas and each other."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from plum_utils.stats import (
    bootstrap_mean_interval, compare, mcnemar_exact, paired_permutation_test, pass_at_k, pass_at_k_by_problem,
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
