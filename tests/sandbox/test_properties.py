"""Random programs, random limits, random kills: every program gets exactly one verdict, and nothing is left behind."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from plum_utils.sandbox import Limits, Program, Sandbox, Verdict

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox isolates on Linux only")

TESTS = "assert f(2) == 3\nassert f(5) == 6"
# source -> the statuses that it may end in
KINDS = {
    "def f(x): return x + 1": {"passed"},
    "def f(x): return x + 2": {"failed"},
    "def f(x: return x": {"syntax"},
    "import no_such_module": {"error"},
    "def f(x): return undefined": {"failed"},
    "import os\nos._exit(0)": {"error"},
    "import os\ndef f(x): os._exit(0)": {"failed"},
    "import ctypes\ndef f(x): ctypes.string_at(0)": {"failed"},
    "def f(x):\n    while True: pass": {"timeout"},
    "while True: pass": {"timeout"},
    "def f(x): return 'x' * (1 << 40)": {"memory"},
    "def f(x):\n    kept = []\n    while True: kept.append([0] * 100_000)": {"memory", "timeout"},
    "def f(x):\n    while True: print('x' * 10_000)": {"timeout"},
    "def f(x): return object()": {"failed"},
    "import os\ndef f(x):\n    for n in range(200): open(str(n), 'w').write('x' * 1000)\n    return x + 1": {"passed"},
    "import time\ndef f(x):\n    time.sleep(0.02)\n    return x + 1": {"passed"},
}
ANY = set().union(*KINDS.values()) | {"infrastructure"}


def some_programs(rng: random.Random, n: int) -> list[tuple[Program, set[str]]]:
    found = []
    for number in range(n):
        source = rng.choice(list(KINDS))
        reference = rng.choice([None, "def f(x): return x + 1"])
        mode = rng.choice(["auto", "split", "shared"])
        text = source if rng.random() < 0.3 else f"# {number}\n{source}"
        allowed = KINDS[source] if mode != "shared" or "object()" not in source else {"failed"}
        found.append((Program(f"p{number}", text, TESTS, reference, mode), allowed))
    return found


def some_limits(rng: random.Random) -> Limits:
    return Limits(seconds=rng.choice([0.4, 0.7]), memory_mb=rng.choice([128, 256, 700]), file_mb=rng.choice([1, 8]),
                  factor=rng.choice([1.0, 50.0]), least_seconds=rng.choice([0.2, 0.3]))


def wrong(sandbox: Sandbox, asked: list[tuple[Program, set[str]]], verdicts: list[Verdict]) -> list[tuple]:
    """Programs with a verdict that they may not get. One that a busy machine kept from its time, and that was not stopped
    before its limit, is asked about again with more."""
    found = []
    for (program, allowed), verdict in zip(asked, verdicts, strict=True):
        if verdict.status == "timeout" and "timeout" not in allowed and verdict.seconds >= sandbox.limits.seconds:
            verdict, = sandbox.run([program], limits=replace(sandbox.limits, seconds=30))
        if verdict.status not in allowed:
            found.append((program, verdict))
    return found


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long("seconds")) for seed in (1, 2, 3))])
def test_every_program_gets_its_one_verdict(seed):
    rng = random.Random(seed)
    programs = some_programs(rng, 60)
    with Sandbox(workers=rng.randint(1, 3), limits=some_limits(rng)) as sandbox:
        verdicts = sandbox.run([program for program, _ in programs])
        assert [verdict.id for verdict in verdicts] == [program.id for program, _ in programs]
        assert wrong(sandbox, programs, verdicts) == []


@pytest.mark.parametrize("seed", [0, *(pytest.param(one, marks=pytest.mark.long("seconds")) for one in (1, 2))])
def test_workers_killed_at_random_lose_no_program(seed):
    """A program is run again once; only one that met two kills may be given up, and never with another's verdict."""
    rng = random.Random(100 + seed)
    programs = some_programs(rng, 80)
    before = set(children(os.getpid()))
    over, kills = threading.Event(), []
    with Sandbox(workers=2, limits=Limits(seconds=0.4, least_seconds=0.2)) as sandbox:
        def killer():
            while not over.wait(rng.uniform(0.02, 0.3)):
                victims = [one for worker in sandbox._workers for one in family(worker._process.pid)]
                if victims:
                    kills.append(rng.choice(victims))
                    try:
                        os.kill(kills[-1], signal.SIGKILL)
                    except ProcessLookupError:
                        pass

        thread = threading.Thread(target=killer)
        thread.start()
        try:
            verdicts = sandbox.run([program for program, _ in programs])
        finally:
            over.set()
            thread.join()
        assert kills and [verdict.id for verdict in verdicts] == [program.id for program, _ in programs]
        assert {verdict.status for verdict in verdicts} <= ANY
        assert wrong(sandbox, programs, sandbox.run([program for program, _ in programs])) == []
        folder = sandbox._folder
    # A killed candidate is a candidate that died; a killed judge or supervisor is ours, and its program is run again.
    for (_, allowed), verdict in zip(programs, verdicts):
        assert verdict.status in allowed | {"failed", "error", "infrastructure"}, verdict
        assert verdict.status != "passed" or "passed" in allowed
    assert not folder.exists()
    deadline = time.monotonic() + 60
    while set(children(os.getpid())) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(children(os.getpid())) <= before


def children(pid: int) -> list[int]:
    try:
        return [int(one) for path in Path(f"/proc/{pid}/task").glob("*/children") for one in path.read_text().split()]
    except OSError:
        return []


def family(pid: int) -> list[int]:
    """A worker, its supervisor, and what that has forked."""
    found = [pid]
    for one in found:
        found += children(one)
    return found
