"""What a run trains on, and how it was chosen."""

from __future__ import annotations

import os
import random
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from plum_utils.data.evalplus import OVERRIDES
from plum_utils.data.hub import HUB_SETS, LeftOut, hub_rows, local_files, to_instruction
from plum_utils.data.instructions import Instruction, load_instructions
from plum_utils.data.overlaps import find_overlaps, load_benchmarks
from plum_utils.params import DataParams, LiveCodeBenchParams, Params

Steps = list[tuple[str, int | None]]  # what was done, and how many instructions (or rows) it was


def training_instructions(p: Params) -> list[Instruction]:
    """The instructions of ``p.data``: a bundled set or a file in its order, or the seeded draw from a hub set.

    Of a hub set a smaller ``train_limit`` draws the beginning of what a larger one draws; the order of the rows in its
    files plays no part. With ``decontaminate``, what overlaps with a benchmark is dropped first.

    Raises:
        HubUnavailable: a hub set that cannot be read.
        ValueError: an unknown set, ``data.source`` for a set that is not on the hub, or nothing left to train on.
    """
    return list(_selected(p)[0])


def selection_table(p: Params) -> pd.DataFrame:
    """How the instructions were selected: columns ``step`` and ``instructions``, those left out by reason.

    A benchmark that could not be checked for overlaps has a row that says so, without a number.
    """
    return pd.DataFrame(_selected(p)[1], columns=["step", "instructions"]).astype({"instructions": "Int64"})


def _selected(p: Params) -> tuple[list[Instruction], Steps]:
    if p.data.source is not None and p.data.train not in HUB_SETS:
        raise ValueError(f"data.source: expected a hub set beside it ({', '.join(HUB_SETS)}), got data.train "
                         f"{p.data.train!r}; leave data.source out")
    return _selection(p.data.model_dump_json(), p.livecodebench.model_dump_json(), p.seed, _stamps(p.data))


def _stamps(data: DataParams) -> tuple[Any, ...]:
    """What else a selection depends on: the local files as they are now, and where MBPP is."""
    paths = local_files(data.train, data.source) if data.train in HUB_SETS else [Path(data.train)]
    states = [path.stat() for path in paths if path.is_file()]
    return os.environ.get(OVERRIDES["mbpp"]), *((state.st_mtime_ns, state.st_size) for state in states)


@lru_cache(maxsize=4)
def _selection(data_json: str, livecodebench_json: str, seed: int, stamps: tuple[Any, ...]
               ) -> tuple[list[Instruction], Steps]:
    data = DataParams.model_validate_json(data_json)
    on_hub = data.train in HUB_SETS
    items, steps = _filtered(data) if on_hub else _as_they_are(data.train)
    if data.decontaminate:
        items, more = _decontaminated(items, data.ngram, LiveCodeBenchParams.model_validate_json(livecodebench_json))
        steps += more
    if not items:
        raise ValueError(f"data.train {data.train!r}: no instruction is left: " +
                         "; ".join(f"{step}: {count}" for step, count in steps))
    if on_hub:
        items = random.Random(seed).sample(items, len(items))
    items = items[:data.train_limit]
    return items, [*steps, (f"drawn with seed {seed}" if on_hub else "taken from the start", len(items))]


def _as_they_are(name: str) -> tuple[list[Instruction], Steps]:
    items = load_instructions(name)
    return items, [(f"instructions of {name}", len(items))]


def _filtered(data: DataParams) -> tuple[list[Instruction], Steps]:
    """The Python instructions of a hub set, sorted by id, each once; and how many rows were left out, why."""
    kept: dict[str, Instruction] = {}
    reasons: Counter[str] = Counter()
    rows = 0
    for rows, row in enumerate(hub_rows(data.train, data.source, data.revision), 1):
        try:
            item = to_instruction(data.train, row)
        except LeftOut as reason:
            reasons[str(reason)] += 1
            continue
        reasons["the same as another one"] += item.instruction_id in kept
        same = (kept.get(item.instruction_id, item), item)  # which one stays must not depend on the files' order
        kept[item.instruction_id] = min(same, key=lambda one: (one.instruction, one.solution))
    left_out = [(f"left out: {reason}", count) for reason, count in sorted(reasons.items()) if count]
    return ([kept[key] for key in sorted(kept)],
            [(f"rows of {HUB_SETS[data.train].repo}", rows), *left_out, ("Python instructions", len(kept))])


def _decontaminated(items: list[Instruction], n: int, where: LiveCodeBenchParams) -> tuple[list[Instruction], Steps]:
    benchmarks = load_benchmarks(where)
    overlaps = find_overlaps(items, benchmarks, n)
    found, by_ngram = set(overlaps.instruction_id), set(overlaps[overlaps.rule == "ngram"].instruction_id)
    clean = [item for item in items if item.instruction_id not in found]
    return clean, [(f"left out: shares {n} words in a row with a benchmark", len(by_ngram)),
                   ("left out: asks for a benchmark's function, by name", len(found - by_ngram)),
                   *((f"NOT CHECKED against {one.unchecked}", None) for one in benchmarks if one.unchecked),
                   ("without overlaps", len(clean))]
