"""``Sandbox.run`` over the nodes of a Ray cluster, for more programs than one machine can run.

    with RaySandbox(address="auto") as sandbox:      # pip install '.[ray]', then `ray start` on every node
        verdicts = sandbox.run(programs)             # as Sandbox.run: the same verdicts, in input order

Programs travel in chunks. A chunk is a task of Ray's that reserves one CPU; Ray decides where it runs, and each of its
worker processes keeps a sandbox of one worker for the next chunk. A node that joins later is used from then on; one
started with ``--num-cpus=0`` gets nothing. Every node needs this package in the same version.

What is lost is run again. If a chunk's process or node died, or its sandbox failed, its programs are run again one by
one, elsewhere where the node is known to be at fault; one that was lost ``TRIES`` times, all but the first time alone,
gets the verdict ``infrastructure``. A chunk waits, is with Ray, or is answered, never two of these: no program is lost,
none is counted twice.

Programs travel as strings, and verdicts come back as tuples of strings and numbers. Ray pickles these between our
own processes; nothing that a program wrote is ever unpickled. But Ray obeys whoever reaches its ports: keep them on a
private network, and do not set ``Limits.allow_weak`` here for programs that you do not trust, as a node which cannot
deny them the network hands them the cluster.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, deque
from dataclasses import astuple, dataclass, replace
from functools import cache
from typing import Any, Callable, Iterable

from plum_utils.cluster import ClusterError, connect, one_line
from plum_utils.sandbox.pool import DETAIL, Sandbox
from plum_utils.sandbox.program import Limits, Program, SandboxError, Verdict
from plum_utils.sandbox.status import Status

CHUNK = 16  # programs that travel together at most; fewer towards the end, so that all nodes finish together
TRIES = 3   # times that a program may be lost
PROBE = Program("", "def one():\n    return 1", "assert one() == 1")


class RaySandbox:
    """A sandbox in every worker process of a Ray cluster; use it as a context manager, or call ``close``.

    Uses the connection that this process has to Ray, or else connects (and disconnects in ``close``).

    Args:
        limits: of each program.
        without: layers of isolation not to use, as in ``Sandbox``.
        address: of the cluster, as of ``cluster.connect``.
        start_seconds: how long to wait until each node has tried its sandbox.

    Raises:
        SandboxError: Ray is not installed or not reached, or no node could open a sandbox in time; it says why.
    """

    def __init__(self, limits: Limits = Limits(), without: tuple[str, ...] = (), address: str | None = None,
                 start_seconds: float = 60.0):
        self.limits, self._without = limits, without
        try:
            self._ray, self._connected = connect(address)
        except ClusterError as error:
            raise SandboxError(str(error)) from error
        self._remote = self._ray.remote(_judge)
        self._layers: dict[str, str] = {}   # by node
        self._refused: dict[str, str] = {}  # node -> why it is left out
        try:
            self._try_nodes(start_seconds)
        except BaseException:
            self.close()
            raise
        print(self.layers, file=sys.stderr)

    @property
    def layers(self) -> str:
        """What is in force, on how many nodes, in a line."""
        return "; ".join(f"ray, {nodes} node(s): {layers}" for layers, nodes in Counter(self._layers.values()).items())

    def run(self, programs: list[Program], limits: Limits | None = None,
            ended: Callable[[int], object] = lambda n: None) -> list[Verdict]:
        """One verdict for each program, in input order; identical programs are run once.

        Args:
            limits: other limits than the sandbox's own, for these programs only.
            ended: told how many programs have got their verdict since it was told last.

        Raises:
            SandboxError: no node is left.
        """
        tasks = [replace(program, id="") for program in programs]
        times = Counter(tasks)
        work = _Work(times, sum(self._nodes().values()))
        running: dict[Any, _Chunk] = {}
        try:
            while running or work.waiting:
                nodes = self._nodes()
                while work.waiting and len(running) < 2 * sum(nodes.values()):
                    chunk = work.waiting.popleft()
                    running[self._submit(chunk.tasks, limits or self.limits, self._where(chunk, nodes))] = chunk
                for result in self._done(running):
                    chunk = running.pop(result)
                    answered = work.note(chunk, *self._answer(result, len(chunk.tasks)))
                    ended(sum(times[task] for task in answered))
        except BaseException:  # Ctrl-C too
            self._cancel(running)
            raise
        return [Verdict(program.id, *work.answers[task]) for program, task in zip(programs, tasks)]

    def close(self) -> None:
        """Disconnect if the connection was made here; else Ray's idle processes keep their sandboxes for the next."""
        if self._connected and self._ray.is_initialized():
            self._ray.shutdown()

    def __enter__(self) -> RaySandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try_nodes(self, seconds: float) -> None:
        """Judge a trivial program on each node, and leave out those that cannot; at most so long."""
        probes = {}
        for node in self._nodes():
            where = self._on(node, soft=False) | {"max_retries": TRIES - 1}
            probes[self._submit((PROBE,), self.limits, where)] = node
        done, late = self._ray.wait([*probes], num_returns=len(probes), timeout=seconds)
        self._cancel(late)
        for result in done:
            _, [(status, detail, *_)] = self._answer(result, 1)
            if status != Status.PASSED:
                self._refuse(probes[result], f"a trivial program did not pass: {status} {detail}")
        self._nodes()
        if not self._layers:
            raise SandboxError(f"no node of the Ray cluster can run programs: no CPU was free for {seconds:g} seconds")

    def _nodes(self) -> dict[str, int]:
        """The CPUs of each living node that is not left out.

        Raises:
            SandboxError: there is none.
        """
        alive = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]}
        self._layers = {node: layers for node, layers in self._layers.items() if node in alive}
        usable = {node: cpus for node, cpus in alive.items() if cpus and node not in self._refused}
        if not usable:
            why = "; ".join(self._refused.values()) or "none with a CPU is alive"
            raise SandboxError(f"no node of the Ray cluster can run programs: {why}")
        return usable

    def _refuse(self, node: str, why: str) -> None:
        if node not in self._refused:
            self._refused[node] = why
            print(f"sandbox: node {node} is left out: {why}", file=sys.stderr)

    def _where(self, chunk: _Chunk, nodes: dict[str, int]) -> dict[str, Any]:
        """Options of Ray's: any node that is not left out, but rather not one which has failed on the chunk."""
        others = [node for node in nodes if node not in chunk.failed]
        if any(chunk.failed) and others:
            return self._on(random.choice(others), soft=True)
        labels = {"ray.io/node-id": f"!in({','.join(self._refused)})"} if self._refused else {}
        return {"scheduling_strategy": "SPREAD", "label_selector": labels}

    def _on(self, node: str, soft: bool) -> dict[str, Any]:
        return {"scheduling_strategy": self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft)}

    def _submit(self, tasks: tuple[Program, ...], limits: Limits, where: dict[str, Any]) -> Any:
        return self._remote.options(**{"max_retries": 0, **where}).remote(tasks, limits, self._without)

    def _done(self, running: Iterable[Any]) -> list[Any]:
        """All results that are there; waits up to a second for the first."""
        results = [*running]
        self._ray.wait(results, timeout=1.0)
        return self._ray.wait(results, num_returns=len(results), timeout=0)[0]

    def _answer(self, result: Any, count: int) -> tuple[str, list[tuple]]:
        """The node (empty where its process died) and the rows of a chunk with so many programs."""
        try:
            node, layers, rows = self._ray.get(result)
        except self._ray.exceptions.RayError as error:
            return "", [_failure(f"lost with a process of the cluster: {one_line(error)}")] * count
        if layers:
            self._layers[node] = layers
        elif node not in self._layers:  # else it worked in other processes, and is avoided for this chunk only
            self._refuse(node, rows[0][1])
        return node, rows

    def _cancel(self, results: Iterable[Any]) -> None:
        for result in results:
            self._ray.cancel(result, force=True)


@dataclass(frozen=True)
class _Chunk:
    """Programs that travel together, and the nodes on which they were lost (empty where that is not known)."""

    tasks: tuple[Program, ...]
    failed: tuple[str, ...] = ()


class _Work:
    """The programs of one ``run``: ``waiting`` in chunks, or with ``answers``. What is with Ray is in neither."""

    def __init__(self, tasks: Iterable[Program], cpus: int):
        suites: dict[str, list[Program]] = {}
        for task in tasks:  # the same tests together: a worker then runs their reference once
            suites.setdefault(task.suite, []).append(task)
        fresh = deque(task for suite in suites.values() for task in suite)
        self.waiting: deque[_Chunk] = deque()
        self.answers: dict[Program, tuple] = {}
        while fresh:
            size = max(1, min(CHUNK, len(fresh) // (4 * cpus)))
            self.waiting.append(_Chunk(tuple(fresh.popleft() for _ in range(size))))

    def note(self, chunk: _Chunk, node: str, rows: list[tuple]) -> list[Program]:
        """Keep a chunk's verdicts; what was lost waits again, alone. Returns the programs that are answered by it."""
        answered = []
        for task, row in zip(chunk.tasks, rows, strict=True):
            if row[0] == Status.INFRASTRUCTURE and len(chunk.failed) + 1 < TRIES:
                self.waiting.appendleft(_Chunk((task,), (*chunk.failed, node)))
            else:
                self.answers[task] = row
                answered.append(task)
        return answered


# --- in a process of Ray's ----------------------------------------------------------------------------------------

def _judge(tasks: tuple[Program, ...], limits: Limits, without: tuple[str, ...]) -> tuple[str, str, list[tuple]]:
    """This node, the layers in force (empty: it has no sandbox), and the fields of each verdict without its id."""
    import ray

    node, layers = ray.get_runtime_context().get_node_id(), ""
    try:
        sandbox = _opened(limits.allow_weak, without)
        layers = sandbox.layers
        return node, layers, [astuple(one)[1:] for one in sandbox.run(list(tasks), limits)]
    except Exception as error:  # the node's fault: others may do better
        return node, layers, [_failure(one_line(error))] * len(tasks)


@cache
def _opened(allow_weak: bool, without: tuple[str, ...]) -> Sandbox:
    """This process's sandbox. Ray ends its processes without notice: the next sandbox on the machine clears up."""
    return Sandbox(1, Limits(allow_weak=allow_weak), without, quiet=True)


def _failure(detail: str) -> tuple:
    return astuple(Verdict("", Status.INFRASTRUCTURE, detail[:DETAIL], 0.0))[1:]
