"""vLLM on a CUDA device: `python -m pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch

from plum_utils.models.completions import release_memory
from plum_utils.models.engines import open_backend
from plum_utils.models.weights import embedded_model
from plum_utils.params import EngineParams

pytestmark = [pytest.mark.gpu, pytest.mark.long("card"),
              pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
PROMPTS = ["<|im_start|>user\nSay hello in one word.<|im_end|>\n<|im_start|>assistant\n",
           "<|im_start|>user\nCount from 1 to 9 with commas.<|im_end|>\n<|im_start|>assistant\n"]


@pytest.fixture(scope="module")
def sampled():
    """Greedy and drawn completions of one engine, and bytes of the card in use before it opened and after it closed."""
    def used():
        release_memory()
        free, total = torch.cuda.mem_get_info()
        return total - free

    torch.zeros(1, device="cuda")
    before = used()
    engine = open_backend("vllm", str(embedded_model()), engine=EngineParams(max_model_len=512))
    try:
        greedy = engine.generate(PROMPTS, max_tokens=12)
        drawn = engine.generate(PROMPTS, n=3, temperature=1.0, max_tokens=12, seed=5)
    finally:
        engine.close()
    return greedy, drawn, before, used()


def test_an_engine_on_the_card_samples_what_was_asked_for(sampled):
    greedy, drawn, *_ = sampled
    assert [len(outs) for outs in greedy + drawn] == [1, 1, 3, 3]
    assert all(0 < out.n_tokens <= 12 and out.text for outs in greedy + drawn for out in outs)
    assert len({out.text for out in drawn[0] + drawn[1]}) > 2


def test_its_greedy_answers_begin_as_those_of_transformers(sampled):
    greedy = sampled[0]
    other = open_backend("transformers", str(embedded_model()))
    for ours, theirs in zip(greedy, other.generate(PROMPTS, max_tokens=12)):
        assert ours[0].text[:4] == theirs[0].text[:4]
    other.close()


def test_a_closed_engine_gives_the_card_back(sampled):
    *_, before, after = sampled
    assert after - before < 2**30  # it had nine tenths of the card
