"""Stage 3: labelled completions -> the sets that TRL's trainers take (paper, section 3).

Prompts are stored rendered, as the single user message of a conversation: training uses ``VERBATIM_TEMPLATE``, which
adds nothing.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any, Iterable, Iterator

import pandas as pd

from plum_utils.preferences.labels import CHOSEN, REJECTED, UNRUNNABLE, pick
from plum_utils.sandbox.splitting import split_plan
from plum_utils.syntax import defines


def _conversation(sample: dict[str, Any]) -> dict[str, Any]:
    return {"instruction_id": sample["instruction_id"], "prompt": [{"role": "user", "content": sample["prompt"]}],
            "completion": [{"role": "assistant", "content": sample["completion"] + sample.get("end", "")}]}


def require_both_sides(frame: pd.DataFrame) -> None:
    """Stop with what to do when there is nothing to prefer.

    Raises:
        ValueError: no sample of the KTO set is chosen, or none is rejected.
    """
    sides = set(frame.loc[frame.used, "label"]) if len(frame) else set()
    if not {CHOSEN, REJECTED} <= sides:
        missing = "fails tests that another passes" if CHOSEN in sides else "passes its tests"
        raise ValueError(f"none of {len(frame)} judged samples {missing}: there is nothing to prefer. Sample more (sampling.k), "
                         "take easier or more instructions (data.train, data.train_limit), or a stronger policy.")


def kto_rows(frame: pd.DataFrame, samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """KTO's singleton feedback: every used sample with its label (``True`` = desirable = chosen).

    Args:
        frame: the labels' table or a part of it, here and below.
        samples: all samples, in the order in which they were labelled.
    """
    for row, sample in pick(frame[frame.used], samples):
        yield _conversation(sample) | {"label": row.label == CHOSEN}


def dpo_rows(frame: pd.DataFrame, samples: Iterable[dict[str, Any]], seed: int = 0) -> Iterator[dict[str, Any]]:
    """DPO's pairs: per instruction as many as its smaller side has, sub-sampled with a seed (section 4.2)."""
    pairs = _pairs(frame, seed)
    wanted = frame.loc[sorted(place for pair in pairs for place in pair)]
    waiting, texts = deque(pairs), {}
    for row, sample in pick(wanted, samples):
        texts[row.Index] = _conversation(sample)
        while waiting and all(place in texts for place in waiting[0]):
            good, bad = (texts.pop(place) for place in waiting.popleft())
            yield {"instruction_id": good["instruction_id"], "prompt": good["prompt"], "chosen": good["completion"],
                   "rejected": bad["completion"]}


def _pairs(frame: pd.DataFrame, seed: int) -> list[tuple[int, int]]:
    """(place of a chosen sample, place of a rejected one of the same instruction)."""
    rng = random.Random(seed)
    pairs: list[tuple[int, int]] = []
    for _, group in frame[frame.used].groupby("instruction_id", sort=False):
        sides = [list(group.index[group.label == label]) for label in (CHOSEN, REJECTED)]
        size = min(map(len, sides))
        pairs += zip(*(rng.sample(side, size) for side in sides))
    return pairs


def sft_rows(frame: pd.DataFrame, samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """SFT on the policy's own chosen solutions: instruction and completion only (Table 5)."""
    for _, sample in pick(frame[frame.used & (frame.label == CHOSEN)], samples):
        yield _conversation(sample)


def unrunnable_rows(frame: pd.DataFrame, samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The Figure 3 ablation: the same chosen solutions, un-runnable ones as the rejected side."""
    solvable = set(frame.loc[frame.used & (frame.label == CHOSEN), "instruction_id"])
    bad = (frame.label == UNRUNNABLE) & ~frame.duplicate & frame.instruction_id.isin(solvable)
    chosen = frame.used & (frame.label == CHOSEN)
    for row, sample in pick(frame[bad | chosen], samples):
        yield _conversation(sample) | {"label": row.label == CHOSEN}


def names_called(suites: dict[str, tuple[str, ...]], references: dict[str, str]) -> dict[str, set[str]]:
    """Of each instruction the names that its tests ask a candidate for: those that they neither define nor import.

    Args:
        references: instruction id -> a solution; where it defines a name that is also Python's own, the tests mean its.
    """
    return {name: {one for suite in tests for one in split_plan(suite, references[name]).names}
            for name, tests in suites.items()}


def defining_rows(frame: pd.DataFrame, samples: Iterable[dict[str, Any]], called: dict[str, set[str]], defining: bool = True
                  ) -> Iterator[dict[str, Any]]:
    """KTO's rows, of the rejected ones those that define all that their tests call, so that the tests refute what they do
    (they fail at content); or (``defining`` false) the others, which would fail whatever they do (at format).

    Args:
        called: of ``names_called``.
    """
    for row, sample in pick(frame[frame.used], samples):
        wanted = called[row.instruction_id]
        if row.label == CHOSEN or all(defines(sample["code"], name) for name in wanted) is defining:
            yield _conversation(sample) | {"label": row.label == CHOSEN}


def validation_rows(ids: Iterable[str], samples: Iterable[dict[str, Any]], suites: dict[str, tuple[str, ...]],
                    references: dict[str, str]) -> list[dict[str, Any]]:
    """The kept-out instructions as a policy in training is asked and judged: ``instruction_id``, ``prompt`` (rendered, as
    it was sampled from), ``tests``, ``reference``; sorted by id."""
    wanted = set(ids)
    prompts = {row["instruction_id"]: row["prompt"] for row in samples if row["instruction_id"] in wanted}
    return [{"instruction_id": name, "prompt": prompt, "tests": list(suites[name]), "reference": references[name]}
            for name, prompt in sorted(prompts.items())]
