"""Which of the six stages must run, in which order, and what the manifest says about each."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator

from plum_utils.data.evalplus import SuiteUnavailable, evalplus_path
from plum_utils.jsonl import sha256_file
from plum_utils.models.number_types import number_type, settled
from plum_utils.params import Params
from plum_utils.progress import FIRST_CALL
from plum_utils.provenance import ROOT, code_digest, portable, provenance
from plum_utils.runs import Run, fingerprint
from plum_utils.stages import BY_NAME, SAMPLING, Stage
from plum_utils.study.forecast import Forecast, announce, told_again
from plum_utils.study.hub_access import commits
from plum_utils.study.notebooks import end_leftovers, kernel_environment, peak_memory, run_notebook
from plum_utils.study.reuse import lend_baseline, lender, take_over

NAMING_FILES = ("policy", "generator", "data", "livecodebench")  # sections whose values may be paths
NO_INPUTS = ("generator.store",)  # grows while stage 01 runs; what is in it is found by request


class StageFailed(RuntimeError):
    """A notebook stopped; the message is one line naming notebook, cell and cause."""


class NotReady(RuntimeError):
    """A chosen stage has no notebook, or needs a stage that has not run and is not chosen."""


class RunLocked(RuntimeError):
    """Another process is working in the same run folder."""


@dataclass
class Pipeline:
    """One run of the study in one folder; ``others`` are runs whose finished stages it may take over."""

    params: Params
    run: Run
    notebooks: Path = ROOT / "notebooks"
    others: tuple[Run, ...] = ()

    def __post_init__(self) -> None:
        self.params = settled(self.params)

    def state(self, stage: Stage) -> tuple[str, str]:
        """``up to date``, ``stale``, ``failed``, ``interrupted`` or ``missing``, and why."""
        entry = self._entry(stage.name)
        if not entry:
            return "missing", "never ran"
        if entry["status"] != "done":
            return ("failed", entry["cause"]) if entry["status"] == "failed" else ("interrupted", "did not finish")
        changed = self._changes(stage, entry)
        if changed:
            return "stale", f"changed: {', '.join(changed)}"
        damaged = self.run.damaged(entry)
        return ("stale", f"{damaged} is missing or was changed") if damaged else ("up to date", "")

    def execute(self, chosen: list[Stage], force: bool = False) -> None:
        """Run the chosen stages in order; those up to date are skipped unless ``force``.

        Raises:
            StageFailed: a cell raised; later stages are not run.
            NotReady: a notebook is missing, or an earlier stage has not run and is not chosen.
            RunLocked: the folder is in use.
        """
        with self._lock():
            self._check_needs(chosen)
            self._say_number_type()
            self.run.record_params(self.params.model_dump(mode="json"))
            forecast = announce(self, chosen, force) if self.notebooks.resolve() == ROOT / "notebooks" else None
            for place, stage in enumerate(chosen, 1):
                head = f"[{place}/{len(chosen)}] {stage.name}"
                state, why = self.state(stage)
                if state == "up to date" and not force:
                    print(f"{head}: up to date, skipped", flush=True)
                    continue
                other = None if force else lender(self.others, "fingerprint", {stage.name: self._fingerprint(stage)})
                if other:
                    take_over(self.run, stage.name, other)
                    print(f"{head}: taken from {other.path.name}", flush=True)
                    continue
                print(f"{head}: running ({'forced' if force else f'{state}: {why}'})", flush=True)
                self._clear(stage, force)
                if not force:
                    lend_baseline(self.run, stage.name, self.params.policy.model_dump(mode="json"), self.others)
                seconds = self._execute_one(stage, forecast)
                print(f"{head}: done in {seconds:.0f} s", flush=True)

    def _say_number_type(self) -> None:
        kind = number_type(self.params.policy.dtype)
        print(f"number type: {kind.name} ({kind.reason})", flush=True)
        if kind.warning:
            print(f"warning: {kind.warning}", file=sys.stderr, flush=True)

    def _check_needs(self, chosen: list[Stage]) -> None:
        for stage in chosen:
            if not self._notebook(stage).exists():
                raise NotReady(f"{self._notebook(stage)}: no such notebook")
        for need in sorted({need for stage in chosen for need in stage.needs} - {stage.name for stage in chosen}):
            state, why = self.state(BY_NAME[need])
            if state == "stale":
                print(f"warning: {need} is stale ({why}); going on with what it left", flush=True)
            elif state != "up to date":
                raise NotReady(f"{need} is needed and is {state}: run it first, with --from {need[:2]}")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.run.path.mkdir(parents=True, exist_ok=True)
        with open(self.run.path / ".lock", "a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel drops it when its holder dies
            except BlockingIOError:
                handle.seek(0)
                raise RunLocked(f"{self.run.path}: process {handle.read().strip()} is working in this folder; wait for "
                                "it or take another --run-dir") from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            end_leftovers(self.run.path)
            try:
                yield
            finally:
                end_leftovers(self.run.path)

    def _clear(self, stage: Stage, force: bool) -> None:
        """Remove what the stage left under other parameters or inputs. Shards carry their own mark and stay; so does
        everything after a change of code or notebook alone, unless forced."""
        folder, entry = self.run.path / stage.name, self._entry(stage.name)
        foreign = {part.split(" ")[0] for part in self._changes(stage, entry)} & {"parameters", "inputs"}
        if force:
            shutil.rmtree(folder, ignore_errors=True)
        elif foreign or not entry:
            for path in [path for path in folder.rglob("*") if path.is_file() and "shards" not in path.parts]:
                path.unlink()

    def _execute_one(self, stage: Stage, forecast: Forecast | None) -> float:
        dumped, before, clock = self.params.model_dump(mode="json"), self._shown(), time.monotonic()
        entry = {"status": "running", "fingerprint": self._fingerprint(stage), "started": _now(),
                 "params": stage.parameters(self.params), "inputs": self._inputs(stage),
                 "seeds": {"run": self.params.seed, "training": self.params.training.seeds},
                 "outputs": {}, "number_type": asdict(number_type(self.params.policy.dtype))} | provenance()
        self.run.update_stage(stage.name, entry)
        measured = self.run.path / SAMPLING / "shards" / FIRST_CALL
        with peak_memory() as peak, told_again(forecast if stage.number == "02" else None, measured):
            cause = run_notebook(self._notebook(stage), self.run.path / "notebooks",
                                 {"params": dumped, "run_dir": portable(self.run.path)},
                                 kernel_environment(self.params, self.run.path))
        entry |= {"seconds": round(time.monotonic() - clock, 1), "peak_memory_mb": round(peak[0] / 2**20),
                  "finished": _now(), "commits": commits(self.params)}
        if cause:
            self.run.update_stage(stage.name, entry | {"status": "failed", "cause": cause})
            raise StageFailed(cause)
        self.run.update_stage(stage.name, entry | {"status": "done", "outputs": self._outputs(stage, before)})
        return entry["seconds"]

    def _notebook(self, stage: Stage) -> Path:
        return self.notebooks / f"{stage.name}.ipynb"

    def _entry(self, name: str) -> dict[str, Any]:
        return self.run.manifest()["stages"].get(name, {})

    def _fingerprint(self, stage: Stage) -> dict[str, str]:
        notebook = self._notebook(stage)
        there = notebook.exists()
        return {"parameters": fingerprint(stage.parameters(self.params)), "inputs": fingerprint(self._inputs(stage)),
                "notebook": sha256_file(notebook)[:16] if there else "", "code": code_digest(notebook) if there else ""}

    def _changes(self, stage: Stage, entry: dict[str, Any]) -> list[str]:
        now, then = self._fingerprint(stage), entry.get("fingerprint", {})
        parts = [part for part in now if now[part] != then.get(part)]
        keys = _differing(entry.get("params", {}), stage.parameters(self.params))
        return [f"parameters ({', '.join(keys)})" if part == "parameters" and keys else part for part in parts]

    def _inputs(self, stage: Stage) -> dict[str, str]:
        """Hashes of the files the stage reads: earlier stages' artifacts, files named by the parameters, and evalplus'
        data. Tables and figures hold timings and are read by nobody, so they are not among them."""
        found = {name: digest for need in stage.needs for name, digest in self._entry(need).get("outputs", {}).items()
                 if name.startswith(f"{need}/")}
        for key, value in _leaves(stage.parameters(self.params)):
            if isinstance(value, str) and value and key.split(".")[0] in NAMING_FILES and key not in NO_INPUTS:
                found |= _local(key, ROOT / value)
        for suite in stage.evalplus_suites(self.params):
            with contextlib.suppress(SuiteUnavailable):  # the lesson that needs it says so
                if path := evalplus_path(suite):
                    found |= _local(f"evalplus.{suite}", path)
        return found

    def _shown(self) -> dict[Path, tuple[int, int]]:
        """Tables and figures, each with what changes when it is written anew."""
        paths = [path for folder in ("tables", "figures") for path in (self.run.path / folder).glob("[!.]*")]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    def _outputs(self, stage: Stage, before: dict[Path, tuple[int, int]]) -> dict[str, str]:
        """Hashes of the executed notebook, the stage's artifacts, and the tables and figures not there before."""
        own = [path for path in (self.run.path / stage.name).rglob("*")
               if path.is_file() and not {"shards", "checkpoints"} & set(path.relative_to(self.run.path).parts)]
        shown = [path for path, state in self._shown().items() if before.get(path) != state]
        notebook = self.run.path / "notebooks" / f"{stage.name}.ipynb"
        return {path.relative_to(self.run.path).as_posix(): sha256_file(path)
                for path in sorted([*own, *shown, notebook])}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else None
    if items is None:
        yield key, values
        return
    for name, value in items:
        yield from _leaves(value, f"{key}.{name}" if key else str(name))


def _differing(before: Any, after: Any) -> list[str]:
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return [key for key in sorted(old | new) if old.get(key) != new.get(key)]


def _local(key: str, path: Path) -> dict[str, str]:
    """A file's hash; a folder's is that of its files' names, sizes and times, for models are big."""
    try:
        if path.is_file():
            return {key: sha256_file(path)}
        if path.is_dir():
            files = [(one.relative_to(path).as_posix(), one.stat()) for one in sorted(path.rglob("*")) if one.is_file()]
            return {key: fingerprint([(name, stat.st_size, stat.st_mtime_ns) for name, stat in files])}
    except OSError:  # a long text is no path
        pass
    return {}
