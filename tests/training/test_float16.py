"""The float16 path of a GPU without bfloat16, as far as a CPU can show it: accelerate's loss scaling needs a device."""

from __future__ import annotations

import pytest
import torch
from tiny_llama import kto_rows, kto_trainer, params

from plum_utils.training.trainers import common_arguments


@pytest.mark.parametrize(("dtype", "gpu", "scaled"), [(torch.float16, True, True), (torch.bfloat16, True, False),
                                                      (torch.float16, False, False)])
def test_a_float16_policy_on_a_gpu_is_trained_under_loss_scaling(dtype, gpu, scaled, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert common_arguments(params(), tmp_path, 0, 1e-5, 24, dtype)["fp16"] is scaled


@pytest.mark.parametrize("changes", [{"lora_r": None}, {"quantization": "nf4", "adapters_in_model_dtype": False}])
def test_weights_whose_gradients_cannot_be_scaled_are_refused(changes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="float16 policy is trained under loss scaling, which needs float32 adapters"):
        common_arguments(params(**changes), tmp_path, 0, 1e-5, 24, torch.float16)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_scaled_gradients_are_float32s_and_those_of_a_float32_policy(quantization, tiny, tmp_path):
    """``GradScaler.unscale_`` refuses float16 gradients, and knows no bfloat16 ones on a GPU."""
    grads = {}
    for dtype in ("float16", "float32"):
        trainer = kto_trainer(tiny, tmp_path / dtype, kto_rows(), params(quantization=quantization), dtype)
        loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
        trained = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
        optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grads[dtype] = {name: weight.grad.clone() for name, weight in trained.items() if "lora_B" in name}
        scaler.step(optimizer)
    assert {grad.dtype for grad in grads["float16"].values()} == {torch.float32}
    flat = {dtype: torch.cat([grad.flatten() for grad in found.values()]) for dtype, found in grads.items()}
    assert flat["float32"].norm() > 0 and (flat["float16"] - flat["float32"]).norm() < 0.05 * flat["float32"].norm()
