"""Make the students' notebooks out of the teachers': ``python teaching/release.py``.

The steps are those of ``nbgrader generate_assignment``, without its database: solutions become stubs, cells that are
not to be edited are locked, outputs are removed, checksums are computed.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, ClearSolutions, ComputeChecksums, LockCells

ROOT = Path(__file__).resolve().parents[1]
SOURCE, RELEASE = ROOT / "teaching" / "solutions", ROOT / "notebooks" / "exercises"
STEPS = (LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums, CheckCellMetadata)


def released(path: Path) -> nbformat.NotebookNode:
    """The student's version of one solution notebook.

    Raises:
        nbgrader.nbgraderformat.ValidationError: a cell's metadata is not as nbgrader wants it.
        RuntimeError: a solution without end, or outside an answer cell.
    """
    notebook = nbformat.read(path, as_version=4)
    for step in STEPS:
        notebook, _ = step().preprocess(notebook, {})
    return notebook


def main() -> None:
    """Write every student's notebook; nothing else changes."""
    RELEASE.mkdir(exist_ok=True)
    for path in sorted(SOURCE.glob("*.ipynb")):
        nbformat.write(released(path), RELEASE / path.name)
        print(f"{SOURCE.relative_to(ROOT)}/{path.name} -> {RELEASE.relative_to(ROOT)}/{path.name}")


if __name__ == "__main__":
    main()
