"""What papermill was told beside ``params`` and ``run_dir``: ``-p training.beta 0.2``, ``-y``, ``-b``, or ``-f FILE``.

What counts is the text of the cell that papermill puts below a lesson's parameters, one value a line.
"""

from __future__ import annotations

import ast
from typing import Any

import yaml
from IPython import get_ipython

from plum_utils.params import Params, ParamsError

SECTIONS = [name for name, section in Params(name="x") if hasattr(section, "model_fields")]
INJECTED = "# Parameters\n"  # how papermill's cell begins
WHOLE_FILE = ("papermill -f passes a file's values without its folder, from which `extends` counts: pass its path instead, "
              "-p params <file> -p run_dir outputs/<name>")
TWO_FILES = "papermill -f passes a whole file, and -p params names another one: give one of them"
_lines: list[str] = []


def accept_single_values() -> None:
    """Let the cell that papermill puts below say ``training.beta = 0.2``; called in a lesson's parameters cell."""
    shell = get_ipython()
    _lines.clear()
    if shell is not None and _taken not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_taken)


def _taken(lines: list[str]) -> list[str]:
    """Of papermill's cell only what sets the lesson's own two names is run; ``told`` reads all of it."""
    if lines[:1] != [INJECTED]:
        return lines
    _lines[:] = lines[1:]
    return [line for line in lines if line.startswith((INJECTED, "params = ", "run_dir = "))]


def told() -> tuple[dict[str, Any], bool]:
    """``key.subkey`` -> value of all that papermill's cell sets but ``params``; and whether it holds a file's whole
    content: a name, and a section as a whole.

    Raises:
        ParamsError: a file with ``extends`` or beside another one, or a value that is no plain one.
    """
    given: dict[str, Any] = {}
    for key, sign, text in (line.strip().partition(" = ") for line in _lines):
        try:
            given |= {key: _plain(ast.literal_eval(text))} if sign else {}
        except ValueError:
            raise ParamsError(f"-p {key}: expected a plain value, got {text}") from None
    if "extends" in given:
        raise ParamsError(WHOLE_FILE)
    whole = "name" in given and any(isinstance(given.get(name), dict) for name in SECTIONS)
    if given.pop("params", None) is not None and whole:
        raise ParamsError(TWO_FILES)
    return {name: leaf for key, value in given.items() for name, leaf in _leaves(key, value).items()}, whole


def _plain(value: Any) -> Any:
    """A list in a text, as ``-p`` hands it over, as what it is on the command line: YAML."""
    try:
        return yaml.safe_load(value) if isinstance(value, str) and value.startswith(("[", "{")) else value
    except yaml.YAMLError:
        return value


def _leaves(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    return {name: leaf for inner, one in value.items() for name, leaf in _leaves(f"{key}.{inner}", one).items()}
