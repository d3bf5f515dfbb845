"""Control groups, where this user may make them: the memory and the number of processes of a whole worker.

Version 2 (one tree) and version 1 (a tree a controller) are both files in folders; a group is made below the one that
this process is in. Address space is bounded a process anyway: a group bounds what that does not count, such as pipes,
unnamed files, and threads without a user of their own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

ROOT = Path("/sys/fs/cgroup")
BASE_MB = 384    # the supervisor, two interpreters, the program's directory, pipes and unnamed files
PROCESSES = 256  # and threads


class Group:
    """A worker's groups; ``folders`` is empty where none can be made, or where there is no name."""

    def __init__(self, name: str | None):
        self.folders: list[Path] = []
        self._memory: list[Path] = []
        self._megabytes = 0
        for folder in [parent / name for parent in parents()] if name else []:
            self._make(folder)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir()
        except OSError:
            return
        memory = [folder / name for name in ("memory.max", "memory.limit_in_bytes") if (folder / name).exists()]
        limited = _write(folder / "pids.max", PROCESSES) or any(_write(path, 1 << 40) for path in memory)
        if not limited or not os.access(folder / "cgroup.procs", os.W_OK):
            folder.rmdir()
            return
        self.folders.append(folder)
        self._memory += memory

    def allow(self, memory_mb: int) -> None:
        """Room for two processes of ``memory_mb`` MiB of address space each."""
        if memory_mb != self._megabytes:
            self._megabytes = memory_mb
            for path in self._memory:
                _write(path, (2 * memory_mb + BASE_MB) << 20)

    def remove(self) -> None:
        """Remove the groups; the kernel refuses while a process of theirs is ending, and ``remove_stale`` comes later.
        """
        for folder in self.folders:
            try:
                folder.rmdir()
            except OSError:
                pass


def parents() -> list[Path]:
    """The groups that this process is in, of the controllers wanted."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found.append(ROOT / path.lstrip("/"))
        found += [ROOT / name / path.lstrip("/") for name in controllers.split(",") if name in ("memory", "pids")]
    return [folder for folder in found if (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK)]


def remove_stale(alive: Callable[[str], bool], prefix: str) -> None:
    """Remove the groups whose name begins with ``prefix`` and whose harness is not ``alive`` any more."""
    for parent in parents():
        for folder in parent.glob(f"{prefix}*"):
            try:
                if not alive(folder.name):
                    folder.rmdir()
            except OSError:  # in use
                pass


def _write(path: Path, value: int) -> bool:
    try:
        path.write_text(str(value))
    except OSError:
        return False
    return True
