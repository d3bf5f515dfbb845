"""What evalplus brings: its data, and its way to compare."""

from __future__ import annotations

import io
import os
import socket
from contextlib import redirect_stdout
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from plum_utils.data.judges import source
from plum_utils.jsonl import read_jsonl

OVERRIDES = {"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}
CACHED = {"humaneval": "HumanEvalPlus-v0.1.10.jsonl", "mbpp": "MbppPlus-v0.2.0.jsonl"}  # by evalplus, in its own folder
COLUMNS = {"humaneval": "HumanEval+", "mbpp": "MBPP and MBPP+"}
SILENCE = 15.0  # seconds without a byte, after which the network counts as out of reach


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
    import appdirs  # evalplus' own way to its folder; to import evalplus takes seconds

    path = Path(appdirs.user_cache_dir("evalplus")) / CACHED[suite]
    return path if path.exists() else None


def fetch(suite: str) -> str:
    """Let evalplus download its data into its cache, where it is neither there nor named by the override variable.

    Returns:
        Why it is not there now; empty where it is.
    """
    try:
        return "" if evalplus_path(suite) else _download(suite)
    except SuiteUnavailable as error:
        return str(error)


@cache  # what could not be had once is not asked for again in this process
def _download(suite: str) -> str:
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return "HF_HUB_OFFLINE is set, so that nothing is fetched"
    from evalplus.data import get_human_eval_plus, get_mbpp_plus

    print(f"{COLUMNS[suite]}: fetching evalplus' data from GitHub, once", flush=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)  # evalplus' downloader sets none
    try:
        with redirect_stdout(io.StringIO()):  # its bar
            {"humaneval": get_human_eval_plus, "mbpp": get_mbpp_plus}[suite]()
    except Exception as error:  # the network's, a proxy's page in place of the file, the disk's
        return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    finally:
        socket.setdefaulttimeout(before)
    return ""


def how_to_bring(suite: str) -> str:
    """What is missing without evalplus' data of a suite, and how to get it."""
    return (f"{suite}: evalplus' data is not here, so {COLUMNS[suite]} cannot be measured. `python -m plum_utils run` "
            f"fetches it where GitHub is reachable; else set {OVERRIDES[suite]} to {CACHED[suite]}(.gz), brought from "
            "elsewhere")


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
