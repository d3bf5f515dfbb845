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
    greedy = headline(results[results.decoding == "greedy"])
    ours = {NAMES[row.suite]: row for row in greedy.itertuples() if row.suite in NAMES}
    return _joined([row for row in rows if row.table in ("2", "3", "5", "6")], ours, paper.BENCHMARKS)


def beside_table4(rows: list[RowParams], levels: pd.DataFrame) -> pd.DataFrame:
    """pass@1 by difficulty of this run beside the printed rows of Table 4; ``levels`` of
    ``tables.difficulty_table``."""
    ours = {row.label: row for row in levels.itertuples()}
    return _joined([row for row in rows if row.table == "4"], ours, paper.DIFFICULTIES)


def _joined(rows: list[RowParams], ours: dict[str, Any], metrics: tuple[str, ...]) -> pd.DataFrame:
    found = []
    for row in rows:
        printed = _printed(row)
        found += [_line(row, name, printed, ours[name]) for name in metrics if printed is not None and name in ours]
    return pd.DataFrame(found, columns=COLUMNS)


def _printed(row: RowParams) -> pd.DataFrame | None:
    """The printed rows of the model (baseline and methods) by row name; ``None`` when the paper has no such row."""
    table = paper.table(int(row.table))
    mine = table[table.model == row.model]
    if row.data and "data" in mine:
        mine = mine[mine["data"] == row.data]
    mine = mine.set_index("row")
    return mine if row.row in mine.index and "Baseline" in mine.index else None


def _line(row: RowParams, metric: str, printed: pd.DataFrame, ours: Any) -> dict[str, Any]:
    before, after = printed.at["Baseline", metric], printed.at[row.row, metric]
    return row.model_dump() | {
        "metric": metric, "paper_before": before, "paper_after": after, "paper_gain": round(after - before, 1),
        "gain": ours.difference, "gain_low": ours.difference_low, "gain_high": ours.difference_high
    } | {name: getattr(ours, name) for name in SIDES}


def table2(results: pd.DataFrame, model: str) -> pd.DataFrame:
    """Table 2's form: this run's greedy pass@1 (our suites as further columns) above the paper's rows."""
    names = {"mbpp": "MBPP", "mbpp+": "MBPP+", "humaneval": "HE", "humaneval+": "HE+"}
    greedy = headline(results[results.decoding == "greedy"])
    ours = [{"data": "this run", "model": model, "row": label,
             **{names.get(row.suite, row.suite): getattr(row, column) for row in greedy.itertuples()}}
            for label, column in (("Baseline", "before"), ("PLUM", "after"), ("Rel. +", "relative_percent"))]
    printed = paper.table(2).drop(columns="type").assign(data="paper, OSS-Instruct")
    extra = [name for name in ours[0] if name not in printed]
    order = ["data", "model", "row", *paper.BENCHMARKS, *extra]
    return pd.concat([pd.DataFrame(ours), printed], ignore_index=True).reindex(columns=order).round(1)


def dumbbells(results: pd.DataFrame) -> pd.DataFrame:
    """Rows for ``comparisons.fig_before_after``: this run with intervals, then the paper's HE+ without."""
    ours = headline(results)
    columns = ["before", "before_low", "before_high", "after", "after_low", "after_high"]
    ours = ours[columns].assign(label=ours.suite + ", " + ours.decoding)
    printed = paper.table(2).pivot(index="model", columns="row", values="HE+")
    theirs = [{"label": f"paper: {model}, HE+", "before": row["Baseline"], "after": row["PLUM"]}
              for model, row in printed.iterrows()]
    return pd.concat([ours, pd.DataFrame(theirs)], ignore_index=True)


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
    favours the claim most: none was lost (of a fall: none was won). Where it is above 5% (fewer than ``least_wins``
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
    keys = [name for name in ("data", "model") if name in table]
    scores = [name for name in table.select_dtypes("number") if not name.startswith("Avg.")]
    long = [table[table.row == name].melt(keys, scores, "benchmark", side)
            for name, side in ((before, "before"), (after, "after"))]
    try:
        both = long[0].merge(long[1], on=[*keys, "benchmark"], sort=False, validate="one_to_one")
    except pd.errors.MergeError as error:
        raise ValueError(f"a model has a row {before!r} or {after!r} twice: {error}") from None
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


def table4(levels: pd.DataFrame, model: str) -> pd.DataFrame:
    """Table 4's form: this run above the paper's rows, as printed; percent."""
    ours = [{"data": "this run", "model": model, "row": name, **dict(zip(levels.label, levels[column]))}
            for name, column in (("Baseline", "before"), ("PLUM", "after"), ("Rel. +", "relative_percent"))]
    printed = paper.table(4).assign(data="paper")
    return pd.concat([pd.DataFrame(ours), printed], ignore_index=True).reindex(
        columns=["data", "model", "row", *paper.DIFFICULTIES]).round(1)
