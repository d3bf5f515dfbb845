"""Every model that a lesson or command loads onto a card, and what it takes there, by the formulas of ``training.memory``.

Nothing is loaded to tell. A model that is loaded more than once in a stage stands there once for each way of loading it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from plum_utils.evaluation.protocols import PROTOCOLS
from plum_utils.models.shapes import model_config
from plum_utils.models.weights import ModelNotFound
from plum_utils.params import EngineParams, Params, ParamsError
from plum_utils.stages import CONTESTS, EVALUATION, SAMPLING, TESTGEN, TRAINING
from plum_utils.training import planner
from plum_utils.training.memory import (
    CUDA_CONTEXT,
    DTYPE_BYTES,
    Setting,
    Shape,
    by_hand_bytes,
    forward_bytes,
    shape_of,
)

SHORT = 512       # assumed: tokens of the longest of the short rows that lesson 04 computes by hand, and of a prompt read
FEW = 4           # rows of that batch
BATCHED = 16384   # tokens that vLLM computes at a time on a card of 70 GiB and more (vllm/engine/arg_utils.py)


@dataclass(frozen=True)
class Load:
    """One model on a card: which stage or command loads it, for what, in which number type, the most bytes that it takes
    there, and how many it may take; an engine takes all of these, for its KV cache."""

    stage: str
    what: str
    dtype: str
    bytes: int
    room: int
    is_engine: bool = False

    @property
    def taken(self) -> int:
        """Bytes of the card that have to be free for it."""
        return self.room if self.is_engine else self.bytes

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
        planner.DoesNotFit, ParamsError: as ``planner.plan``, which training asks.
    """
    return list(_loads(p, config, gpu_gb, dtype))


def _loads(p: Params, config: Any, gpu_gb: float, dtype: str) -> Iterator[Load]:
    shape, room = shape_of(config), round(planner.SPARING * planner.usable_bytes(gpu_gb))

    def load(stage: str, what: str, size: float, kind: str = dtype) -> Load:
        return Load(stage, what, kind, round(planner.on_card(size)), room)

    def read(kind: str = dtype) -> float:
        return forward_bytes(shape, planner.reading(p.training, kind, SHORT), SHORT)

    how, by_engine = p.generator, p.sampling.backend != "transformers"
    if how.backend == "vllm":
        yield _engine(TESTGEN, f"generator {how.model}", _known_shape(how.model), dtype, gpu_gb, how.engine or p.engine)
    if how.live_instructions and by_engine:
        yield _engine(TESTGEN, f"generator {how.live_model}", _known_shape(how.live_model), dtype, gpu_gb, p.engine)
    yield load(SAMPLING, "the policy, token by token", read())
    if by_engine:
        yield _engine(SAMPLING, "the policy's engine", shape, dtype, gpu_gb, p.engine)
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
        if by_engine:
            yield _engine(stage, "the policy's engine, with its adapters", shape, dtype, gpu_gb, p.engine)
        if stage == EVALUATION and (most := _longest_read(p)):
            yield load(stage, "the policy, reading its answers",
                       forward_bytes(shape, planner.reading(p.training, dtype, SHORT + most), most))
    kind = planner.read_type(config, p.training, gpu_gb, dtype, SHORT)
    yield load("export", "the policy, and what was exported", read(kind), kind)


def _longest_read(p: Params) -> int:
    """Most tokens of an answer whose entropy lesson 05 measures; 0 where nothing is sampled there."""
    how = p.evaluation
    return max((PROTOCOLS[how.protocol_of(suite)].asking(p, suite.name)["max_tokens"] for suite in how.suites
                if len(suite.decodings()) > 1), default=0)


def _known_shape(model: str) -> Shape | None:
    """A generator's, which may be any model."""
    try:
        return shape_of(model_config(model))
    except (ModelNotFound, ParamsError):
        return None


def _engine(stage: str, what: str, shape: Shape | None, dtype: str, gpu_gb: float, engine: EngineParams) -> Load:
    """vLLM's, on one of its cards: weights, what a batch works on (its logits are few), and room for one sequence of full
    length. The rest of its share it takes for more of them. Without a shape its share is all that is known."""
    width, size = DTYPE_BYTES[dtype], float(CUDA_CONTEXT)
    if shape:
        cache = 2 * shape.layers * shape.keys * width * engine.max_model_len
        work = BATCHED * width * (4 * shape.hidden + 3 * shape.inner)
        size += (shape.parameters * width + cache) / engine.tensor_parallel_size + work
    return Load(stage, what, dtype, round(size), round(engine.gpu_memory_utilization * planner.usable_bytes(gpu_gb)), True)
