"""Hours and dollars of a run from its rates."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from benchmarks.costs import DECODE_SHARE, MFU, Rates, Workload, computed_rates, stage_times
from benchmarks.flops import DEVICES, decode_tokens_per_second
from plum_utils.training.flops import kto_flops

WORK = Workload(samples=3600, prompt_tokens=100, completion_tokens=50, labelled=1800, seeds=2, epochs=1.5)


def test_each_stage_takes_what_its_amount_and_rate_say():
    rates = Rates("box", sampled_tokens=100, labelled_samples=10, trained_samples=1.5, source="here", dollars_an_hour=2)
    table = stage_times(WORK, rates).set_index("stage")
    assert table.hours.to_dict() == pytest.approx({"02 sampling": 0.5, "03 labelling": 0.1, "04 training": 1.0,
                                                   "together": 1.6})
    assert table.dollars["together"] == pytest.approx(3.2)


def test_evaluation_is_sampled_at_the_same_rate():
    rates = Rates("box", 100, 10, 1.5, "here")
    work = Workload(samples=3600, prompt_tokens=100, completion_tokens=50, labelled=1800, evaluation_tokens=360_000)
    table = stage_times(work, rates).set_index("stage")
    assert table.hours["05, 06 evaluation"] == pytest.approx(1.0) and table.dollars["together"] == 0


def test_computed_rates_say_that_they_are_and_follow_the_data_sheet():
    config = AutoConfig.for_model("llama", hidden_size=2048, intermediate_size=5632, num_hidden_layers=4,
                                  num_attention_heads=32, num_key_value_heads=4, vocab_size=32000)
    card = DEVICES["A100 80GB"]
    rates = computed_rates(config, card, WORK, 200.0)
    assert rates.source.startswith("computed") and rates.labelled_samples == 200
    assert rates.trained_samples * kto_flops(config, 100, 50) == pytest.approx(MFU * card.tflops * 1e12)
    assert rates.sampled_tokens == pytest.approx(DECODE_SHARE * decode_tokens_per_second(config, card, 150))
