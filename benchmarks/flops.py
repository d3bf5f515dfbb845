"""Devices by their data sheets, and the rates that they could reach at best; operations: ``plum_utils.training.flops``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plum_utils.training.flops import linear_weights


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
