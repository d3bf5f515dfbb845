"""The stop button in the middle of a cell, then the same cell again: it goes on, and ends with the same files."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Iterator

import nbformat
import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from smoke_command import SMOKE

from plum_utils.notebook_runs import kernel_environment, own_kernel
from plum_utils.params import load_params
from plum_utils.provenance import ROOT
from plum_utils.runs import Run

pytestmark = pytest.mark.slow

# The cell that does the long work, what its first finished piece looks like, and the file that the next cell writes.
LONG = {
    "02_sampling": ("02-sample", "02_sampling/shards/*.jsonl", "02-write", "02_sampling/samples.jsonl"),
}


class Notebook:
    """A lesson in a kernel of its own, run cell by cell as in JupyterLab."""

    def __init__(self, stage: str, client: BlockingKernelClient, manager: KernelManager):
        cells = nbformat.read(ROOT / "notebooks" / f"{stage}.ipynb", as_version=4).cells
        self.cells = {cell.id: cell.source for cell in cells if cell.cell_type == "code"}
        self.client, self.manager = client, manager

    def run(self, source: str) -> dict:
        """The reply to a cell that runs to its end."""
        return self.client.execute_interactive(source, timeout=600, output_hook=lambda message: None)["content"]

    def run_before(self, name: str) -> None:
        """Every code cell before the one of this id."""
        for other, source in self.cells.items():
            if other == name:
                return
            reply = self.run(source)
            assert reply["status"] == "ok", (other, reply)

    def interrupt(self, name: str, folder: Path, piece: str) -> dict:
        """Start a cell, press stop as soon as its first piece of work is there, and return the cell's reply."""
        asked, deadline = self.client.execute(self.cells[name]), time.monotonic() + 300
        while not list(folder.glob(piece)):
            assert time.monotonic() < deadline, f"no {piece}"
            time.sleep(0.01)
        self.manager.interrupt_kernel()
        while (reply := self.client.get_shell_msg(timeout=300))["parent_header"]["msg_id"] != asked:
            pass
        return reply["content"]


@pytest.fixture
def open_notebook(monkeypatch) -> Iterator:
    managers = []

    def start(stage: str, run_dir: Path, changes: dict) -> Notebook:
        values = load_params(SMOKE, changes)
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
        notebook = Notebook(stage, client, manager)
        notebook.cells[f"{stage[:2]}-parameters"] = (
            f"params = {values.model_dump(mode='json')!r}\nrun_dir = {str(run_dir)!r}")
        return notebook

    yield start
    for manager in managers:
        manager.shutdown_kernel(now=True)


@pytest.mark.parametrize(("stage", "changes"), [
    ("02_sampling", {"sampling.shard_size": 2, "sampling.backend": "vllm"}),
], ids=["02-vllm"])
def test_stop_and_run_again(stage, changes, smoke, tmp_path, open_notebook, monkeypatch):
    if changes.get("sampling.backend") == "vllm":
        pytest.importorskip("vllm")
    cell, piece, last, artifact = LONG[stage]
    run = Run(tmp_path / "run")
    shutil.copytree(smoke.path, run.path)
    shutil.rmtree(run.path / stage)
    notebook = open_notebook(stage, run.path, changes)
    notebook.run_before(cell)
    stopped = notebook.interrupt(cell, run.path, piece)
    assert stopped["status"] == "error" and stopped["ename"] == "KeyboardInterrupt", stopped
    kept = {path: path.stat().st_ino for path in run.path.glob(piece)}

    for name in dict.fromkeys([cell, last]):
        reply = notebook.run(notebook.cells[name])
        assert reply["status"] == "ok", reply
    still = {path: path.stat().st_ino for path in run.path.glob(piece)}
    assert kept and kept.items() <= still.items(), "a finished piece was made again"

    undisturbed = Run(tmp_path / "undisturbed")
    shutil.copytree(smoke.path, undisturbed.path)
    shutil.rmtree(undisturbed.path / stage)
    other = open_notebook(stage, undisturbed.path, changes)
    other.run_before(cell)
    for name in dict.fromkeys([cell, last]):
        assert other.run(other.cells[name])["status"] == "ok"
    assert (run.path / artifact).read_bytes() == (undisturbed.path / artifact).read_bytes()
