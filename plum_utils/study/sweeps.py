"""A sweep: the experiments behind one table or figure, run one after another, sharing the stages they have in common.

A sweep file names parameter files; which row of the table each stands for is written in that file (``rows``)::

    title: SFT against PLUM-KTO
    table: "5"
    until: "05"
    runs: [sft.yaml, base.yaml, {params: base.yaml, name: kto_small, row: KTO on 50, set: {labels.instructions: 50}}]

A run in rounds is a row a round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from plum_utils.params import Params, ParamsError, RowParams, load_params
from plum_utils.provenance import ROOT
from plum_utils.yaml_files import load_yaml


class SweepRun(BaseModel):
    """One experiment: a parameter file, and where it is needed another name, other values and the row's labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: str
    name: str | None = None
    set: dict[str, Any] = {}
    model: str | None = None
    row: str | None = None
    data: str | None = None


class Sweep(BaseModel):
    """A sweep file; ``until`` is the last stage its table needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    table: str
    until: Annotated[str, Field(pattern=r"^0[1-6]$")] = "06"
    notes: list[str] = []
    runs: Annotated[list[SweepRun], Field(min_length=1)]

    @field_validator("runs", mode="before")
    @classmethod
    def _names_alone(cls, runs: Any) -> Any:
        return [{"params": one} if isinstance(one, str) else one for one in runs] if isinstance(runs, list) else runs


@dataclass(frozen=True)
class Experiment:
    """One run of a sweep: its parameters, the file they are in, and the row of the table that it stands for; of a run in rounds
    which ``round``, counted from 1 (0: it is one run)."""

    params: Params
    path: Path
    row: RowParams
    round: int = 0

    @property
    def folder(self) -> str:
        """The run's, below that of all runs."""
        return f"{self.params.name}/{round_folder(self.round)}" if self.round else self.params.name


def round_folder(number: int) -> str:
    """Of a run in rounds the folder of one, counted from 1, below the run's own."""
    return f"round{number}"


def is_sweep(path: Path) -> bool:
    """Whether a YAML file is a sweep (it has ``runs``) and not a run's parameters."""
    try:
        return "runs" in (yaml.safe_load(path.read_text()) or {})
    except (OSError, TypeError, yaml.YAMLError):
        return False  # whoever reads it as parameters says what is wrong


def load_sweep(path: Path, overrides: dict[str, Any] | None = None) -> tuple[Sweep, list[Experiment]]:
    """A sweep and its experiments.

    Raises:
        ParamsError: a broken file, an experiment without a row of this table, or two of one name.
    """
    sweep = load_yaml(Sweep, path)
    runs = [_experiment(sweep, one, path, overrides or {}) for one in sweep.runs]
    names = [one.params.name for one in runs]
    for name in names:
        if names.count(name) > 1:
            raise ParamsError(f"{path}: two runs are called {name!r}, and would share a folder; give one a `name`")
    return sweep, [each for one in runs for each in _rounds(one)]


def of_row(experiments: list[Experiment], row: int | None) -> list[Experiment]:
    """The experiment of row ``row``, counted from 1, or all where none is asked for.

    Raises:
        ParamsError: there is no such row.
    """
    if row is None:
        return experiments
    if not 1 <= row <= len(experiments):
        raise ParamsError(f"--row {row}: the sweep has rows 1 to {len(experiments)}")
    return [experiments[row - 1]]


def _experiment(sweep: Sweep, one: SweepRun, path: Path, overrides: dict[str, Any]) -> Experiment:
    file = path.parent / one.params
    changes = one.set | ({"name": one.name} if one.name else {}) | overrides
    params = load_params(file, changes)
    found = next((row for row in params.rows if row.table == sweep.table), None)
    own = {key: value for key in ("model", "row", "data") if (value := getattr(one, key)) is not None}
    if found is None and not {"model", "row"} <= set(own):
        raise ParamsError(f"{file}: stands for no row of table {sweep.table}; add one to `rows`, or `model` and `row` "
                          f"in {path}")
    row = RowParams(**(found.model_dump() if found else {"table": sweep.table}) | own)
    return Experiment(params, file, row)


def _rounds(one: Experiment) -> list[Experiment]:
    if one.params.rounds == 1:
        return [one]
    return [replace(one, round=number, row=one.row.model_copy(update={"row": f"{one.row.row}, round {number}"}))
            for number in range(1, one.params.rounds + 1)]


def find_sweeps(folder: Path) -> list[Path]:
    """The sweep files below a folder, in the order of their tables."""
    return sorted(path for path in folder.rglob("*.yaml") if is_sweep(path))


def sweep_of_table(table: str, folder: Path = ROOT / "params" / "paper") -> Path:
    """The sweep file of a table (``2``) or another comparison (``figure3``).

    Raises:
        ParamsError: there is none.
    """
    by_table = {load_yaml(Sweep, path).table: path for path in find_sweeps(folder)}
    if table not in by_table:
        raise ParamsError(f"--table {table}: no sweep for it in {folder.name}/; one of {', '.join(sorted(by_table))}")
    return by_table[table]
