"""What makes a training step faster without changing its loss; each switch of ``TrainingParams`` that is not TRL's own.

docs/speed.md has what each is worth, measured side by side (``benchmarks/training_speed.py``).
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch.nn.functional import linear

from plum_utils.params import TrainingParams

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def prepare_process(params: TrainingParams) -> None:
    """Set what holds for the whole process, before a model is loaded."""
    if params.reuse_memory:
        keep_freed_memory()
    score_completions_only(params.score_completions_only)


def prepare_model(model: Any, params: TrainingParams) -> None:
    """Set what holds for one model, once TRL's trainer has put its adapter on."""
    if params.adapters_in_model_dtype:
        compute_adapters_in_model_dtype(model)
    if params.compile:
        compile_layers(model)


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of giving each back to the system.

    Training on the CPU frees and asks for hundreds of megabytes at every step, and the page faults of doing so took
    40% of a KTO step. No effect on other C libraries.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def score_completions_only(on: bool = True) -> None:
    """Let TRL multiply only completion positions with the output matrix on the CPU, as it does on a GPU.

    TRL 1.16 scores prompts and padding too wherever it has no Triton, to keep shapes fixed for compilers that are not
    used here; that was a quarter of a KTO step. The log-probabilities are the same.
    """
    import trl.trainer.utils as trl_utils
    from trl.kernels.chunked_logprob import _use_triton

    trl_utils._use_triton = (lambda device: device.type == "cpu" or _use_triton(device)) if on else _use_triton


class _MasterLinear(torch.nn.Linear):
    """A linear layer with float32 weights that computes in its input's dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight.to(x.dtype))


def compute_adapters_in_model_dtype(model: Any) -> None:
    """Keep LoRA's weights, gradients and optimizer state in float32, but multiply in the model's own dtype.

    PEFT turns the input of each adapted layer into float32 for this product: more memory traffic than the product is
    worth. Autocast would spare it, and cast everything else as well. TRL makes the adapters of a quantised model
    bfloat16 altogether, whose steps of 0.4% swallow Adam's small ones: those get float32 weights again.
    """
    from peft.tuners.lora import LoraLayer

    for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
        layer.cast_input_dtype_enabled = False
        for factor in (*layer.lora_A.values(), *layer.lora_B.values()):
            factor.__class__ = _MasterLinear
            factor.weight.data = factor.weight.data.float()


def compile_layers(model: Any) -> None:
    """Compile each decoder layer by ``torch.compile``: alike as they are, they share one compilation. Needs a C++
    compiler on the CPU; pays on long runs only."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(dynamic=True)
