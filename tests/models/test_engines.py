"""Both backends keep one protocol: n completions a prompt in order, the same for the same call, stopped where asked."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import get_args

import pytest

from plum_utils.models import engines, number_types, transformers_engine, vllm_engine
from plum_utils.models.completions import Completion, Metered
from plum_utils.models.engines import open_backend
from plum_utils.models.vllm_engine import VllmBackend, check_lengths, engine_settings, vllm_lora_rank
from plum_utils.params import EngineParams
from plum_utils.provenance import ROOT

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
        return [[Completion(f"{prompt} {index}", "end_token", 3) for index in range(n)] for prompt in prompts]

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


def test_a_meter_counts_calls_of_several_threads_and_the_time_in_which_any_of_them_runs():
    both = threading.Barrier(2)

    took = []

    class Slow(Canned):
        replicas = 2

        def generate(self, prompts, **how):
            started = time.monotonic()
            both.wait(10)
            time.sleep(0.2)
            took.append(time.monotonic() - started)
            return super().generate(prompts, **how)

    meter = Metered(Slow())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: meter.generate(["a"]), range(4)))
    assert meter.replicas == 2 and Metered(Canned()).replicas == 1
    assert (meter.calls, meter.tokens) == (4, 12)
    assert 0.4 <= meter.seconds < 0.75 * sum(took)  # two pairs of calls, one after the other
    idle = meter.seconds
    time.sleep(0.05)
    assert meter.seconds == idle


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown 'llama.cpp'; one of auto, vllm, transformers"):
        open_backend("llama.cpp", "nowhere")


@pytest.mark.parametrize(("installed", "kind"), [(True, "VllmBackend"), (False, "TransformersBackend")])
def test_auto_takes_vllm_where_it_is_installed(monkeypatch, installed, kind):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: object() if installed else None)
    for module, name in ((engines, "VllmBackend"), (transformers_engine, "TransformersBackend")):
        monkeypatch.setattr(module, name, lambda *_, name=name, **how: name)
    assert open_backend("auto", "nowhere", adapters="serve", engine=EngineParams()) == kind


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (4, 8), (8, 8), (9, 16), (16, 16), (300, 320)])
def test_vllm_gets_a_lora_rank_that_it_knows(asked, taken):
    assert vllm_lora_rank(asked) == taken


def test_a_lora_rank_beyond_vllms_says_so():
    with pytest.raises(ValueError, match="training.lora_r: vLLM takes adapters of rank 512 at most, got 513"):
        vllm_lora_rank(513)


@pytest.mark.parametrize(("reason", "beside", "ending"), [
    ("stop", None, "end_token"), ("stop", 7, "end_token"), ("stop", "```\n", "stop_string"), ("length", None, "length")])
def test_vllms_reason_and_what_stands_beside_it_say_how_a_completion_ended(reason, beside, ending):
    assert vllm_engine._ending(SimpleNamespace(finish_reason=reason, stop_reason=beside)) == ending


class Engine:
    """In the place of vLLM's ``LLM``: keeps what it was opened with and what it is told."""

    def __init__(self, model, **settings):
        self.settings, self.told = settings, []

    def collective_rpc(self, method, kwargs):
        self.told.append((method, kwargs["weights_path"]))


@pytest.fixture
def cards(monkeypatch, tiny):
    """A function that opens a ``VllmBackend`` of the tiny model on a machine with so many cards."""
    vllm_or_skip()
    number_types.device()  # kept, before cards are pretended
    monkeypatch.setattr("vllm.LLM", Engine)

    def opened(number, **how):
        monkeypatch.setattr("torch.cuda.is_available", lambda: number > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: number)
        return VllmBackend(tiny, "float32", 4, **how)
    return opened


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("asked", ["auto", "merge", "serve"])
def test_what_is_judged_is_what_export_writes(monkeypatch, cards, asked, number):
    """On a GPU as on a CPU the engine computes with the weights that ``merge_adapter`` makes, unless serving is asked for."""
    merges = asked != "serve"
    backend = cards(number, adapters=asked)
    monkeypatch.setattr(backend._llm, "apply_model", lambda pack: backend._llm.told.append("packed"), raising=False)
    monkeypatch.setattr(vllm_engine, "merge_adapter", lambda base, adapter, folder, dtype: f"{adapter} merged")
    assert ("enable_lora" in backend._llm.settings) == (not merges)
    requests = [backend._use(adapter) for adapter in ("a/adapter", "b/adapter", None)]
    if merges:
        told = [one for one in backend._llm.told if one != "packed"]
        assert requests == [None] * 3
        assert told[:2] == [("reload_weights", "a/adapter merged"), ("reload_weights", "b/adapter merged")]
        assert len(told) == 3 and backend._llm.told.count("packed") == (0 if number else 3)
    else:
        assert requests[0] != requests[1] and requests[2] is None and not backend._llm.told


def test_the_engines_settings_reach_vllm(cards):
    engine = EngineParams(gpu_memory_utilization=0.5, tensor_parallel_size=2, quantization="fp8_per_tensor", max_model_len=256)
    settings = cards(2, engine=engine)._llm.settings
    assert {key: settings[key] for key in engine.model_dump() if key != "max_model_len"} == engine.model_dump(
        exclude={"max_model_len"})
    assert settings["max_model_len"] <= 256 and cards(2)._llm.settings["gpu_memory_utilization"] == 0.9
    assert "quantization" not in cards(2)._llm.settings
    with pytest.raises(ValueError, match="engine.tensor_parallel_size: expected at most the 1 cards .* got 2"):
        cards(1, engine=engine)
    with pytest.raises(ValueError, match="engine.tensor_parallel_size: expected at most the 0 cards .*1 on a CPU.*, got 2"):
        cards(0, engine=engine)


@pytest.mark.long("upgrade")
def test_vllm_knows_every_setting_and_what_it_may_be_quantised_to(cards):
    settings = cards(2, adapters="serve", engine=EngineParams(quantization="fp8_per_tensor"))._llm.settings
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    assert set(settings) - {"use_tqdm_on_load"} <= {field.name for field in fields(EngineArgs)}
    known = get_args(EngineParams.model_fields["quantization"].annotation)
    assert set(known) - {"none"} <= set(QUANTIZATION_METHODS)


def test_the_cpu_engine_keeps_what_its_completions_depend_on():
    """Other values give other completions than those of the reference run, or fail with seeds."""
    assert engine_settings(EngineParams(), False) == {
        "enforce_eager": True, "max_num_seqs": 256, "max_num_batched_tokens": 65536, "enable_chunked_prefill": False,
        "enable_prefix_caching": True, "block_size": 32}


def test_the_gpu_engine_caches_prompts_and_chooses_its_own_batches():
    assert engine_settings(EngineParams(), True) == {"gpu_memory_utilization": 0.9, "enable_chunked_prefill": True,
                                                     "enable_prefix_caching": True, "tensor_parallel_size": 1}


def test_a_completion_without_room_is_an_error_that_says_how_to_get_it():
    check_lengths([10, 60], 40, 100)
    with pytest.raises(ValueError, match=r"prompt 1 has 61 tokens, and max_tokens is 40: .*engine.max_model_len: 100; 101 has room"):
        check_lengths([10, 61, 5], 40, 100)


@pytest.fixture(scope="module")
def model_path():
    from plum_utils.models.weights import embedded_model

    return str(embedded_model())


def drawn_adapter(model_path, folder, targets, std):
    """A LoRA adapter that changes the model for good: its weights are drawn, not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "lora_embedding" in name:
                weight.normal_(std=std)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapter(model_path, tmp_path_factory):
    return drawn_adapter(model_path, tmp_path_factory.mktemp("adapter") / "adapter", ["q_proj", "v_proj"], 0.3)


def vllm_or_skip():
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed; open_backend falls back to transformers")


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=pytest.mark.long("upgrade"))])
def backend(request, model_path):
    if request.param == "vllm":
        vllm_or_skip()
    opened = open_backend(request.param, model_path, lora_rank=4)
    yield opened
    opened.close()


def test_the_same_call_gives_the_same_completions(backend):
    how = dict(n=3, temperature=1.0, max_tokens=12, seed=5)
    first = backend.generate(PROMPTS, **how)
    assert [len(outs) for outs in first] == [3, 3] and len({out.text for out in first[0] + first[1]}) > 1
    assert backend.generate(PROMPTS, **how) == first
    assert backend.generate(PROMPTS, **how | {"seed": 6}) != first


def test_what_was_asked_before_does_not_decide_a_completion(backend):
    """Samples share their prompt's blocks in vLLM's cache; those that an earlier call left there must be gone."""
    opening = "Here is a list of numbers: " + ", ".join(map(str, range(60)))
    how = dict(n=4, temperature=1.0, max_tokens=24, seed=5)
    first = backend.generate([opening + ". Sum:", opening + ". Mean:"], **how)
    backend.generate([opening, opening + ". Sum:"], n=2, max_tokens=4)
    assert backend.generate([opening + ". Sum:", opening + ". Mean:"], **how) == first


def test_a_call_can_be_watched_step_by_step(backend):
    seen = []
    outputs = backend.generate(PROMPTS, n=3, temperature=1.0, max_tokens=12, watch=lambda *now: seen.append(now))
    flat = [out for outs in outputs for out in outs]
    assert seen[-1] == (sum(out.n_tokens for out in flat), len(flat)) and len(seen) >= max(out.n_tokens for out in flat)
    assert seen == sorted(seen) and seen[0][0] <= len(flat), "tokens and completions only grow, by one a step and row"


def test_greedy_has_one_outcome_whatever_n_and_seed(backend):
    one = backend.generate(PROMPTS, n=1, max_tokens=8, seed=0)
    three = backend.generate(PROMPTS, n=3, max_tokens=8, seed=9)
    assert three == [outs * 3 for outs in one]


def test_stop_strings_are_kept_and_end_the_text(backend):
    free, = backend.generate(PROMPTS[1:], max_tokens=16)[0]
    mark = free.text[4:6]
    stopped, = backend.generate(PROMPTS[1:], max_tokens=16, stop=[mark])[0]
    assert stopped.text == free.text[:free.text.index(mark) + 2]
    assert stopped.finish_reason == "stop_string" and 0 < stopped.n_tokens < free.n_tokens


def test_the_token_limit_is_told_apart_from_an_end(backend):
    cut, = backend.generate(PROMPTS[1:], max_tokens=2)[0]
    assert (cut.finish_reason, cut.n_tokens) == ("length", 2)
    ended, = backend.generate(PROMPTS[:1], max_tokens=64)[0]
    assert ended.finish_reason == "end_token" and ended.n_tokens < 64 and "<|im_end|>" not in ended.text


def test_an_adapter_is_used_only_when_asked_for(backend, adapter):
    how = dict(max_tokens=8)
    base = backend.generate(PROMPTS, **how)
    adapted = backend.generate(PROMPTS, **how, adapter=adapter)
    assert adapted != base
    assert backend.generate(PROMPTS, **how) == base
    assert backend.generate(PROMPTS, **how, adapter=adapter) == adapted


LIFE = """
import json, sys, tempfile
import peft, psutil, torch
from transformers.models.llama import modeling_llama
from plum_utils.models.engines import open_backend
from plum_utils.models.weights import merge_adapter
kind, model_path, adapter, *prompts = sys.argv[1:]
if kind == "vllm":
    from vllm import LLM, SamplingParams

def resident():
    return psutil.Process().memory_info().rss

def ask(backend, adapter=None):
    greedy = backend.generate(prompts, max_tokens=8, adapter=adapter)
    drawn = backend.generate(prompts, n=2, temperature=1.0, max_tokens=8, seed=3, adapter=adapter)
    told = [[out.text for out in outs] for outs in greedy + drawn]
    if kind == "transformers":
        return told
    params = SamplingParams(temperature=0, max_tokens=8, logprobs=1)
    return told, [one.outputs[0].cumulative_logprob for one in backend._llm.generate(prompts, params, use_tqdm=False)]

set_num_threads, memory = torch.set_num_threads, [resident()]
backend = open_backend(kind, model_path, lora_rank=4)
asked = [ask(backend)]
memory.append(resident())
asked += [ask(backend, adapter), ask(backend)]
backend.close()
memory.append(resident())
assert torch.set_num_threads is set_num_threads
with tempfile.TemporaryDirectory() as folder:
    second = open_backend(kind, merge_adapter(model_path, adapter, folder))
    asked.append(ask(second))
    second.close()
print(json.dumps({"memory": memory, "asked": asked}))
"""


@pytest.fixture(scope="module")
def life(request, model_path, tmp_path_factory):
    """A backend's life in a process of its own: memory before, open and closed (bytes); what it answered as the policy,
    with an adapter (one that reaches the embeddings, which are the output head as well), and as the policy again; what
    a second backend in that process answers, of the merged weights."""
    if request.param == "vllm":
        vllm_or_skip()
    adapter = drawn_adapter(model_path, tmp_path_factory.mktemp("life") / "adapter", ["q_proj", "embed_tokens"], 0.1)
    command = [sys.executable, "-c", LIFE, request.param, model_path, adapter, *PROMPTS, "def add(a, b):"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.long("upgrade")
@pytest.mark.parametrize("life", ["vllm"], indirect=True)
def test_weights_put_into_a_running_engine_are_those_of_a_fresh_one(life):
    """Greedy and sampled texts and the log-probabilities, to the last bit; then the policy's own again."""
    policy, adapted, again, fresh = life["asked"]
    assert adapted != policy
    assert adapted == fresh
    assert again == policy


@pytest.mark.long("upgrade")
@pytest.mark.parametrize(("life", "kept"), [("vllm", 0.2), ("transformers", 0.3)], indirect=["life"])
def test_a_closed_backend_gives_its_memory_back(life, kept):
    """``kept`` of what opening added may stay: imported code and PyTorch's own pools, not weights or KV cache."""
    before, opened, closed = life["memory"]
    assert opened - before > 250e6  # the weights alone
    assert closed - before < kept * (opened - before)
