"""Text generation behind one small protocol: vLLM (CPU or GPU) and ``transformers``.

Determinism: bf16 results depend on what else is in a batch, so the unit of determinism and of resume is one call to
``generate``: the same prompts, seed and settings give the same completions.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from plum_utils.models import merge_adapter


@dataclass(frozen=True)
class Completion:
    """One completion; ``text`` keeps the stop string, ``n_tokens`` counts generated tokens."""

    text: str
    finish_reason: str  # "stop" (end of sequence or stop string) or "length"
    n_tokens: int


class Backend(Protocol):
    """What a stage needs of a model: prompts in, ``n`` completions for each out, in order."""

    name: str

    def generate(self, prompts: list[str], n: int = 1, temperature: float = 0.0, top_p: float = 1.0,
                 max_tokens: int = 512, stop: list[str] | None = None, seed: int = 0,
                 adapter: str | None = None) -> list[list[Completion]]: ...

    def close(self) -> None: ...


def open_backend(kind: str, model_path: str, dtype: str = "bfloat16", lora_rank: int | None = None) -> Backend:
    """The backend ``kind`` (``vllm``, ``transformers``, or ``auto``: vLLM where it is installed).

    Args:
        lora_rank: set it when ``generate`` will be given adapters (folders saved by PEFT) of at most this rank.
    """
    if kind == "auto":
        kind = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    if kind == "vllm":
        return VllmBackend(model_path, dtype, lora_rank)
    if kind == "transformers":
        return TransformersBackend(model_path, dtype)
    raise ValueError(f"sampling.backend: unknown {kind!r}; one of auto, vllm, transformers")


class Metered:
    """A backend that counts what passes through it, so that a rate covers only what was generated in this process:
    shards read back from disk never reach it.

    ``calls``, ``tokens`` (generated ones) and ``seconds`` (wall time inside ``generate``) add up from zero.
    """

    def __init__(self, backend: Backend):
        self._backend = backend
        self.name = backend.name
        self.calls, self.tokens, self.seconds = 0, 0, 0.0

    def generate(self, prompts, **how):
        started = time.monotonic()
        outputs = self._backend.generate(prompts, **how)
        self.seconds += time.monotonic() - started
        self.calls += 1
        self.tokens += sum(out.n_tokens for outs in outputs for out in outs)
        return outputs

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second; not a number before anything was generated."""
        return self.tokens / self.seconds if self.tokens else float("nan")

    def close(self) -> None:
        self._backend.close()


VLLM_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def vllm_lora_rank(rank: int) -> int:
    """The smallest rank that vLLM can be set up for and that holds adapters of ``rank``.

    Raises:
        ValueError: there is none.
    """
    if rank > VLLM_LORA_RANKS[-1]:
        raise ValueError(f"training.lora_r: vLLM takes adapters of rank {VLLM_LORA_RANKS[-1]} at most, got {rank}; "
                         "evaluate with sampling.backend: transformers")
    return min(known for known in VLLM_LORA_RANKS if known >= rank)


class VllmBackend:
    """vLLM's offline engine, in this process.

    Eager mode: on two CPU cores it is 15% slower than compiled code, but needs no C++ compiler and starts in 15
    seconds instead of 95. A per-request seed makes vLLM's CPU sampler fail once a prompt is prefilled in chunks, hence
    no chunked prefill and a token budget above any shard's prompts.

    Adapters: a GPU applies them per request. vLLM's LoRA on the CPU runs at about a sixth of the engine's own rate, so
    there an adapter is merged into a copy of the weights, which the engine is started with; ask for all completions of
    one adapter before the next one's.
    """

    name = "vllm"

    def __init__(self, model_path: str, dtype: str = "bfloat16", lora_rank: int | None = None,
                 max_model_len: int = 2048):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        # vLLM's own binding puts the engine and its OpenMP threads on one core of two: 86 tokens/s instead of 330.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
        import torch

        self._model_path, self._dtype = model_path, dtype
        self._merges = lora_rank is not None and not torch.cuda.is_available()
        lora = {}
        if lora_rank is not None and not self._merges:
            lora = {"enable_lora": True, "max_lora_rank": vllm_lora_rank(lora_rank), "max_loras": 1}
        self._settings = {"dtype": dtype, "max_model_len": max_model_len, "max_num_seqs": 256,
                          "max_num_batched_tokens": 65536, "enforce_eager": not torch.cuda.is_available(),
                          "enable_chunked_prefill": False, "enable_prefix_caching": False,
                          "disable_log_stats": True, "use_tqdm_on_load": False, **lora}
        self._adapters: dict[str, int] = {}
        self._served: str | None = None  # the adapter merged into the engine's weights
        self._start(model_path)

    def _start(self, model_path: str) -> None:
        from vllm import LLM

        self._llm = LLM(model_path, **self._settings)

    def generate(self, prompts, n=1, temperature=0.0, top_p=1.0, max_tokens=512, stop=None, seed=0, adapter=None):
        from vllm import SamplingParams

        lora_request = self._use(adapter)
        draws = n if temperature else 1  # greedy decoding has one outcome
        params = [SamplingParams(n=draws, temperature=temperature, top_p=top_p, max_tokens=max_tokens,
                                 stop=stop or None, include_stop_str_in_output=True, seed=seed * 100_003 + index)
                  for index in range(len(prompts))]
        tokenizer = self._llm.get_tokenizer()
        rendered = [{"prompt_token_ids": tokenizer(prompt, add_special_tokens=False)["input_ids"]}
                    for prompt in prompts]
        outputs = self._llm.generate(rendered, params, use_tqdm=False, lora_request=lora_request)
        return [[Completion(out.text, out.finish_reason or "stop", len(out.token_ids))
                 for out in sorted(output.outputs, key=lambda item: item.index)] * (n // draws) for output in outputs]

    def _use(self, adapter: str | None):
        """The request's LoRA, or, where adapters are merged, none and the engine that holds this adapter."""
        if self._merges:
            self._serve(adapter)
            return None
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(adapter, len(self._adapters) + 1)
        return LoRARequest(Path(adapter).name, number, adapter)

    def _serve(self, adapter: str | None) -> None:
        if adapter == self._served:
            return
        self.close()
        self._served = adapter
        if adapter is None:
            self._start(self._model_path)
            return
        with tempfile.TemporaryDirectory(prefix="plum-merged-") as folder:
            self._start(merge_adapter(self._model_path, adapter, folder, self._dtype))

    def close(self) -> None:
        del self._llm
        gc.collect()


class TransformersBackend:
    """``transformers.generate``: slower (about a sixteenth of vLLM's rate here), but runs wherever PyTorch does."""

    name = "transformers"

    def __init__(self, model_path: str, dtype: str = "bfloat16", batch_size: int = 64):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype).to(device).eval()
        self._adapters: dict[str, str] = {}
        self._batch_size = batch_size

    def generate(self, prompts, n=1, temperature=0.0, top_p=1.0, max_tokens=512, stop=None, seed=0, adapter=None):
        from transformers import set_seed

        set_seed(seed)
        self._use(adapter)
        draws = n if temperature else 1  # greedy decoding has one outcome
        flat = [prompt for prompt in prompts for _ in range(draws)]
        completions: list[Completion] = []
        for start in range(0, len(flat), self._batch_size):
            completions += self._batch(flat[start:start + self._batch_size], temperature, top_p, max_tokens, stop)
        return [completions[i * draws:(i + 1) * draws] * (n // draws) for i in range(len(prompts))]

    def _batch(self, prompts, temperature, top_p, max_tokens, stop):
        import torch

        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self._model.device)
        how = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else \
            {"do_sample": False}
        if stop:
            how |= {"stop_strings": stop, "tokenizer": self._tokenizer}
        with torch.inference_mode():
            output = self._model.generate(**inputs, max_new_tokens=max_tokens,
                                          pad_token_id=self._tokenizer.pad_token_id, **how)
        return [self._completion(row, max_tokens, stop) for row in output[:, inputs["input_ids"].shape[1]:].tolist()]

    def _completion(self, ids: list[int], max_tokens: int, stop: list[str] | None) -> Completion:
        eos = self._tokenizer.eos_token_id
        ended = eos in ids
        ids = ids[:ids.index(eos)] if ended else ids
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        cut = min((text.find(mark) + len(mark) for mark in stop or [] if mark in text), default=None)
        if cut is not None:
            text = text[:cut]
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        finished = ended or cut is not None
        return Completion(text, "stop" if finished else "length", len(ids) + ended)

    def _use(self, adapter: str | None) -> None:
        from peft import PeftModel

        if adapter is None:
            if self._adapters:
                self._model.disable_adapter_layers()
            return
        if adapter not in self._adapters:
            name = f"adapter{len(self._adapters)}"
            if self._adapters:
                self._model.load_adapter(adapter, adapter_name=name)
            else:
                self._model = PeftModel.from_pretrained(self._model, adapter, adapter_name=name).eval()
            self._adapters[adapter] = name
        self._model.enable_adapter_layers()
        self._model.set_adapter(self._adapters[adapter])

    def close(self) -> None:
        del self._model
        gc.collect()
