"""What papermill was told beside ``params`` and ``run_dir``: ``-p training.beta 0.2``, ``-y``, ``-b``, or ``-f FILE``.

What counts is the text of the cell that papermill puts below a lesson's parameters.
"""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

from IPython import get_ipython

from plum_utils.params import Params, ParamsError

SECTIONS = [name for name, section in Params(name="x") if hasattr(section, "model_fields")]
INJECTED = "# Parameters\n"  # how papermill's cell begins
WHOLE_FILE = ("papermill -f passes a file's values without its folder, from which `extends` counts: pass its path instead, "
              "-p params <file> -p run_dir outputs/<name>")


def accept_single_values() -> None:
    """Let the cell that papermill puts below say ``training.beta = 0.2``; called in a lesson's parameters cell."""
    shell = get_ipython()
    if shell is not None:
        shell.user_ns.update({name: SimpleNamespace() for name in SECTIONS})


def told() -> dict[str, Any]:
    """``key.subkey`` -> value of all that papermill's cell sets.

    Raises:
        ParamsError: a file with ``extends``, or a value that is no plain one.
    """
    shell = get_ipython()
    cells = [text for text in (shell.user_ns.get("In", []) if shell else []) if text.startswith(INJECTED)]
    values: dict[str, Any] = {}
    for statement in (one for text in cells for one in ast.parse(text).body):
        if isinstance(statement, ast.Assign):
            key = ast.unparse(statement.targets[0])
            if key == "params":
                continue  # the pipeline's, which the lesson has
            try:
                values |= _leaves(key, ast.literal_eval(statement.value))
            except ValueError:
                raise ParamsError(f"-p {key}: expected a plain value, got {ast.unparse(statement.value)}") from None
    if "extends" in values:
        raise ParamsError(WHOLE_FILE)
    return values


def _leaves(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    return {name: leaf for inner, one in value.items() for name, leaf in _leaves(f"{key}.{inner}", one).items()}
