"""How small a difference each suite can show, and how large a suite the paper's claims need."""

from __future__ import annotations

from math import inf, isnan
from typing import Any, Iterator

import numpy as np
import pandas as pd

from plum_utils.data import paper
from plum_utils.evaluation.beside_paper import problems_of_gain
from plum_utils.evaluation.tables import differences
from plum_utils.stats import Spread

GRID = np.unique(np.geomspace(10, 100_000, 81).round().astype(int))  # problems, for the curves


def power_table(scored: pd.DataFrame) -> pd.DataFrame:
    """What each suite can show, with 80% power at a two-sided 5% test, from the run's own differences by problem.

    Args:
        scored: of ``tables.long_form``; the baseline's rows have the policy ``baseline``.

    Returns:
        A row a suite and decoding: problems, seeds; in points ``sd`` (of the problems' differences, averaged over
        seeds), ``sd_seeds`` (of what a training seed does to all problems alike; NaN with one), ``smallest`` (the
        smallest difference that is shown, also as ``smallest_problems``; ``stats.Spread`` says where it is NaN or
        infinite) and the run's own ``difference``.
    """
    rows = []
    for where, spread, values in _measured(scored):
        smallest = 100 * spread.smallest(where["problems"], where["seeds"])
        rows.append(where | {"sd": 100 * values.std(), "sd_seeds": 100 * spread.seeds ** 0.5, "smallest": smallest,
                             "smallest_problems": problems_of_gain(smallest, where["problems"]),
                             "difference": 100 * values.mean()})
    return pd.DataFrame(rows)


def _measured(scored: pd.DataFrame) -> Iterator[tuple[dict[str, Any], Spread, pd.Series]]:
    """Of each suite and decoding: these, with the numbers of problems and seeds; how its differences vary; and each
    problem's difference, averaged over seeds."""
    for suite, decoding, values in differences(scored):
        where = {"suite": suite, "decoding": decoding, "problems": len(values), "seeds": len(values.columns)}
        yield where, Spread.of(values), values.mean(axis=1)


def power_curves(scored: pd.DataFrame) -> pd.DataFrame:
    """For ``plots.fig_power``: columns suite, decoding, seeds, problems and ``smallest``, the smallest difference
    (points) that so many problems of the suite's kind show with the run's seeds."""
    return pd.DataFrame([where | {"problems": n, "smallest": 100 * spread.smallest(n, where["seeds"])}
                         for where, spread, _ in _measured(scored) for n in GRID])


def paper_claims() -> pd.DataFrame:
    """Sizes of the paper's claims, from its greedy pass@1 on HumanEval and MBPP: columns claim and points."""
    plum = _gains(2, "Baseline", "PLUM")
    sizes = {"Table 2, smallest gain": plum.min(), "Table 2, median gain": plum.median(),
             "Table 2, largest gain": plum.max(),
             "Table 5, KTO over SFT, median": _gains(5, "SFT", "PLUM-KTO").median(),
             "Table 6, KTO over DPO, median": _gains(6, "DPO", "KTO").median()}
    return pd.DataFrame(sizes.items(), columns=["claim", "points"]).round(2)


def _gains(table: int, before: str, after: str) -> pd.Series:
    scores = paper.changes(paper.table(table), before, after)
    scores = scores[scores.metric.isin(["HE", "MBPP"])]
    return scores.after - scores.before


def claims_table(scored: pd.DataFrame) -> pd.DataFrame:
    """What a suite of this kind would need to show differences of the size of the paper's claims.

    Returns:
        A row a suite, decoding and claim (``paper_claims``): problems and seeds that there are, ``problems_needed``
        with these seeds and ``seeds_needed`` with these problems (``stats.Spread`` says when NaN or infinite).
    """
    claims = paper_claims()
    return pd.DataFrame([where | {"claim": claim.claim, "points": claim.points,
                                  "problems_needed": spread.problems_needed(claim.points / 100, where["seeds"]),
                                  "seeds_needed": spread.seeds_needed(claim.points / 100, where["problems"])}
                         for where, spread, _ in _measured(scored) for claim in claims.itertuples()])


def describe_power(row: Any) -> str:
    """What one row of ``power_table`` says."""
    about = f"{row.suite}, {row.decoding}: {_count(row.problems, 'problem')}, {_count(row.seeds, 'training seed')}"
    measured = f"measured: {round(row.difference, 1) + 0:+.1f}"
    if isnan(row.smallest):
        return f"{about}: cannot be told, for the difference is the same at every problem ({measured} points)."
    if row.smallest == inf:
        return f"{about} show no difference, however large ({measured} points)."
    verdict = ("as large as that." if abs(row.difference) >= row.smallest else
               "smaller than that: to find nothing would be no sign that there is nothing.")
    return (f"{about} show {row.smallest:.1f} points ({row.smallest_problems:.1f} problems) or more, four times in "
            f"five; {measured}, {verdict}")


def describe_claim(row: Any) -> str:
    """What one row of ``claims_table`` says."""
    claim = f"{row.claim} ({row.points:.1f} points) on {row.suite}, {row.decoding}"
    if isnan(row.problems_needed):
        return f"{claim}: what it needs cannot be told."
    told = f"{claim}: with {_count(row.seeds, 'training seed')} {_needed(row.problems_needed, 'problem')}"
    if isnan(row.seeds_needed):
        return f"{told}."
    return f"{told}; with {_count(row.problems, 'problem')} {_needed(row.seeds_needed, 'training seed')}."


def _count(number: float, what: str) -> str:
    return f"{number:,.0f} {what}{'s' * (number != 1)}"


def _needed(number: float, what: str) -> str:
    return f"no number of {what}s is enough" if number == inf else f"it needs {_count(number, what)}"
