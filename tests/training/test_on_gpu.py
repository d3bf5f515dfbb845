"""Training on a CUDA device, beside the CPU's: `python -m pytest -m gpu`. Each takes seconds on a tiny model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tiny_llama import all_rows, kto_rows, kto_trainer, params

from plum_utils.models.completions import release_memory
from plum_utils.training import phases, planner

pytestmark = [pytest.mark.gpu, pytest.mark.long("card"),
              pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def train(tiny, folder, dtype, **changes):
    """A KTO training of two steps: its history and its adapter's tensors."""
    adapter, history = phases.train("kto", tiny, all_rows(), params(max_steps=2, **changes), folder, 3, dtype)
    return history, load_file(adapter / "adapter_model.safetensors")


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_4_bit_weights_train_an_adapter(checkpointing, tiny, tmp_path):
    history, adapter = train(tiny, tmp_path, "auto", quantization="nf4", gradient_checkpointing=checkpointing)
    assert len(history) == 2 and history.loss.notna().all()
    assert any(value.abs().sum() > 0 for name, value in adapter.items() if "lora_B" in name)


def test_a_float16_policy_trains_under_loss_scaling(tiny, tmp_path):
    history, adapter = train(tiny, tmp_path, "float16", quantization="nf4")
    assert history.loss.notna().all() and all(value.isfinite().all() for value in adapter.values())


@pytest.mark.parametrize(("dtype", "changes", "near"), [
    ("float32", {}, 1e-4), ("float32", {"gradient_checkpointing": True}, 1e-4), ("bfloat16", {}, 2e-2),
    ("bfloat16", {"quantization": "nf4"}, 5e-2)], ids=["float32", "checkpointed", "bfloat16", "nf4"])
def test_losses_are_the_cpus(dtype, changes, near, tiny, tmp_path, monkeypatch):
    """KTO's loss of a batch, of a policy that an adapter has moved: the weights are drawn alike on both."""
    losses = {}
    for place in ("cuda", "cpu"):
        with monkeypatch.context() as patch:
            if place == "cpu":
                patch.setattr(torch.cuda, "is_available", lambda: False)
            torch.manual_seed(0)
            trainer = kto_trainer(tiny, tmp_path / place, kto_rows(), params(beta=5.0, **changes), dtype)
            draw = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for name, weight in trainer.model.named_parameters():
                    if "lora_" in name:
                        weight.copy_(torch.randn(weight.shape, generator=draw) * 0.5)
            assert next(trainer.model.parameters()).device.type == place
            batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
            losses[place] = trainer.compute_loss(trainer.model, batch).item()
    assert abs(losses["cpu"] - 0.5) > 0.01, "the adapter moved nothing, so that all losses would be equal"
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=near)


def test_a_training_leaves_no_memory_on_the_card(tiny, tmp_path):
    train(tiny, tmp_path / "first", "auto")  # what CUDA's libraries take stays
    release_memory()
    before = torch.cuda.memory_allocated()
    for seed in range(3):
        train(tiny, tmp_path / str(seed), "auto", quantization="nf4")
    release_memory()
    assert torch.cuda.memory_allocated() <= before + 2**20


def test_the_card_is_found_and_its_size_is_planned_with():
    total = torch.cuda.get_device_properties(0).total_memory
    assert planner.usable_bytes(planner.card_memory()) == pytest.approx(total, rel=1e-6)
