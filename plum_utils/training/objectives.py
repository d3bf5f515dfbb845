"""Which rows each objective gets."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from plum_utils.data.instructions import split_instructions
from plum_utils.data.selection import training_instructions
from plum_utils.models.prompts import answer_end, policy_prompt
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.models.weights import resolve_model
from plum_utils.params import Params, TrainingParams


def gold_rows(p: Params) -> list[dict[str, Any]]:
    """SFT rows of the data set's own solutions under the policy's prompt, the token that ends a turn after each (paper, section 3:
    SFT relies on gold solutions, PLUM never sees them).

    Raises:
        ValueError: the data set has no solutions.
    """
    tokenizer = load_tokenizer(resolve_model(p.policy.model, p.policy.revision))
    end = answer_end(tokenizer, p.policy.prompt)
    rows = [{"instruction_id": item.instruction_id,
             "prompt": [{"role": "user", "content": policy_prompt(p, tokenizer, item.instruction)}],
             "completion": [{"role": "assistant", "content": item.solution + end}]}
            for item in training_instructions(p) if item.solution]
    if not rows:
        raise ValueError(f"training.sft_solutions: {p.data.train!r} brings no solutions of its own; use chosen, or a "
                         "data set that has them")
    return rows


def cap_per_side(rows: list[dict[str, Any]], max_per_side: int | None, seed: int) -> list[dict[str, Any]]:
    """At most ``max_per_side`` rows of each label per instruction (of each instruction, where rows have no label),
    drawn with a seed; order kept."""
    if max_per_side is None:
        return rows
    places: dict[tuple, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row["instruction_id"], row.get("label")].append(place)
    rng = random.Random(seed)
    kept = {place for group in places.values() for place in rng.sample(group, min(len(group), max_per_side))}
    return [row for place, row in enumerate(rows) if place in kept]


def training_sets(sets: dict[str, list[dict[str, Any]]], training: TrainingParams, seed: int
                  ) -> dict[str, list[dict[str, Any]]]:
    """What each objective trains on: the sets of stage 3 by the settings of section 4, capped by ``max_per_side``.

    Preference learning gets ``preference_fraction`` of the instructions; SFT gets the same ones, or (``unseen``) the
    rest, so that preference learning meets instructions that SFT has not seen.

    Args:
        sets: rows with ``instruction_id`` by objective (``kto``, ``dpo``, ``sft``).
    """
    ids = [row["instruction_id"] for rows in sets.values() for row in rows]
    preferred, rest = map(set, split_instructions(ids, 1 - training.preference_fraction, seed))
    mine = {name: rest if name == "sft" and training.sft_instructions == "unseen" else preferred for name in sets}
    return {name: cap_per_side([row for row in rows if row["instruction_id"] in mine[name]], training.max_per_side, seed)
            for name, rows in sets.items()}
