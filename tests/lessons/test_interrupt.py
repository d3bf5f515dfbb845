"""The stop button in the middle of a cell, then the same cell again: it goes on, and ends with the same files."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Iterator

import nbformat
import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from smoke_command import FIRST_PIECE, SMOKE, up_to

from plum_utils.params import load_params
from plum_utils.provenance import ROOT
from plum_utils.study.notebooks import changed_environment, kernel_environment, own_kernel

pytestmark = pytest.mark.long("seconds")


@dataclass(frozen=True)
class Long:
    """A cell that works long, and the file that it (or ``write``) ends in."""

    stage: str
    cell: str
    result: str
    write: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    first: str = "pass"


SAMPLING = Long("02_sampling", "02-sample", "02_sampling/samples.jsonl", "02-write",
                {"sampling.shard_size": 2, "sampling.backend": "vllm"})
JUDGING = Long("03_preferences", "03-judge-run", "03_preferences/verdicts.jsonl",
               first="from plum_utils import study; study.JUDGED = 10")
TRAINING = Long("04_train_kto", "04-train-loop", "04_train_kto/policies.json")  # it holds the digest of the adapter's weights


class Notebook:
    """A lesson in a kernel of its own, run cell by cell as in JupyterLab."""

    def __init__(self, long: Long, client: BlockingKernelClient, manager: KernelManager):
        cells = nbformat.read(ROOT / "notebooks" / f"{long.stage}.ipynb", as_version=4).cells
        self.cells = {cell.id: cell.source for cell in cells if cell.cell_type == "code"}
        self.long, self.client, self.manager = long, client, manager

    def run(self, source: str) -> None:
        """Code that runs to its end."""
        reply = self.client.execute_interactive(source, timeout=600, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", (source, reply["content"])

    def run_before(self) -> None:
        """Every code cell before the long one."""
        for name in takewhile(lambda name: name != self.long.cell, self.cells):
            self.run(self.cells[name])
        self.run(self.long.first)

    def run_long(self) -> None:
        """The long cell, and the one that writes its result."""
        for name in filter(None, (self.long.cell, self.long.write)):
            self.run(self.cells[name])

    def interrupt(self, folder: Path) -> dict:
        """Start the long cell, press stop as soon as its first piece of work is there, and return the cell's reply."""
        asked, deadline = self.client.execute(self.cells[self.long.cell]), time.monotonic() + 300
        while not list(folder.glob(FIRST_PIECE[self.long.stage])):
            assert time.monotonic() < deadline, f"no {FIRST_PIECE[self.long.stage]}"
            time.sleep(0.01)
        self.manager.interrupt_kernel()
        while (reply := self.client.get_shell_msg(timeout=300))["parent_header"]["msg_id"] != asked:
            pass
        return reply["content"]


@pytest.fixture
def open_notebook() -> Iterator:
    managers = []

    def start(long: Long, run_dir: Path) -> Notebook:
        values = load_params(SMOKE, long.changes)
        environment = os.environ | kernel_environment(values, run_dir)
        environment.pop("PLUM_RUN_DIR")
        manager = KernelManager(kernel_name="python3")
        with own_kernel() as kernel, changed_environment(kernel):
            manager.start_kernel(env=environment | kernel, cwd=str(ROOT))
        managers.append(manager)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        notebook = Notebook(long, client, manager)
        parameters = f"params = {values.model_dump(mode='json')!r}\nrun_dir = {str(run_dir)!r}"
        notebook.cells[f"{long.stage[:2]}-parameters"] = parameters
        return notebook

    yield start
    for manager in managers:
        manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("long", [SAMPLING, JUDGING, TRAINING], ids=lambda long: long.stage)
def test_stop_and_run_again(long, smoke, tmp_path, open_notebook):
    if long is SAMPLING:
        pytest.importorskip("vllm")
    run = up_to(long.stage, smoke.path, tmp_path / "run").path
    notebook = open_notebook(long, run)
    notebook.run_before()
    stopped = notebook.interrupt(run)
    assert stopped["status"] == "error" and stopped["ename"] == "KeyboardInterrupt", stopped
    kept = {path: path.stat().st_ino for path in run.glob(FIRST_PIECE[long.stage])}
    notebook.run_long()
    still = {path: path.stat().st_ino for path in run.glob(FIRST_PIECE[long.stage])}
    assert kept and (kept.items() <= still.items() or long is TRAINING), "a finished piece was made again"

    undisturbed = smoke.path
    if long.changes:
        undisturbed = up_to(long.stage, smoke.path, tmp_path / "undisturbed").path
        other = open_notebook(long, undisturbed)
        other.run_before()
        other.run_long()
    assert (run / long.result).read_bytes() == (undisturbed / long.result).read_bytes()
