"""Statistics of evaluation: pure functions of arrays, no files."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, comb, inf, isnan, nan, sqrt
from typing import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

# A difference of this many standard errors is found by a two-sided test at 5% four times in five (80% power): 2.80.
DETECTED = float(stats.norm.isf(0.05 / 2) + stats.norm.ppf(0.80))


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


@dataclass(frozen=True)
class Spread:
    """How differences of pass@1 (after minus before, as rates) vary, and so how small a one a suite can show.

    The difference at problem i with training seed s is taken as ``mean + problem_i + seed_s + rest_is``: random parts,
    with the variances ``problems``, ``seeds`` and ``rest``. Averaged over N problems and S seeds its variance is
    ``problems / N + seeds / S + rest / (N * S)``: two-way random effects; for one policy it is the power analysis of
    Miller 2024, "Adding Error Bars to Evals" (arXiv:2411.00640).

    Nothing is counted twice. The problems' differences, averaged over seeds, have the variance ``problems + rest / S``:
    over N that is the first and the last term, and nothing of what a seed does to all problems alike. The seeds' means
    have the variance ``seeds + rest / N``, of which the last term is taken off.

    Of greedy answers with one seed a share w of the problems is won and l lost: the variance is ``w + l - (w - l)^2``,
    nearly the share that changed. A difference d needs a share of at least d, whose variance is ``d * (1 - d)`` where
    none is lost. Where less was measured, ``problems`` and ``rest`` are scaled up to that; else a suite where hardly a
    problem changed would be said to show one or two problems, which no test does.

    The variances are taken as known and the mean as normal: too hopeful for a handful of problems, and rough with two
    or three seeds. McNemar's exact test, careful by design, finds the smallest difference in about 70 to 78%
    (simulated, 60 to 1,000 problems). ``seeds`` is NaN where one was measured: all holds for that policy, not for
    another training. Every part is NaN, and so is what follows, where no problem differs from another (or there is
    one): an equal change, or none, does not tell how far another suite would differ.
    """

    problems: float
    seeds: float
    rest: float
    greedy: bool  # every difference is -1, 0 or 1

    @classmethod
    def of(cls, differences: pd.DataFrame) -> Spread:
        """Unbiased estimates, but never below 0, from rates in [-1, 1]: a row a problem, a column a training seed."""
        values = differences.to_numpy(float)
        n, s = values.shape
        greedy = bool(np.isin(values, [-1, 0, 1]).all())
        by_problem, by_seed = values.mean(axis=1), values.mean(axis=0)
        rest, seeds = 0.0, nan
        if s > 1 and n > 1:
            left = values - by_problem[:, None] - by_seed + values.mean()
            rest = float((left ** 2).sum() / ((n - 1) * (s - 1)))
            seeds = max(0.0, float(by_seed.var(ddof=1)) - rest / n)
        problems = max(0.0, float(by_problem.var(ddof=1)) - rest / s) if n > 1 else 0.0
        return cls(problems, seeds, rest, greedy) if problems + rest > 1e-12 else cls(nan, nan, nan, greedy)

    def variance(self, problems: int, seeds: int = 1, difference: float = 0.0) -> float:
        """Variance of the mean over so many problems and training seeds, where the difference is truly this one."""
        single = self._scale(difference) * (self.problems + self.rest / seeds) / problems
        return single + self._of_seeds(seeds)

    def smallest(self, problems: int, seeds: int = 1) -> float:
        """The smallest true difference (a rate) that so many problems and seeds show, with 80% power at a two-sided 5%
        test; infinite where not even a difference of 1 would do."""
        error = sqrt(self.variance(problems, seeds))
        if isnan(error):
            return nan
        found = brentq(lambda d: d - DETECTED * sqrt(self.variance(problems, seeds, d)), 0, 1 + DETECTED * error)
        return found if found <= 1 else inf

    def problems_needed(self, difference: float, seeds: int = 1) -> float:
        """The fewest problems with which so many seeds show a difference (a rate); infinite where more seeds are needed
        first."""
        single = self._scale(difference) * (self.problems + self.rest / seeds)
        return _least(single, (difference / DETECTED) ** 2 - self._of_seeds(seeds))

    def seeds_needed(self, difference: float, problems: int) -> float:
        """The fewest training seeds with which so many problems show a difference (a rate); infinite where none
        suffice, the problems alone being too few; NaN where one seed was measured."""
        scale = self._scale(difference)
        return _least(self.seeds + scale * self.rest / problems,
                      (difference / DETECTED) ** 2 - scale * self.problems / problems)

    def _scale(self, difference: float) -> float:
        least = abs(difference) * (1 - abs(difference)) if self.greedy else 0.0
        return max(1.0, least / (self.problems + self.rest))

    def _of_seeds(self, seeds: int) -> float:
        return 0.0 if seeds == 1 and isnan(self.seeds) else self.seeds / seeds


def _least(variance: float, allowed: float) -> float:
    """The smallest whole number, 1 or more, by which a variance must be divided."""
    if isnan(variance) or isnan(allowed):
        return nan
    return max(1, ceil(variance / allowed)) if allowed > 0 else inf
