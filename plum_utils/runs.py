"""A run's folder: stage artifacts, tables, figures, manifest, and shards that survive a kill."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, TypeVar

import pandas as pd

from plum_utils.jsonl import iter_jsonl, sha256_file, to_jsonl, write_bytes, write_json, write_text
from plum_utils.progress import Bar
from plum_utils.stages import BY_NAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Part = TypeVar("Part")
Made = TypeVar("Made")


def check(condition: Any, message: str) -> None:
    """Assert a result, with an explanation; it holds under ``python -O`` too.

    Raises:
        AssertionError: the condition is false.
    """
    if not condition:
        raise AssertionError(message)


def fingerprint(obj: Any) -> str:
    """First 16 hex digits of the SHA-256 of an object's canonical JSON."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Run:
    """One run's folder. Stages meet only in the files below it."""

    def __init__(self, run_dir: str | Path):
        self.path = Path(run_dir)

    def stage_dir(self, stage: str) -> Path:
        """Folder of a stage's artifacts, made if it is not there."""
        if stage not in BY_NAME:
            raise ValueError(f"unknown stage {stage!r}; one of {', '.join(BY_NAME)}")
        folder = self.path / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write ``tables/<name>.csv`` and ``.md``."""
        write_text(self.path / "tables" / f"{name}.csv", table.to_csv(index=False))
        write_text(self.path / "tables" / f"{name}.md", table.to_markdown(index=False) + "\n")

    def load_table(self, name: str) -> pd.DataFrame:
        """Read ``tables/<name>.csv``."""
        return pd.read_csv(self.path / "tables" / f"{name}.csv")

    def save_figure(self, figure: Figure, name: str) -> None:
        """Write ``figures/<name>.png`` (150 dpi) and ``.svg``; without dates or random ids, so that the same figure is
        the same file."""
        from matplotlib import rc_context  # a process that trains or samples draws nothing

        folder = self.path / "figures"
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            with rc_context({"svg.hashsalt": name}):
                figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
            write_bytes(folder / f"{name}.{suffix}", buffer.getvalue())

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """The run's manifest; empty before the first stage has finished."""
        return json.loads(self.manifest_path.read_text()) if self.manifest_path.exists() else {"stages": {}}

    def record_params(self, params: dict[str, Any]) -> None:
        """Keep the parameters of the last run in the manifest, so that ``status`` needs only the folder."""
        write_json(self.manifest_path, self.manifest() | {"params": params})

    def damaged(self, entry: dict[str, Any]) -> str | None:
        """The first file of a stage's manifest entry that is missing or not as it was left; ``None``: all are whole."""
        return next((name for name, digest in entry["outputs"].items()
                     if not (self.path / name).exists() or sha256_file(self.path / name) != digest), None)

    def update_stage(self, stage: str, entry: dict[str, Any]) -> None:
        """Replace one stage's entry of the manifest, atomically."""
        manifest = self.manifest()
        manifest["stages"][stage] = entry
        write_json(self.manifest_path, manifest)


def shards(folder: Path, keys: list[str], make: Callable[[str], list[dict[str, Any]]], mark: str,
           progress: str | Bar, workers: int = 1) -> list[dict[str, Any]]:
    """Rows of all shards in key order; finished shards are read, the others made by ``make(key)`` and written at once.

    Args:
        mark: fingerprint of everything the rows depend on; a shard with another mark is made again.
        progress: a bar, or one's name.
        workers: shards made at a time, by as many threads; the rows do not depend on it.
    """
    parts = ((key, key) for key in keys)
    bar = progress if isinstance(progress, Bar) else Bar(progress, len(keys))
    return list(shard_rows(make_shards(folder, parts, make, lambda _: mark, bar, workers)))


def make_shards(folder: Path, parts: Iterable[tuple[str, Part]], make: Callable[[Part], list[dict[str, Any]]],
                mark: Callable[[Part], str], bar: Bar, workers: int = 1) -> list[Path]:
    """Make the shards that are not finished yet; only ``workers`` of them are in memory at a time.

    Args:
        folder: one ``<key>.jsonl`` a shard, its first line a header with the mark and the rows' checksum.
        parts: (key, what ``make`` turns into the shard's JSON-ready rows and ``mark`` into its fingerprint); may be an
            iterator.
        bar: gets a part for each shard, and an item for each of its rows.
        workers: shards made at a time; above 1 ``make`` and ``mark`` are called in threads. After an error no shard is
            begun, those at work are finished and kept, and the error is raised; Ctrl-C does not wait for them.

    Returns:
        The shards' files, in the order of the parts, for ``shard_rows``.
    """
    paths: list[Path] = []

    def make_one(path: Path, part: Part) -> None:
        wanted = mark(part)
        body = _finished(path, wanted)
        if made := body is None:
            body = to_jsonl(make(part))
            write_text(path, json.dumps({"mark": wanted, "sha256": _digest(body)}) + "\n" + body)
        bar.add(items=body.count("\n"), made=made)

    def calls() -> Iterator[Callable[[], None]]:
        for key, part in parts:
            paths.append(folder / f"{key}.jsonl")
            yield partial(make_one, paths[-1], part)

    with bar:
        _call_all(calls(), workers)
    return paths


def side_by_side(make: Callable[[Part], Made], parts: list[Part], workers: int) -> list[Made]:
    """``make(part)`` of each part, in their order, by ``workers`` threads; errors are those of ``make_shards``."""
    made: dict[int, Made] = {}

    def make_one(place: int) -> None:
        made[place] = make(parts[place])

    _call_all((partial(make_one, place) for place in range(len(parts))), workers)
    return [made[place] for place in range(len(parts))]


def _call_all(calls: Iterator[Callable[[], None]], workers: int) -> None:
    """Make the calls, ``workers`` of them at a time in threads; a single worker is the caller itself."""
    if workers == 1:
        for call in calls:
            call()
        return
    pool, running = ThreadPoolExecutor(workers), set()
    try:
        for call in calls:
            running.add(pool.submit(call))
            if len(running) == workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()
        for one in as_completed(running):
            one.result()
    finally:
        pool.shutdown(wait=not isinstance(sys.exception(), KeyboardInterrupt))


def shard_rows(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Rows of finished shards in the order of their files, one shard in memory at a time."""
    for path in paths:
        rows = iter_jsonl(path)
        next(rows)  # the header
        yield from rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _finished(path: Path, mark: str) -> str | None:
    """A shard's rows as text; ``None`` where it is absent, torn, damaged, or made from something else."""
    try:
        head, _, body = path.read_bytes().decode("utf-8", "surrogatepass").partition("\n")
        return body if json.loads(head) == {"mark": mark, "sha256": _digest(body)} else None
    except (FileNotFoundError, ValueError, RecursionError):
        return None
