"""SIGKILL in the middle of a stage, then the same command: the artifacts are those of an undisturbed run, bit by bit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from smoke_command import FIRST_PIECE, call, command, up_to

from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.study.notebooks import MARK
from plum_utils.training.watching import MEASURED

pytestmark = pytest.mark.long("seconds")


def wait_for(process: subprocess.Popen, run: Run, pattern: str, seconds: float = 300) -> list[Path]:
    """Files that match as soon as there is one."""
    deadline = time.monotonic() + seconds
    while not (found := list(run.path.glob(pattern))):
        assert process.poll() is None, "the command ended before its first piece of work was there"
        assert time.monotonic() < deadline, f"no {pattern} after {seconds} s"
        time.sleep(0.02)
    return found


def kill_kernels(run: Run) -> int:
    """SIGKILL every process that the run started; returns how many there were."""
    killed = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(run.path.resolve()):
                process.kill()
                killed.append(process)
    psutil.wait_procs(killed, timeout=10)
    return len(killed)


def artifacts(folder: Path) -> dict[str, bytes | list]:
    """Contents of a stage's files by their name; of a training's history without the speed and memory of its steps."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return found | {name: [{key: step[key] for key in step if key not in MEASURED} for step in json.loads(content)]
                    for name, content in found.items() if name.endswith("history.json")}


@pytest.mark.parametrize(("stage", "kernel_too"), [
    ("02_sampling", True),
    ("03_preferences", False),  # the orphaned kernel works on until the next command ends it
    ("04_train_kto", True),
])
def test_killed_then_the_same_command(stage, kernel_too, smoke, tmp_path):
    run = up_to(stage, smoke.path, tmp_path / "run")
    process = subprocess.Popen(command(run.path, "--only", stage[:2]), cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    pieces = wait_for(process, run, FIRST_PIECE[stage])
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not kernel_too or kill_kernels(run) > 0
    assert run.manifest()["stages"][stage]["status"] == "running", "the stage was done before it could be killed"
    before = {piece: piece.stat().st_ino for piece in pieces}

    again = call(run.path, "--only", stage[:2])
    assert again.status == 0, again.output[-4000:]
    if "shards" in FIRST_PIECE[stage]:
        assert {piece: piece.stat().st_ino for piece in pieces} == before, "a finished shard was made again"
    ours, undisturbed = artifacts(run.path / stage), artifacts(smoke.path / stage)
    assert sorted(ours) == sorted(undisturbed)
    assert [name for name in ours if ours[name] != undisturbed[name]] == []
    if stage == "04_train_kto":
        assert any(name.endswith("adapter_model.safetensors") for name in ours)
