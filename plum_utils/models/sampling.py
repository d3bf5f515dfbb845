"""Stage 2: K completions of each instruction (paper, section 3); resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plum_utils.data.instructions import Instruction
from plum_utils.models.completions import Backend
from plum_utils.models.engines import open_backend
from plum_utils.models.extract import extract_code
from plum_utils.models.prompts import policy_prompt
from plum_utils.params import Params
from plum_utils.progress import FIRST_CALL, Bar
from plum_utils.runs import fingerprint, shards

SAMPLED = ("instruction_id", "source", "instruction", "responses")  # of an instruction, in its shard's mark


def open_policy_backend(p: Params, model_path: str, lora_rank: int | None = None) -> Backend:
    """The engine that samples from the policy: one in this process, or ``sampling.replicas`` on a Ray cluster.

    Args:
        lora_rank: as of ``open_backend``.
    """
    how = p.sampling
    settings: dict[str, Any] = {"dtype": p.policy.dtype, "lora_rank": lora_rank, "adapters": how.adapters}
    if how.ray is None and how.replicas == 1:
        return open_backend(how.backend, model_path, **settings)
    from plum_utils.models.ray_engines import RayBackend

    return RayBackend(how.backend, model_path, how.replicas, how.ray, **settings)


def sample_policy(p: Params, backend: Backend, tokenizer: Any, instructions: list[Instruction], folder: Path
                  ) -> list[dict[str, Any]]:
    """K completions for each instruction; one file a shard, a finished shard is never sampled again. As many shards are
    sampled at a time as the backend has ``replicas``.

    Returns:
        Rows of the ``samples`` contract: instruction_id, sample_index, prompt, completion, finish_reason, n_tokens,
        seed, code (taken out of the completion here, not kept in the shards).
    """
    size = p.sampling.shard_size
    parts = {f"shard_{start // size:04d}": instructions[start:start + size]
             for start in range(0, len(instructions), size)}

    def make(key: str) -> list[dict[str, Any]]:
        seed = p.seed * 10_000 + int(key.rsplit("_", 1)[1])
        prompts = [policy_prompt(p, tokenizer, item.instruction) for item in parts[key]]
        outputs = bar.generate(backend, prompts, n=p.sampling.k, temperature=p.sampling.temperature,
                               top_p=p.sampling.top_p, max_tokens=p.sampling.max_tokens, stop=p.sampling.stop,
                               seed=seed)
        return [{"instruction_id": item.instruction_id, "sample_index": index, "prompt": prompt,
                 "completion": out.text, "finish_reason": out.finish_reason, "n_tokens": out.n_tokens, "seed": seed}
                for item, prompt, outs in zip(parts[key], prompts, outputs) for index, out in enumerate(outs)]

    mark = fingerprint([p.sampling.what_decides(), p.policy.model_dump(), p.seed, backend.name,
                        [{name: getattr(item, name) for name in SAMPLED} for item in instructions]])
    bar = Bar("sampling", len(parts), items=len(instructions) * p.sampling.k, measured=folder / FIRST_CALL)
    rows = shards(folder, list(parts), make, mark, bar, getattr(backend, "replicas", 1))
    return [row | {"code": extract_code(row["completion"], p.policy.prompt)} for row in rows]
