"""The rows of a training, in the order that keeps KTO's KL rule, and KTO's weights."""

from __future__ import annotations

import math
import random
from typing import Any


def kto_weights(n_desirable: int, n_undesirable: int, ratio: float = 1.0) -> tuple[float, float]:
    """Class weights with ``(w_d * n_d) / (w_u * n_u) == ratio``, the smaller weight being 1.

    Source: KTO paper (Ethayarajh et al. 2024), section 4.2, Eq. 8: the ratio should lie in [1, 4/3].

    Raises:
        ValueError: one side is empty.
    """
    if not n_desirable or not n_undesirable:
        raise ValueError(f"KTO needs both labels; got {n_desirable} desirable and {n_undesirable} undesirable samples. "
                         "Sample more (sampling.k) or take easier instructions.")
    desirable = ratio * n_undesirable / n_desirable
    return (desirable, 1.0) if desirable >= 1 else (1.0, 1 / desirable)


def order_for_kl(rows: list[dict[str, Any]], batch_size: int, seed: int, length_grouped: bool = True
                 ) -> list[dict[str, Any]]:
    """Rows in batches of ``batch_size`` different instructions, of like length, with both labels in each.

    TRL pairs each prompt with the completion of its left neighbour in the same per-device batch (the first with the
    last). Were both of one instruction, the "mismatched" pair would be a matched one and the KL estimate wrong. Rows
    go, by length rank within their label (by chance, where not ``length_grouped``), into the first batch that holds no
    row of their instruction; what is left in unfilled batches is dropped, and the caller can count it.

    Returns:
        Rows in training order, batches shuffled; its length is a multiple of ``batch_size``.
    """
    rng = random.Random(seed)
    ranked = _by_length_rank(rows, rng) if length_grouped else rng.sample(rows, len(rows))
    full: list[list[dict[str, Any]]] = []
    filling: list[dict[Any, dict[str, Any]]] = []
    for row in ranked:
        batch = next((one for one in filling if row["instruction_id"] not in one), None)
        if batch is None:
            batch = {}
            filling.append(batch)
        batch[row["instruction_id"]] = row
        if len(batch) == batch_size:
            filling.remove(batch)
            full.append(rng.sample(list(batch.values()), batch_size))
    rng.shuffle(full)
    return [row for batch in full for row in batch]


def _by_length_rank(rows: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    ranks = []
    for label in (True, False):
        group = [row for row in rows if row["label"] is label]
        group.sort(key=lambda row: len(row["prompt"][0]["content"]) + len(row["completion"][0]["content"]))
        ranks += [((place + rng.random()) / len(group), place, row) for place, row in enumerate(group)]
    return [row for *_, row in sorted(ranks, key=lambda item: item[:2])]


def repeat_epochs(rows: list[dict[str, Any]], epochs: float, batch_size: int, seed: int, length_grouped: bool = True
                  ) -> list[dict[str, Any]]:
    """``epochs`` passes over the rows, each in its own order, as one list; a last fraction is a part of a pass."""
    ordered: list[dict[str, Any]] = []
    for epoch in range(math.ceil(epochs)):
        one = order_for_kl(rows, batch_size, seed * 1009 + epoch, length_grouped)
        share = min(1.0, epochs - epoch)
        ordered += one[: max(1, round(len(one) * share / batch_size)) * batch_size]
    return ordered


def trainable_rows(tokenizer: Any, rows: list[dict[str, Any]], max_length: int
                   ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows that train as they were sampled, and those that cannot: (kept, dropped).

    Dropped are rows that do not fit ``max_length`` whole, with both sides of a pair (TRL cuts off their ends, the end token
    among them, or drops them after the batches are laid out, and every later KL pair would shift), and rows in which the
    prompt's last token merges with the completion's first, so that their context would not be the one sampled from.
    """
    def fits(row: dict[str, Any]) -> bool:
        prompt = row["prompt"][0]["content"]
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answers = [row[side][0]["content"] for side in ("completion", "chosen", "rejected") if side in row]
        wholes = [tokenizer(prompt + answer, add_special_tokens=False)["input_ids"] for answer in answers]
        return all(len(whole) <= max_length and whole[:len(ids)] == ids for whole in wholes)

    kept = [fits(row) for row in rows]
    return [row for row, keep in zip(rows, kept) if keep], [row for row, keep in zip(rows, kept) if not keep]
