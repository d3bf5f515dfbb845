"""What every committed notebook keeps to, a lesson as an exercise."""

from __future__ import annotations

import ast
import re

import nbformat

MACHINE_PATH = re.compile(r"(?<![\w.])(/home/|/root/|/tmp/|/work/|/Users/|/mnt/|/opt/|[A-Z]:\\\\)")
NOT_PYTHON = ("%", "!", "?")  # IPython's own lines: no notebook needs one


def check_notebook(notebook: nbformat.NotebookNode) -> None:
    """A valid format, a plain kernel; cells with ids of their own and no path of a machine; code that is short plain
    Python without outputs."""
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata.kernelspec.name == "python3" and "papermill" not in notebook.metadata
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        assert not MACHINE_PATH.search(cell.source), cell.id
        if cell.cell_type == "code":
            check_code(cell)


def check_code(cell: nbformat.NotebookNode) -> None:
    lines = cell.source.splitlines()
    ast.parse(cell.source)
    assert not [line for line in lines if line.lstrip().startswith(NOT_PYTHON)], cell.id
    assert len(lines) <= 25 and max(map(len, lines), default=0) <= 120, cell.id
    assert not cell.outputs and cell.execution_count is None, cell.id
