"""A warm pool of isolated workers, and the verdicts of what runs in them. ``docs/sandbox.md`` is the threat model."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Callable, Sequence

from plum_utils.sandbox import cgroup, outputs
from plum_utils.sandbox.program import AUTO, SCRIPT, SHARED, SPLIT, Limits, Program, SandboxError, Verdict
from plum_utils.sandbox.splitting import Plan, heavy_imports, split_plan
from plum_utils.sandbox.status import Status

ADDRESS = re.compile(r"0x[0-9a-f]{6,}")  # in a message it differs from run to run
WORKER = Path(__file__).with_name("worker")
# Imported by a worker once a program or its tests name it: half as much again a fork, 60 ms saved.
WARM = ("numpy", "unittest", "pytest")
GRACE = 20.0  # seconds beyond a program's limit after which its worker, not the program, is at fault
DETAIL = 300  # characters
FOLDER = "plum-sandbox-"
LAYERS = ("namespaces", "mounts", "seccomp", "landlock", "cgroup")
WITHOUT = "PLUM_SANDBOX_WITHOUT"  # environment variable: layers to leave out, as on a host that does not have them
_announced: set[str] = set()


@dataclass
class _Suite:
    """What is known of some tests: how they run (``split``, ``shared``), and how their reference ended."""

    how: str
    plans: list[Plan] = field(default_factory=list)
    reference: Verdict | None = None

    def request(self, checked: bool) -> dict[str, Any]:
        """What a worker has to know; ``checked``: it shall look whether an assertion is reached."""
        return {"how": self.how, "names": sorted({name for one in self.plans for name in one.names}),
                "capture": any(one.capture for one in self.plans),
                "suites": [[one.collect, one.checks if checked else None] for one in self.plans]}


class Sandbox:
    """A pool of workers; use it as a context manager, or call ``close``. ``layers`` says in a line what is in force,
    ``weakness`` what the host cannot deny although it should (as "network and file writes"; empty as a rule).

    Args:
        workers: programs that run at the same time.
        limits: of each program.
        without: those of ``LAYERS`` not to use, to test the others on their own; None: those named in the environment
            variable ``PLUM_SANDBOX_WITHOUT`` (words), which is for tests of a whole run on a weak host.
        quiet: do not print ``layers`` (to standard error, once for the same line).

    Raises:
        SandboxError: the host cannot deny network and file writes, and ``limits.allow_weak`` is not set.
    """

    def __init__(self, workers: int = 2, limits: Limits = Limits(), without: tuple[str, ...] | None = None,
                 quiet: bool = False):
        if workers < 1:
            raise ValueError(f"sandbox.workers must be at least 1, got {workers}")
        without = _left_out() if without is None else without
        self.limits = limits
        _remove_stale_folders()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
        self._workers: list[_Worker] = []
        self._suites: dict[str, _Suite] = {}  # by a digest: tests may be long
        try:
            for number in range(workers):
                self._workers.append(_Worker(self._folder / str(number), without))
            self.layers, self.weakness = _describe(self._workers[0].offers)
            if self.weakness and not limits.allow_weak:
                raise SandboxError(f"this host cannot deny {self.weakness} to untrusted programs. Run on Linux 5.13 or "
                                   "newer, or set sandbox.allow_weak if you trust every program.")
        except BaseException:
            self.close()
            raise
        if not quiet and self.layers not in _announced:
            _announced.add(self.layers)
            print(self.layers, file=sys.stderr)

    def run(self, programs: list[Program], limits: Limits | None = None,
            ended: Callable[[int], object] = lambda n: None) -> list[Verdict]:
        """One verdict for each program, in input order; identical programs are run once.

        Args:
            limits: other limits than the sandbox's own, for these programs only.
            ended: told, from any thread, how many programs have got their verdict since it was told last.
        """
        limits = limits or self.limits
        tasks = [replace(program, id="") for program in programs]
        times = Counter(tasks)

        def judge(worker: _Worker, task: Program) -> Verdict:
            verdict = self._judge(worker, task, limits)
            ended(times[task])
            return verdict

        self._learn(list(times), limits)
        answers = self._map(judge, sorted(times, key=self._expected, reverse=True))
        return [replace(answers[task], id=program.id, status=Status(answers[task].status))
                for program, task in zip(programs, tasks)]

    def _expected(self, task: Program) -> tuple[bool, float]:
        """Longer programs have more of it: they are run first, so that none is left at the end."""
        reference = self._suites[task.suite].reference
        return "while" in task.code, reference.cpu_seconds if reference else 0.0

    def _learn(self, tasks: list[Program], limits: Limits) -> None:
        """Decide for each set of tests whether they are split; run the references of those not seen before."""
        new = {task.suite: task for task in tasks if task.suite not in self._suites}
        for key, task in new.items():
            plans = [split_plan(text, task.reference) for text in task.suites]
            text_says = SHARED if any(one.reason for one in plans) else SPLIT
            self._suites[key] = _Suite(text_says if task.mode == AUTO else task.mode, plans)
        known = [task for task in new.values() if task.reference is not None]
        self._map(lambda worker, task: self._try_reference(worker, task, limits), known)

    def _try_reference(self, worker: _Worker, task: Program, limits: Limits) -> None:
        """What the reference does decides; what the text of the tests looks like, only where the reference fails."""
        assert task.reference is not None
        suite, program = self._suites[task.suite], replace(task, code=task.reference)
        for how in (SPLIT, SHARED) if task.mode == AUTO else (task.mode,):
            verdict = worker.judge(program, replace(suite, how=how), limits)
            if verdict.status == Status.PASSED:
                suite.how, suite.reference = how, verdict
                return

    def _judge(self, worker: _Worker, task: Program, limits: Limits) -> Verdict:
        suite = self._suites[task.suite]
        if task.mode == SCRIPT:
            return _judge_script(worker, task, suite, limits)
        if task.code == task.reference and suite.reference is not None:
            return suite.reference
        verdict = worker.judge(task, suite, limits)
        if verdict.status == "unsplittable" and task.mode == AUTO and suite.reference is None:
            suite.how = SHARED  # found by the judge, of what the tests do
            verdict = worker.judge(task, suite, limits)
        return replace(verdict, status=Status.FAILED) if verdict.status == "unsplittable" else verdict

    def _map(self, work: Callable, tasks: list[Program]) -> dict:
        """``work(worker, task)`` for every task, by all workers; {task: result}."""
        waiting, answers = iter(tasks), {}  # a list's iterator gives each task to one thread
        errors: list[BaseException] = []
        ends: list[threading.Event] = []  # an interrupted Thread.join forgets its thread

        def drain(worker: _Worker, end: threading.Event) -> None:
            try:
                for task in waiting:
                    answers[task] = work(worker, task)
            except BaseException as error:
                errors.append(error)
                deque(waiting, maxlen=0)
            finally:
                end.set()

        try:
            for worker in self._workers[:len(tasks)]:
                ends.append(threading.Event())
                threading.Thread(target=drain, daemon=True, args=(worker, ends[-1])).start()
            for end in ends:
                end.wait()
        finally:  # after Ctrl-C: no thread may still use its worker when the next run begins
            deque(waiting, maxlen=0)
            for end in ends:
                end.wait()
        if errors:
            raise errors[0]
        return answers

    def close(self) -> None:
        """Stop the workers and remove their folder."""
        for worker in self._workers:
            worker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remove_stale_folders() -> None:
    """Remove the folders and control groups of harnesses of this user that were killed."""
    cgroup.remove_stale(_alive, FOLDER)
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        if not _alive(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(name: str) -> bool:
    """Whether the harness that a folder or a control group is named after runs still, or may do so."""
    owner = name.removeprefix(FOLDER).partition("-")[0]
    return not owner.isdecimal() or not Path("/proc/self").exists() or Path(f"/proc/{owner}").exists()


def _judge_script(worker: _Worker, task: Program, suite: _Suite, limits: Limits) -> Verdict:
    """Run a script on its cases, up to the first that it does not answer.

    The first in a process of its own, at which most wrong ones fail; all others in one, as LiveCodeBench does. A case that
    goes wrong there is run alone again, which decides: what one case leaves behind costs the next one nothing.
    """
    whole = Verdict("", Status.PASSED, "", 0.0, SPLIT)
    answers: list[str] = []  # to the last cases
    for number, (given, expected) in enumerate(task.cases, 1):
        if number == 2 and len(task.cases) > 2:
            rest = worker.judge(task, suite, limits, [given for given, _ in task.cases[1:]])
            whole = _added(whole, rest)
            ends = rest.detail.split() if rest.status == Status.PASSED else []
            answers = [worker.output(limits, *span) for span in pairwise([0, *map(int, ends)])]
        if 2 <= number < 2 + len(answers) and outputs.same(answers[number - 2], expected, task.rule):
            continue
        one = worker.judge(task, suite, limits, [given])
        whole = _added(whole, one)
        said = outputs.difference(worker.output(limits), expected, task.rule) if one.status == Status.PASSED else ""
        if said:
            one = replace(one, status=Status.FAILED, detail=said)
        if one.status != Status.PASSED:
            return replace(whole, status=one.status, detail=f"case {number}: {one.detail}"[:DETAIL])
    return whole


def _added(whole: Verdict, one: Verdict) -> Verdict:
    return replace(whole, seconds=whole.seconds + one.seconds, cpu_seconds=whole.cpu_seconds + one.cpu_seconds)


def weakness() -> str:
    """What this host cannot deny to untrusted programs, as ``Sandbox.weakness``; found out by starting a worker."""
    with Sandbox(1, Limits(allow_weak=True), quiet=True) as sandbox:
        return sandbox.weakness


def _left_out() -> tuple[str, ...]:
    names = tuple(os.environ.get(WITHOUT, "").split())
    for name in names:
        if name not in LAYERS:
            raise ValueError(f"{WITHOUT}: unknown layer {name!r}; any of {', '.join(LAYERS)}")
    return names


def _describe(offers: dict) -> tuple[str, str]:
    """The line of what is in force, and what of network and file writes is not denied."""
    names = [f"namespaces ({', '.join(offers['namespaces'])})"] if offers["namespaces"] else []
    names += ["a root of read-only libraries"] if offers["mounts"] else []
    names += ["seccomp (no sockets, no new processes, no signals)"] if offers["seccomp"] else []
    names += [f"Landlock v{offers['landlock']} (no other files)"] if offers["landlock"] else []
    names += ["control groups"] if offers["groups"] else []
    names += ["at most 128 processes"] if offers["processes"] else []
    files = offers["mounts"] or offers["landlock"]
    missing = [what for what, there in (("network", offers["namespaces"] or offers["seccomp"]), ("file writes", files),
                                        ("file reads", files)) if not there]
    weak = f"; WEAK, not denied: {' and '.join(missing)}" if missing else ""
    line = "sandbox: " + ", ".join([*names, "resource limits"]) + weak
    return line, " and ".join(what for what in missing if what != "file reads")


class _Worker:
    """One supervisor process, started again when it is lost."""

    def __init__(self, folder: Path, without: tuple[str, ...]):
        self._folder, self._without, self._stopped = folder, without, False
        self._group = cgroup.Group(f"{folder.parent.name}-{folder.name}" if "cgroup" not in without else None)
        # program, tests, detail of the verdict, a script's input and output
        self._files: tuple[int, ...] = tuple(_unnamed_file() for _ in range(5))
        self._start()

    def _start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1",
                       "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        files, groups = (":".join(map(str, part)) for part in (self._files, self._group.folders))
        command = [sys.executable, "-s", str(WORKER), str(self._folder), files, groups, *self._without]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd="/",
                                         env=environment, start_new_session=True, pass_fds=self._files)
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.offers = self._receive(GRACE)
        if self.offers is None:
            self._end()
            raise SandboxError("the sandbox's worker did not start; its message is above")

    def judge(self, task: Program, suite: _Suite, limits: Limits, given: Sequence[str] = ()) -> Verdict:
        """How one program ends; a lost worker is replaced and the program is run once more."""
        assurance = SHARED if suite.how == SHARED else SPLIT
        cause = "the worker was lost twice"
        for _ in range(2):
            answer = self._ask(task, suite, limits, given)
            if answer is not None and answer[0] != Status.INFRASTRUCTURE:
                status, detail, size, seconds, cpu_seconds, calls, asserted = answer
                return Verdict("", status, detail or self._detail(size), seconds, assurance, calls, cpu_seconds, asserted)
            cause = answer[1] if answer else cause
            if self._stopped:
                cause = "the sandbox was closed"
                break
            self._end()
            try:
                self._start()
            except (SandboxError, OSError) as error:
                cause = str(error)[:DETAIL]
                break
        return Verdict("", Status.INFRASTRUCTURE, cause, 0.0, assurance)

    def _ask(self, task: Program, suite: _Suite, limits: Limits, given: Sequence[str]) -> list | None:
        request = asdict(limits) | suite.request(checked=task.code == task.reference)
        request["warm"] = [name for name in WARM if any(name in text for text in (task.code, *task.suites))]
        texts = (task.code, *task.suites) if suite.how == SHARED else (task.code,)  # else the judge imports what is light
        request["heavy"] = heavy = heavy_imports("\n".join(texts), WARM)
        request["memory_mb"] = limits.memory_mb + (limits.load_mb if heavy else 0)
        request["cpu_seconds"] = limits.seconds
        if suite.reference is not None:
            allowed = max(limits.least_seconds, limits.factor * suite.reference.cpu_seconds)
            request["cpu_seconds"] = min(limits.seconds, allowed)
        self._group.allow(request["memory_mb"])
        try:
            request["code"] = _write_texts(self._files[0], (task.setup, task.code))
            request["tests"] = _write_texts(self._files[1], task.suites)
            request["inputs"] = _write_texts(self._files[3], given)
            body = json.dumps(request).encode()
            _write(self._stdin.fileno(), struct.pack("I", len(body)) + body)
        except (OSError, ValueError, IndexError):  # the worker is gone, or was stopped
            return None
        return self._receive(2 * limits.seconds * limits.patience + limits.load_seconds + GRACE)

    def output(self, limits: Limits, start: int = 0, end: int | None = None) -> str:
        """What the last script wrote to its standard output, or a part of it."""
        size = limits.file_mb << 20
        return os.pread(self._files[4], max(0, (size if end is None else end) - start), start).decode("utf-8", "replace")

    def _detail(self, size: int) -> str:
        """What the last judge wrote: one line of at most ``DETAIL`` characters."""
        text = os.pread(self._files[2], min(size, 1 << 16), 0).decode("utf-8", "replace")
        return " ".join(text.split())[:DETAIL]

    def _receive(self, seconds: float) -> Any:
        head = self._read(4, seconds)
        body = self._read(struct.unpack("I", head)[0], seconds) if head else None
        return json.loads(body) if body else None

    def _read(self, size: int, seconds: float) -> bytes | None:
        handle, data = self._stdout.fileno(), b""
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
        self._stdin.close()  # an idle supervisor ends by itself, and leaves nothing behind
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            pass
        self._end()
        self._group.remove()
        for handle in self._files:
            os.close(handle)
        self._files = ()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()


def _unnamed_file() -> int:
    """The descriptor of a file that has no name: in memory where the host has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("plum-sandbox")
    with tempfile.TemporaryFile() as handle:
        return os.dup(handle.fileno())


def _write_texts(handle: int, texts: Sequence[str]) -> list[int]:
    """Make texts, one after the other, the content of a file; returns their sizes in bytes."""
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    _write(handle, b"".join(parts), 0)
    os.ftruncate(handle, sum(map(len, parts)))
    return list(map(len, parts))


def _write(handle: int, data: bytes, offset: int | None = None) -> None:
    view = memoryview(data)
    while view:
        done = os.write(handle, view) if offset is None else os.pwrite(handle, view, offset)
        view, offset = view[done:], offset + done if offset is not None else None
