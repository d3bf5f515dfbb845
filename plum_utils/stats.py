"""Statistics of evaluation: pure functions of arrays, no files."""

from __future__ import annotations

from math import comb
from typing import Sequence

import numpy as np
import pandas as pd
from scipy import stats


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of ``k`` samples passes, from ``c`` passes among ``n``.

    Source: Chen et al. 2021 (HumanEval), Eq. 1: ``1 - C(n-c, k) / C(n, k)``.

    Raises:
        ValueError: not ``0 <= c <= n`` or not ``1 <= k <= n``.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n; got n={n}, c={c}, k={k}")
    return 1.0 - comb(n - c, k) / comb(n, k)


def bootstrap_mean_interval(values: Sequence[float], n_resamples: int = 2000, seed: int = 0, level: float = 0.95
                            ) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over problems.

    Args:
        values: shape (problems,); for paired differences give the differences.
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("no problems: an interval needs at least one value")
    draws = np.random.default_rng(seed).integers(0, array.size, (n_resamples, array.size))
    low, high = np.quantile(array[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_share_interval(hits: Sequence[float], of: Sequence[float], n_resamples: int = 2000, seed: int = 0,
                             level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of ``sum(hits) / sum(of)``, resampling clusters: what belongs to one instruction
    (or problem) is not independent. Resamples in which nothing is counted are left out.

    Args:
        hits, of: shape (clusters,); of what was counted in a cluster (``of``), how many were hits.

    Returns:
        Two NaN where nothing was counted at all.
    """
    top, bottom = np.asarray(hits, dtype=float), np.asarray(of, dtype=float)
    if not bottom.any():
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, bottom.size, (n_resamples, bottom.size))
    counted = bottom[draws].sum(axis=1)
    shares = top[draws].sum(axis=1)[counted > 0] / counted[counted > 0]
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_permutation_test(before: Sequence[float], after: Sequence[float], n_resamples: int = 9999, seed: int = 0
                            ) -> float:
    """Two-sided p-value of the mean difference over problems, by flipping signs of the paired differences."""
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if not difference.any() or difference.size == 1:  # a single problem's sign says nothing
        return 1.0
    result = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=n_resamples,
                                    rng=np.random.default_rng(seed))
    return float(result.pvalue)


def mcnemar_exact(wins: int, losses: int) -> float:
    """Two-sided exact McNemar p-value from the problems that changed (greedy: solved or not)."""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values: those below a level hold the chance of any false alarm among all tests at that level.

    Source: Holm 1979. The i-th smallest of m is multiplied by m - i + 1, never to fall below the one before it.

    Args:
        p_values: shape (tests,); NaN (no test) stays NaN and does not count.
    """
    given = np.asarray(p_values, dtype=float)
    adjusted, tested = np.full(given.shape, np.nan), np.flatnonzero(~np.isnan(given))
    order = tested[np.argsort(given[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * given[order]), 1.0)
    return adjusted


def problem_rates(rows: pd.DataFrame, column: str = "base_passed") -> pd.Series:
    """Share of samples passed for each ``task_id``."""
    return rows.groupby("task_id", sort=False)[column].mean()


def pass_at_k_by_problem(rows: pd.DataFrame, k: int, column: str = "base_passed") -> pd.Series:
    """pass@k for each ``task_id`` with at least ``k`` samples."""
    counts = rows.groupby("task_id", sort=False)[column].agg(["size", "sum"])
    counts = counts[counts["size"] >= k]
    return pd.Series({task: pass_at_k(int(row["size"]), int(row["sum"]), k) for task, row in counts.iterrows()})


def paired_rates(scored: pd.DataFrame, k: int | None = None) -> tuple[pd.Series, pd.DataFrame]:
    """The problems' pass rates, or with ``k`` their pass@k, by ``task_id``: the baseline's, and a column a trained policy
    (one a training seed), to be averaged problem by problem.

    Args:
        scored: rows with ``policy`` (``baseline`` or a trained one), ``task_id``, ``passed``.
    """
    rates = {policy: problem_rates(part, "passed") if k is None else pass_at_k_by_problem(part, k, "passed")
             for policy, part in scored.groupby("policy", sort=False)}
    return rates.pop("baseline"), pd.DataFrame(rates)


def compare(before: pd.Series, after: pd.Series, n_resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """Two policies on the same problems, in percent: means, intervals over problems, difference, paired tests.

    ``p_mcnemar`` is that of the exact test on the problems that changed; NaN unless each problem was solved or not (one
    greedy try). Both p-values are those of this comparison alone: of several, adjust them by ``holm``.

    Args:
        before, after: pass rate of each problem in [0, 1], indexed by ``task_id``.

    Raises:
        ValueError: the two were not measured on the same problems.
    """
    if set(before.index) != set(after.index):
        raise ValueError("the policies were evaluated on different problems")
    after = after.loc[before.index]
    difference = after - before
    row: dict[str, float] = {"problems": len(before)}
    for name, values in (("before", before), ("after", after), ("difference", difference)):
        low, high = bootstrap_mean_interval(values, n_resamples, seed)
        row |= {name: 100 * values.mean(), f"{name}_low": 100 * low, f"{name}_high": 100 * high}
    relative = 100 * difference.mean() / before.mean() if before.mean() else float("nan")
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    greedy = bool(before.isin([0, 1]).all() and after.isin([0, 1]).all())
    return row | {"relative_percent": relative, "p_permutation": paired_permutation_test(before, after, seed=seed),
                  "wins": wins, "losses": losses,
                  "p_mcnemar": mcnemar_exact(wins, losses) if greedy else float("nan")}
