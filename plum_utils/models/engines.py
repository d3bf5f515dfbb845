"""Text generation behind one small protocol: vLLM (CPU or GPU) and ``transformers``.

Determinism: a completion depends in its last bits on what else is in its batch, so the unit of determinism and of resume
is one call to ``generate``: the same prompts, seed and settings give the same completions, whatever was asked before.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from plum_utils.models.completions import Backend
from plum_utils.models.vllm_engine import VllmBackend


def open_backend(kind: str, model_path: str, dtype: str = "auto", lora_rank: int | None = None,
                 **vllm_settings: Any) -> Backend:
    """The backend ``kind`` (``vllm``, ``transformers``, or ``auto``: vLLM where it is installed).

    Args:
        lora_rank: set it when ``generate`` will be given adapters (folders saved by PEFT) of at most this rank.
        vllm_settings: ``adapters`` and ``engine`` of ``VllmBackend``; ``transformers`` needs neither.
    """
    if kind == "auto":
        kind = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    if kind == "vllm":
        return VllmBackend(model_path, dtype, lora_rank, **vllm_settings)
    if kind == "transformers":
        from plum_utils.models.transformers_engine import TransformersBackend

        return TransformersBackend(model_path, dtype)
    raise ValueError(f"sampling.backend: unknown {kind!r}; one of auto, vllm, transformers")
