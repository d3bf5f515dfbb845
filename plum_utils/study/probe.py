"""A short look at this machine, in a process of its own, which takes what it loads and allocates along:
``python -m plum_utils.study.probe float32 576 1536`` prints FLOP/s of a matrix product, the device, and what it is;
``... cards`` the GPUs and their memory."""

from __future__ import annotations

import json
import sys
import time

from plum_utils.models.number_types import number_type

ROWS = 256  # sequences that vLLM decodes at a time
SECONDS = 1.0
WIDEST = 8192  # so that the two matrices stay below 512 MiB


def look(dtype: str, inner: int, outer: int) -> tuple[float, str, str]:
    """FLOP/s of (``ROWS``, inner) times (inner, outer) in ``dtype``, ``cpu`` or ``cuda``, and a few words on it."""
    import torch
    from torch.nn.functional import linear

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = number_type(dtype).name
    inner, outer = min(inner, WIDEST), min(outer, WIDEST)
    how = {"dtype": getattr(torch, dtype), "device": device}
    rows, weights = torch.ones(ROWS, inner, **how), torch.ones(outer, inner, **how)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times, ends = [], time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < ends:
        linear(rows, weights)
        wait()
        times.append(time.perf_counter() - began)
    quick = sorted(times)[len(times) // 10]  # other work here makes some longer; the least may be the clock's fault
    what = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    return 2 * ROWS * inner * outer / quick, device, f"{what}, {dtype}"


def cards() -> list[tuple[str, int, int]]:
    """Name, free bytes and all bytes of each GPU that CUDA offers. To ask opens each, which takes memory on it."""
    import torch

    each = range(torch.cuda.device_count())
    return [(torch.cuda.get_device_name(number), *torch.cuda.mem_get_info(number)) for number in each]


if __name__ == "__main__":
    print(json.dumps(cards() if sys.argv[1] == "cards" else look(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
