"""The type of number that models compute in: what the device multiplies in hardware, unless a parameter says otherwise.

bfloat16 halves memory and traffic, but a processor without it emulates each product: two AVX2 cores multiply matrices at
158 GFLOP/s in float32 and at 17 in bfloat16, and sample four times slower (docs/speed.md).
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache

from plum_utils.params import Params

SLOWER = {"bfloat16": "about 9 times slower than float32 there, sampling 4 times (measured on AVX2)",
          "float16": "several times slower than float32 there"}


@dataclass(frozen=True)
class Device:
    """What models run on: ``native`` are the types it has arithmetic for, the one to take first."""

    name: str
    native: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class NumberType:
    """A settled type; ``reason`` says why in a sentence, ``warning`` what it costs where the device emulates it."""

    name: str
    reason: str
    warning: str = ""


@lru_cache
def device() -> Device:
    """The first GPU that CUDA (or ROCm) offers to this process, else the CPU."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Device(name, ("bfloat16", "float16", "float32"), "this GPU multiplies bfloat16 in hardware")
        return Device(name, ("float16", "float32"), "this GPU is older than bfloat16 and multiplies float16 in hardware")
    return _cpu(dict(torch.cpu.get_capabilities()), platform.system())


def _cpu(has: dict[str, object], system: str) -> Device:
    """A CPU by what ``torch.cpu.get_capabilities`` found; macOS' own products know no bfloat16, whatever the chip."""
    found = [flag for flag in ("amx_bf16", "avx512_bf16", "bf16") if has.get(flag) and system != "Darwin"]
    halves = ("float16",) if any(has.get(flag) for flag in ("amx_fp16", "avx512_fp16")) else ()
    name = str(has.get("cpu_name") or has.get("architecture") or "CPU")
    if found:
        return Device(name, ("bfloat16", "float32", *halves), f"this CPU multiplies bfloat16 in hardware ({found[0]})")
    return Device(name, ("float32", *halves), "this CPU has no arithmetic for bfloat16 (neither AMX nor AVX512-BF16)")


def number_type(asked: str) -> NumberType:
    """The type for ``policy.dtype``: of ``auto`` the device's first, else the one asked for."""
    here = device()
    name = here.native[0] if asked == "auto" else asked
    if name == here.native[0]:
        return NumberType(name, here.reason)
    reason = f"policy.dtype asks for it; `auto` would be {here.native[0]}, for {here.reason}"
    if name in here.native:
        return NumberType(name, reason)
    return NumberType(name, reason, f"policy.dtype: {here.name} emulates {name}, {SLOWER[name]}; `auto` takes "
                                    f"{here.native[0]}")


def settled(params: Params) -> Params:
    """The parameters with ``policy.dtype`` decided for this device, so that every stage and every mark has the same."""
    policy = params.policy.model_copy(update={"dtype": number_type(params.policy.dtype).name})
    return params.model_copy(update={"policy": policy})
