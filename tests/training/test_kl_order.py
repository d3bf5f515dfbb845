"""KTO's class weights, and the order of rows that keeps its KL rule."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llama import kto_rows, kto_trainer, params, row

from plum_utils.training import kl_order
from plum_utils.training.trainers import reference_points


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(1, 4 / 3))
def test_weights_keep_the_papers_interval_and_the_smaller_one_is_one(desirable, undesirable, ratio):
    good, bad = kl_order.kto_weights(desirable, undesirable, ratio)
    assert good * desirable / (bad * undesirable) == pytest.approx(ratio)
    assert min(good, bad) == 1


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0)])
def test_one_label_alone_is_an_error_that_says_what_to_do(counts):
    with pytest.raises(ValueError, match="both labels.*sampling.k"):
        kl_order.kto_weights(*counts)


label_lists = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.booleans()), max_size=60)


@given(label_lists, st.integers(2, 8), st.integers(0, 5))
def test_no_batch_holds_an_instruction_twice(items, size, seed):
    rows = [row(one, "x" * length + str(place), label) for place, (one, length, label) in enumerate(items)]
    ordered = kl_order.order_for_kl(rows, size, seed)
    assert len(ordered) % size == 0
    for start in range(0, len(ordered), size):
        batch = ordered[start:start + size]
        assert len({one["instruction_id"] for one in batch}) == size
    text = Counter(one["completion"][0]["content"] for one in rows)
    assert not Counter(one["completion"][0]["content"] for one in ordered) - text  # no row twice, none invented
    assert ordered == kl_order.order_for_kl(rows, size, seed)


@settings(max_examples=25)
@given(st.integers(8, 40), st.integers(4, 8))
def test_order_loses_less_than_a_batch_when_every_instruction_gives_one_row(instructions, size):
    rows = [row(one, "x", bool(one % 2)) for one in range(instructions)]
    assert len(kl_order.order_for_kl(rows, size, 0)) == instructions // size * size


def test_epochs_are_whole_passes_in_different_orders_and_a_part_of_one():
    rows = kto_rows(8)
    ordered = kl_order.repeat_epochs(rows, 2.5, 4, seed=1)
    assert len(ordered) == 80
    assert Counter(map(json.dumps, ordered[:32])) == Counter(map(json.dumps, rows))
    assert Counter(map(json.dumps, ordered[32:64])) == Counter(map(json.dumps, rows)) and ordered[:32] != ordered[32:64]


def test_reference_points_are_trls_own_and_depend_on_what_shares_a_batch(tiny, tmp_path):
    rows = [row(one, "x" * (1 + 9 * (one // 4)), bool(one % 2)) for one in range(16)]
    found = {}
    for grouped in (True, False):
        trainer = kto_trainer(tiny, tmp_path / str(grouped), rows, params(length_grouped=grouped))
        assert reference_points(trainer) == pytest.approx([0.0] * 4, abs=1e-5)  # the policy is the reference
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.3)
        found[grouped] = reference_points(trainer)
        for batch in trainer.get_train_dataloader():
            with torch.no_grad():
                trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
        assert found[grouped] == pytest.approx(trainer._metrics["train"]["kl"], abs=1e-4)
    assert max(found[True]) > 0 and sorted(found[True]) != pytest.approx(sorted(found[False]), rel=0.1)
