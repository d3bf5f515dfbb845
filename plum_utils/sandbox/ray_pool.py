"""``Sandbox.run`` over the nodes of a Ray cluster, for more programs than one machine can run.

    with RaySandbox(address="auto") as sandbox:      # pip install '.[ray]', then `ray start` on every node
        verdicts = sandbox.run(programs)             # as Sandbox.run: the same verdicts, in input order

Each node has one pool: an actor that holds as many one-worker sandboxes as it reserves CPUs, so that a program in an
endless loop occupies one CPU and keeps nobody else waiting. A node that joins later is used from then on; one started
with ``--num-cpus=0`` is left out. Every node needs this package in the same version.

What is lost is run again. If an actor or its node dies, the chunks it had are cut in halves and go back to the queue,
for another node where there is one; the actor is started again while its node lives. A single program that was there
each time that its last ``TRIES`` actors died, the last time alone, gets the verdict ``infrastructure``. A chunk is in
the queue, with one actor, or answered, never in two of these: no program is lost, none is counted twice.

Programs travel as plain strings, and verdicts come back as tuples of strings and numbers. Ray pickles these between our
own processes; nothing that a program wrote is ever unpickled. But Ray obeys whoever reaches its ports: keep them on a
private network, and do not set ``Limits.allow_weak`` here for programs that you do not trust, as a node which cannot
deny them the network hands them the cluster.
"""

from __future__ import annotations

import os
import queue
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, astuple, dataclass, field
from types import ModuleType
from typing import Any, Callable

from plum_utils.sandbox.pool import Limits, Mode, Program, Sandbox, SandboxError, Verdict

CHUNK = 16    # programs that travel together at most; fewer towards the end, so that all nodes finish together
SPARE = 2     # chunks that wait at a node beside those that run
TRIES = 3     # actors that may die of one program, or one after the other while they start on a node
GLANCE = 2.0  # seconds between two looks for nodes that came or went
PROBE = Program("probe", "def one():\n    return 1", "assert one() == 1")
Task = tuple[str, str, "str | None", Mode]  # code, tests, reference, mode: a program without its name


class RaySandbox:
    """A sandbox on every node of a Ray cluster; use it as a context manager, or call ``close``.

    Uses the connection that this process has to Ray, or else connects (and disconnects in ``close``).

    Args:
        workers: programs that run at the same time on a node, at most; by default as many as the node has CPUs. As many
            CPUs are reserved there.
        limits: of each program.
        without: layers of isolation not to use, as in ``Sandbox``.
        address: of the cluster, as ``ray.init`` takes it; by default that of ``RAY_ADDRESS``, of a cluster that runs on
            this machine, or of one that is started on this machine alone.
        start_seconds: how long to wait for nodes; those that are ready later join then.

    Raises:
        SandboxError: Ray is not installed, or no node could start a sandbox in time; it says why.
    """

    def __init__(self, workers: int | None = None, limits: Limits = Limits(), without: tuple[str, ...] = (),
                 address: str | None = None, start_seconds: float = 60.0):
        if workers is not None and workers < 1:
            raise ValueError(f"sandbox.workers must be at least 1, got {workers}")
        self.limits = limits
        self._workers, self._without, self._start_seconds = workers, without, start_seconds
        self._pools: dict[str, _Pool] = {}  # by the node's id
        self._refused: dict[str, str] = {}  # node's id -> why it has no pool
        self._running: dict[Any, tuple[_Pool, _Chunk]] = {}  # by the reference of the result
        self._glance = float("-inf")
        self._ray = _import_ray()
        self._connected = not self._ray.is_initialized()
        if self._connected:
            self._connect(address)
        try:
            self._wait_for_pools()
        except BaseException:
            self.close()
            raise
        print(self.layers, file=sys.stderr)

    @property
    def layers(self) -> str:
        """What is in force, on how many nodes, in a line."""
        pools = [pool for pool in self._pools.values() if pool.layers]
        kinds = dict.fromkeys(pool.layers for pool in pools)
        return "; ".join(f"ray, {len(same)} node(s), {sum(pool.workers for pool in same)} worker(s): {layers}"
                         for layers in kinds for same in [[pool for pool in pools if pool.layers == layers]])

    def run(self, programs: list[Program], limits: Limits | None = None,
            ended: Callable[[int], object] = lambda n: None) -> list[Verdict]:
        """One verdict for each program, in input order; identical programs are run once.

        Args:
            limits: other limits than the sandbox's own, for these programs only.
            ended: told how many programs have got their verdict since it was told last.

        Raises:
            SandboxError: no node is left.
        """
        tasks = [(one.code, one.tests, one.reference, one.mode) for one in programs]
        work = _Work(tasks)
        plain = asdict(limits or self.limits)
        try:
            while work.left:
                self._look_for_nodes()
                self._hand_out(work, plain)
                before = work.done
                self._collect(work)
                ended(work.done - before)
        except BaseException:
            self._abandon()
            raise
        return [Verdict(program.id, *work.answers[task]) for program, task in zip(programs, tasks)]

    def close(self) -> None:
        """Stop the pools, and disconnect if the connection was made here."""
        ray, pools = self._ray, list(self._pools.values())
        self._pools.clear()
        if not ray.is_initialized():
            return
        ends = [pool.actor.close.remote() for pool in pools if pool.layers]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=10.0)
        for pool in pools:
            ray.kill(pool.actor)
        if self._connected:
            ray.shutdown()

    def __enter__(self) -> RaySandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self, address: str | None) -> None:
        try:
            self._ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
        except ConnectionError as error:
            raise SandboxError(f"no Ray cluster at {address}: {_one_line(error)}") from error

    # --- nodes and their pools ----------------------------------------------------------------------------------------

    def _wait_for_pools(self) -> None:
        """Wait until every node has a pool, or refused it; at most ``start_seconds`` if there is one pool."""
        self._look_for_nodes()
        end = time.monotonic() + self._start_seconds
        while any(pool.opening for pool in self._pools.values()) and time.monotonic() < end:
            self._collect(None)
            self._look_for_nodes()
        self._require_a_pool()

    def _look_for_nodes(self) -> None:
        """Start pools on nodes that are new, and forget those whose node is gone."""
        if time.monotonic() < self._glance + GLANCE:
            return
        self._glance = time.monotonic()
        alive = self._nodes()
        for name, node in alive.items():
            if name not in self._pools and name not in self._refused:
                self._start(node)
        for name in [name for name in self._pools if name not in alive]:
            self._ray.kill(self._pools.pop(name).actor)  # its chunks come back as errors

    def _nodes(self) -> dict[str, dict]:
        """Ray's description of each living node that has a CPU, by the node's id."""
        return {node["NodeID"]: node for node in self._ray.nodes()
                if node["Alive"] and node["Resources"].get("CPU", 0) >= 1}

    def _start(self, node: dict, attempt: int = 1) -> None:
        cpus = int(node["Resources"]["CPU"])
        pool = _Pool(node["NodeID"], node["NodeManagerAddress"], min(self._workers or cpus, cpus), attempt)
        place = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(pool.node, soft=False)
        pool.actor = self._ray.remote(_Actor).options(
            num_cpus=pool.workers, max_concurrency=pool.workers + SPARE + 1, max_restarts=0, max_task_retries=0,
            scheduling_strategy=place).remote()
        pool.opening = pool.actor.open.remote(pool.workers, asdict(self.limits), self._without)
        self._pools[pool.node] = pool

    def _opened(self, pool: _Pool) -> None:
        """A pool that was starting is ready or, after ``TRIES`` attempts, refused."""
        opening, pool.opening = pool.opening, None
        try:
            pool.layers = self._ray.get(opening)
        except self._ray.exceptions.RayError as error:
            self._lose(pool, error)

    def _lose(self, pool: _Pool, error: Exception) -> None:
        """Start another actor on the pool's node, if that is alive and its actors could start so far."""
        if self._pools.get(pool.node) is not pool:
            return  # known already
        del self._pools[pool.node]
        self._ray.kill(pool.actor)
        node, attempt = self._nodes().get(pool.node), 1 if pool.layers else pool.attempt + 1
        final = isinstance(_cause(error), SandboxError) or attempt > TRIES
        if node and final:
            self._refused[pool.node] = _one_line(error)
            print(f"sandbox: node {pool.address} is left out: {_one_line(error)}", file=sys.stderr)
        elif node:
            self._start(node, attempt)

    def _require_a_pool(self) -> None:
        """Raise when no pool is ready, and none can be expected any more."""
        pools = self._pools.values()
        if any(pool.layers for pool in pools):
            return
        if any(time.monotonic() < pool.since + self._start_seconds for pool in pools):
            return
        why = [f"a node's {pool.workers} CPUs were not free for {self._start_seconds:g} seconds" for pool in pools]
        why += self._refused.values()
        why = why or ["none with a CPU is alive"]
        raise SandboxError(f"no node of the Ray cluster can run programs: {'; '.join(why)}")

    # --- programs -----------------------------------------------------------------------------------------------------

    def _hand_out(self, work: _Work, limits: dict) -> None:
        """Give every pool as many chunks as it has workers, and a few to wait there."""
        ready = {name: pool for name, pool in self._pools.items() if pool.layers}
        slots = sum(pool.workers for pool in ready.values())
        for pool in ready.values():
            while pool.busy < pool.workers + SPARE and not pool.alone:
                chunk = work.take(pool.node, set(ready), slots, idle=not pool.busy)
                if chunk is None:
                    break
                self._running[pool.actor.judge.remote(chunk.tasks, limits)] = pool, chunk
                pool.busy += 1
                pool.alone = chunk.alone

    def _collect(self, work: _Work | None) -> None:
        """Wait up to a second for results, and for pools that start; take those that are there."""
        opening = {pool.opening: pool for pool in self._pools.values() if pool.opening}
        waiting = [*self._running, *opening]
        if not self._running:
            self._require_a_pool()
        self._ray.wait(waiting, timeout=1.0)
        done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for one in done:
            if one in opening:
                self._opened(opening[one])
            else:
                assert work is not None  # pools start before there are chunks
                self._take(one, work)

    def _take(self, result: Any, work: _Work) -> None:
        """Note a chunk's verdicts, or put it back."""
        pool, chunk = self._running.pop(result)
        pool.busy -= 1
        pool.alone = False
        try:
            work.note(chunk, self._ray.get(result), pool.node)
        except self._ray.exceptions.RayError as error:
            work.put_back(chunk, pool.node, _one_line(error))
            self._lose(pool, error)

    def _abandon(self) -> None:
        """After an error or Ctrl-C: stop the actors that are at work; the next ``run`` finds new ones."""
        busy = {pool.node: pool for pool, _ in self._running.values()}
        self._running.clear()
        for pool in busy.values():
            self._ray.kill(pool.actor)
            self._pools.pop(pool.node, None)
        self._glance = float("-inf")


@dataclass(eq=False)
class _Pool:
    """One actor, and what is known of it. ``layers`` is empty until it is ready."""

    node: str
    address: str
    workers: int
    attempt: int
    actor: Any = None
    opening: Any = None
    layers: str = ""
    busy: int = 0  # chunks with it
    alone: bool = False  # it has a chunk beside which no other may run
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Chunk:
    """Programs that travel together, and the nodes which they went to in vain."""

    tasks: tuple[Task, ...]
    losses: int = 0
    nodes: frozenset[str] = frozenset()

    @property
    def alone(self) -> bool:
        """Whether it runs with no other chunk beside it, so that another actor's death has no other cause."""
        return self.losses >= TRIES - 1


class _Work:
    """The programs of one ``run``: not begun, to be run again, or answered. What is with an actor is in none of these.
    """

    def __init__(self, tasks: list[Task]):
        suites: dict[tuple, dict[Task, None]] = {}
        for task in tasks:  # the same tests together: a worker then runs their reference once
            suites.setdefault(task[1:], {})[task] = None
        self.answers: dict[Task, tuple] = {}
        self.done = 0  # programs, equal ones counted as often as they were given
        self._times = Counter(tasks)
        self._fresh = deque(task for suite in suites.values() for task in suite)
        self._again: deque[_Chunk] = deque()
        self._total = len(self._fresh)

    @property
    def left(self) -> int:
        return self._total - len(self.answers)

    def take(self, node: str, nodes: set[str], slots: int, idle: bool) -> _Chunk | None:
        """The next chunk for a node; ``slots`` is the number of all workers, ``idle`` whether it has no other chunk.

        What was lost on this node goes to another of ``nodes`` if there is one.
        """
        for position, chunk in enumerate(self._again):
            if (idle or not chunk.alone) and (node not in chunk.nodes or nodes <= chunk.nodes):
                del self._again[position]
                return chunk
        if not self._fresh:
            return None
        size = max(1, min(CHUNK, len(self._fresh) // (4 * slots)))
        return _Chunk(tuple(self._fresh.popleft() for _ in range(size)))

    def note(self, chunk: _Chunk, rows: list[tuple], node: str) -> None:
        """Keep a chunk's verdicts; what failed for our own reasons is tried on other nodes too."""
        if len(rows) != len(chunk.tasks):
            raise SandboxError(f"{len(rows)} verdicts for {len(chunk.tasks)} programs: are all nodes of one version?")
        for task, row in zip(chunk.tasks, rows):
            if row[0] == "infrastructure" and chunk.losses + 1 < TRIES:
                self._again.append(_Chunk((task,), chunk.losses + 1, chunk.nodes | {node}))
            else:
                self._answer(task, tuple(row))

    def put_back(self, chunk: _Chunk, node: str, cause: str) -> None:
        """Queue the halves of a chunk whose actor was lost; a single program is given up after ``TRIES``."""
        tasks, losses, nodes = chunk.tasks, chunk.losses + 1, chunk.nodes | {node}
        if len(tasks) == 1 and losses >= TRIES:
            detail = f"lost with {losses} workers of the cluster: {cause}"
            self._answer(tasks[0], astuple(Verdict("", "infrastructure", detail[:300], 0.0))[1:])
            return
        middle = len(tasks) // 2
        self._again.extend(_Chunk(half, losses, nodes) for half in (tasks[:middle], tasks[middle:]) if half)

    def _answer(self, task: Task, answer: tuple) -> None:
        self.answers[task] = answer
        self.done += self._times[task]


class _Actor:
    """A node's pool, in a process of its own. Methods run in threads: one for each worker, a few more wait."""

    def open(self, workers: int, limits: dict, without: tuple[str, ...]) -> str:
        """Start the workers and try one; returns the layers in force.

        Raises:
            SandboxError: the node cannot isolate programs.
        """
        self._all: list[Sandbox] = []
        self._idle: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        for _ in range(workers):
            sandbox = Sandbox(1, Limits(**limits), without)
            self._all.append(sandbox)
            self._idle.put(sandbox)
        verdict = self._all[0].run([PROBE])[0]
        if verdict.status != "passed":
            raise RuntimeError(f"a trivial program did not pass: {verdict.status} {verdict.detail}")
        return self._all[0].layers

    def judge(self, tasks: tuple[Task, ...], limits: dict) -> list[tuple]:
        """The fields of each program's verdict, without its id."""
        programs = [Program("", *task) for task in tasks]
        sandbox = self._idle.get()
        try:
            return [astuple(verdict)[1:] for verdict in sandbox.run(programs, limits=Limits(**limits))]
        finally:
            self._idle.put(sandbox)

    def close(self) -> None:
        for sandbox in self._all:
            sandbox.close()


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise SandboxError(f"Ray cannot be imported ({error}): pip install '.[ray]'") from error
    return ray


def _cause(error: Exception) -> Exception:
    """The exception that was raised in the actor, if that is what an error of Ray's is about."""
    return getattr(error, "cause", None) or error


def _one_line(error: Exception) -> str:
    cause = _cause(error)
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:200]
