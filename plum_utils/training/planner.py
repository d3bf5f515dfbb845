"""Settings that let a policy fit a card: what is ``auto``, and how a step is shared out, by the formulas of ``memory``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from plum_utils.params import ParamsError, TrainingParams
from plum_utils.training.memory import (
    CUDA_CONTEXT,
    FRAGMENTATION,
    GIB,
    Setting,
    Shape,
    peak_parts,
    shape_of,
    weight_bytes,
)

USABLE = 15 / 16  # of a card's nominal size; cards with in-line ECC (L4, A10G, L40S) give a sixteenth to it
SPARING = 0.95  # of what is usable: the formulas come within 3% of measured peaks
LEAST_KTO_BATCH = 4  # params.TrainingParams' own bound: the KL term pairs neighbours of a batch
LENGTH_STEP, LEAST_LENGTH = 128, 256
CARDS: list[float] = [24, 48, 80]  # GB, where no card is given and none is there


class DoesNotFit(ParamsError):
    """No setting that may be chosen fits the card; the message has the smallest need."""


@dataclass(frozen=True)
class MemoryPlan:
    """Settings for a card, with the peak they lead to.

    Attributes:
        parts: bytes at the peak by what they are; their sum is ``total``.
        usable: bytes of the card that may be taken, or ``None`` on a CPU, where nothing is fitted.
        moment: when in a step the peak comes.
        reasons: one sentence for each setting that was chosen, and what the numbers assume.
    """

    setting: Setting
    batch_size: int
    parts: dict[str, int]
    moment: str
    usable: int | None
    reasons: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.usable is None or self.total <= SPARING * self.usable


def usable_bytes(gpu_gb: float) -> int:
    """Of a card sold as ``gpu_gb`` GB, which are GiB: 15/16, what is left of a card with in-line ECC."""
    return round(gpu_gb * GIB * USABLE)


def plan(config: Any, training: TrainingParams, gpu_gb: float | None, length: int | None = None,
         dtype: str = "bfloat16") -> MemoryPlan:
    """Choose what is ``auto``, and with ``fit_to_card`` how the batch is shared out, for one card.

    What the parameters fix is kept. Then, first that fits: weights as they are before NF4, no checkpointing before
    checkpointing, and the largest batch. ``max_length`` is lowered only with ``fit_to_card`` and when nothing else
    fits, by as few ``LENGTH_STEP`` tokens as will do.

    Args:
        gpu_gb: the card's nominal size; ``None``: a CPU, where ``auto`` is "none" or "no" and nothing is fitted.
        length: tokens of the longest sequence, where they are known to be fewer than ``max_length``.
        dtype: the policy's (``policy.dtype``).

    Raises:
        DoesNotFit: nothing that may be chosen fits; the message has the smallest need.
        ParamsError: an architecture that has no formula, or a step that the processes cannot share out.
    """
    shape = shape_of(config)
    longest = min(length or training.max_length, training.max_length)
    if gpu_gb is None:
        setting, batch_size = next(_choices(training, longest, dtype, False))
        moment, parts = peak_parts(shape, setting, False)
        return MemoryPlan(setting, batch_size, parts, moment, None,
                          ("on a CPU nothing is fitted: auto means none for weights and no for checkpointing",))
    smallest = None
    for tokens in _lengths(training, longest):
        for setting, batch_size in _choices(training, tokens, dtype, True):
            moment, parts = peak_parts(shape, setting)
            chosen = MemoryPlan(setting, batch_size, parts, moment, usable_bytes(gpu_gb), ())
            if chosen.fits:
                return replace(chosen, reasons=tuple(_reasons(shape, training, chosen, longest, dtype)))
            if smallest is None or chosen.total < smallest.total:
                smallest = chosen
    if smallest is None:
        raise ParamsError(f"training.fit_to_card: {training.processes} processes cannot share out a step of "
                          f"{training.batch_size} x {training.accumulation} rows (batch_size x accumulation); give a multiple")
    raise DoesNotFit(_too_small(training, smallest, gpu_gb))


def _lengths(training: TrainingParams, longest: int) -> Iterator[int]:
    yield longest
    if training.fit_to_card:
        yield from range((longest - 1) // LENGTH_STEP * LENGTH_STEP, LEAST_LENGTH - 1, -LENGTH_STEP)


def _choices(training: TrainingParams, length: int, dtype: str, on_gpu: bool) -> Iterator[tuple[Setting, int]]:
    """Settings to be tried, with their batch sizes, best first."""
    checkpointing = training.gradient_checkpointing
    weights = [training.quantization == "nf4"] if training.quantization != "auto" else [False, True][:1 + on_gpu]
    again = [checkpointing] if checkpointing != "auto" else [False, True][:1 + on_gpu]
    for nf4, checkpointed in product(weights, again):
        for batch_size in _batch_sizes(training) if on_gpu else [training.batch_size]:
            pairs = 2 if training.objective == "dpo" else 1  # chosen and rejected go through together
            yield Setting(
                sequences=batch_size * pairs, length=length, accumulation=_micro_batches(training, batch_size), nf4=nf4,
                checkpointing=checkpointed, autocast=training.autocast, attention=training.attention, dtype=dtype,
                in_model_dtype=training.adapters_in_model_dtype, lora_r=training.lora_r, triton=on_gpu,
                optimizer=training.optimizer, objective=training.objective,
                precomputed=training.precompute_reference, processes=training.processes), batch_size


def _micro_batches(training: TrainingParams, batch_size: int) -> int:
    """Batches that one process runs through in a step."""
    return max(1, training.batch_size * training.accumulation // (batch_size * training.processes))


def _batch_sizes(training: TrainingParams) -> list[int]:
    """Divisors of the rows of a step, largest first, that leave each process as many batches; KTO's from
    ``LEAST_KTO_BATCH``."""
    rows = training.batch_size * training.accumulation
    if not training.fit_to_card:
        return [training.batch_size]
    least = LEAST_KTO_BATCH if "kto" in training.objective else 1
    return [size for size in range(rows, least - 1, -1) if rows % (size * training.processes) == 0]


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _need(shape: Shape, setting: Setting) -> str:
    return _gib(sum(peak_parts(shape, setting)[1].values()))


def _reasons(shape: Shape, training: TrainingParams, chosen: MemoryPlan, longest: int, dtype: str) -> Iterator[str]:
    assert chosen.usable is not None
    setting, room = chosen.setting, _gib(chosen.usable)
    least = min(_batch_sizes(training)) * (2 if training.objective == "dpo" else 1)
    if training.quantization == "auto":
        again = training.gradient_checkpointing is not False
        other = replace(setting, nf4=False, sequences=least, length=longest, checkpointing=again)
        weights = _gib(weight_bytes(shape, replace(setting, nf4=False)))
        yield (f"quantization nf4: {dtype} weights alone take {weights}, and with them a batch of {least} needs "
               f"{_need(shape, other)} of {room}" if setting.nf4 else
               f"quantization none: {dtype} weights ({weights}) fit, and the policy that is trained is then the one "
               "that was sampled")
    if training.gradient_checkpointing == "auto":
        yield (f"gradient_checkpointing true: without it a batch of {least} needs "
               f"{_need(shape, replace(setting, checkpointing=False, sequences=least, length=longest))} of {room}"
               if setting.checkpointing else
               f"gradient_checkpointing false: {_need(shape, setting)} of {room} without it, and no layer is run twice")
    if training.fit_to_card:
        yield from _reasons_to_share(shape, training, chosen, room)
    if setting.length < longest:
        yield (f"max_length {setting.length} instead of {longest}: with {longest} even a batch of {least} needs "
               f"{_need(shape, replace(setting, length=longest))} of {room}; longer rows are cut")
    sparing = [name for name, used in (("flash_attention_2", training.attention == "flash_attention_2"),
                                       ("liger", training.liger), ("compile", training.compile)) if used]
    if sparing:
        yield f"{', '.join(sparing)}: not in the formulas, which are those of training without; expected to need less"
    yield (f"assumed: {_gib(CUDA_CONTEXT)} for CUDA, {FRAGMENTATION:.0%} for fragmentation, and every row as long as "
           f"{setting.length} tokens; {USABLE:.1%} of the card's size are usable, and {SPARING:.0%} of that are planned "
           "with")


def _reasons_to_share(shape: Shape, training: TrainingParams, chosen: MemoryPlan, room: str) -> Iterator[str]:
    sizes, setting = _batch_sizes(training), chosen.setting
    larger = [size for size in sizes if size > chosen.batch_size]
    rows = (f"batch_size {chosen.batch_size} x accumulation {_accumulation(training, chosen)} = "
            f"{training.batch_size * training.accumulation} rows a step, as asked")
    if larger:
        bigger = replace(setting, sequences=setting.sequences * larger[-1] // chosen.batch_size)
        yield f"{rows}; a batch of {larger[-1]} needs {_need(shape, bigger)} of {room}"
    else:
        yield f"{rows}, all at once"
    if "kto" in training.objective and chosen.batch_size != training.batch_size:
        yield f"the KL term is now the mean over {chosen.batch_size} rows instead of {training.batch_size}"


def _too_small(training: TrainingParams, smallest: MemoryPlan, gpu_gb: float) -> str:
    setting = smallest.setting
    free = {"quantization: auto": training.quantization == "none",
            "gradient_checkpointing: auto": training.gradient_checkpointing is False,
            "fit_to_card: true": not training.fit_to_card}
    advice = ", ".join(f"training.{key}" for key, missing in free.items() if missing) or "a larger card"
    return (f"a card of {gpu_gb:.3g} GB has {_gib(usable_bytes(gpu_gb))} to use; the smallest need is "
            f"{_gib(smallest.total)} ({'nf4' if setting.nf4 else 'unquantised'} weights, checkpointing "
            f"{'on' if setting.checkpointing else 'off'}, batch {smallest.batch_size}, {setting.length} tokens). "
            f"Try {advice}")


def _accumulation(training: TrainingParams, chosen: MemoryPlan) -> int:
    return training.batch_size * training.accumulation // chosen.batch_size


def settled(params: TrainingParams, chosen: MemoryPlan) -> TrainingParams:
    """The parameters with the plan's settings in the place of every ``auto``."""
    setting = chosen.setting
    changes = {"quantization": "nf4" if setting.nf4 else "none", "gradient_checkpointing": setting.checkpointing,
               "batch_size": chosen.batch_size, "accumulation": _accumulation(params, chosen)}
    if chosen.usable is not None and params.fit_to_card and setting.length < params.max_length:
        changes["max_length"] = setting.length
    return params.model_copy(update=changes)


def settle_for(params: TrainingParams, config: Any, gpu_gb: float | None, dtype: str = "bfloat16") -> TrainingParams:
    """``settled`` for a card, or for a CPU (``None``), where any architecture will do: no formula is asked.

    Raises:
        DoesNotFit, ParamsError: as ``plan``, which is asked only for a card and only if something is left to choose.
    """
    if gpu_gb is None:
        changes = {"quantization": "none", "gradient_checkpointing": False}
        return params.model_copy(update={key: to for key, to in changes.items() if getattr(params, key) == "auto"})
    if "auto" not in (params.quantization, params.gradient_checkpointing) and not params.fit_to_card:
        return params
    return settled(params, plan(config, params, gpu_gb, dtype=dtype))


def card_memory() -> float | None:
    """The size to plan with for this machine's first CUDA device, in nominal GB, or ``None`` without one: what CUDA
    reports is usable in full, so it is the card whose usable part that would be."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(0).total_memory / GIB / USABLE


def table(chosen: MemoryPlan, gpu_gb: float) -> str:
    """Parts, total against the card, settings and reasons, as lines for a terminal."""
    assert chosen.usable is not None  # planned for a card
    setting = chosen.setting
    lines = [f"{gpu_gb:.3g} GB card, {_gib(chosen.usable)} usable; the peak comes at: {chosen.moment}", ""]
    lines += [f"  {name:26}{size / GIB:8.2f} GiB" for name, size in chosen.parts.items()]
    lines += [f"  {'total':26}{chosen.total / GIB:8.2f} GiB, {chosen.total / chosen.usable:.0%} of what is usable", "",
              f"  quantization {'nf4' if setting.nf4 else 'none'}, gradient_checkpointing "
              f"{str(setting.checkpointing).lower()}, batch_size {chosen.batch_size}, {setting.accumulation} batches a "
              f"step, {setting.length} tokens", ""]
    return "\n".join(lines + [f"  - {reason}" for reason in chosen.reasons])


def tables(config: Any, training: TrainingParams, cards: list[float], dtype: str = "bfloat16") -> str:
    """``table`` for each card; of one that is too small, why.

    Raises:
        DoesNotFit: the only card is too small.
    """
    if len(cards) == 1:
        return table(plan(config, training, cards[0], dtype=dtype), cards[0])
    blocks = []
    for card in cards:
        try:
            blocks.append(table(plan(config, training, card, dtype=dtype), card))
        except DoesNotFit as error:
            blocks.append(f"{card:.3g} GB card: does not fit; {error}")
    return "\n\n".join(blocks)
