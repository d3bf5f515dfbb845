"""The engine vLLM, on a CPU or a GPU."""

from __future__ import annotations

import os
import tempfile
from collections import Counter, defaultdict
from typing import Any

from plum_utils.models.completions import Completion, Ending, Watch, draw_seeds, release_memory
from plum_utils.models.number_types import number_type
from plum_utils.models.stopping import stopping_point
from plum_utils.models.tokenizer import saved_tokenizer
from plum_utils.models.weights import merge_adapter
from plum_utils.params import EngineParams

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


def engine_settings(engine: EngineParams, gpu: bool) -> dict[str, Any]:
    """vLLM's settings for the device, but for ``max_model_len``.

    The prefix cache lets the samples of one prompt share its prefill, in whole blocks. GPU: vLLM's own sizes of batches
    and blocks, chunked prefill and compiled graphs. CPU: blocks of 32 tokens, the smallest its attention takes. Eager
    mode is 15% slower than compiled code, but needs no C++ compiler and starts in seconds. A per-request seed makes the
    CPU sampler fail once a prompt is prefilled in chunks, hence no chunked prefill and a token budget above any shard's
    prompts.

    Raises:
        ValueError: fewer cards than one engine is to span.
    """
    import torch

    cards = torch.cuda.device_count() if gpu else 0
    if engine.tensor_parallel_size > max(cards, 1):
        raise ValueError(f"engine.tensor_parallel_size: expected at most the {cards} cards that this process sees (1 on a "
                         f"CPU), got {engine.tensor_parallel_size}")
    quantised = {} if engine.quantization == "none" else {"quantization": engine.quantization}
    if gpu:
        return quantised | {"gpu_memory_utilization": engine.gpu_memory_utilization, "enable_chunked_prefill": True,
                            "enable_prefix_caching": True, "tensor_parallel_size": engine.tensor_parallel_size}
    return quantised | {"enforce_eager": True, "max_num_seqs": 256, "max_num_batched_tokens": 65536,
                        "enable_chunked_prefill": False, "enable_prefix_caching": True, "block_size": 32}


def check_lengths(prompts: list[int], max_tokens: int, max_model_len: int) -> None:
    """Refuse what the engine would cut short without a word.

    Args:
        prompts: length of each prompt in tokens.

    Raises:
        ValueError: a prompt and ``max_tokens`` are more than ``max_model_len`` tokens together.
    """
    longest = max(prompts, default=0)
    if longest + max_tokens > max_model_len:
        raise ValueError(f"prompt {prompts.index(longest)} has {longest} tokens, and max_tokens is {max_tokens}: more "
                         f"than engine.max_model_len: {max_model_len}; {longest + max_tokens} has room for them, or ask for "
                         "fewer max_tokens")


class VllmBackend:
    """vLLM's offline engine, in this process: one for the policy and all its adapters.

    Args:
        adapters: ``serve``: vLLM applies an adapter to each request. Else it is merged: other weights are put into the
            running engine whenever the adapter changes, so ask for all completions of one adapter before the next one's.
            They are then those of an engine started with ``merge_adapter``'s folder. On a CPU vLLM's serving ran at an
            eleventh of this rate; on a GPU it adds its parts in an order that changes (``atomic_add``).
        engine: of ``max_model_len`` at most the model's own context is taken.
    """

    name = "vllm"

    def __init__(self, model_path: str, dtype: str = "auto", lora_rank: int | None = None, adapters: str = "auto",
                 engine: EngineParams = EngineParams()):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        # vLLM's own binding puts the engine and its OpenMP threads on one core of two: 86 tokens/s instead of 330.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
        import torch
        from transformers import AutoConfig

        self._model_path, self._dtype = model_path, number_type(dtype).name
        self._on_cpu = not torch.cuda.is_available()
        settings, self._merges = engine_settings(engine, not self._on_cpu), adapters != "serve"
        if lora_rank is not None and not self._merges:
            settings |= {"enable_lora": True, "max_lora_rank": vllm_lora_rank(lora_rank), "max_loras": 1}
        longest = engine.max_model_len
        context = getattr(AutoConfig.from_pretrained(model_path), "max_position_embeddings", longest)
        self._room = longest if longest < context else None  # None: no engine of this model has more
        self._set_num_threads = torch.set_num_threads  # the CPU engine puts a function that does nothing in its place
        self._settings = settings | {"dtype": self._dtype, "max_model_len": min(longest, context)}
        self._start()

    def _start(self) -> None:
        from vllm import LLM

        _spare_transformers_class(self._model_path)
        with saved_tokenizer(self._model_path) as tokenizer:
            self._llm = LLM(self._model_path, tokenizer=tokenizer, disable_log_stats=True, use_tqdm_on_load=False,
                            **self._settings)
        self._adapters: dict[str, int] = {}
        self._merged: str | None = None  # the adapter in the engine's weights

    def generate(self, prompts: list[str], n: int = 1, temperature: float = 0.0, top_p: float = 1.0,
                 max_tokens: int = 512, stop: list[str] | None = None, stop_after_program: bool = False,
                 seed: int | list[int] = 0, adapter: str | None = None, watch: Watch | None = None
                 ) -> list[list[Completion]]:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        if self._llm is None:
            self._start()
        tokenizer = self._llm.get_tokenizer()
        rendered = [tokens_input(tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts]
        if self._room is not None:
            check_lengths([len(prompt["prompt_token_ids"]) for prompt in rendered], max_tokens, self._room)
        lora_request = self._use(adapter)
        draws = n if temperature else 1  # greedy decoding has one outcome
        # A request a draw: each can be ended alone. (vLLM's own n gives draw j the seed + j, which may be a neighbour's.)
        seeds = draw_seeds(seed, len(prompts), draws)
        asked = {(number, draw): (prompt, SamplingParams(
            temperature=temperature, top_p=top_p, max_tokens=max_tokens, stop=stop or None,
            include_stop_str_in_output=True, seed=seeds[number][draw], output_kind=RequestOutputKind.DELTA))
            for number, prompt in enumerate(rendered) for draw in range(draws)}
        self._llm.reset_prefix_cache()  # what an earlier call left there must not decide a completion
        try:
            completions = self._completed(asked, lora_request, watch, stop_after_program)
        except BaseException:  # Ctrl-C inside a step leaves a scheduler that never ends: the next call starts an engine
            self._stop()
            raise
        return [[completions[prompt, draw] for draw in range(draws)] * (n // draws) for prompt in range(len(prompts))]

    def _completed(self, asked: dict[tuple[int, int], tuple[Any, Any]], lora_request: Any, watch: Watch | None,
                   after_program: bool) -> dict[tuple[int, int], Completion]:
        """(prompt, draw) -> completion. The engine is driven step by step, for ``watch`` and for the end of a program."""
        engine = self._llm.llm_engine
        keys = {f"{number}-{draw}": (number, draw) for number, draw in asked}
        for name, key in keys.items():
            prompt, how = asked[key]
            engine.add_request(name, dict(prompt), how, lora_request=lora_request)
        texts: defaultdict[tuple[int, int], str] = defaultdict(str)
        tokens: Counter[tuple[int, int]] = Counter()
        completions = {}
        while engine.has_unfinished_requests():
            for output in engine.step():
                for out in output.outputs:  # what this step added
                    key = keys[output.request_id]
                    seen = len(texts[key])
                    texts[key] += out.text
                    tokens[key] += len(out.token_ids)
                    cut = stopping_point(texts[key], [], after_program, seen)
                    if cut is not None:
                        completions[key] = Completion(texts[key][:cut], "stop_string", tokens[key])
                        engine.abort_request([output.request_id])
                    elif out.finish_reason:
                        end = self._llm.get_tokenizer().decode(out.token_ids[-1:]) if _ending(out) == "end_token" else ""
                        completions[key] = Completion(texts[key].removesuffix(end), _ending(out), tokens[key], end)
            if watch:
                watch(tokens.total(), len(completions))
        return completions

    def _use(self, adapter: str | None) -> Any:
        """The request's LoRA, or, where adapters are merged, none and this adapter in the engine's weights."""
        if self._merges:
            if adapter != self._merged:
                self._merge(adapter)
            return None
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(adapter, len(self._adapters) + 1)
        return LoRARequest(adapter, number, adapter)  # requests are equal by name, and each seed's folder is called "adapter"

    def _merge(self, adapter: str | None) -> None:
        self._merged = ""  # neither one, until all weights are there
        with tempfile.TemporaryDirectory(prefix="plum-merged-") as folder:
            path = self._model_path if adapter is None else \
                merge_adapter(self._model_path, adapter, folder, self._dtype)
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": path})
        if self._on_cpu:
            self._llm.apply_model(_pack_head)
        self._merged = adapter

    def _stop(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        release_memory()

    def close(self) -> None:
        import torch

        if self._llm is not None:
            self._stop()
        torch.set_num_threads = self._set_num_threads


def _ending(out: Any) -> Ending:
    """vLLM's reason is the same for an end token and a stop string, but beside it stands the string."""
    if out.finish_reason != "stop":
        return "length"
    return "stop_string" if isinstance(out.stop_reason, str) else "end_token"


def _spare_transformers_class(model_path: str) -> None:
    """Let vLLM have a subclass of the model's class.

    For an architecture of which vLLM has no model of its own (StarCoder2) it takes the class that ``AutoModel`` finds and
    changes it for good (vllm.compilation.decorators.support_torch_compile); transformers could not build that model in this
    process any more, to merge an adapter or to train.
    """
    from transformers import AutoConfig, AutoModel

    kind = type(AutoConfig.from_pretrained(model_path))
    known = AutoModel._model_mapping.get(kind, None)
    if known is not None and known.__module__ != __name__:
        AutoModel.register(kind, type(known.__name__, (known,), {"__module__": __name__}), exist_ok=True)


def _pack_head(model: Any) -> None:
    """Make the output head anew from its weights: one that is tied to the embeddings is left out of a reload, and the
    engine computes with a packed copy."""
    model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
