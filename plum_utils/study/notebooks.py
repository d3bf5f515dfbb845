"""Execute one notebook in a kernel of this very Python: progress, peak memory, and what is kept when a cell fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator

import nbformat
import psutil

from plum_utils.jsonl import write_json
from plum_utils.params import Params
from plum_utils.progress import WIDTH, every_second, one_line, told_to_kernels
from plum_utils.provenance import ROOT
from plum_utils.study.hub_access import hub_sources

MARK = "PLUM_RUN_DIR"  # in the environment of every process a run started
PASSED = re.compile(r"^([^:\n]+): .* left(?: not known yet)?\n(?=\1: )", re.MULTILINE)  # a loop's line but its last
QUIET = {  # of every lesson's kernel: only what the lesson says is printed
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "WARNING",  # of a notebook opened by hand; a run has all of it in a file (vllm_log)
    "VLLM_NO_USAGE_STATS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # widgets that a saved notebook shows at 0% for ever; progress.DownloadBar is shown
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONWARNINGS": "ignore",
}


def kernel_environment(params: Params, run_dir: Path) -> dict[str, str]:
    """Variables set for the notebooks' kernels; where every model and data set is local, no hub is ever asked."""
    terminal = sys.stderr.isatty()
    environment = QUIET | {
        MARK: str(run_dir.resolve()),
        "VLLM_LOGGING_CONFIG_PATH": str(vllm_log(run_dir)),
        WIDTH: told_to_kernels(sys.stderr),
        "TQDM_MININTERVAL": "0.5" if terminal else "30",  # of other libraries' bars: a log needs none twice a second
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    return environment if hub_sources(params) else environment | {"HF_HUB_OFFLINE": "1"}


def vllm_log(run_dir: Path) -> Path:
    """A logging configuration with which vLLM writes what it says (settings, memory, warnings) to ``logs/vllm.log``."""
    folder = run_dir.resolve() / "logs"
    write_json(folder / "vllm_logging.json", {
        "version": 1, "disable_existing_loggers": False,
        "formatters": {"lines": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(folder / "vllm.log"), "delay": True,
                              "formatter": "lines"}},
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}}})
    return folder / "vllm_logging.json"


def run_notebook(source: Path, folder: Path, parameters: dict[str, Any], environment: dict[str, str]) -> str:
    """Execute one notebook; the result appears as ``folder/<name>.ipynb`` only when every cell has run.

    Returns:
        An empty string, or one line naming notebook, cell and cause; then ``<name>.failed.ipynb`` holds what ran and
        the traceback.
    """
    import papermill

    folder.mkdir(parents=True, exist_ok=True)
    partial, failed = folder / f"{source.stem}.partial.ipynb", folder / f"{source.stem}.failed.ipynb"
    for old in (partial, failed):
        old.unlink(missing_ok=True)
    progress, cause = Progress(source), ""
    try:
        with own_kernel() as kernel, changed_environment(environment | kernel):
            papermill.execute_notebook(
                str(source), str(partial), parameters=parameters, kernel_name="python3", language="python",
                cwd=str(ROOT), progress_bar=False, stderr_file=sys.stderr, on_cell_start=progress,
                coalesce_streams=True)  # of a bar only the last state is kept
    except papermill.PapermillExecutionError as error:
        cause = f"{progress.where()}: {error.ename}: {one_line(error.evalue, 500)}"
    except Exception as error:  # a dead kernel, a notebook that is not one, a full disk
        cause = f"{progress.where()}: the kernel stopped ({type(error).__name__}: {one_line(error, 500)})"
    if partial.exists():
        _tidy(partial)
        partial.replace(failed if cause else folder / source.name)
    return cause


class Progress:
    """Prints each section's heading as its first cell starts; remembers the cell that runs."""

    def __init__(self, source: Path):
        self.source = source
        self.places: dict[str, tuple[int, str]] = {}  # cell id -> (number from 1, heading above it)
        self.started = time.monotonic()
        self.heading = self.cell = heading = ""
        cells = []
        with contextlib.suppress(Exception):  # what is wrong with the file, papermill reports
            cells = nbformat.read(source, as_version=4).cells
        for number, cell in enumerate(cells, 1):
            titles = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            if cell.cell_type == "markdown" and titles:
                heading = titles[-1]
            self.places[cell.get("id", "")] = (number, heading)

    def __call__(self, cell: Any, cell_index: int) -> None:
        """nbclient calls this before each cell."""
        number, heading = self.places.get(cell.get("id", ""), (0, ""))
        if cell.cell_type == "markdown":
            return
        first_line = next((line for line in cell.source.splitlines() if line.strip()), "")
        label = f"cell {number}" if number else "the parameters cell"
        self.cell = f'{label} ("{heading}", {first_line.strip()[:60]})'
        if number and heading != self.heading:
            self.heading = heading
            elapsed = time.monotonic() - self.started
            print(f"    {elapsed:6.0f} s  cell {number:>3}/{len(self.places)}  {heading}", flush=True)

    def where(self) -> str:
        """Notebook and current cell, for an error message."""
        return f"{self.source.name}, {self.cell}" if self.cell else self.source.name


@contextlib.contextmanager
def own_kernel() -> Iterator[dict[str, str]]:
    """A kernel ``python3`` that is this interpreter, whatever kernels and IPython profiles the user has installed."""
    with tempfile.TemporaryDirectory(prefix="plum-kernel-", ignore_cleanup_errors=True) as folder:
        spec = Path(folder) / "kernels" / "python3"
        spec.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
        yield {"JUPYTER_PATH": folder, "JUPYTER_RUNTIME_DIR": folder, "IPYTHONDIR": folder}


@contextlib.contextmanager
def changed_environment(variables: dict[str, str]) -> Iterator[None]:
    """These variables set in ``os.environ`` inside, and everything as it was after."""
    saved = dict(os.environ)
    os.environ.update(variables)  # papermill offers no other way to a kernel's environment
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _tidy(path: Path) -> None:
    """Take out of an executed notebook this machine's paths, and of each loop's lines of progress all but the last."""
    notebook = nbformat.read(path, as_version=4)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        if output.output_type == "stream" and output.name == "stderr":
            output.text = PASSED.sub("", re.sub(" +\n", "\n", output.text))
    record = notebook.metadata.get("papermill", {})
    notebook.metadata["papermill"] = {key: record[key] for key in ("duration", "start_time", "end_time", "version")
                                      if key in record}
    nbformat.write(notebook, path)


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Largest resident size in bytes, sampled each second, of this process's descendants together."""
    peak = [0]

    def look() -> None:
        peak[0] = max(peak[0], _resident(psutil.Process().children(recursive=True)))

    with every_second(look):
        yield peak


def _resident(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def end_leftovers(run_dir: Path) -> None:
    """Kill processes that an earlier, killed run of this folder left behind, so that none writes into it."""
    mark, left = str(run_dir.resolve()), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=10)
