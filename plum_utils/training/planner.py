"""Settings that let a policy fit a card: what is ``auto``, and how a step is shared out, by the formulas of ``memory``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from plum_utils.params import ParamsError, TrainingParams
from plum_utils.training.memory import (
    ARCHITECTURES,
    CUDA_CONTEXT,
    FRAGMENTATION,
    GIB,
    Setting,
    Shape,
    by_hand_bytes,
    forward_bytes,
    peak_parts,
    shape_of,
    weight_bytes,
)

USABLE = 15 / 16  # of a card's nominal size; cards with in-line ECC (L4, A10G, L40S) give a sixteenth to it
SPARING = 0.95  # of what is usable: the formulas come within 3% of measured peaks
LEAST_KTO_BATCH = 4  # params.TrainingParams' own bound: the KL term pairs neighbours of a batch
LENGTH_STEP, LEAST_LENGTH = 128, 256
CARDS: list[float] = [24, 48, 80]  # GB, where no card is given and none is there
WITHOUT_FORMULA = {"autocast": True, "adapters_in_model_dtype": False, "lora_r": None}


class DoesNotFit(ParamsError):
    """No setting that may be chosen fits the card; the message has the smallest need."""


@dataclass(frozen=True)
class MemoryPlan:
    """Settings for a card, with the peak they lead to.

    Attributes:
        training: the parameters with nothing left to choose.
        parts: bytes at the peak by what they are; their sum is ``total``.
        usable: bytes of the card that may be taken, or ``None`` on a CPU, where nothing is fitted.
        moment: when in a step the peak comes.
        reasons: one sentence for each setting that was chosen, and what the numbers assume.
    """

    training: TrainingParams
    parts: dict[str, int]
    moment: str
    usable: int | None
    reasons: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.usable is None or self.total <= SPARING * self.usable


def usable_bytes(gpu_gb: float) -> int:
    """Of a card sold as ``gpu_gb`` GB, which are GiB: 15/16, what is left of a card with in-line ECC."""
    return round(gpu_gb * GIB * USABLE)


def covers(config: Any, training: TrainingParams) -> bool:
    """Whether there are formulas for this model trained in this way."""
    return config.model_type in ARCHITECTURES and not _unknown(training)


def _unknown(training: TrainingParams) -> list[str]:
    return [key for key, value in WITHOUT_FORMULA.items() if getattr(training, key) == value]


def plan(config: Any, training: TrainingParams, gpu_gb: float | None, dtype: str = "bfloat16") -> MemoryPlan:
    """Choose what is ``auto``, and with ``fit_to_card`` how the batch is shared out, for one card.

    What the parameters fix is kept. Then, first that fits: weights as they are before NF4, no checkpointing before
    checkpointing, and the largest batch. ``max_length`` is lowered only with ``fit_to_card`` and when nothing else
    fits, by as few ``LENGTH_STEP`` tokens as will do.

    Args:
        gpu_gb: the card's nominal size; ``None``: a CPU, where ``auto`` is "none" or "no" and nothing is fitted.
        dtype: the policy's (``policy.dtype``).

    Raises:
        DoesNotFit: nothing that may be chosen fits; the message has the smallest need.
        ParamsError: a model or a way to train that has no formula, or a step that the processes cannot share out.
    """
    shape = shape_of(config)
    for key in _unknown(training):
        raise ParamsError(f"training.{key}: the memory plan has no formula for {json.dumps(WITHOUT_FORMULA[key])}; to train "
                          "so, set training.quantization, gradient_checkpointing and batch_size yourself, and fit_to_card: "
                          "false")
    if gpu_gb is None:
        reason = "on a CPU nothing is fitted: auto means none for weights and no for checkpointing"
        return _planned(shape, _on_a_cpu(training), None, dtype, (reason,))
    if not _batch_sizes(training):
        raise ParamsError(f"training.fit_to_card: {training.processes} processes cannot share out a step of "
                          f"{training.batch_size} x {training.accumulation} rows (batch_size x accumulation); give a multiple")
    tried = []
    for choice in _choices(training):
        chosen = _planned(shape, choice, usable_bytes(gpu_gb), dtype)
        if chosen.fits:
            return replace(chosen, reasons=tuple(_reasons(shape, training, chosen, dtype)))
        tried.append(chosen)
    raise DoesNotFit(_too_small(training, min(tried, key=lambda one: one.total), gpu_gb))


def _planned(shape: Shape, choice: TrainingParams, usable: int | None, dtype: str, reasons: tuple[str, ...] = ()
             ) -> MemoryPlan:
    moment, parts = peak_parts(shape, Setting(choice, dtype, on_gpu=usable is not None))
    return MemoryPlan(choice, parts, moment, usable, reasons)


def _on_a_cpu(training: TrainingParams) -> TrainingParams:
    meant = {"quantization": "none", "gradient_checkpointing": False}
    changes = {key: value for key, value in meant.items() if getattr(training, key) == "auto"}
    return training.model_copy(update=changes | {"fit_to_card": False})


def _choices(training: TrainingParams) -> Iterator[TrainingParams]:
    """Parameters to be tried on a card, best first."""
    weights = ["none", "nf4"] if training.quantization == "auto" else [training.quantization]
    again = [False, True] if training.gradient_checkpointing == "auto" else [training.gradient_checkpointing]
    for length, quantization, checkpointing, size in product(_lengths(training), weights, again, _batch_sizes(training)):
        yield training.model_copy(update={
            "quantization": quantization, "gradient_checkpointing": checkpointing, "batch_size": size,
            "accumulation": training.batch_size * training.accumulation // size, "max_length": length,
            "fit_to_card": False})


def _lengths(training: TrainingParams) -> list[int]:
    longest = training.max_length
    shorter = range((longest - 1) // LENGTH_STEP * LENGTH_STEP, LEAST_LENGTH - 1, -LENGTH_STEP)
    return [longest, *(shorter if training.fit_to_card else ())]


def _batch_sizes(training: TrainingParams) -> list[int]:
    """Divisors of the rows of a step, largest first, that leave each process as many batches; KTO's from
    ``LEAST_KTO_BATCH``."""
    if not training.fit_to_card:
        return [training.batch_size]
    rows = training.batch_size * training.accumulation
    least = LEAST_KTO_BATCH if "kto" in training.objective else 1
    return [size for size in range(rows, least - 1, -1) if rows % (size * training.processes) == 0]


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _reasons(shape: Shape, training: TrainingParams, chosen: MemoryPlan, dtype: str) -> Iterator[str]:
    """Why the plan for a card is as it is, a sentence a choice, and what it assumes."""
    assert chosen.usable is not None
    new, room, sizes = chosen.training, _gib(chosen.usable), _batch_sizes(training)
    least, longest = sizes[-1], training.max_length

    def need(**changes: Any) -> str:
        return _gib(_planned(shape, new.model_copy(update=changes), chosen.usable, dtype).total)

    if training.quantization == "auto":
        weights = _gib(weight_bytes(shape, Setting(new.model_copy(update={"quantization": "none"}), dtype)))
        again = training.gradient_checkpointing is not False
        other = need(quantization="none", batch_size=least, max_length=longest, gradient_checkpointing=again)
        yield (f"quantization nf4: {dtype} weights alone take {weights}, and with them a batch of {least} needs {other} of "
               f"{room}" if new.quantization == "nf4" else
               f"quantization none: {dtype} weights ({weights}) fit, and the policy that is trained is then the one "
               "that was sampled")
    if training.gradient_checkpointing == "auto":
        without = need(gradient_checkpointing=False, batch_size=least, max_length=longest)
        yield (f"gradient_checkpointing true: without it a batch of {least} needs {without} of {room}"
               if new.gradient_checkpointing else
               f"gradient_checkpointing false: {_gib(chosen.total)} of {room} without it, and no layer is run twice")
    if training.fit_to_card:
        rows = (f"batch_size {new.batch_size} x accumulation {new.accumulation} = "
                f"{training.batch_size * training.accumulation} rows a step, as asked")
        larger = [size for size in sizes if size > new.batch_size]
        yield (f"{rows}; a batch of {larger[-1]} needs {need(batch_size=larger[-1])} of {room}" if larger else
               f"{rows}, all at once")
        if "kto" in training.objective and new.batch_size != training.batch_size:
            yield f"the KL term is now the mean over {new.batch_size} rows instead of {training.batch_size}"
    if new.max_length < longest:
        yield (f"max_length {new.max_length} instead of {longest}: with {longest} even a batch of {least} needs "
               f"{need(max_length=longest)} of {room}; longer rows are left out")
    yield from _assumed(new)


def _assumed(training: TrainingParams) -> Iterator[str]:
    sparing = [name for name, used in (("flash_attention_2", training.attention == "flash_attention_2"),
                                       ("liger", training.liger), ("compile", training.compile)) if used]
    if sparing:
        yield f"{', '.join(sparing)}: not in the formulas, which are those of training without; expected to need less"
    yield (f"assumed: {_gib(CUDA_CONTEXT)} for CUDA, {FRAGMENTATION:.0%} for fragmentation, and every row as long as "
           f"{training.max_length} tokens; {USABLE:.1%} of the card's size are usable, and {SPARING:.0%} of that are "
           "planned with")


def _too_small(training: TrainingParams, smallest: MemoryPlan, gpu_gb: float) -> str:
    new = smallest.training
    free = {"quantization: auto": training.quantization == "none",
            "gradient_checkpointing: auto": training.gradient_checkpointing is False,
            "fit_to_card: true": not training.fit_to_card}
    advice = ", ".join(f"training.{key}" for key, missing in free.items() if missing) or "a larger card"
    return (f"a card of {gpu_gb:.3g} GB has {_gib(usable_bytes(gpu_gb))} to use; the smallest need is "
            f"{_gib(smallest.total)} ({'nf4' if new.quantization == 'nf4' else 'unquantised'} weights, checkpointing "
            f"{'on' if new.gradient_checkpointing else 'off'}, batch {new.batch_size}, {new.max_length} tokens). "
            f"Try {advice}")


def settle_for(params: TrainingParams, config: Any, gpu_gb: float | None, dtype: str = "bfloat16") -> TrainingParams:
    """The parameters with nothing left to choose on a card, or on a CPU (``None``), where any architecture will do: no
    formula is asked.

    Raises:
        DoesNotFit, ParamsError: as ``plan``, which is asked only for a card and only if something is left to choose.
    """
    if is_settled(params):
        return params
    return _on_a_cpu(params) if gpu_gb is None else plan(config, params, gpu_gb, dtype).training


def on_card(size: float) -> float:
    """Bytes of a card that tensors of so many bytes take, with what is assumed of CUDA and of fragmentation."""
    return size * (1 + FRAGMENTATION) + CUDA_CONTEXT


def fits(size: float, gpu_gb: float) -> bool:
    """Whether tensors of so many bytes fit a card."""
    return on_card(size) <= SPARING * usable_bytes(gpu_gb)


def by_hand_type(config: Any, training: TrainingParams, gpu_gb: float | None, dtype: str, tokens: int) -> str:
    """The number type for lesson 04's batch by hand: float32 where that fits the card, else the policy's own, in which it
    is trained too.

    Args:
        training: that of the batch, settled.
        tokens: of its longest row.
    """
    if gpu_gb is None:
        return "float32"
    if not covers(config, training):
        return dtype
    setting = Setting(training.model_copy(update={"max_length": tokens}), "float32")
    return "float32" if fits(by_hand_bytes(shape_of(config), setting), gpu_gb) else dtype


def read_type(config: Any, training: TrainingParams, gpu_gb: float | None, dtype: str, tokens: int) -> str:
    """The number type for reading ``tokens`` with the merged policy, as the check of an export does: float32 where that fits
    the card, else the policy's own."""
    if gpu_gb is None:
        return "float32"
    if config.model_type not in ARCHITECTURES:
        return dtype
    setting = reading(training, "float32", tokens)
    return "float32" if fits(forward_bytes(shape_of(config), setting, tokens), gpu_gb) else dtype


def reading(training: TrainingParams, dtype: str, tokens: int) -> Setting:
    """One sequence of ``tokens`` read by the unquantised policy."""
    return Setting(training.model_copy(update={"quantization": "none", "batch_size": 1, "max_length": tokens,
                                               "objective": "sft"}), dtype)


def is_settled(params: TrainingParams) -> bool:
    """Whether nothing is left to choose."""
    return "auto" not in (params.quantization, params.gradient_checkpointing) and not params.fit_to_card


def card_memory() -> float | None:
    """The size to plan with for this machine's first CUDA device, in nominal GB, or ``None`` without one: what CUDA
    reports is usable in full, so it is the card whose usable part that would be.

    Of a card that others use too what is free, in whole GB, so that a plan does not hang on a window more or less. Free
    besides is what this process keeps for reuse; its own CUDA context is in the plan.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info(0)
    kept = torch.cuda.memory_reserved(0) - torch.cuda.memory_allocated(0)
    usable = free + kept + CUDA_CONTEXT
    return total / GIB / USABLE if usable >= total else float(int(usable / GIB / USABLE))


def table(chosen: MemoryPlan, gpu_gb: float) -> str:
    """Parts, total against the card, settings and reasons, as lines for a terminal."""
    assert chosen.usable is not None  # planned for a card
    new = chosen.training
    lines = [f"{gpu_gb:.3g} GB card, {_gib(chosen.usable)} usable; the peak comes at: {chosen.moment}", ""]
    lines += [f"  {name:26}{size / GIB:8.2f} GiB" for name, size in chosen.parts.items()]
    lines += [f"  {'total':26}{chosen.total / GIB:8.2f} GiB, {chosen.total / chosen.usable:.0%} of what is usable", "",
              f"  quantization {new.quantization}, gradient_checkpointing {str(new.gradient_checkpointing).lower()}, "
              f"batch_size {new.batch_size}, {max(1, new.accumulation // new.processes)} batches a step, "
              f"{new.max_length} tokens", ""]
    return "\n".join(lines + [f"  - {reason}" for reason in chosen.reasons])


def tables(config: Any, training: TrainingParams, cards: list[float], dtype: str = "bfloat16") -> str:
    """``table`` for each card; of one that is too small, why.

    Raises:
        DoesNotFit: the only card is too small.
    """
    blocks = []
    for card in cards:
        try:
            blocks.append(table(plan(config, training, card, dtype), card))
        except DoesNotFit as error:
            if len(cards) == 1:
                raise
            blocks.append(f"{card:.3g} GB card: does not fit; {error}")
    return "\n\n".join(blocks)
