"""The package's annotations hold; what mypy reads of it, and how strictly: ``[tool.mypy]`` in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

from plum_utils.provenance import ROOT


def test_mypy_has_nothing_to_say():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
