"""What evalplus brings: its data, and its way to compare."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

from plum_utils.data.judges import source
from plum_utils.jsonl import read_jsonl

OVERRIDES = {"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}


class SuiteUnavailable(RuntimeError):
    """A suite's data is not on this machine; the message says how to bring it."""


def evalplus_path(suite: str) -> Path | None:
    """evalplus' data file: what the override variable names, else its cache; ``None`` when neither is there.

    Raises:
        SuiteUnavailable: the override variable points to no file.
    """
    override = os.environ.get(OVERRIDES[suite])
    if override:
        if not Path(override).is_file():
            raise SuiteUnavailable(f"{OVERRIDES[suite]}={override}: no such file")
        return Path(override)
    from evalplus.data.humaneval import HUMANEVAL_PLUS_VERSION
    from evalplus.data.mbpp import MBPP_PLUS_VERSION
    from evalplus.data.utils import get_dataset_metadata

    title, release = {"humaneval": ("HumanEvalPlus", HUMANEVAL_PLUS_VERSION),
                      "mbpp": ("MbppPlus", MBPP_PLUS_VERSION)}[suite]
    path = Path(get_dataset_metadata(title, release, mini=False)[1])
    return path if path.exists() else None


def evalplus_rows(suite: str) -> list[dict[str, Any]] | None:
    """evalplus' own rows; ``None`` where its data is not at hand (``evalplus_path``, also for what it raises)."""
    path = evalplus_path(suite)
    if path is None:
        return None
    rows = read_jsonl(path, required=("task_id", "base_input", "plus_input"))
    if suite == "mbpp":
        from evalplus.data.mbpp import mbpp_deserialize_inputs

        for row, key in product(rows, ("base_input", "plus_input")):
            row[key] = mbpp_deserialize_inputs(row["task_id"], row[key])
    return rows


# Where evalplus asks only whether there is a result (judges/presence.py).
NOT_NONE_TASKS = ("check_str", "text_match_three", "text_starta_endb")


def presence_counts(suite: str, entry_point: str) -> bool:
    return suite == "mbpp" and entry_point in NOT_NONE_TASKS


def evalplus_tests(dataset: str, row: dict[str, Any], inputs: list[Any]) -> str:
    """Test source that compares the candidate with the benchmark's reference solution on the inputs."""
    reference, name = row["prompt"] + row["canonical_solution"], row["entry_point"]
    presence = presence_counts(dataset, name)
    candidate = "_plum_presence" if presence else name
    return (f"{source('call_clock', 'evalplus_judge')}\ninf, nan = float('inf'), float('nan')\n"
            f"_plum_judge({candidate}, {name!r}, {reference!r}, {inputs!r}, {row['atol']!r}, {dataset!r}, {presence})\n")
