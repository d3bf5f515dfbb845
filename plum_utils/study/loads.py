"""Every model that a lesson or command loads onto a card, and what it takes there, by the formulas of ``training.memory``.

Nothing is loaded to tell. A model that is loaded more than once in a stage stands there once for each way of loading it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from plum_utils.models.shapes import model_config
from plum_utils.models.vllm_engine import engine_settings
from plum_utils.params import Params
from plum_utils.stages import CONTESTS, EVALUATION, SAMPLING, TESTGEN, TRAINING
from plum_utils.training import planner
from plum_utils.training.memory import (
    CUDA_CONTEXT,
    DTYPE_BYTES,
    FRAGMENTATION,
    Setting,
    Shape,
    by_hand_bytes,
    forward_bytes,
    shape_of,
)

SHORT = 512       # assumed: tokens of the longest of the short rows that lesson 04 computes by hand, and of a prompt read
FEW = 4           # rows of that batch
BATCHED = 16384   # tokens that vLLM computes at a time on a card of 70 GiB and more (vllm/engine/arg_utils.py)
CONTEXT = 8192    # tokens that an engine has room for (VllmBackend's max_model_len)


@dataclass(frozen=True)
class Load:
    """One model on a card: which stage or command loads it, for what, in which number type, the most bytes that it takes
    there, and how many it may take."""

    stage: str
    what: str
    dtype: str
    bytes: int
    room: int

    @property
    def fits(self) -> bool:
        return self.bytes <= self.room


def loads(p: Params, config: Any, gpu_gb: float, dtype: str = "bfloat16") -> list[Load]:
    """What each lesson and command loads onto one card, in the order of a run.

    Args:
        config: the policy's (``models.shapes.model_config``).
        gpu_gb: the card's size, as ``planner.card_memory`` gives it.
        dtype: the policy's, settled.

    Raises:
        planner.DoesNotFit, ParamsError: as ``planner.plan``, which training asks; ModelNotFound: the generator that lesson 01
            loads itself has no known shape.
    """
    return list(_loads(p, config, gpu_gb, dtype))


def _loads(p: Params, config: Any, gpu_gb: float, dtype: str) -> Iterator[Load]:
    shape, room = shape_of(config), round(planner.SPARING * planner.usable_bytes(gpu_gb))

    def load(stage: str, what: str, size: float, kind: str = dtype) -> Load:
        return Load(stage, what, kind, round(size * (1 + FRAGMENTATION) + CUDA_CONTEXT), room)

    def read(kind: str = dtype) -> float:
        return forward_bytes(shape, planner.reading(p.training, kind, SHORT), SHORT)

    if p.generator.backend == "vllm":
        yield _engine(TESTGEN, f"generator {p.generator.model}", shape_of(model_config(p.generator.model)), dtype, gpu_gb)
    if p.generator.live_instructions:
        yield _engine(TESTGEN, f"generator {p.generator.live_model}", shape_of(model_config(p.generator.live_model)), dtype,
                      gpu_gb)
    yield load(SAMPLING, "the policy, token by token", read())
    yield _engine(SAMPLING, "the policy's engine", shape, dtype, gpu_gb)
    plan = planner.plan(config, p.training, gpu_gb, dtype)
    few = plan.training.model_copy(update={"batch_size": FEW, "objective": "kto", "max_length": SHORT, "processes": 1,
                                           "accumulation": 1})
    kind = planner.by_hand_type(config, few, gpu_gb, dtype, SHORT)
    yield load(TRAINING, "the batch by hand", by_hand_bytes(shape, Setting(few, kind)), kind)
    yield Load(TRAINING, f"training, {plan.moment}", dtype, plan.total, room)
    yield load(TRAINING, "the trained policy, one prompt", read())
    whole = few.model_copy(update={"max_length": plan.training.max_length})
    yield load(TRAINING, "z0 in batches of four", forward_bytes(shape, Setting(whole, dtype)))
    short = planner.plan(config, few, gpu_gb, dtype)
    yield Load(TRAINING, "training on short rows", dtype, short.total, room)
    for stage in (EVALUATION, CONTESTS):
        yield _engine(stage, "the policy's engine, with its adapters", shape, dtype, gpu_gb)
    kind = planner.read_type(config, p.training, gpu_gb, dtype, SHORT)
    yield load("export", "the policy, and what was exported", read(kind), kind)


def _engine(stage: str, what: str, shape: Shape, dtype: str, gpu_gb: float) -> Load:
    """vLLM's: weights, what a batch works on (its logits are few), and room for one sequence of full length. The rest of its
    share it takes for more of them."""
    width = DTYPE_BYTES[dtype]
    cache = 2 * shape.layers * shape.keys * width * CONTEXT
    work = BATCHED * width * (4 * shape.hidden + 3 * shape.inner)
    size = shape.parameters * width + cache + work + CUDA_CONTEXT
    return Load(stage, what, dtype, round(size), round(engine_settings(gpu=True)["gpu_memory_utilization"]
                                                       * planner.usable_bytes(gpu_gb)))
