"""What each notebook opens with, and its captions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from IPython.display import Markdown

from plum_utils.models.number_types import settled
from plum_utils.params import Params, load_params
from plum_utils.runs import Run
from plum_utils.study.reuse import find_inputs


def open_stage(params: dict[str, Any] | str, run_dir: str, stage: str) -> tuple[Params, Run]:
    """The validated parameters, settled for this device, and the run's folder, with all that the stage reads in it. From then on the process works
    in the repository's root, so that relative paths in the parameters mean the same by hand and in a run.

    Args:
        params: what the pipeline passes (a dictionary), or the path of a parameter file when a notebook is opened by
            hand; relative paths count from the repository's root or from ``notebooks/``.
        stage: the notebook's own, as ``03_preferences``.

    Raises:
        MissingInputs: an earlier notebook has not run; the message says which, and the command that runs it.
    """
    root = Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()
    loaded = settled(Params.model_validate(params) if isinstance(params, dict) else load_params(root / params))
    os.chdir(root)
    run = Run(root / run_dir)
    find_inputs(loaded, run, stage, params if isinstance(params, str) else None)
    return loaded, run


def caption(p: Params, text: str) -> Markdown:
    """A figure's or table's caption: the finding, with the parameters it was made with."""
    warning = " **Smoke run: not evidence.**" if p.name.startswith("smoke") else ""
    return Markdown(f"*{text} Parameters: `{p.name}`.*{warning}")
