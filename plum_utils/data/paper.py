"""The paper's printed numbers as data, and what follows from them."""

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
def _printed() -> dict[str, Any]:
    """Tables by number, and ``settings``, ``sizes`` and ``names``: each with its source and its rows."""
    return json.loads((files("plum_utils") / "data" / "paper_tables.json").read_text())


def frame_of(name: str) -> pd.DataFrame:
    frame = pd.DataFrame(_printed()[name]["rows"])
    frame.attrs["source"] = _printed()[name]["source"]
    return frame


def table(number: int) -> pd.DataFrame:
    """Table 1 to 6 of the paper, as printed; ``attrs["source"]`` names it.

    Raises:
        ValueError: no such table.
    """
    numbers = [name for name in _printed() if name.isdigit()]
    if str(number) not in numbers:
        raise ValueError(f"the paper has no Table {number}; one of {', '.join(numbers)}")
    return frame_of(str(number))


def settings() -> pd.DataFrame:
    """Whether each model of Tables 2 and 3 had the instructions in its SFT data already, as far as the paper says it.

    Returns:
        Columns ``data``, ``model``, ``setting`` (``same``: SFT on the same instructions; ``unseen``: SFT on others;
        ``none``: a base model without SFT; ``unknown``) and ``said``: where the paper says so, empty where it does not.
    """
    return frame_of("settings")


def sizes() -> pd.DataFrame:
    """The text's numbers of the preference data (section 4): columns data, instructions, responses and samples (of each
    instruction), and examples, the sum that it prints."""
    return frame_of("sizes")


def relative_gains(number: int) -> pd.DataFrame:
    """Recomputed ``Rel. +`` of Tables 2 to 4: ``100 * (PLUM - Baseline) / Baseline``, one row a model."""
    frame = table(number)
    columns = DIFFICULTIES if number == 4 else BENCHMARKS
    keys = keys_of(frame)
    rows = []
    for names, group in frame.groupby(keys, sort=False):
        by_row = group.set_index("row")
        gains = {}
        for column in columns:
            before = by_row.at["Baseline", column]
            gains[column] = 100 * (by_row.at["PLUM", column] - before) / before if before else float("nan")
        rows.append(dict(zip(keys, names)) | gains)
    return pd.DataFrame(rows)


def keys_of(frame: pd.DataFrame) -> list[str]:
    return [key for key in ("data", "model") if key in frame]


def averages(number: int) -> pd.DataFrame:
    """Averages of Table 5 or 6, printed and recomputed as the mean of the row's scores.

    Returns:
        One row a model and method: columns ``model``, ``row``, and for each of ``AVERAGES`` its name (as printed) and
        its name with ``, recomputed``; percent.

    Raises:
        ValueError: another table, which prints no averages.
    """
    if number not in (5, 6):
        raise ValueError(f"Table {number} prints no averages; expected 5 or 6")
    frame = table(number)
    for column, parts in AVERAGES.items():
        frame[f"{column}, recomputed"] = frame[list(parts)].mean(axis=1).round(4)
    shown = [name for column in AVERAGES for name in (column, f"{column}, recomputed")]
    return frame[["model", "row", *shown]]
