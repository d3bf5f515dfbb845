"""What each notebook opens with, and how it shows what it saves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from plum_utils.models.number_types import settled
from plum_utils.params import Params, load_params, params_of
from plum_utils.runs import Run
from plum_utils.study import given
from plum_utils.study.reuse import find_inputs


def open_stage(params: dict[str, Any] | str, run_dir: str, stage: str) -> tuple[Params, Run]:
    """The validated parameters, settled for this device, and the run's folder, with all that the stage reads in it. From
    then on the process works in the repository's root, so that relative paths in the parameters mean the same by hand and
    in a run. What else papermill was told (``given``) counts as on the command line; a file that it was given whole takes
    the place of ``params``, and ``outputs/<name>`` that of a ``run_dir`` that it was not told.

    Args:
        params: what the pipeline passes (a dictionary), or the path of a parameter file when a notebook is opened by
            hand; relative paths count from the repository's root or from ``notebooks/``.
        stage: the notebook's own, as ``03_preferences``.

    Raises:
        MissingInputs: an earlier notebook has not run; the message says which, and the command that runs it.
        ParamsError: parameters that cannot be used.
    """
    root = Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()
    told, whole = given.told()
    more = {key: value for key, value in told.items() if key != "run_dir"}
    if whole:
        loaded, run_dir = params_of(more, "papermill -f"), told.get("run_dir", f"outputs/{more['name']}")
    else:
        loaded = Params.model_validate(params) if isinstance(params, dict) else load_params(root / params, more)
    loaded = settled(loaded)
    os.chdir(root)
    run = Run(root / run_dir)
    find_inputs(loaded, run, stage, params if isinstance(params, str) else None)
    return loaded, run


def save_and_show(p: Params, run: Run, made: Figure | pd.DataFrame, name: str, caption: str = "", shown: Any = None
                  ) -> None:
    """Save a figure or a table in the run's folder and show it, below it what was found, with the run's parameters.

    The run's report and the site take the caption from the metadata of what is shown.

    Args:
        name: of the files: ``figures/<name>.png`` and ``.svg``, or ``tables/<name>.csv`` and ``.md``.
        shown: what stands in the notebook where it is not just what is saved: a part, another form.
    """
    kind, save = ("tables", run.save_table) if isinstance(made, pd.DataFrame) else ("figures", run.save_figure)
    save(made, name)
    shown = made if shown is None else shown
    if not caption:
        display(shown)
        return
    caption = f"{caption} Parameters: `{p.name}`."
    warning = " **Smoke run: not evidence.**" if p.name.startswith("smoke") else ""
    plain = (caption + warning).replace("`", "").replace("**", "")
    display(shown, metadata={"saved": f"{kind}/{name}", "caption": plain})
    display(Markdown(f"*{caption}*{warning}"))
