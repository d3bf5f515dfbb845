"""A run's own numbers beside the rows of the paper that it stands for (``rows`` of its parameters)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from plum_utils.data import paper
from plum_utils.evaluation.tables import headline
from plum_utils.params import RowParams
from plum_utils.stats import mcnemar_exact

# Problems of a benchmark, the likeliest first. MBPP(+) of EvalPlus has 378 since its v0.2.0 (April 2024) and 399 before
# (EvalPlus' release notes); most of the MBPP scores that PLUM's paper prints are whole numbers of 399 only.
SUITE_SIZES = {"HE": (164,), "HE+": (164,), "MBPP": (399, 378), "MBPP+": (399, 378)}
NAMES = {"mbpp": "MBPP", "mbpp+": "MBPP+", "humaneval": "HE", "humaneval+": "HE+"}
SIDES = ["before", "before_low", "before_high", "after", "after_low", "after_high"]
COLUMNS = ["table", "data", "model", "row", "metric", "paper_before", "paper_after", "paper_gain", *SIDES, "gain",
           "gain_low", "gain_high"]


def beside_table2(rows: list[RowParams], results: pd.DataFrame) -> pd.DataFrame:
    """Greedy pass@1 (percent; gains in points) of this run beside the printed rows of Tables 2, 3, 5 and 6.

    Args:
        rows: what the run stands for; a row that the paper does not print is left out.
        results: of ``tables.results_table``.
    """
    return _beside([row for row in rows if row.table in ("2", "3", "5", "6")], _greedy(results))


def beside_table4(rows: list[RowParams], levels: pd.DataFrame) -> pd.DataFrame:
    """pass@1 by difficulty of this run beside the printed rows of Table 4; ``levels`` of
    ``tables.difficulty_table``."""
    return _beside([row for row in rows if row.table == "4"], levels.rename(columns={"label": "metric"}))


def _greedy(results: pd.DataFrame) -> pd.DataFrame:
    """A row a suite, with the paper's name of it as ``metric``."""
    greedy = headline(results[results.decoding == "greedy"])
    return greedy.assign(metric=greedy.suite.replace(NAMES))


def _beside(rows: list[RowParams], ours: pd.DataFrame) -> pd.DataFrame:
    ours = ours.rename(columns=lambda name: name.replace("difference", "gain"))
    found = [line for row in rows for line in _printed(row).merge(ours, on="metric").to_dict("records")]
    return pd.DataFrame(found, columns=COLUMNS)


def _printed(row: RowParams) -> pd.DataFrame:
    """The printed scores of a row and of its model's baseline; none when the paper has no such row."""
    scores = paper.changes(paper.table(int(row.table)), after=row.row)
    scores = scores[scores.model == row.model]
    if row.data and "data" in scores:
        scores = scores[scores["data"] == row.data]
    return pd.DataFrame({"metric": scores.metric, "paper_before": scores.before, "paper_after": scores.after,
                         "paper_gain": (scores.after - scores.before).round(1)}).assign(**row.model_dump())


def table2(results: pd.DataFrame, model: str) -> pd.DataFrame:
    """Table 2's form: this run's greedy pass@1 (our suites as further columns) above the paper's rows."""
    return _above(_greedy(results), model, paper.table(2).drop(columns="type").assign(data="paper, OSS-Instruct"))


def table4(levels: pd.DataFrame, model: str) -> pd.DataFrame:
    """Table 4's form: this run above the paper's rows, as printed; percent."""
    return _above(levels.rename(columns={"label": "metric"}), model, paper.table(4).assign(data="paper"))


def _above(ours: pd.DataFrame, model: str, printed: pd.DataFrame) -> pd.DataFrame:
    mine = [{"data": "this run", "model": model, "row": row, **dict(zip(ours.metric, ours[column]))}
            for row, column in (("Baseline", "before"), ("PLUM", "after"), ("Rel. +", "relative_percent"))]
    names = dict.fromkeys(["data", "model", "row", *printed.select_dtypes("number"), *ours.metric])
    return pd.concat([pd.DataFrame(mine), printed], ignore_index=True)[list(names)].round(1)


def dumbbells(ours: pd.DataFrame, number: int, metric: str) -> pd.DataFrame:
    """Rows for ``comparisons.fig_before_after``: this run's (``label``, and of ``compare``) with intervals, then one
    score of the paper's table without; Table 4's ``Overall`` goes without saying."""
    printed = paper.changes(paper.table(number)).query("metric == @metric").sort_values("model")
    what = "" if metric == "Overall" else f", {metric}"
    theirs = printed.assign(label="paper: " + printed.model + what)[["label", "before", "after"]]
    return pd.concat([ours[[*SIDES, "label"]], theirs], ignore_index=True)


def problems_of_gain(points: float, n_problems: int) -> float:
    """How many problems a gain amounts to: ``points`` (percentage points) of ``n_problems``, not rounded."""
    return points * n_problems / 100


def whole_problems(score: float, n_problems: int) -> bool:
    """Whether a score in percent, printed with one digit, is a whole number of problems (one greedy try each)."""
    nearest = round(score * n_problems / 100)
    return abs(100 * nearest / n_problems - score) <= 0.05 + 1e-9


def claimed_gains(table: pd.DataFrame, before: str = "Baseline", after: str = "PLUM") -> pd.DataFrame:
    """How many problems the printed gains of a table amount to, and whether so few could be chance.

    A score alone does not tell which problems were won and lost. ``best_case_p`` is the p-value of the case that
    favours the claim most: none was lost (of a fall: none was won). Where it is above 5% (fewer than six
    problems) McNemar's test cannot call the gain significant, whatever the outcomes were; where it is below, the gain
    may still be chance.

    Args:
        table: of ``paper.table``: columns model, row, maybe data and type, and scores in percent.
        before, after: values of ``row`` to compare.

    Returns:
        One row a model and benchmark: ``data`` (where the table has it), ``model``, ``benchmark``, ``before``,
        ``after``, ``gain`` (points), ``problems`` (whole; NaN where the suite's size is not known), ``best_case_p``,
        ``of`` (the size used) and ``fits``: both printed scores are whole numbers of problems of one size. Where they
        are not, one of them was measured on another version of the suite, or printed wrongly.

    Raises:
        ValueError: no model has both rows, or one has a row twice.
    """
    both = paper.changes(table, before, after).rename(columns={"metric": "benchmark"})
    if both.empty:
        raise ValueError(f"no model has both rows {before!r} and {after!r}; the table has {sorted(set(table.row))}")
    both["gain"] = (both.after - both.before).round(4)
    return both.join(pd.DataFrame([_in_problems(row) for row in both.itertuples()], both.index))


def _in_problems(row: Any) -> dict[str, Any]:
    """``problems``, ``best_case_p``, ``of`` and ``fits`` of one row of ``claimed_gains``."""
    sizes = SUITE_SIZES.get(row.benchmark, ())
    if not sizes:
        return {"problems": float("nan"), "best_case_p": float("nan"), "of": float("nan"), "fits": None}
    fitting = [n for n in sizes if whole_problems(row.before, n) and whole_problems(row.after, n)]
    of = (fitting or sizes)[0]
    problems = round(problems_of_gain(row.gain, of))
    return {"problems": problems, "best_case_p": mcnemar_exact(abs(problems), 0), "of": of, "fits": bool(fitting)}
