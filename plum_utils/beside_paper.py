"""A run's own numbers beside the rows of the paper that it stands for (``rows`` of its parameters)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from plum_utils.data import paper
from plum_utils.evaluation import headline
from plum_utils.params import RowParams

NAMES = {"mbpp": "MBPP", "mbpp+": "MBPP+", "humaneval": "HE", "humaneval+": "HE+"}
SIDES = ["before", "before_low", "before_high", "after", "after_low", "after_high"]
COLUMNS = ["table", "data", "model", "row", "metric", "paper_before", "paper_after", "paper_gain", *SIDES, "gain",
           "gain_low", "gain_high"]


def beside_table2(rows: list[RowParams], results: pd.DataFrame) -> pd.DataFrame:
    """Greedy pass@1 (percent; gains in points) of this run beside the printed rows of Tables 2, 3, 5 and 6.

    Args:
        rows: what the run stands for; a row that the paper does not print is left out.
        results: of ``evaluation.results_table``.
    """
    greedy = headline(results[results.decoding == "greedy"])
    ours = {NAMES[row.suite]: row for row in greedy.itertuples() if row.suite in NAMES}
    return _joined([row for row in rows if row.table in ("2", "3", "5", "6")], ours, paper.BENCHMARKS)


def beside_table4(rows: list[RowParams], levels: pd.DataFrame) -> pd.DataFrame:
    """pass@1 by difficulty of this run beside the printed rows of Table 4; ``levels`` of
    ``livecodebench.difficulty_table``."""
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
