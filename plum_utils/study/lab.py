"""``python -m plum_utils lab``: JupyterLab on the lessons, in this very environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from plum_utils.provenance import PACKAGE, ROOT
from plum_utils.study.notebooks import QUIET

# No question about news, and of nbgrader only what a student uses: the button that validates an exercise notebook.
CONFIG = PACKAGE / "data" / "jupyter"
FIRST = "notebooks/01_testgen.ipynb"


def command(options: list[str], folder: Path = ROOT) -> list[str]:
    """JupyterLab with the repository (or a copy of it) as its folder, opened at the first lesson.

    Args:
        options: handed on, as ``["--port=9000", "--no-browser"]``.
    """
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # containers have no other user
    return [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}",
            f"--LabApp.default_url=/lab/tree/{FIRST}", *as_root, *options]


def environment() -> dict[str, str]:
    """The kernels' variables as in ``run``, so that a lesson prints the same; kernels of this environment come first."""
    config = os.pathsep.join(filter(None, [str(CONFIG), os.environ.get("JUPYTER_CONFIG_PATH", "")]))
    return os.environ | QUIET | {"JUPYTER_CONFIG_PATH": config, "JUPYTER_PREFER_ENV_PATH": "1"}


def open_lab(options: list[str]) -> NoReturn:
    """Become JupyterLab; Ctrl-C ends it."""
    os.chdir(ROOT)
    os.execve(sys.executable, command(options), environment())
