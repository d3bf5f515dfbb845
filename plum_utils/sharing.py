"""Stages that a run need not repeat because another run made them from the same parameters, inputs, notebook and code:
the tests of 01 once a data set, a policy's samples once, the untrained policy's evaluation once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Iterable

from plum_utils.runs import Run


def take(run: Run, stage: str, wanted: dict[str, str], others: Iterable[Run]) -> str | None:
    """Take a finished stage with the fingerprint ``wanted`` over from the first run that has it.

    Returns:
        The other run's name, kept in the manifest as ``taken_from``; ``None`` when nobody has the stage.
    """
    for other in others:
        entry = other.manifest()["stages"].get(stage, {})
        if entry.get("status") == "done" and entry["fingerprint"] == wanted and other.damaged(entry) is None:
            take_over(run, stage, other)
            return other.path.name
    return None


def take_over(run: Run, stage: str, other: Run) -> None:
    """Put another run's finished stage in the place of this run's, as hard links.

    Links are safe here, for whatever is written anew replaces its file instead of writing into it.
    """
    entry = other.manifest()["stages"][stage]
    shutil.rmtree(run.path / stage, ignore_errors=True)
    made = [path for path in (other.path / stage).rglob("*") if path.is_file()]
    shown = [other.path / name for name in entry["outputs"] if not name.startswith(f"{stage}/")]
    for path in [*made, *shown]:
        _link(path, run.path / path.relative_to(other.path))
    run.update_stage(stage, entry | {"taken_from": entry.get("taken_from", other.path.name)})


def lend_baseline(run: Run, stage: str, policy: dict[str, Any], others: Iterable[Run]) -> None:
    """Link what other runs of the same policy generated and judged with it untrained; each shard's own mark decides
    later whether it is of use."""
    for other in others:
        entry = other.manifest()["stages"].get(stage, {})
        if entry.get("params", {}).get("policy") == policy:
            for path in (other.path / stage).glob("*/*baseline.jsonl"):
                _link(path, run.path / path.relative_to(other.path), replace=False)


def _link(path: Path, target: Path, replace: bool = True) -> None:
    if target.exists() and not replace:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(path, target)
