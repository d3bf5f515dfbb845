"""The exercises in a real course: nbgrader's own commands give a solution all points and a blank none."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from exercise_notebooks import NAMES, RELEASED, SOLUTIONS, repository_kernel

pytestmark = pytest.mark.long("upgrade")


def nbgrader(course: Path, *arguments: str) -> None:
    """As a teacher calls it; nbgrader calls alembic by name, so that this Python's scripts must be on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run([sys.executable, "-m", "nbgrader", *arguments], cwd=course, env=os.environ | {"PATH": path},
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_course_from_release_to_grades(tmp_path):
    shutil.copytree(SOLUTIONS, tmp_path / "source" / "plum")
    with repository_kernel():
        nbgrader(tmp_path, "generate_assignment", "plum")
        for name in NAMES:
            made = (tmp_path / "release" / "plum" / f"{name}.ipynb").read_text()
            assert made == (RELEASED / f"{name}.ipynb").read_text(), name
        shutil.copytree(RELEASED, tmp_path / "submitted" / "blank" / "plum")
        shutil.copytree(SOLUTIONS, tmp_path / "submitted" / "right" / "plum")
        nbgrader(tmp_path, "autograde", "plum")
        nbgrader(tmp_path, "export")
    with open(tmp_path / "grades.csv", newline="") as file:
        grades = {row["student_id"]: (float(row["raw_score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert grades == {"blank": (0.0, 72.0), "right": (60.0, 72.0)}  # 2 of each notebook's 12 points are a teacher's
