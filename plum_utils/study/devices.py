"""The GPUs that a run can use; where there is none, why."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from typing import NamedTuple

from plum_utils.progress import one_line
from plum_utils.provenance import ROOT

PATIENCE = 60  # seconds for a process that asks; loading torch and opening the driver are most of it


class Card(NamedTuple):
    """A GPU that CUDA offers to this process, with its bytes of memory."""

    name: str
    free: int
    total: int


@cache
def cards() -> tuple[Card, ...]:
    """The GPUs that CUDA (or ROCm) offers; none where it offers none.

    Raises:
        RuntimeError: they are there and do not answer.
    """
    import torch

    if not torch.cuda.is_available():
        return ()
    command = [sys.executable, "-m", "plum_utils.study.probe", "cards"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the GPU did not answer within {PATIENCE} s") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(one_line(error.stderr[-200:], 200)) from None
    return tuple(Card(*card) for card in json.loads(done.stdout.splitlines()[-1]))


def why_none() -> str:
    """Why CUDA offers no GPU, in torch's words: no driver, one that is too old, or a torch built for CPUs alone."""
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return one_line(error, 160)
    return "CUDA starts and offers none; see CUDA_VISIBLE_DEVICES"


def of_the_driver() -> list[str]:
    """The names of the GPUs that NVIDIA's driver knows, whether torch can use them or not; none without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip().replace(", ", ", driver ") for line in done.stdout.splitlines() if line.strip()]
