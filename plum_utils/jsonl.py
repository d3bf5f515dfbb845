"""JSON Lines and text files, read with errors that name the line and written so that no reader sees half a file."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator


class JsonlError(ValueError):
    """A line that is not a JSON object with the required keys: ``path:line: what is wrong, how to mend it``."""


class DiskFull(OSError):
    """No room left for a file; nothing that was finished is lost."""


def iter_jsonl(path: str | Path, required: tuple[str, ...] = (),
               fault: Callable[[dict[str, Any]], str] = lambda row: "") -> Iterator[dict[str, Any]]:
    """Rows of a ``.jsonl`` or ``.jsonl.gz`` file, one at a time; empty lines are skipped.

    Args:
        fault: says what is wrong with a row; an empty string when nothing is.

    Raises:
        JsonlError: a line that is not a JSON object, lacks one of the ``required`` keys, or has a fault.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                yield _row(line, f"{path}:{number}", required, fault)


def read_jsonl(path: str | Path, required: tuple[str, ...] = (),
               fault: Callable[[dict[str, Any]], str] = lambda row: "") -> list[dict[str, Any]]:
    """All rows of a file at once; arguments and errors are those of ``iter_jsonl``."""
    return list(iter_jsonl(path, required, fault))


def _row(line: bytes, where: str, required: tuple[str, ...], fault: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise JsonlError(f"{where}: not JSON ({error}); mend or delete this line") from error
    if not isinstance(row, dict):
        raise JsonlError(f"{where}: expected a JSON object, got {type(row).__name__}; mend or delete this line")
    missing = [key for key in required if key not in row]
    if missing:
        raise JsonlError(f"{where}: no key {missing[0]!r} (it has {', '.join(sorted(row)) or 'none'}); add it")
    if wrong := fault(row):
        raise JsonlError(f"{where}: {wrong}")
    return row


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file by way of a temporary one: after a kill it holds the old text or the new, never a part.

    Raises:
        DiskFull: the device is full; the old file is untouched.
    """
    _write_pieces(Path(path), [data])


def _write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.writelines(pieces)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(error.errno, f"{path}: the disk is full; make room and run the same command again, "
                                        "finished work is kept") from error
        raise
    finally:
        Path(partial).unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text (lone surrogates included: models write them) as ``write_bytes`` does."""
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def write_json(path: str | Path, obj: Any) -> None:
    """Write one JSON document, indented, atomically."""
    write_text(path, json.dumps(obj, indent=1, sort_keys=True) + "\n")


def to_jsonl(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as JSON Lines text."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSON Lines, atomically; an iterator's rows are written as they come."""
    _write_pieces(Path(path), (to_jsonl([row]).encode("ascii") for row in rows))


@contextmanager
def new_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """An empty folder to be filled, which gets the name ``path`` when the block ends well: after an error or a kill
    nothing of it lies under that name. A folder that is there by then gives place to the new one if that is asked to
    ``replace`` it; else it stays, for another process was faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True) as both:
        new = Path(both) / "new"
        new.mkdir()
        yield new
        if path.exists() and replace:
            os.replace(path, Path(both) / "old")
        if not path.exists():
            os.replace(new, path)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cache_dir() -> Path:
    """Folder for what is made once a user: ``$PLUM_CACHE``, else ``plum-study`` in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PLUM_CACHE") or user / "plum-study")
