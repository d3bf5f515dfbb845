"""The sandbox over a local Ray cluster of several processes: the same verdicts, whatever is lost on the way."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.sandbox import Limits, Program, Sandbox, SandboxError, Verdict, ray_pool
from plum_utils.sandbox.ray_pool import RaySandbox

LIMITS = Limits(seconds=1.0)
KINDS = [
    ("def add(a, b): return a + b", "assert add(1, 2) == 3"),
    ("def add(a, b): return a - b", "x = 1\nassert add(1, 2) == 3"),
    ("def add(a, b: return a", "assert add(1, 2) == 3"),
    ("import no_such_module", "assert add(1, 2) == 3"),
    ("def add(a, b): return '\ud800'", "assert add(1, 2) == 3"),
    ("def add(a, b): raise SystemExit(0)", "assert add(1, 2) == 3"),
    ("class Sum:\n    def __init__(self, a): self.a = a", "assert Sum(3).a == 3"),
    ("x = 'a' * (1 << 31)", "pass"),
]
MIXED = [Program(f"p{number}", f"# {number // len(KINDS)}\n{code}", tests)
         for number in range(200) for code, tests in [KINDS[number % len(KINDS)]]]
MIXED += [Program(f"loop{number}", f"while True: {number}", "pass") for number in range(3)]
MIXED += [replace(program, id=f"again-{program.id}") for program in MIXED[:40]]


# --- a cluster --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def sandbox(cluster):
    """A sandbox over both nodes, which the tests share; at the end no worker of theirs is left."""
    with RaySandbox(limits=LIMITS, address=cluster.address) as opened:
        owners = set(task_pids())
        yield opened
        owners |= set(task_pids())
    deadline = time.monotonic() + 10
    while any(map(sandbox_workers, owners)):
        assert time.monotonic() < deadline, "workers outlived the sandbox"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def expected():
    """What one machine's sandbox says of ``MIXED``."""
    with Sandbox(workers=2, limits=LIMITS) as local:
        return [without_times(verdict) for verdict in local.run(MIXED)]


@pytest.fixture
def after(monkeypatch):
    """``after(n, act)``: call ``act`` once, when n programs of a run have their verdicts."""
    def install(count, act):
        note, acts = ray_pool._Work.note, [act]

        def counted(work, chunk, node, rows):
            answered = note(work, chunk, node, rows)
            if len(work.answers) >= count and acts:
                acts.pop()()
            return answered
        monkeypatch.setattr(ray_pool._Work, "note", counted)
    return install


@pytest.fixture
def judging(sandbox, monkeypatch):
    """``judging(change)``: another sandbox over the same connection, whose tasks call ``change(judge, *arguments)``."""
    def opened(change):
        judge = ray_pool._judge

        def changed(*arguments):  # travels by value: Ray's workers do not find the tests
            return change(judge, *arguments)

        monkeypatch.setattr(ray_pool, "_judge", changed)
        return RaySandbox(limits=LIMITS)
    return opened


def without_times(verdict: Verdict) -> Verdict:
    return replace(verdict, seconds=0.0, cpu_seconds=0.0)


def sandbox_workers(owner: int) -> list[int]:
    """The processes of the sandboxes that the process ``owner`` opened."""
    return [process.pid for process in psutil.process_iter(["cmdline"])
            if any(f"plum-sandbox-{owner}-" in part for part in process.info["cmdline"] or ())]


def task_pids() -> list[int]:
    """Ray's processes that have opened a sandbox, known by its folder."""
    owners = {folder.name.split("-")[2] for folder in Path(tempfile.gettempdir()).glob("plum-sandbox-*-*")}
    alive = [psutil.Process(int(owner)) for owner in owners if psutil.pid_exists(int(owner))]
    return [process.pid for process in alive if any("ray::" in part for part in process.cmdline())]


@pytest.mark.long("cluster")
def test_nodes_that_cannot_isolate_are_refused(cluster):
    with pytest.raises(SandboxError, match="no node of the Ray cluster can run programs.*network and file writes"):
        RaySandbox(without=("namespaces", "seccomp", "landlock"), address=cluster.address)


@pytest.mark.long("cluster")
def test_verdicts_are_those_of_one_machine(sandbox, expected):
    assert sandbox.layers.startswith("ray, ") and "\n" not in sandbox.layers
    assert sum(map(int, re.findall(r"(\d) node\(s\): sandbox: namespaces", sandbox.layers))) == 2
    told: list[int] = []
    verdicts = sandbox.run(MIXED, ended=told.append)
    assert sum(told) == len(MIXED)
    assert [verdict.id for verdict in verdicts] == [program.id for program in MIXED]
    assert [without_times(verdict) for verdict in verdicts] == expected
    assert {verdict.status for verdict in verdicts} == {"passed", "failed", "error", "syntax", "timeout", "memory"}


@pytest.mark.long("cluster")
def test_references_modes_and_limits_travel(sandbox):
    reference = "def f(n): return n"
    programs = [Program("slow", "def f(n):\n    while True: pass", "assert f(1) == 1", reference),
                Program("fast", reference, "assert f(1) == 1", reference),
                Program("shared", reference, "assert f(1) == 1", mode="shared"),
                Program("sleeps", "import time\ntime.sleep(0.8)", "pass")]
    slow, fast, shared, sleeps = sandbox.run(programs, limits=replace(LIMITS, seconds=0.5, least_seconds=0.1))
    assert (slow.status, slow.assurance, fast.status) == ("timeout", "split", "passed")
    assert (shared.assurance, shared.calls, sleeps.status) == ("shared", 0, "timeout")
    assert sandbox.run(programs[3:])[0].status == "passed"
    assert sandbox.run([]) == []


@pytest.mark.long("cluster")
def test_a_killed_process_loses_nothing(sandbox, expected, after):
    victim = task_pids()[0]
    assert sandbox_workers(victim)
    after(60, lambda: os.kill(victim, signal.SIGKILL))
    assert [without_times(verdict) for verdict in sandbox.run(MIXED)] == expected
    assert not psutil.pid_exists(victim) and not sandbox_workers(victim)
    deadline = time.monotonic() + 60
    while list(Path(tempfile.gettempdir()).glob(f"plum-sandbox-{victim}-*")):
        assert time.monotonic() < deadline, "the next process did not clear up"
        sandbox.run(MIXED[:40])


@pytest.mark.long("cluster")
def test_a_removed_node_loses_nothing_and_a_new_one_is_used(cluster, sandbox, expected, after):
    removed = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
    after(60, lambda: cluster.remove_node(removed, allow_graceful=False))
    assert [without_times(verdict) for verdict in sandbox.run(MIXED)] == expected
    cluster.more()
    deadline = time.monotonic() + 60
    while removed.node_id in sandbox._layers or len(sandbox._layers) < 2:
        assert time.monotonic() < deadline, "the new node was not used"
        assert [without_times(verdict) for verdict in sandbox.run(MIXED[:40])] == expected[:40]


@pytest.mark.long("cluster")
def test_a_program_that_kills_its_process_costs_its_own_verdict_only(expected, judging):
    def fragile(judge, tasks, *how):
        if any("POISON" in task.code for task in tasks):
            os.kill(os.getpid(), signal.SIGKILL)
        return judge(tasks, *how)

    programs = [*MIXED[:100], Program("poison", "POISON = 1", "pass"), *MIXED[100:]]
    verdicts = judging(fragile).run(programs)
    poison = verdicts.pop(100)
    assert (poison.id, poison.status) == ("poison", "infrastructure")
    assert "a process of the cluster: WorkerCrashedError" in poison.detail and len(poison.detail) <= 300
    assert [without_times(verdict) for verdict in verdicts] == expected


@pytest.mark.long("cluster")
def test_a_node_that_fails_programs_for_its_own_reasons_does_not_decide_them(sandbox, expected, judging):
    bad = min(sandbox._layers)

    def broken(judge, tasks, *how):
        node, layers, rows = judge(tasks, *how)
        failed = node == bad and tasks != (ray_pool.PROBE,)
        return node, layers, [("infrastructure", "broken", 0.0, "shared", 0, 0.0)] * len(tasks) if failed else rows

    assert [without_times(verdict) for verdict in judging(broken).run(MIXED)] == expected


@pytest.mark.long("cluster")
def test_a_node_that_cannot_isolate_is_left_out(sandbox, expected, judging, capsys):
    bad = min(sandbox._layers)

    def weak(judge, tasks, limits, without):
        import ray
        if ray.get_runtime_context().get_node_id() == bad:
            without = ("namespaces", "seccomp", "landlock")
        return judge(tasks, limits, without)

    other = judging(weak)
    assert other.layers.startswith("ray, 1 node(s): ")
    assert f"node {bad} is left out: SandboxError: this host cannot deny" in capsys.readouterr().err
    assert [without_times(verdict) for verdict in other.run(MIXED)] == expected and list(other._layers) != [bad]


@pytest.mark.long("cluster")
def test_busy_nodes_are_not_waited_for_without_end(sandbox):
    import ray
    busy = [ray.remote(lambda: time.sleep(60)).options(scheduling_strategy="SPREAD").remote() for _ in range(2)]
    try:
        time.sleep(2)
        with pytest.raises(SandboxError, match="no CPU was free for 1 seconds"):
            RaySandbox(start_seconds=1.0)  # over the connection that there is, which it leaves open
    finally:
        for one in busy:
            ray.cancel(one, force=True)
    assert sandbox.run(MIXED[:1])[0].status == "passed"


@pytest.mark.long("cluster")
def test_an_interrupted_run_stops_its_programs(sandbox, expected, after):
    def interrupt():
        raise KeyboardInterrupt
    after(1, interrupt)
    loops = [Program(str(number), f"while True: {number}", "pass") for number in range(20)]
    with pytest.raises(KeyboardInterrupt):
        sandbox.run(loops)
    assert [without_times(verdict) for verdict in sandbox.run(MIXED[:40])] == expected[:40]


# --- without a cluster ------------------------------------------------------------------------------------------------

def test_a_missing_ray_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SandboxError, match=r"pip install '\.\[ray\]'"):
        RaySandbox()


@given(count=st.integers(0, 60), losses=st.lists(st.sampled_from(["answer", "crash", "fail"]), max_size=200),
       poison=st.sets(st.integers(0, 59), max_size=3), data=st.data())
def test_every_program_is_answered_once(count, losses, poison, data):
    """Whatever is lost, each program waits, is with Ray, or is answered; only what is always lost is given up."""
    tasks = [Program("", f"code {number}", f"tests {number % 7}") for number in range(count)]
    work, outcomes, running, answered = ray_pool._Work(Counter(tasks + tasks), 1 + count % 3), iter(losses), [], []
    while running or work.waiting:
        while work.waiting and len(running) < 3:
            running.append(work.waiting.popleft())
        chunk = running.pop(data.draw(st.integers(0, len(running) - 1)))
        bad = any(int(task.code.split()[1]) in poison for task in chunk.tasks)
        outcome = "crash" if bad else next(outcomes, "answer")
        status, node = ("passed" if outcome == "answer" else "infrastructure"), ("" if outcome == "crash" else "a")
        answered += work.note(chunk, node, [(status, node)] * len(chunk.tasks))
        held = [task for one in [*running, *work.waiting] for task in one.tasks] + list(work.answers)
        assert Counter(held) == Counter(tasks)
        assert all(len(one.tasks) == 1 for one in work.waiting if one.failed), "a poison would cost its neighbours"
    assert Counter(answered) == Counter(tasks)
    for number, task in enumerate(tasks):
        assert number not in poison or work.answers[task][0] == "infrastructure"


def test_chunks_shrink_towards_the_end_and_keep_tests_together():
    tasks = [Program("", f"code {number}", f"tests {number % 3}") for number in range(300)]
    chunks = [chunk.tasks for chunk in ray_pool._Work(tasks, cpus=4).waiting]
    sizes = [len(chunk) for chunk in chunks]
    assert sizes == sorted(sizes, reverse=True) and (sizes[0], sizes[-1]) == (ray_pool.CHUNK, 1)
    assert [task.tests for chunk in chunks for task in chunk] == sorted(task.tests for task in tasks)
