"""The limit of a call's time: the same verdict on a busy machine, and no way for a candidate to have more of it."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import replace

import pytest

from plum_utils.data.livecodebench import load_livecodebench
from plum_utils.data.problems import PATIENCE, Problem
from plum_utils.evaluation.scoring import score
from plum_utils.sandbox import Limits, Program, Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's clock of another process is Linux'")

CALLED = "import clocks\nassert clocks.limited(f, 0.3)(1) == 1\nassert not clocks.late"
BURN = "import time\ndef burn(seconds):\n    end = time.process_time() + seconds\n    while time.process_time() < end: pass\n"
HASH = "import hashlib, threading\ndef work():\n    for _ in range(400): hashlib.sha256(bytes(1 << 23))\n"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1, limits=Limits(seconds=5, patience=10), quiet=True) as one:
        yield one


def verdict(sandbox, code, **limits):
    found, = sandbox.run([Program("x", code, tests=CALLED, mode="split")], replace(sandbox.limits, **limits))
    return found


@pytest.mark.parametrize("code", [
    BURN + "def f(x):\n    burn(0.1)\n    return x",
    "import time\ndef f(x):\n    time.sleep(1)\n    return x",  # three times the limit, by the wall
])
def test_what_the_program_does_not_compute_is_not_on_its_clock(sandbox, code):
    assert verdict(sandbox, code).status == "passed"


@pytest.mark.parametrize("code", [
    BURN + "def f(x):\n    burn(0.6)\n    return x",
    "def f(x):\n    while True: pass",
    "def f(x):\n    while True:\n        try:\n            while True: sum([1])\n        except BaseException: pass",
    "import time\ndef f(x):\n    time.sleep(60)",  # three seconds by the wall
    HASH + "def f(x):\n    threads = [threading.Thread(target=work) for _ in range(4)]\n"
           "    [one.start() for one in threads]\n    [one.join() for one in threads]\n    return x",
    HASH + "import time\ndef f(x):\n    threading.Thread(target=work).start()\n    start = time.process_time()\n"
           "    while time.process_time() < start + 0.5: time.sleep(0.02)\n    return x",
    "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0)\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
    "time.process_time = time.monotonic = lambda: 0.0\ntime.clock_gettime = lambda clock: 0.0\n"
    "def f(x):\n    for _ in range(10 ** 9): pass\n    return x",
    "import sys, types\nsys.modules['clocks'] = types.SimpleNamespace(limited=lambda function, seconds: function, late=[])\n"
    "def f(x):\n    while True: pass",
])
def test_a_candidate_has_no_more_than_its_time(sandbox, code):
    found = verdict(sandbox, code)
    assert (found.status, found.detail) == ("failed", found.detail) and "out of time in one call" in found.detail


@pytest.mark.parametrize("start", ["os.fork()", "multiprocessing.get_context('fork').Process(target=work).start()",
                                   "subprocess.Popen(['/bin/true'])"])
def test_a_candidate_has_no_other_process_to_compute_in(sandbox, start):
    code = ("import multiprocessing, os, subprocess\ndef work(): pass\ndef f(x):\n    try:\n        " + start +
            "\n    except OSError:\n        return x\n    return 'another process'")
    assert verdict(sandbox, code).status == "passed"


def test_with_no_patience_the_wall_clock_decides(sandbox):
    code = "import time\ndef f(x):\n    time.sleep({})\n    return x"
    assert verdict(sandbox, code.format(0.1), patience=1.0).status == "passed"
    assert "out of time" in verdict(sandbox, code.format(0.5), patience=1.0).detail


def test_a_script_has_its_seconds_of_processor_time(sandbox):
    def run(code, patience):
        script = Program("x", code, mode="script", cases=(("", "1"),))
        return sandbox.run([script], Limits(seconds=0.4, patience=patience))[0].status

    assert run("import time\ntime.sleep(1)\nprint(1)", PATIENCE["cpu"]) == "passed"
    assert run("import time\ntime.sleep(1)\nprint(1)", PATIENCE["wall"]) == "timeout"
    assert run("import time\ntime.sleep(9)\nprint(1)", PATIENCE["cpu"]) == "timeout"
    assert run("while True: pass", PATIENCE["cpu"]) == "timeout"


def spin():
    while True:
        pass


@pytest.fixture
def busy():
    """Two busy loops for each core, beside whatever else runs."""
    loops = [multiprocessing.get_context("fork").Process(target=spin, daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
    for loop in loops:
        loop.start()
    yield
    for loop in loops:
        loop.kill()
        loop.join()


def scored(clock):
    """Whether solutions of a call that take 0.5 and 1.6 s of a second pass: of evalplus' kind and of LiveCodeBench's."""
    from plum_utils.data.judges import source

    tests = f"def check(g):\n    assert g(1) == 1\n{source('call_clock')}\ncheck(_plum_limited(f))\nassert not _plum_late\n"
    one = Problem("one", "humaneval", "", "f", "def f(x):\n    return x", tests, clock=clock)
    contest = next(item for item in load_livecodebench(seconds=1.0, clock=clock) if item.task_id == "plum-e4")
    contest = replace(contest, private_tests=(), public_tests=contest.public_tests[:1])
    rows = []
    for index, seconds in enumerate((0.5, 1.6)):
        rows.append({"task_id": "one", "sample_index": index, "solution": f"{BURN}def f(x):\n    burn({seconds})\n    return x"})
        rows.append({"task_id": "plum-e4", "sample_index": index,
                     "solution": f"{BURN}def {contest.func_name}(xs):\n    burn({seconds})\n    return max(xs)"})
    with Sandbox(workers=1, limits=Limits(seconds=5), quiet=True) as sandbox:
        return [row.get("base_passed", row.get("passed")) for row in score([one, contest], rows, sandbox, False)]


@pytest.mark.long("seconds")
def test_a_busy_machine_changes_no_verdict(busy):
    assert scored("cpu") == [True, True, False, False]


@pytest.mark.long("seconds")
def test_it_would_by_the_wall_clock(busy):
    assert scored("wall") == [False, False, False, False]
