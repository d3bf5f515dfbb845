"""The sandbox over a local Ray cluster of several processes: the same verdicts, whatever is lost on the way."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from dataclasses import astuple, replace
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
    """A pool on both nodes, which the tests share; at the end no worker of theirs is left."""
    with RaySandbox(limits=LIMITS, address=cluster.address) as opened:
        owners = set(actor_pids())
        yield opened
        owners |= set(actor_pids())
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

        def counted(work, chunk, rows, node):
            note(work, chunk, rows, node)
            if len(work.answers) >= count and acts:
                acts.pop()()
        monkeypatch.setattr(ray_pool._Work, "note", counted)
    return install


@pytest.fixture
def actors(sandbox, monkeypatch):
    """``actors(kind)``: start the pools again, as actors of another class; the next test has ordinary ones."""
    def start(kind):
        monkeypatch.setattr(ray_pool, "_Actor", kind)
        restart(sandbox)
    yield start
    monkeypatch.undo()
    restart(sandbox)


def restart(sandbox: RaySandbox) -> None:
    for pool in [*sandbox._pools.values()]:
        sandbox._lose(pool, RuntimeError("the test asks for it"))
    sandbox._wait_for_pools()
    assert len(living(sandbox)) == 2


def living(sandbox: RaySandbox) -> list[str]:
    """The nodes that are alive and have a pool that is ready."""
    return [name for name in sandbox._nodes() if name in sandbox._pools and sandbox._pools[name].layers]


def without_times(verdict: Verdict) -> Verdict:
    return replace(verdict, seconds=0.0, cpu_seconds=0.0)


def sandbox_workers(owner: int) -> list[int]:
    """The processes of the sandboxes that the process ``owner`` opened."""
    return [process.pid for process in psutil.process_iter(["cmdline"])
            if any(f"plum-sandbox-{owner}-" in part for part in process.info["cmdline"] or ())]


def actor_pids() -> list[int]:
    """The processes of the pools, known by the folders of their sandboxes."""
    owners = {folder.name.split("-")[2] for folder in Path(tempfile.gettempdir()).glob("plum-sandbox-*-*")}
    alive = [psutil.Process(int(owner)) for owner in owners if psutil.pid_exists(int(owner))]
    return [process.pid for process in alive if any("ray::" in part for part in process.cmdline())]


@pytest.mark.long("cluster")
def test_nodes_that_cannot_isolate_are_refused(cluster):
    # The first of the tests: the pools that the others share take all CPUs.
    with pytest.raises(SandboxError, match="no node of the Ray cluster can run programs.*network and file writes"):
        RaySandbox(without=("namespaces", "seccomp", "landlock"), address=cluster.address)


@pytest.mark.long("cluster")
def test_verdicts_are_those_of_one_machine(sandbox, expected):
    assert sandbox.layers.startswith("ray, ") and "\n" not in sandbox.layers
    assert sum(map(int, re.findall(r"(\d) node\(s\), \1 worker\(s\): sandbox: namespaces", sandbox.layers))) == 2
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
def test_a_killed_actor_loses_nothing(sandbox, expected, after):
    victim = actor_pids()[0]
    assert sandbox_workers(victim)
    after(60, lambda: os.kill(victim, signal.SIGKILL))
    assert [without_times(verdict) for verdict in sandbox.run(MIXED)] == expected
    assert not psutil.pid_exists(victim) and not sandbox_workers(victim)
    assert [pool.busy for pool in sandbox._pools.values()] == [0, 0] and not sandbox._running
    deadline = time.monotonic() + 60  # the other node may have finished the run before the next actor was there
    while list(Path(tempfile.gettempdir()).glob(f"plum-sandbox-{victim}-*")):
        assert time.monotonic() < deadline, "the next actor did not clear up"
        time.sleep(0.1)


@pytest.mark.long("cluster")
def test_a_removed_node_loses_nothing_and_a_new_one_is_used(cluster, sandbox, expected, after):
    removed = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
    after(60, lambda: cluster.remove_node(removed, allow_graceful=False))
    assert [without_times(verdict) for verdict in sandbox.run(MIXED)] == expected
    cluster.more()
    deadline = time.monotonic() + 60
    while removed.node_id in sandbox._pools or len(living(sandbox)) < 2:
        assert time.monotonic() < deadline, "the new node was not used"
        assert [without_times(verdict) for verdict in sandbox.run(MIXED[:40])] == expected[:40]


@pytest.mark.long("cluster")
def test_a_program_that_kills_its_actor_costs_its_own_verdict_only(sandbox, expected, actors):
    class Fragile(ray_pool._Actor):
        def judge(self, tasks, limits):
            if any("POISON" in task[0] for task in tasks):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().judge(tasks, limits)

    actors(Fragile)
    programs = [*MIXED[:100], Program("poison", "POISON = 1", "pass"), *MIXED[100:]]
    verdicts = sandbox.run(programs)
    poison = verdicts.pop(100)
    assert (poison.id, poison.status) == ("poison", "infrastructure")
    assert "workers of the cluster: ActorDiedError" in poison.detail and len(poison.detail) <= 300
    assert [without_times(verdict) for verdict in verdicts] == expected


@pytest.mark.long("cluster")
def test_a_node_that_fails_programs_for_its_own_reasons_does_not_decide_them(sandbox, expected, actors):
    bad = min(sandbox._pools)

    class Broken(ray_pool._Actor):
        def judge(self, tasks, limits):
            import ray
            if ray.get_runtime_context().get_node_id() == bad:
                return [astuple(Verdict("", "infrastructure", "broken", 0.0))[1:] for _ in tasks]
            return super().judge(tasks, limits)

    actors(Broken)
    assert [without_times(verdict) for verdict in sandbox.run(MIXED)] == expected


@pytest.mark.long("cluster")
def test_busy_nodes_are_not_waited_for_without_end(sandbox):
    with pytest.raises(SandboxError, match="1 CPUs were not free for 1 seconds"):
        RaySandbox(start_seconds=1.0)  # over the connection that there is, which it leaves open
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


def test_workers_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        RaySandbox(workers=0)


@given(count=st.integers(0, 60), lost=st.lists(st.sampled_from(["answer", "lose", "infrastructure"]), max_size=200),
       poison=st.sets(st.integers(0, 59), max_size=3))
def test_every_program_is_answered_once(count, lost, poison):
    """Whatever is lost, each program is in the queue, with a node, or answered; only what always fails is given up."""
    tasks = [(f"code {number}", f"tests {number % 7}", None, "auto") for number in range(count)]
    work, outcomes, runs = ray_pool._Work(tasks + tasks), iter(lost), 0
    while work.left:
        runs += 1
        assert runs < 2000
        node = "ab"[runs % 2]
        chunk = work.take(node, {"a", "b"}, slots=1 + count % 3, idle=True)
        if chunk is None:
            continue  # what there is was lost on this node: the other one takes it
        bad = any(int(task[0].split()[1]) in poison for task in chunk.tasks)
        outcome = "lose" if bad else next(outcomes, "answer")
        if outcome == "lose":
            work.put_back(chunk, node, "ActorDiedError")
        else:
            status = "passed" if outcome == "answer" else "infrastructure"
            work.note(chunk, [(status, node)] * len(chunk.tasks), node)
        held = [task for one in work._again for task in one.tasks] + list(work._fresh) + list(work.answers)
        assert sorted(held) == sorted(tasks)
    for number, task in enumerate(tasks):
        assert number not in poison or work.answers[task][0] == "infrastructure"


def test_chunks_shrink_towards_the_end_and_keep_tests_together():
    tasks = [(f"code {number}", f"tests {number % 3}", None, "auto") for number in range(300)]
    work, chunks = ray_pool._Work(tasks), []
    while (chunk := work.take("a", {"a"}, slots=4, idle=False)) is not None:
        chunks.append(chunk.tasks)
    sizes = [len(chunk) for chunk in chunks]
    assert sizes == sorted(sizes, reverse=True) and (sizes[0], sizes[-1]) == (ray_pool.CHUNK, 1)
    assert [task[1] for chunk in chunks for task in chunk] == sorted(task[1] for task in tasks)
