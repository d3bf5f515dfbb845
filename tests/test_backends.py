"""Both backends keep one protocol: n completions a prompt in order, the same for the same call, stopped where asked."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field

import pytest

from plum_utils import backends
from plum_utils.backends import Completion, Metered, open_backend, vllm_lora_rank

PROMPTS = ["<|im_start|>user\nSay hello in one word.<|im_end|>\n<|im_start|>assistant\n",
           "<|im_start|>user\nCount from 1 to 9 with commas.<|im_end|>\n<|im_start|>assistant\n"]


@dataclass
class Canned:
    """A backend that answers with the prompt and the number of the completion."""

    name: str = "canned"
    closed: bool = False
    asked: list = field(default_factory=list)

    def generate(self, prompts, n=1, **how):
        self.asked.append((prompts, n, how))
        return [[Completion(f"{prompt} {index}", "stop", 3) for index in range(n)] for prompt in prompts]

    def close(self):
        self.closed = True


def test_a_meter_counts_what_passes_through_and_changes_nothing():
    inner = Canned()
    meter = Metered(inner)
    assert meter.name == "canned" and math.isnan(meter.tokens_per_second)
    outputs = meter.generate(["a", "b"], n=2, temperature=0.5, seed=1)
    assert outputs == Canned().generate(["a", "b"], n=2)
    assert inner.asked == [(["a", "b"], 2, {"temperature": 0.5, "seed": 1})]
    assert (meter.calls, meter.tokens) == (1, 12) and meter.tokens_per_second == meter.tokens / meter.seconds > 0
    meter.close()
    assert inner.closed


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown 'llama.cpp'; one of auto, vllm, transformers"):
        open_backend("llama.cpp", "nowhere")


@pytest.mark.parametrize(("installed", "kind"), [(True, "VllmBackend"), (False, "TransformersBackend")])
def test_auto_takes_vllm_where_it_is_installed(monkeypatch, installed, kind):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: object() if installed else None)
    for name in ("VllmBackend", "TransformersBackend"):
        monkeypatch.setattr(backends, name, lambda *_, name=name: name)
    assert open_backend("auto", "nowhere") == kind


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (4, 8), (8, 8), (9, 16), (16, 16), (300, 320)])
def test_vllm_gets_a_lora_rank_that_it_knows(asked, taken):
    assert vllm_lora_rank(asked) == taken


def test_a_lora_rank_beyond_vllms_says_so():
    with pytest.raises(ValueError, match="training.lora_r: vLLM takes adapters of rank 512 at most, got 513"):
        vllm_lora_rank(513)


@pytest.fixture(scope="module")
def model_path():
    from plum_utils.models import embedded_model

    return str(embedded_model())


@pytest.fixture(scope="module")
def adapter(model_path, tmp_path_factory):
    """A LoRA adapter that changes the model for good: its weights are drawn, not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    model.save_pretrained(folder)
    return str(folder)


def vllm_or_skip():
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed; open_backend falls back to transformers")


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def backend(request, model_path):
    if request.param == "vllm":
        vllm_or_skip()
    opened = open_backend(request.param, model_path, lora_rank=4)
    yield opened
    opened.close()


@pytest.mark.slow
def test_the_same_call_gives_the_same_completions(backend):
    how = dict(n=3, temperature=1.0, max_tokens=12, seed=5)
    first = backend.generate(PROMPTS, **how)
    assert [len(outs) for outs in first] == [3, 3] and len({out.text for out in first[0] + first[1]}) > 1
    assert backend.generate(PROMPTS, **how) == first
    assert backend.generate(PROMPTS, **how | {"seed": 6}) != first


@pytest.mark.slow
def test_greedy_has_one_outcome_whatever_n_and_seed(backend):
    one = backend.generate(PROMPTS, n=1, max_tokens=8, seed=0)
    three = backend.generate(PROMPTS, n=3, max_tokens=8, seed=9)
    assert three == [outs * 3 for outs in one]


@pytest.mark.slow
def test_stop_strings_are_kept_and_end_the_text(backend):
    free, = backend.generate(PROMPTS[1:], max_tokens=16)[0]
    mark = free.text[4:6]
    stopped, = backend.generate(PROMPTS[1:], max_tokens=16, stop=[mark])[0]
    assert stopped.text == free.text[:free.text.index(mark) + 2]
    assert stopped.finish_reason == "stop" and 0 < stopped.n_tokens < free.n_tokens


@pytest.mark.slow
def test_the_token_limit_is_told_apart_from_an_end(backend):
    cut, = backend.generate(PROMPTS[1:], max_tokens=2)[0]
    assert (cut.finish_reason, cut.n_tokens) == ("length", 2)
    ended, = backend.generate(PROMPTS[:1], max_tokens=64)[0]
    assert ended.finish_reason == "stop" and ended.n_tokens < 64 and "<|im_end|>" not in ended.text


@pytest.mark.slow
def test_an_adapter_is_used_only_when_asked_for(backend, adapter):
    how = dict(max_tokens=8)
    base = backend.generate(PROMPTS, **how)
    adapted = backend.generate(PROMPTS, **how, adapter=adapter)
    assert adapted != base
    assert backend.generate(PROMPTS, **how) == base
    assert backend.generate(PROMPTS, **how, adapter=adapter) == adapted
