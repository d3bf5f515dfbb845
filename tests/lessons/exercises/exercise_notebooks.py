"""Reading and running the exercise notebooks: in a kernel of this Python, or cell by cell in this process."""

from __future__ import annotations

import ast
import contextlib
import io
import os
from pathlib import Path
from typing import Any, Callable

import nbformat
from nbclient import NotebookClient

from plum_utils.provenance import ROOT
from plum_utils.stages import STAGES
from plum_utils.study.notebooks import changed_environment, own_kernel

SOLUTIONS, RELEASED = ROOT / "teaching" / "solutions", ROOT / "notebooks" / "exercises"
NAMES = [stage.name for stage in STAGES]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def grading(cell: nbformat.NotebookNode) -> dict[str, Any]:
    return cell.metadata["nbgrader"]


def test_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The autograded test cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and grading(cell)["grade"]]


test_cells.__test__ = False


@contextlib.contextmanager
def repository_kernel():
    """Every kernel started inside is this interpreter, and imports this repository."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with own_kernel() as kernel, changed_environment(kernel | {"PYTHONPATH": path}):
        yield


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with outputs; a cell that fails does not stop those after it."""
    notebook = read(path)
    with repository_kernel():
        NotebookClient(notebook, kernel_name="python3", allow_errors=True, timeout=120,
                       resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


def errors(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for output in cell.outputs if output.output_type == "error"]


class Here:
    """A solution notebook run in this process, so that an answer can be replaced and its test run again."""

    def __init__(self, name: str):
        cells = [cell for cell in read(SOLUTIONS / f"{name}.ipynb").cells if cell.cell_type == "code"]
        self.source = {cell.id: cell.source for cell in cells}
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.run(f"{name[:2]}-setup")

    def run(self, cell_id: str, old: str = "", new: str = "") -> None:
        """Run one cell, with a piece of its text replaced."""
        source = self.source[cell_id]
        assert old in source, f"{cell_id} has no {old!r}"
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source.replace(old, new), cell_id, "exec"), self.names)

    def answer(self, key: str) -> Callable[..., Any]:
        """The solution of one exercise (``01-ex3``), run; its function."""
        before = set(self.names)
        self.run(f"{key}-answer")
        name = ast.parse(self.source[f"{key}-answer"]).body[0].name
        assert name in self.names and name not in before
        return self.names[name]

    def close(self) -> None:
        if "sandbox" in self.names:
            self.names["sandbox"].close()
