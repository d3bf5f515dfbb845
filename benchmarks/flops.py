"""Floating-point operations of a policy and of a KTO step, and the rates that a device could reach at best.

A matrix product of an (m, k) by a (k, n) matrix is 2*m*k*n operations. Recomputation (gradient checkpointing) and
4-bit weights' unpacking are no model FLOPs: they lower the utilisation (PaLM, Chowdhery et al. 2022, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM


@dataclass(frozen=True)
class Device:
    """A GPU as its vendor's data sheet has it: memory in GB, dense bfloat16 TFLOP/s, memory bandwidth in GB/s."""

    name: str
    memory_gb: float
    tflops: float
    bandwidth: float


DEVICES = {one.name: one for one in (Device("RTX 4090", 24, 165, 1008), Device("A10G", 24, 70, 600),
                                     Device("L40S", 48, 362, 864), Device("A100 80GB", 80, 312, 2039),
                                     Device("H100 80GB", 80, 989, 3350), Device("H200", 141, 989, 4800))}


def linear_weights(config: Any) -> tuple[int, int]:
    """Weights of all linear layers but the head, and of the head: counted on the model itself, without memory."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    layers = sum(module.weight.numel() for module in model.modules()
                 if isinstance(module, torch.nn.Linear) and module is not head)
    return layers, head.weight.numel()


def forward_flops(config: Any, prompt: int, completion: int) -> float:
    """Operations of a forward pass over one sequence; the head scores the completion only.

    Args:
        prompt, completion: tokens. Attention is causal: token i meets i + 1 keys.
    """
    layers, head = linear_weights(config)
    length = prompt + completion
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * size * length * (length + 1)
    return 2 * layers * length + 2 * head * completion + attention


def kto_flops(config: Any, prompt: int, completion: int, reference_passes: int = 2) -> float:
    """Operations that one KTO sample needs with LoRA: three forward passes' worth for the policy (matched pair, KL pair,
    and the backward pass, which needs gradients of activations alone), and ``reference_passes`` more.

    The adapters' own products (about 1% at rank 16) are left out.
    """
    return (3 + reference_passes) * forward_flops(config, prompt, completion)


def decode_tokens_per_second(config: Any, device: Device, length: int, weight_bytes: float = 2.0) -> float:
    """Most tokens a second that a device can sample, by its memory's bandwidth: each step reads all weights once and
    every sequence's keys and values, of which as many sequences as fit are at work.

    Args:
        length: mean tokens of a sequence while it is sampled, prompt included.
        weight_bytes: of a weight; 2 for bfloat16.
    """
    layers, head = linear_weights(config)
    weights = weight_bytes * (layers + head)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * size * length
    batch = min(256, (0.9e9 * device.memory_gb - weights) / cache)  # vLLM's own limit of sequences is 256
    if batch < 1:
        return 0.0
    return batch / ((weights + batch * cache) / (1e9 * device.bandwidth))
