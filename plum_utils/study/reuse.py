"""What another run has made: a whole stage with the same fingerprint, the inputs of a notebook that is opened by itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Iterable

from plum_utils.params import Params
from plum_utils.provenance import portable
from plum_utils.runs import Run
from plum_utils.stages import BY_NAME, STAGES, Stage


class MissingInputs(RuntimeError):
    """A notebook's inputs are nowhere; the message says which notebooks to run first, and the command that does."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows this instead of a traceback: where the code stopped tells a reader nothing here."""
        return [f"MissingInputs: {self}"]


def find_inputs(params: Params, run: Run, stage: str, source: str | None = None) -> None:
    """See to it that the files that a stage reads are in the run's folder.

    Those that are missing are linked from the latest finished run beside it whose stages had the same parameters; a
    stage made with other parameters than these is named, and used.

    Args:
        source: the parameter file, for the command in the error; ``None`` when the pipeline passed parameters.

    Raises:
        MissingInputs: they are in no run.
        ValueError: no such stage.
    """
    if stage not in BY_NAME:
        raise ValueError(f"unknown stage {stage!r}; one of {', '.join(BY_NAME)}")
    if _missing(run, stage):
        needed = _all_needs(BY_NAME[stage])
        other = lender(runs_beside(run.path.parent, run), "params",
                       {need.name: need.parameters(params) for need in needed})
        if other is None:
            raise MissingInputs(_remedy(params, run, stage, source))
        for need in needed:
            take_over(run, need.name, other)
        print(f"inputs: taken from {portable(other.path)}, the latest run with these parameters")
    for name in BY_NAME[stage].needs:
        changed = _other_parameters(params, run, name)
        if changed:
            print(f"note: {name} was made with other parameters ({', '.join(changed)}); "
                  f"{_command(params, run, name, source)} makes it again")


def _missing(run: Run, stage: str) -> list[str]:
    return [name for name in BY_NAME[stage].reads if not (run.path / name).exists()]


def _all_needs(stage: Stage) -> list[Stage]:
    """The stages that this one rests on, in order."""
    names = set(stage.needs)
    for need in stage.needs:
        names |= {one.name for one in _all_needs(BY_NAME[need])}
    return [one for one in STAGES if one.name in names]


def _other_parameters(params: Params, run: Run, need: str) -> list[str]:
    """Sections in which a stage's recorded parameters differ; none where a stage was run by hand and recorded none."""
    then, now = run.manifest()["stages"].get(need, {}).get("params"), BY_NAME[need].parameters(params)
    return [name for name in now if then is not None and then.get(name) != now[name]]


def _remedy(params: Params, run: Run, stage: str, source: str | None) -> str:
    absent = [name for one in [*_all_needs(BY_NAME[stage]), BY_NAME[stage]] for name in _missing(run, one.name)]
    first = sorted({Path(name).parts[0] for name in absent})
    return (f"{stage} reads {' and '.join(_missing(run, stage))}, not there in {portable(run.path)}. Run "
            f"{' and '.join(first)} first, here in JupyterLab or all with one command:\n\n    "
            f"{_command(params, run, BY_NAME[stage].needs[-1], source)}\n")


def _command(params: Params, run: Run, until: str, source: str | None) -> str:
    folder = portable(run.path)
    elsewhere = "" if folder == f"outputs/{params.name}" else f" --run-dir {folder}"
    return (f".venv/bin/python -m plum_utils run {source or f'params/{params.name}.yaml'} --until {until[:2]}"
            f"{elsewhere}")


def runs_beside(folder: Path, run: Run) -> tuple[Run, ...]:
    """The other runs in a folder of runs."""
    return tuple(Run(path.parent) for path in sorted(folder.glob("*/manifest.json")) if path.parent != run.path)


def lender(others: Iterable[Run], key: str, wanted: dict[str, Any]) -> Run | None:
    """The run that finished last of those that have certain stages, done and whole.

    Args:
        key: what tells a stage in the manifest: ``params`` or ``fingerprint``.
        wanted: its value for each stage.
    """
    found = []
    for other in others:
        stages = other.manifest()["stages"]
        entries = [stages.get(stage, {}) for stage in wanted]
        if all(entry.get("status") == "done" and entry.get(key) == value
               for entry, value in zip(entries, wanted.values())):
            found.append((max(entry["finished"] for entry in entries), str(other.path), other, entries))
    newest_first = sorted(found, key=lambda one: one[:2], reverse=True)  # hashing is slow: the first whole one will do
    return next((other for *_, other, entries in newest_first if not any(map(other.damaged, entries))), None)


def take_over(run: Run, stage: str, other: Run) -> None:
    """Put another run's finished stage in the place of this run's, as hard links; the manifest names it.

    Links are safe here, for whatever is written anew replaces its file instead of writing into it.
    """
    entry = other.manifest()["stages"][stage]
    shutil.rmtree(run.path / stage, ignore_errors=True)
    made = [path for path in (other.path / stage).rglob("*") if path.is_file()]
    shown = [other.path / name for name in entry["outputs"] if not name.startswith(f"{stage}/")]
    for path in [*made, *shown]:
        _link(path, run.path / path.relative_to(other.path))
    run.update_stage(stage, entry | {"taken_from": entry.get("taken_from", other.path.name)})


def lend_baseline(run: Run, stage: str, policy: dict[str, Any], others: Iterable[Run]) -> None:
    """Link what other runs of the same policy generated and judged with it untrained; each shard's own mark decides
    later whether it is of use."""
    for other in others:
        entry = other.manifest()["stages"].get(stage, {})
        if entry.get("params", {}).get("policy") == policy:
            for path in (other.path / stage).glob("*/*baseline.jsonl"):
                _link(path, run.path / path.relative_to(other.path), replace=False)


def _link(path: Path, target: Path, replace: bool = True) -> None:
    if target.exists() and not replace:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(path, target)
