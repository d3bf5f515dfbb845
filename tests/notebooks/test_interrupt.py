"""The stop button in the middle of a cell, then the same cell again: it goes on, and ends with the same files."""

from __future__ import annotations

import os
import shutil
import time
from itertools import takewhile
from pathlib import Path
from typing import Iterator

import nbformat
import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from smoke_command import SMOKE

from plum_utils.notebook_runs import kernel_environment, own_kernel
from plum_utils.params import load_params
from plum_utils.provenance import ROOT

pytestmark = pytest.mark.slow

STAGE, PIECE = "02_sampling", "02_sampling/shards/*.jsonl"
CHANGES = {"sampling.shard_size": 2, "sampling.backend": "vllm"}


class Notebook:
    """A lesson in a kernel of its own, run cell by cell as in JupyterLab."""

    def __init__(self, client: BlockingKernelClient, manager: KernelManager):
        cells = nbformat.read(ROOT / "notebooks" / f"{STAGE}.ipynb", as_version=4).cells
        self.cells = {cell.id: cell.source for cell in cells if cell.cell_type == "code"}
        self.client, self.manager = client, manager

    def run(self, name: str) -> None:
        """A cell that runs to its end."""
        reply = self.client.execute_interactive(self.cells[name], timeout=600, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", (name, reply["content"])

    def run_before(self, name: str) -> None:
        """Every code cell before the one of this id."""
        for other in takewhile(lambda other: other != name, self.cells):
            self.run(other)

    def interrupt(self, name: str, folder: Path) -> dict:
        """Start a cell, press stop as soon as its first piece of work is there, and return the cell's reply."""
        asked, deadline = self.client.execute(self.cells[name]), time.monotonic() + 300
        while not list(folder.glob(PIECE)):
            assert time.monotonic() < deadline, f"no {PIECE}"
            time.sleep(0.01)
        self.manager.interrupt_kernel()
        while (reply := self.client.get_shell_msg(timeout=300))["parent_header"]["msg_id"] != asked:
            pass
        return reply["content"]


@pytest.fixture
def open_notebook(monkeypatch) -> Iterator:
    managers = []

    def start(run_dir: Path) -> Notebook:
        values = load_params(SMOKE, CHANGES)
        environment = os.environ | kernel_environment(values, run_dir)
        environment.pop("PLUM_RUN_DIR")
        manager = KernelManager(kernel_name="python3")
        with own_kernel() as kernel:
            for key, value in kernel.items():
                monkeypatch.setenv(key, value)
            manager.start_kernel(env=environment | kernel, cwd=str(ROOT))
        managers.append(manager)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        notebook = Notebook(client, manager)
        notebook.cells["02-parameters"] = f"params = {values.model_dump(mode='json')!r}\nrun_dir = {str(run_dir)!r}"
        return notebook

    yield start
    for manager in managers:
        manager.shutdown_kernel(now=True)


def without_samples(finished: Path, target: Path) -> Path:
    """A copy of a finished run that has not sampled yet."""
    shutil.copytree(finished, target)
    shutil.rmtree(target / STAGE)
    return target


def test_stop_and_run_again(smoke, tmp_path, open_notebook):
    pytest.importorskip("vllm")
    run = without_samples(smoke.path, tmp_path / "run")
    notebook = open_notebook(run)
    notebook.run_before("02-sample")
    stopped = notebook.interrupt("02-sample", run)
    assert stopped["status"] == "error" and stopped["ename"] == "KeyboardInterrupt", stopped
    kept = {path: path.stat().st_ino for path in run.glob(PIECE)}
    notebook.run("02-sample")
    notebook.run("02-write")
    still = {path: path.stat().st_ino for path in run.glob(PIECE)}
    assert kept and kept.items() <= still.items(), "a finished piece was made again"

    undisturbed = without_samples(smoke.path, tmp_path / "undisturbed")
    other = open_notebook(undisturbed)
    other.run_before("02-sample")
    other.run("02-sample")
    other.run("02-write")
    assert (run / STAGE / "samples.jsonl").read_bytes() == (undisturbed / STAGE / "samples.jsonl").read_bytes()
