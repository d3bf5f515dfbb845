"""The command as a user types it, with the smoke parameters; its run as it stood before a stage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.stages import STAGES

SMOKE = ROOT / "params" / "smoke.yaml"
# What the first finished piece of each stage looks like: when it is there, the stage is under way and not done.
FIRST_PIECE = {
    "02_sampling": "02_sampling/shards/*.jsonl",
    "03_preferences": "03_preferences/shards/*.jsonl",
    "04_train_kto": "04_train_kto/**/checkpoint-*/complete.json",
}


@dataclass(frozen=True)
class Done:
    """A finished command: its run's folder, exit status, output (both streams) and seconds of processor time."""

    path: Path
    status: int
    output: str
    seconds: float


def command(run_dir: Path, *more: str) -> list[str]:
    """``python -m plum_utils run params/smoke.yaml`` into ``run_dir``, without a network for evalplus' data."""
    return ["env", "HF_HUB_OFFLINE=1", sys.executable, "-m", "plum_utils", "run", str(SMOKE), "--run-dir", str(run_dir), *more]


def call(run_dir: Path, *more: str) -> Done:
    """Run the command to its end."""
    before = os.times()
    done = subprocess.run(command(run_dir, *more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=1500)
    after = os.times()
    seconds = sum(after[2:4]) - sum(before[2:4])  # of the children, in user and system mode
    return Done(run_dir, done.returncode, done.stdout, seconds)


def up_to(stage: str, finished: Path, target: Path) -> Run:
    """A copy of the finished run as it stood before ``stage``."""
    shutil.copytree(finished, target)
    run = Run(target)
    manifest = run.manifest()
    for later in [one.name for one in STAGES if one.name >= stage]:
        shutil.rmtree(target / later)
        entry = manifest["stages"].pop(later)
        for name in entry["outputs"]:
            (target / name).unlink(missing_ok=True)
    run.manifest_path.unlink()
    run.record_params(manifest["params"])
    for name, entry in manifest["stages"].items():
        run.update_stage(name, entry)
    return run
