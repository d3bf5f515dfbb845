"""The paper's printed numbers as data, what follows from them, and what does not."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

BENCHMARKS = ("MBPP", "MBPP+", "HE", "HE+")
AVERAGES = {"Avg. (Base)": ("MBPP", "HE"), "Avg. (+)": ("MBPP+", "HE+"), "Avg. (All)": BENCHMARKS}
DIFFICULTIES = ("Easy", "Medium", "Hard", "Overall")


@cache
def _tables() -> dict[str, Any]:
    return json.loads((files("plum_utils") / "data" / "paper_tables.json").read_text())


def table(number: int) -> pd.DataFrame:
    """Table 1 to 6 of the paper, as printed; ``attrs["source"]`` names it.

    Raises:
        ValueError: no such table.
    """
    if str(number) not in _tables():
        raise ValueError(f"the paper has no Table {number}; one of {', '.join(_tables())}")
    entry = _tables()[str(number)]
    frame = pd.DataFrame(entry["rows"])
    frame.attrs["source"] = entry["source"]
    return frame


def relative_gains(number: int) -> pd.DataFrame:
    """Recomputed ``Rel. +`` of Tables 2 to 4: ``100 * (PLUM - Baseline) / Baseline``, one row a model."""
    frame = table(number)
    columns = DIFFICULTIES if number == 4 else BENCHMARKS
    keys = [key for key in ("data", "model") if key in frame]
    rows = []
    for names, group in frame.groupby(keys, sort=False):
        by_row = group.set_index("row")
        gains = {}
        for column in columns:
            before = by_row.at["Baseline", column]
            gains[column] = 100 * (by_row.at["PLUM", column] - before) / before if before else float("nan")
        rows.append(dict(zip(keys, names)) | gains)
    return pd.DataFrame(rows)


def inconsistencies(tolerance: float = 0.15) -> pd.DataFrame:
    """Printed values that do not follow from the others, beyond rounding.

    Args:
        tolerance: points by which a printed value may miss the recomputed one (averages and gains carry one digit).

    Returns:
        Columns ``table``, ``model``, ``row``, ``column``, ``printed``, ``recomputed``, ``difference``.
    """
    found = [*_average_rows(), *_gain_rows()]
    frame = pd.DataFrame(found, columns=["table", "model", "row", "column", "printed", "recomputed"])
    frame["difference"] = frame.printed - frame.recomputed
    wrong = frame.recomputed.isna() | (frame.difference.abs() > tolerance)
    return frame[wrong].round(2).reset_index(drop=True)


def _average_rows() -> list[tuple]:
    rows = []
    for number in (5, 6):
        for row in table(number).to_dict("records"):
            for column, parts in AVERAGES.items():
                mean = sum(row[part] for part in parts) / len(parts)
                rows.append((number, row["model"], row["row"], column, row[column], mean))
    return rows


def _gain_rows() -> list[tuple]:
    rows = []
    for number in (2, 3, 4):
        printed = table(number)
        printed = printed[printed.row == "Rel. +"].to_dict("records")
        for ours, theirs in zip(relative_gains(number).to_dict("records"), printed):
            columns = DIFFICULTIES if number == 4 else BENCHMARKS
            rows += [(number, theirs["model"], "Rel. +", column, theirs[column], ours[column]) for column in columns]
    return rows
