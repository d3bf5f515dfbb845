"""Run the hostile programs and list what went wrong. Also a script, so that another user can run it:

    python hostile_suite.py MODE [LAYER LEFT OUT ...]

prints a JSON list of complaints; like ``plum_utils.sandbox`` it needs the standard library only.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import tempfile
import time
from pathlib import Path

from plum_utils.sandbox import Limits, Program, Sandbox

FOLDER = Path(__file__).with_name("hostile")
KINDS = ("forgery", "exits", "escapes", "exhaustion")
TESTS = """\
assert add(2, 3) == 5
assert add(-4, 10) == 6
assert add(0.5, 0.25) == 0.75
assert [add(n, 2 * n) for n in range(5)] == [0, 3, 6, 9, 12]
assert add("ab", "cd") == "abcd"
assert add([1], [2]) == [1, 2]
"""
HONEST = "def add(a, b): return a + b"
STATUSES = {"passed", "failed", "error", "timeout", "memory", "syntax"}
SECONDS = 0.6
LATE = 10.0  # seconds after which a verdict is too late: on a busy disk much takes long to be cleared away


def programs() -> dict[str, str]:
    """``kind/name`` -> source, placeholders still in it."""
    found = {}
    for kind in KINDS:
        parts = re.split(r"^# === (\w+): .*\n", (FOLDER / f"{kind}.py").read_text(), flags=re.MULTILINE)
        found |= {f"{kind}/{name}": source for name, source in zip(parts[1::2], parts[2::2])}
    return found


class Bait:
    """What escapes look for, and whether they got at it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.marker, self.secret = folder / "marker.txt", folder / "secret.txt"
        self.marker.write_text("precious")
        self.secret.write_text("hunter2-in-a-file")
        for path, mode in ((folder, 0o777), (self.marker, 0o666), (self.secret, 0o644)):
            path.chmod(mode)
        os.environ["PLUM_SECRET"] = "hunter2-in-the-environment"
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(0.1)

    def filled(self, source: str) -> str:
        for name, value in (("MARKER", self.marker), ("FOLDER", self.folder), ("SECRET", self.secret),
                            ("PORT", self.server.getsockname()[1]), ("PID", os.getpid())):
            source = source.replace(f"@{name}@", str(value))
        return source

    def complaints(self) -> list[str]:
        found = []
        if self.marker.read_text() != "precious" or self.marker.stat().st_mode & 0o777 != 0o666:
            found.append("the marker was changed")
        if {path.name for path in self.folder.iterdir()} != {"marker.txt", "secret.txt"}:
            found.append("something was left beside the marker")
        try:
            self.server.accept()
            found.append("somebody connected")
        except TimeoutError:
            pass
        for place in ("/dev/shm", "/var/tmp", "/run", "/tmp", "/"):
            if os.path.exists(os.path.join(place, "plum-hostile")):
                found.append(f"something was left in {place}")
        return found


def attack(mode: str, without: tuple[str, ...] = (), kinds: tuple[str, ...] = KINDS) -> list[str]:
    """Run the programs one by one, an honest one after each; every string returned is a defect.

    In shared mode a forged pass is none: that mode does not promise more.
    """
    complaints = []
    with tempfile.TemporaryDirectory(prefix="bait-") as folder, \
            Sandbox(workers=1, limits=Limits(seconds=SECONDS, memory_mb=512), without=without) as sandbox:
        bait = Bait(Path(folder))
        for name, source in programs().items():
            if name.partition("/")[0] in kinds:
                complaints += [f"{name}: {text}" for text in one(sandbox, bait, name, source, mode)]
        complaints += bait.complaints()
    return complaints


def one(sandbox: Sandbox, bait: Bait, name: str, source: str, mode: str) -> list[str]:
    worker, started = sandbox._workers[0]._process.pid, time.monotonic()
    verdict, = sandbox.run([Program(name, bait.filled(source), TESTS, mode=mode)])
    seconds = time.monotonic() - started
    honest, = sandbox.run([Program("honest", HONEST, TESTS, mode=mode)])
    found = []
    forgeable = mode == "shared" and not name.startswith("escapes/")
    if verdict.status == "passed" and not forgeable:
        found.append(f"passed ({verdict.assurance})")
    if verdict.status not in STATUSES:
        found.append(f"status {verdict.status}: {verdict.detail}")
    if len(verdict.detail) > 300 or "\n" in verdict.detail:
        found.append("the detail is not one line")
    if seconds > SECONDS + LATE:
        found.append(f"took {seconds:.1f} s")
    if honest.status != "passed":
        found.append(f"the honest program after it: {honest.status}, {honest.detail}")
    if sandbox._workers[0]._process.pid != worker:
        found.append("the worker died")
    return found


def forged_in_shared_mode() -> list[str]:
    """Which programs deceive a judge that shares a process with them; for the documentation."""
    with tempfile.TemporaryDirectory() as folder, Sandbox(workers=2, limits=Limits(seconds=SECONDS)) as sandbox:
        bait = Bait(Path(folder))
        run = [Program(name, bait.filled(source), TESTS, mode="shared") for name, source in programs().items()]
        return [verdict.id for verdict in sandbox.run(run) if verdict.status == "passed"]


if __name__ == "__main__":
    print(json.dumps(attack(sys.argv[1], tuple(sys.argv[2:]))))
