"""Operations counted by formula against operations counted by torch while a real model runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.flops import DEVICES, decode_tokens_per_second
from plum_utils.training.flops import forward_flops, kto_flops, linear_weights

SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 128}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "starcoder2"])
def test_a_forward_pass_has_the_operations_that_torch_counts(architecture):
    config = AutoConfig.for_model(architecture, **SIZES)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(1, 32, dtype=torch.long))
    masked = 2 * 2 * 64 * (32 * 32 - 32 * 33 / 2) * 2  # eager attention multiplies what the causal mask then hides
    assert counter.get_total_flops() == pytest.approx(forward_flops(config, 0, 32) + masked, rel=0.01)  # and rotary angles


def test_the_head_scores_the_completion_only_and_a_kto_step_is_five_passes():
    config = AutoConfig.for_model("llama", **SIZES)
    _, head = linear_weights(config)
    assert forward_flops(config, 0, 32) - forward_flops(config, 24, 8) == 2 * head * 24
    assert kto_flops(config, 24, 8) == 5 * forward_flops(config, 24, 8)
    assert kto_flops(config, 24, 8, reference_passes=0) == 3 * forward_flops(config, 24, 8)


def test_sampling_is_bound_by_the_weights_when_alone_and_by_the_cache_when_many():
    config = AutoConfig.for_model("llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                                  num_attention_heads=32, num_key_value_heads=32, vocab_size=32256)
    card = DEVICES["H100 80GB"]
    short, long = (decode_tokens_per_second(config, card, length) for length in (1, 4000))
    weights = 2 * sum(linear_weights(config))
    assert short == pytest.approx(256 * 3350e9 / weights, rel=0.02)  # 256 sequences for each reading of the weights
    assert long < short / 10
    small = DEVICES["A10G"]
    assert decode_tokens_per_second(config, small, 10**6) == 0  # not one sequence's cache fits beside the weights
