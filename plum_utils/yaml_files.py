"""Parameter files: YAML composed by ``extends:``, values put over them, and errors that name file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class ParamsError(ValueError):
    """A parameter file that cannot be used: ``file:line key: expected ..., got ...``."""


def load_yaml(model: type[Model], path: str | Path, overrides: dict[str, Any] | None = None) -> Model:
    """A pydantic model out of a YAML file; composition and errors are those of ``load_params``."""
    values, origin = _compose(Path(path), ())
    return validated(model, values, origin, str(path), overrides or {})


def validated(model: type[Model], values: dict[str, Any], origin: dict[str, str], source: str, overrides: dict[str, Any]
               ) -> Model:
    for key, value in overrides.items():
        _set(values, key, value)
        origin[key] = "-p"
        origin.setdefault(key.partition(".")[0], "-p")  # a section that is nowhere else
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ParamsError("\n".join(_explain(item, origin, source) for item in error.errors())) from None


def _compose(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a file and of those that it extends, and by ``key.subkey`` where each is from, ``file:line``."""
    if path.resolve() in seen:
        raise ParamsError(f"{path}: extends itself through {' -> '.join(one.name for one in seen)}")
    try:
        loader = yaml.SafeLoader(path.read_text())
        node = loader.get_single_node()
        own = loader.construct_document(node) if node else {}
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such parameter file; params/ holds the ready ones") from None
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(own, dict):
        raise ParamsError(f"{path}:1: expected keys and values, got {type(own).__name__}")
    parents = own.pop("extends", [])
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for parent in parents if isinstance(parents, list) else [parents]:
        more, places = _compose(path.parent / str(parent), (*seen, path.resolve()))
        _merge(values, more)
        origin |= places
    _merge(values, own)
    return values, origin | {key: f"{path}:{line}" for key, line in _lines(node, path).items()}


def _lines(node: Any, path: Path, prefix: str = "") -> dict[str, int]:
    """The line of each key, and of each item of a list."""
    lines: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        items = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        items = [(str(place), value, value) for place, value in enumerate(node.value)]
    else:
        return lines
    for key, at, value in items:
        name, line = f"{prefix}{key}", at.start_mark.line + 1
        if name in lines:
            raise ParamsError(f"{path}:{line} {name}: given twice, first in line {lines[name]}; keep one")
        lines |= {name: line} | _lines(value, path, f"{name}.")
    return lines


def _merge(values: dict[str, Any], over: dict[str, Any]) -> None:
    """Put values over others, section by section."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ParamsError(f"-p {key}: {parent!r} is a value, not a section")
    values[last] = value


def _explain(item: Any, origin: dict[str, str], path: str) -> str:
    """One of pydantic's errors, with the place of the innermost key that is written somewhere."""
    loc = [str(part) for part in item["loc"]]
    message = f"{item['msg'].replace('Input should', 'expected to')}, got {item['input']!r}"
    if item["type"] == "value_error":  # a section's own check: "<field>: expected ..., got ..."
        field, _, message = str(item["ctx"]["error"]).partition(": ")
        loc.append(field)
    elif item["type"] == "extra_forbidden":
        message = "unknown parameter; see plum_utils/params.py for the known ones"
    elif item["type"] == "missing":
        message = "missing; add it"
    places = (".".join(loc[:size]) for size in range(len(loc), 0, -1))
    where = next((origin[place] for place in places if place in origin), path)
    return f"{where} {'.'.join(loc)}: {message}"
