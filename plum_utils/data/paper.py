"""The paper's printed numbers as data."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

BENCHMARKS = ("MBPP", "MBPP+", "HE", "HE+")
DIFFICULTIES = ("Easy", "Medium", "Hard", "Overall")


@cache
def _printed() -> dict[str, Any]:
    """Tables by number, and ``settings``, ``sizes`` and ``names``: each with its source and its rows."""
    return json.loads(Path(__file__).with_name("paper_tables.json").read_text())


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


def keys_of(frame: pd.DataFrame) -> list[str]:
    return [key for key in ("data", "model") if key in frame]


def changes(frame: pd.DataFrame, before: str = "Baseline", after: str = "PLUM") -> pd.DataFrame:
    """Each score of a table, averages left out, under two of its rows: a row a model and score.

    Args:
        frame: of ``table``: model, row, maybe data and type, and scores in percent.
        before, after: values of ``row``; a model that lacks one is left out.

    Returns:
        Columns data (where the table has it), model, metric, before, after.

    Raises:
        ValueError: a model has a row twice.
    """
    keys, scores = keys_of(frame), [name for name in frame.select_dtypes("number") if not name.startswith("Avg.")]
    one, two = (frame[frame.row == row].melt(keys, scores, "metric", side)
                for row, side in ((before, "before"), (after, "after")))
    try:
        return one.merge(two, on=[*keys, "metric"], sort=False, validate="one_to_one")
    except pd.errors.MergeError as error:
        raise ValueError(f"a model has a row {before!r} or {after!r} twice: {error}") from None
