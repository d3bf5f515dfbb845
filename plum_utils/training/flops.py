"""Floating-point operations of a policy, of a KTO step, and of a trained token.

A matrix product of an (m, k) by a (k, n) matrix is 2*m*k*n operations. Recomputation (gradient checkpointing) and
4-bit weights' unpacking are no model FLOPs: they lower the utilisation (PaLM, Chowdhery et al. 2022, appendix B).
"""

from __future__ import annotations

from typing import Any

from plum_utils.params import TrainingParams

# Forward passes' worth of a token that a step trains on, with LoRA, whose backward pass computes gradients of activations
# alone: forward, backward, and the reference's; KTO has the KL pair besides, forward alone, for policy and reference.
PASSES = {"kto": 5, "dpo": 3, "sft": 2}


def linear_weights(config: Any) -> tuple[int, int]:
    """Weights of all linear layers but the head, and of the head: counted on the model itself, without memory."""
    import torch  # which the forecast, for ``PASSES``, does without
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    layers = sum(module.weight.numel() for module in model.modules()
                 if isinstance(module, torch.nn.Linear) and module is not head)
    return layers, head.weight.numel()


def attention_flops(config: Any, length: float) -> float:
    """Operations of attention itself in a forward pass over a sequence. It is causal: token i meets i + 1 keys."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_attention_heads * size * length * (length + 1)


def forward_flops(config: Any, prompt: int, completion: int) -> float:
    """Operations of a forward pass over one sequence; the head scores the completion only.

    Args:
        prompt, completion: tokens.
    """
    layers, head = linear_weights(config)
    length = prompt + completion
    return 2 * layers * length + 2 * head * completion + attention_flops(config, length)


def kto_flops(config: Any, prompt: int, completion: int, reference_passes: int = 2) -> float:
    """Operations that one KTO sample needs with LoRA: three forward passes' worth for the policy (matched pair, KL pair,
    and the backward pass, which needs gradients of activations alone), and ``reference_passes`` more.

    The adapters' own products (about 1% at rank 16) are left out.
    """
    return (3 + reference_passes) * forward_flops(config, prompt, completion)


def passes(phase: str, training: TrainingParams) -> int:
    """Forward passes' worth of a token that a step of this phase trains on."""
    ahead = 2 if phase == "kto" and training.precompute_reference else 0
    return PASSES[phase] - ahead + (training.lora_r is None)  # the backward pass of trained weights is worth two
