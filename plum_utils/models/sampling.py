"""Stage 2: K completions of each instruction (paper, section 3); resumable."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Callable, get_args

from plum_utils.data.instructions import Instruction
from plum_utils.models.adapters import adapter_digest
from plum_utils.models.completions import Backend, Completion, Ending, stream_seed
from plum_utils.models.engines import open_backend
from plum_utils.models.extract import extract_code
from plum_utils.models.prompts import policy_prompt
from plum_utils.params import EngineParams, Params
from plum_utils.progress import FIRST_CALL, Bar
from plum_utils.runs import fingerprint, make_shards, shard_rows


def open_policy_backend(p: Params, model_path: str, lora_rank: int | None = None) -> Backend:
    """The engine that samples from the policy: one in this process, or ``sampling.replicas`` on a Ray cluster.

    Args:
        lora_rank: as of ``open_backend``.
    """
    return open_engines(p, p.sampling.backend, model_path, lora_rank, p.engine)


def open_engines(p: Params, kind: str, model_path: str, lora_rank: int | None, engine: EngineParams) -> Backend:
    """One engine in this process, or ``sampling.replicas`` on a Ray cluster; the arguments are those of ``open_backend``."""
    how = p.sampling
    settings: dict[str, Any] = {"dtype": p.policy.dtype, "lora_rank": lora_rank, "adapters": how.adapters, "engine": engine}
    if how.ray is None and how.replicas == 1:
        return open_backend(kind, model_path, **settings)
    from plum_utils.models.ray_engines import RayBackend

    return RayBackend(kind, model_path, how.replicas, how.ray, **settings)


def sample_policy(p: Params, backend: Backend, tokenizer: Any, instructions: list[Instruction], folder: Path
                  ) -> list[dict[str, Any]]:
    """K completions for each instruction.

    Returns:
        Rows of the ``samples`` contract: instruction_id, prompt, seed, sample_index, completion, finish_reason, end,
        n_tokens, code (taken out of the completion here, not kept in the shards).
    """
    how, parts = p.sampling, instruction_shards(p, "shard", instructions, partial(policy_prompt, p, tokenizer))
    bar = Bar("sampling", len(parts), items=len(instructions) * how.k, measured=folder / FIRST_CALL)
    rows = sample_shards(backend, parts, folder, bar, opened_with(p), n=how.k, temperature=how.temperature,
                         top_p=how.top_p, max_tokens=how.max_tokens, stop=how.stop,
                         stop_after_program=how.stop_after_program)
    return [row | {"code": extract_code(row["completion"], p.policy.prompt)} for row in rows]


def opened_with(p: Params) -> list[dict[str, Any]]:
    """What of the parameters decides the policy's engine, for ``sample_shards``."""
    return [p.policy.model_dump(), p.engine.what_decides()]


def instruction_shards(p: Params, label: str, instructions: list[Instruction], prompt: Callable[[str], str]
                       ) -> dict[str, list[dict[str, Any]]]:
    """What ``sample_shards`` is asked: ``sampling.shard_size`` instructions a shard, each with a seed of its own."""
    size = p.sampling.shard_size
    asked = [{"instruction_id": item.instruction_id, "prompt": prompt(item.instruction),
              "seed": prompt_seed(p, label, item.instruction_id)} for item in instructions]
    return {f"{label}_{number:04d}": asked[start:start + size]
            for number, start in enumerate(range(0, len(asked), size))}


def prompt_seed(p: Params, *which: str) -> int:
    """The seed of one prompt's completions: by the run's seed, the policy (in a run of rounds each has its own) and what
    tells the prompt from all others of the run."""
    return stream_seed(p.seed, Path(p.policy.model).name, *which)


def sample_shards(backend: Backend, parts: dict[str, list[dict[str, Any]]], folder: Path, bar: Bar, model: Any,
                  adapter: str | None = None, **how: Any) -> list[dict[str, Any]]:
    """One call to the backend and one file for each shard; a finished one is never sampled again. As many are sampled at
    a time as the backend has ``replicas``.

    Args:
        parts: by shard one entry a prompt, with ``prompt``, its ``seed``, and what else its rows begin with.
        model: what the backend was opened with; a shard of another model is made again.
        how: of ``Backend.generate``.

    Returns:
        ``n`` rows for each entry, which add sample_index, completion, finish_reason (an ``Ending``), ``end`` (the end
        token that the model sampled, or nothing) and n_tokens.
    """
    def make(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        prompts, seeds = [one["prompt"] for one in asked], [one["seed"] for one in asked]
        outputs = bar.generate(backend, prompts, seed=seeds, adapter=adapter, **how)
        return [one | {"sample_index": index, "completion": out.text, "finish_reason": out.finish_reason,
                       "end": out.end, "n_tokens": out.n_tokens}
                for one, outs in zip(asked, outputs) for index, out in enumerate(outs)]

    def mark(asked: list[dict[str, Any]]) -> str:
        return fingerprint([get_args(Ending), list(Completion.__annotations__), model, backend.name, digest, how, asked])

    digest = adapter_digest(adapter)
    return list(shard_rows(make_shards(folder, parts.items(), make, mark, bar, getattr(backend, "replicas", 1))))
