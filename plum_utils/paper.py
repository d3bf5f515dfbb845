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
EXCHANGED = {"MBPP": "HE", "HE": "MBPP", "MBPP+": "HE+", "HE+": "MBPP+"}


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
    keys = _keys(frame)
    rows = []
    for names, group in frame.groupby(keys, sort=False):
        by_row = group.set_index("row")
        gains = {}
        for column in columns:
            before = by_row.at["Baseline", column]
            gains[column] = 100 * (by_row.at["PLUM", column] - before) / before if before else float("nan")
        rows.append(dict(zip(keys, names)) | gains)
    return pd.DataFrame(rows)


def _keys(frame: pd.DataFrame) -> list[str]:
    return [key for key in ("data", "model") if key in frame]


def inconsistencies(tolerance: float = 0.15) -> pd.DataFrame:
    """Printed averages and relative gains that do not follow from the printed scores.

    Args:
        tolerance: points by which a printed value may miss the recomputed one (averages and gains carry one digit).

    Returns:
        Columns ``table``, ``model``, ``row``, ``column``, ``printed``, ``recomputed``, ``difference`` and ``fits``:
        what the printed value does agree with, tried on the numbers and empty when nothing fits.
    """
    found = [*_average_rows(), *_gain_rows()]
    frame = pd.DataFrame(found, columns=["table", "model", "row", "column", "printed", "recomputed", "others"])
    frame["difference"] = frame.printed - frame.recomputed
    wrong = frame.recomputed.isna() | (frame.difference.abs() > tolerance)
    frame = frame[wrong].round(2).reset_index(drop=True)
    frame["fits"] = [_fit(row.printed, row.others, tolerance) for row in frame.itertuples()]
    return frame.drop(columns="others")


def _fit(printed: float, others: dict[str, tuple[float, float]], tolerance: float) -> str:
    """Name of the first range, widened by the tolerance, that holds the printed value."""
    return next((name for name, (low, high) in others.items() if low - tolerance <= printed <= high + tolerance), "")


def _average_rows() -> list[tuple]:
    rows = []
    for number in (5, 6):
        for row in table(number).to_dict("records"):
            for column, parts in AVERAGES.items():
                mean = sum(row[part] for part in parts) / len(parts)
                slip = (row["MBPP+"] + row["Avg. (Base)"]) / 2
                others = {"mean of MBPP+ and Avg. (Base)": (slip, slip)} if column == "Avg. (+)" else {}
                rows.append((number, row["model"], row["row"], column, row[column], mean, others))
    return rows


def _gain_rows() -> list[tuple]:
    rows = []
    for number in (2, 3, 4):
        printed = table(number)
        exact = relative_gains(number).to_dict("records")
        for ours, (_, group) in zip(exact, printed.groupby(_keys(printed), sort=False)):
            by_row = group.set_index("row")
            for column in DIFFICULTIES if number == 4 else BENCHMARKS:
                others = {"gain of rounded scores": _rounding(by_row, column)}
                if column in EXCHANGED:
                    others |= {f"gain of {EXCHANGED[column]}": (ours[EXCHANGED[column]],) * 2}
                theirs = by_row.at["Rel. +", column]
                rows.append((number, by_row.at["Rel. +", "model"], "Rel. +", column, theirs, ours[column], others))
    return rows


def _rounding(by_row: pd.DataFrame, column: str) -> tuple[float, float]:
    """Smallest and largest gain of unrounded scores that would be printed as these (a digit: within 0.05)."""
    before, after = by_row.at["Baseline", column], by_row.at["PLUM", column]
    if before <= 0.05:
        return float("nan"), float("nan")  # any gain, or none
    ends = [100 * (after + sign * 0.05 - before + sign * 0.05) / (before - sign * 0.05) for sign in (-1, 1)]
    return ends[0], ends[1]


def inconsistencies_markdown() -> str:
    """``inconsistencies`` as the Markdown table of docs/paper_notes.md."""
    frame = inconsistencies().astype(object)
    return frame.where(frame.notna(), "undefined").to_markdown(index=False)
