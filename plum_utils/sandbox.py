"""Run untrusted programs: each in a process of its own, without network, with limits, and with a verdict.

Layers, each used where the host offers it and tried at the start: PID, network, IPC and mount namespaces (one set a
worker; outside the temporary folder, which is kept in 16 MiB of memory, nothing can be written), a seccomp filter (no
sockets, no new processes, no signals to others), Landlock (no write outside a temporary folder), resource limits, no
capabilities. A pass is reported by the harness inside the process, after the last test, with a random nonce over a
pipe of its own, so that neither an early exit nor printing can forge it.

What this does *not* guard against yet:

- The candidate and its tests share a process, so a program that looks for the harness on purpose (reading frames for
  the nonce, patching builtins, returning objects that equal everything) can still pass.
- Files that the harness's user may read can be read.
- Threads are counted only through the memory of their stacks: RLIMIT_NPROC is of no use (root ignores it, and for
  others it counts all their processes), so new processes are refused by seccomp instead.
- Where seccomp is missing (macOS; only with ``allow_weak``) a program can start processes that outlive it.
"""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

CHILD = Path(__file__).with_name("_sandbox_child.py")
GRACE = 20.0  # seconds beyond a program's limit after which its worker, not the program, is at fault


class SandboxError(RuntimeError):
    """The host cannot isolate untrusted programs well enough."""


@dataclass(frozen=True)
class Limits:
    """Limits of one program: wall and CPU seconds, address space and size of a file in MiB.

    ``allow_weak`` runs programs although the host cannot deny them network or writes to the user's files.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    file_mb: int = 1
    allow_weak: bool = False


@dataclass(frozen=True)
class Program:
    """A candidate's source and the tests that are executed after it in the same namespace."""

    id: str
    code: str
    tests: str


@dataclass(frozen=True)
class Verdict:
    """``status``: passed, failed, error (did not load), timeout, memory, syntax, or infrastructure (our fault).

    ``detail`` is one line of at most 300 characters, empty for a pass; ``seconds`` is wall time.
    """

    id: str
    status: str
    detail: str
    seconds: float


class Sandbox:
    """A pool of workers; use it as a context manager, or call ``close``. ``layers`` says in a line what is in force.

    Args:
        workers: programs that run at the same time.
        limits: of each program.
        without: layers not to use (namespaces, mounts, seccomp, landlock), to test the others on their own.

    Raises:
        SandboxError: the host cannot deny network and file writes, and ``limits.allow_weak`` is not set.
    """

    def __init__(self, workers: int = 2, limits: Limits = Limits(), without: tuple[str, ...] = ()):
        if workers < 1:
            raise ValueError(f"sandbox.workers must be at least 1, got {workers}")
        self.limits = limits
        self._folder = Path(tempfile.mkdtemp(prefix="plum-sandbox-"))
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(_Worker(self._folder, without))
            self.layers = self._describe(self._workers[0].offers)
        except BaseException:
            self.close()
            raise

    def _describe(self, offers: dict) -> str:
        names = [f"namespaces ({', '.join(offers['namespaces'])})"] if offers["namespaces"] else []
        names += ["read-only mounts"] if offers["mounts"] else []
        names += ["seccomp (no sockets, no new processes)"] if offers["seccomp"] else []
        names += ["Landlock (no writes outside)"] if offers["landlock"] else []
        missing = [what for what, there in (("network", offers["namespaces"] or offers["seccomp"]),
                                            ("file writes", offers["mounts"] or offers["landlock"])) if not there]
        if missing and not self.limits.allow_weak:
            raise SandboxError(f"this host cannot deny {' and '.join(missing)} to untrusted programs. Run on Linux "
                               "5.13 or newer, or set sandbox.allow_weak if you trust every program.")
        weak = f"; WEAK, not denied: {' and '.join(missing)}" if missing else ""
        return "sandbox: " + ", ".join([*names, "resource limits"]) + weak

    def run(self, programs: list[Program], progress: bool = False, limits: Limits | None = None) -> list[Verdict]:
        """One verdict for each program, in input order; identical programs are run once.

        Args:
            limits: other limits than the sandbox's own, for these programs only.
        """
        distinct = list(dict.fromkeys((program.code, program.tests) for program in programs))
        tasks: queue.SimpleQueue = queue.SimpleQueue()
        for task in distinct:
            tasks.put(task)
        answers: dict[tuple[str, str], tuple[str, str, float]] = {}
        with tqdm(total=len(distinct), desc="sandbox", unit="program", disable=not progress) as bar:
            threads = [threading.Thread(target=self._drain, daemon=True,
                                        args=(worker, tasks, answers, bar, limits or self.limits))
                       for worker in self._workers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return [Verdict(program.id, *answers[program.code, program.tests]) for program in programs]

    def _drain(self, worker: _Worker, tasks: queue.SimpleQueue, answers: dict, bar: tqdm, limits: Limits) -> None:
        while True:
            try:
                task = tasks.get_nowait()
            except queue.Empty:
                return
            answers[task] = worker.judge(*task, limits)
            bar.update()

    def close(self) -> None:
        """Stop the workers and remove their folder."""
        for worker in self._workers:
            worker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """One fork server, started again when it is lost."""

    def __init__(self, folder: Path, without: tuple[str, ...]):
        self._command = [sys.executable, "-s", "-P", str(CHILD), str(folder), *without]
        self._folder = folder
        self._stopped = False
        self._start()

    def _start(self) -> None:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._folder), "LANG": "C.UTF-8", "PYTHONHASHSEED": "0",
                       "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                         cwd=self._folder, env=environment, start_new_session=True)
        self.offers = self._receive(GRACE)
        if self.offers is None:
            self._end()
            raise SandboxError("the sandbox's worker did not start; its message is above")

    def judge(self, code: str, tests: str, limits: Limits) -> tuple[str, str, float]:
        """Verdict on one program; a lost worker is replaced and the program is run once more."""
        request = {"code": code, "tests": tests, "limits": asdict(limits)}
        cause = "the worker was lost twice"
        for _ in range(2):
            answer = self._ask(request, limits.seconds + GRACE)
            if answer is not None and answer[0] != "infrastructure":
                return answer[0], answer[1], answer[2]
            cause = answer[1] if answer else cause
            if self._stopped:
                return "infrastructure", "the sandbox was closed", 0.0
            self._end()
            try:
                self._start()
            except (SandboxError, OSError) as error:
                return "infrastructure", str(error)[:300], 0.0
        return "infrastructure", cause, 0.0

    def _ask(self, request: dict, seconds: float) -> list | None:
        body = json.dumps(request).encode()
        try:
            _write(self._process.stdin.fileno(), struct.pack("I", len(body)) + body)
        except (OSError, ValueError):  # the worker is gone, or the pipe was closed
            return None
        return self._receive(seconds)

    def _receive(self, seconds: float):
        head = self._read(4, seconds)
        body = self._read(struct.unpack("I", head)[0], seconds) if head else None
        return json.loads(body) if body else None

    def _read(self, size: int, seconds: float) -> bytes | None:
        handle, data = self._process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while len(data) < size:
            piece = os.read(handle, size - len(data)) if poll.poll(seconds * 1000) else b""
            if not piece:
                return None
            data += piece
        return data

    def stop(self) -> None:
        """End the worker for good."""
        self._stopped = True
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view):]
