"""The house stands: names and imports are checked, rooms import downwards only, and their faces show what is there."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from setuptools import find_namespace_packages

from plum_utils import provenance
from plum_utils.provenance import PACKAGE, ROOT, reached
from plum_utils.stages import STAGES

ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


LAYERS = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.mark.parametrize("command", [("-m", "ruff", "check", "."), ("-c", LAYERS)], ids=["ruff", "import-linter"])
def test_the_linters_find_nothing(command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_with_modules_is_installed():
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py")}
    assert folders <= set(find_namespace_packages(str(ROOT), include=["plum_utils*"]))  # as pyproject.toml finds them


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "sandbox"])
def test_a_face_shows_what_its_modules_have_and_no_module_bears_a_shown_name(room):
    face = importlib.import_module(f"plum_utils.{room}")
    for module, shown in face.NAMES.items():
        there = importlib.import_module(f"plum_utils.{room}.{module}")
        assert all(getattr(face, name) is getattr(there, name) for name in shown)
        assert not {path.stem for path in (PACKAGE / room).glob("*.py")} & set(shown)


def test_a_room_is_entered_without_a_model_library():
    rooms = ", ".join(f"plum_utils.{room}" for room in ROOMS)
    code = f"import sys, {rooms}; print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def unknown(source: str) -> list[str]:
    """Names that code takes from our modules, also late or through a room, and that are not there."""
    modules, absent, tree = {}, [], ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("plum_utils", "benchmarks", "docs"):
            place = importlib.import_module(node.module)
            for alias in node.names:
                found = getattr(place, alias.name, None)
                if found is None and find_spec(f"{node.module}.{alias.name}"):
                    found = importlib.import_module(f"{node.module}.{alias.name}")
                if isinstance(found, ModuleType):
                    modules[alias.asname or alias.name] = found
                absent += [] if found is not None else [f"{node.module}.{alias.name}"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            absent += [] if hasattr(modules[node.value.id], node.attr) else [f"{node.value.id}.{node.attr}"]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in modules:
            absent.append(f"{node.func.id}(), a module")
    return absent


FOLDERS = [path for pattern in ("plum_utils/**/*.py", "benchmarks/*.py", "docs/**/*.py", "teaching/**/*.py", "notebooks/**/*.ipynb",
                                "teaching/**/*.ipynb") for path in sorted(ROOT.glob(pattern)) if "worker" not in path.parts]


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_of_ours_that_is_used_is_there(path):
    source = path.read_text()
    if path.suffix == ".ipynb":
        source = "\n".join(cell.source for cell in nbformat.reads(source, 4).cells if cell.cell_type == "code")
    assert unknown(source) == []


# --- what a stage's code digest covers ------------------------------------------------------------------------------

def names(notebook: Path) -> set[str]:
    return {path.relative_to(provenance.PACKAGE).as_posix() for path in reached(notebook)}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_no_stage_rests_on_pages_sweeps_or_figures(stage):
    found = names(ROOT / "notebooks" / f"{stage.name}.ipynb")
    assert {"params.py", "runs.py", "study/lesson.py"} <= found
    assert not [name for name in found if name.startswith("plots/")]
    assert not {f"study/{name}.py" for name in ("page", "report", "sweeps", "search", "pipeline", "commands", "dry")} & found


def test_a_stage_rests_on_what_its_cells_import_or_start():
    found = {stage.number: names(ROOT / "notebooks" / f"{stage.name}.ipynb") for stage in STAGES}
    assert "models/vllm_engine.py" in found["02"] and "training/trainers.py" not in found["02"]
    assert {"training/trainers.py", "training/launch.py"} <= found["04"] and "evaluation/scoring.py" not in found["04"]
    assert {"sandbox/worker/supervisor.py", "preferences/labels.py"} <= found["03"]
    assert {"evaluation/scoring.py", "sandbox/worker/supervisor.py"} <= found["05"]


def test_magics_broken_cells_and_broken_notebooks_are_no_error(tmp_path):
    path = tmp_path / "x.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in ("%matplotlib inline\nfrom plum_utils.stats import holm", "def (")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert names(path) == {"__init__.py", "stats.py"}
    path.write_text("{")
    assert names(path) == set() and len(provenance.code_digest(path)) == 16
