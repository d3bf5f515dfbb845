"""Each switch for speed leaves loss and gradients as they are."""

from __future__ import annotations

import pytest
import torch
import trl.trainer.utils as trl_utils
from peft.tuners.lora import LoraLayer
from tiny_llama import kto_rows, kto_trainer, params

from plum_utils.training import speed


def drifted(trainer) -> None:
    """Move the adapter off zero, so that a mistake in its product shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight += 0.1 * torch.randn_like(weight)


def step(trainer, batch) -> tuple[float, dict, list[torch.Tensor]]:
    """Loss, TRL's metrics and the adapter's gradients of one batch."""
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()} | {"num_tokens": 0}
    return loss.item(), metrics, [one.grad.clone() for one in trainer.model.parameters() if one.grad is not None]


def same(one, other, rtol: float = 1e-4) -> None:
    assert one[0] == pytest.approx(other[0], rel=rtol)
    assert one[1] == pytest.approx(other[1], rel=10 * rtol, abs=1e-4)
    assert len(one[2]) > 0
    for before, after in zip(one[2], other[2], strict=True):
        torch.testing.assert_close(before, after, rtol=10 * rtol, atol=1e-5)


def test_scoring_completions_only_changes_no_loss_and_no_gradient(tiny, tmp_path, monkeypatch):
    trainer = kto_trainer(tiny, tmp_path, kto_rows(), params())
    drifted(trainer)
    batch = next(iter(trainer.get_train_dataloader()))
    seen, scored = [], []
    real = trl_utils._ChunkedLogProbFunction.apply
    monkeypatch.setattr(trl_utils._ChunkedLogProbFunction, "apply",
                        lambda hidden, *rest: scored.append(len(hidden)) or real(hidden, *rest))
    for on in (False, True):
        speed.score_completions_only(on)
        seen.append(step(trainer, batch))
    same(*seen)
    assert scored[4:] == [int(batch["completion_mask"].sum())] * 4 and min(scored[:4]) > scored[4]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_adapters_multiply_in_the_models_dtype_and_keep_float32_weights(quantization, tiny, tmp_path):
    trainer = kto_trainer(tiny, tmp_path, kto_rows(), params(quantization=quantization), "bfloat16")
    layers = [module for module in trainer.model.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 14
    seen = []
    for layer in layers:
        layer.lora_A["default"].register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    drifted(trainer)
    _, _, gradients = step(trainer, next(iter(trainer.get_train_dataloader())))
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    assert {one.dtype for one in gradients} == {torch.float32} and len(gradients) == 2 * len(layers)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_the_loss_is_that_of_pefts_own_product(dtype, rtol, tiny, tmp_path):
    ends = []
    for on in (False, True):
        trainer = kto_trainer(tiny, tmp_path, kto_rows(), params(adapters_in_model_dtype=on), dtype)
        drifted(trainer)
        ends.append(step(trainer, next(iter(trainer.get_train_dataloader())))[:2])
    assert ends[0][0] == pytest.approx(ends[1][0], rel=rtol)
    assert abs(ends[0][1]["logps/chosen"]) > 1
    assert ends[0][1]["logps/chosen"] == pytest.approx(ends[1][1]["logps/chosen"], rel=rtol)


def test_gradient_checkpointing_changes_no_loss_and_no_gradient(tiny, tmp_path):
    seen = []
    for on in (False, True):
        trainer = kto_trainer(tiny, tmp_path, kto_rows(), params(gradient_checkpointing=on))
        drifted(trainer)
        calls = []
        trainer.model.base_model.model.model.layers[0].mlp.register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(1))
        trainer.model.train()
        if on:  # what Trainer.train() does first
            trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
        seen.append(step(trainer, next(iter(trainer.get_train_dataloader()))))
        assert len(calls) == 4 + on  # policy and reference, matched and mismatched; and once more in the backward pass
    same(*seen)
