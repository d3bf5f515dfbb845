"""The command as a user types it, with the smoke parameters."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from plum_utils.provenance import ROOT

SMOKE = ROOT / "params" / "smoke.yaml"


@dataclass(frozen=True)
class Done:
    """A finished command: its run's folder, exit status, output (both streams) and seconds."""

    path: Path
    status: int
    output: str
    seconds: float


def command(run_dir: Path, *more: str) -> list[str]:
    """``python -m plum_utils run params/smoke.yaml`` into ``run_dir``."""
    return [sys.executable, "-m", "plum_utils", "run", str(SMOKE), "--run-dir", str(run_dir), *more]


def call(run_dir: Path, *more: str) -> Done:
    """Run the command to its end."""
    start = time.monotonic()
    done = subprocess.run(command(run_dir, *more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=1500)
    return Done(run_dir, done.returncode, done.stdout, time.monotonic() - start)
