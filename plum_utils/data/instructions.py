"""Instruction sets: bundled ones and local JSON Lines files, in one schema."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plum_utils.jsonl import read_jsonl

RECORDED = {
    "basics_train": ("basics_train",),
    "intermediate_train": ("intermediate_train",),
    "oss": ("oss_a", "oss_b", "oss_c"),
    "evol": ("evol",),
    "sharegpt": ("sharegpt",),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction with the generator responses recorded for it (none when a live generator is to write them).

    ``solution`` is the data set's own gold answer, where it has one: for the comparison with SFT, never for PLUM.
    """

    instruction_id: str
    source: str
    instruction: str
    responses: tuple[str, ...] = field(default=(), repr=False)
    solution: str = field(default="", repr=False)


def load_instructions(name: str, limit: int | None = None) -> list[Instruction]:
    """A bundled set by name, or a JSONL file with ``id``, ``instruction`` and, optional, ``source``, ``responses`` and
    ``solution``.

    Args:
        name: one of ``RECORDED``, or a path.
        limit: at most that many, from the start (files are in a fixed order).

    Raises:
        ValueError: unknown name, or two instructions with one id.
        JsonlError: a broken line or a value of the wrong type, with file and line number.
    """
    if name in RECORDED:
        paths = [Path(__file__).with_name("recorded") / f"{part}.jsonl" for part in RECORDED[name]]
    elif Path(name).is_file():
        paths = [Path(name)]
    else:
        raise ValueError(f"data: unknown instruction set {name!r}; one of {', '.join(RECORDED)}, as data.train also "
                         "one of data/hub.py's HUB_SETS, or a JSONL file")
    rows = [row for path in paths for row in read_jsonl(path, ("id", "instruction"), _fault)]
    instructions = [Instruction(row["id"], row.get("source", name), row["instruction"], tuple(row.get("responses", ())),
                                row.get("solution", ""))
                    for row in rows[:limit]]
    if len({item.instruction_id for item in instructions}) != len(instructions):
        raise ValueError(f"{name}: two instructions share an id; make ids unique")
    return instructions


def _fault(row: dict[str, Any]) -> str:
    for key in ("id", "instruction", "source", "solution"):
        if not isinstance(row.get(key, ""), str):
            return f"{key}: expected text, got {type(row[key]).__name__}"
    if not row["instruction"].strip():
        return "instruction: empty; delete this line"
    responses = row.get("responses", [])
    if not isinstance(responses, list) or not all(isinstance(text, str) for text in responses):
        return "responses: expected a list of texts, one a response"
    return ""


def split_instructions(instruction_ids: list[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """A seeded split into training and validation instructions; no instruction is on both sides."""
    ids = sorted(set(instruction_ids))
    random.Random(seed).shuffle(ids)
    n_validation = round(len(ids) * fraction)
    return sorted(ids[n_validation:]), sorted(ids[:n_validation])
