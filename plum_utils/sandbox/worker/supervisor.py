"""One worker's supervisor: forks programs, watches them, decides how they ended. Standard library only.

It never reads what it runs, nor what is said of it: programs, tests, details of verdicts, and what a script reads and
prints lie in unnamed files that only the forked processes and the harness use, so that nothing of the tests is in the
memory that candidates inherit.
"""

import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import struct
import sys
import time

import clocks
import isolation
import programs
import suites
from clocks import cpu_seconds

CODE, TESTS, DETAILS, INPUT, OUTPUT, REQUESTS, ANSWERS = range(3, 10)  # the supervisor's file descriptors
REPORT = 1 << 16  # bytes of reports that are kept
STATUSES = ("passed", "failed", "error", "memory", "syntax", "unsplittable")


# --- in the forked process --------------------------------------------------------------------------------------------

def texts(handle, sizes):
    """The texts that stand one after the other in a file."""
    data, found = os.pread(handle, sum(sizes), 0), []
    for size in sizes:
        found.append(data[:size].decode("utf-8", "surrogatepass"))
        data = data[size:]
    return found


def read_suites(request):
    """The suites to run, each with what its text was found to hold (``splitting.plan``)."""
    found, above = [], 0
    for text, what in zip(texts(TESTS, request["tests"]), request["suites"]):
        found.append(suites.Suite(text, *what, above))
        above += text.count("\n") + 1
    return found


def confine(request, layers, keep):
    """Take away what the program must not have; ``keep`` are the descriptors that become 3, 4, ..."""
    os.setsid()
    for target, handle in enumerate([fcntl.fcntl(handle, fcntl.F_DUPFD, 20) for handle in keep], 3):
        os.dup2(handle, target)
    os.closerange(3 + len(keep), 64)
    if isolation.LINUX and not layers["namespaces"]:  # with them, the end of the supervisor ends all
        isolation.die_with_parent()
    seconds = request["seconds"] + (request["load_seconds"] if request["heavy"] else 0)
    isolation.limit_program(request["memory_mb"], seconds, request["file_mb"])
    if layers["seccomp"] and not layers["filter"].install(os.getpid()):
        os._exit(98)


def fork(work):
    """The pid of a process that does ``work`` and ends."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(98)
    return pid


def start_shared(request, layers, report, nonce):
    def work():
        parts, tests = texts(CODE, request["code"]), read_suites(request)
        confine(request, layers, (report, DETAILS))
        reporter = programs.Reporter(3, 4, nonce)
        programs.preload(request["heavy"], lambda: reporter.tell(b"imported"))
        programs.run_shared(*parts, tests, reporter)

    return [fork(work)]


def start_script(request, layers, report, nonce):
    """A program whose standard input and output are files."""
    def work():
        parts, inputs = texts(CODE, request["code"]), texts(INPUT, request["inputs"])
        os.ftruncate(OUTPUT, 0)
        confine(request, layers, (report, DETAILS, INPUT, OUTPUT))
        reporter = programs.Reporter(3, 4, nonce)
        programs.preload(request["heavy"], lambda: reporter.tell(b"imported"))
        programs.run_script(*parts, inputs, reporter)

    return [fork(work)]


def start_split(request, layers, report, nonce):
    """The judge's process and the candidate's, joined by two pipes that nobody else holds."""
    answers, questions = os.pipe(), os.pipe()

    def judge():
        tests = read_suites(request)
        confine(request, layers, (answers[0], questions[1], report, DETAILS))
        programs.run_judge(tests, request["names"], (3, 4), request["heavy"], programs.Reporter(5, 6, nonce),
                           candidate_pid)

    def candidate():
        parts = texts(CODE, request["code"])
        confine(request, layers, (questions[0], answers[1]))
        programs.run_candidate(*parts, (3, 4), request["heavy"], request["capture"])

    candidate_pid = fork(candidate)  # first: the judge waits for it to be loaded
    pids = [fork(judge), candidate_pid]
    for handle in (*answers, *questions):
        os.close(handle)
    return pids


# --- watching ---------------------------------------------------------------------------------------------------------

def judge(request, layers):
    """Run one program.

    Returns:
        Status, detail, bytes of detail in ``DETAILS``, wall seconds, CPU seconds after loading, calls, whether an
        assertion was evaluated.
    """
    warm(request["warm"])
    clocks.patience = request["patience"]
    nonce = os.urandom(16).hex()
    reader, writer = os.pipe()
    started = time.monotonic()
    start = {"split": start_split, "shared": start_shared, "script": start_script}[request["how"]]
    pids = start(request, layers, writer, nonce)
    os.close(writer)
    entries, late, loading = watch(reader, pids, started, request, nonce.encode())
    os.close(reader)
    ends, cpu = reap(pids, layers["namespaces"])
    clean(layers["scratch"])
    importing = request["heavy"] and "imported" not in entries
    late = late or cpu - loading > request["load_seconds" if importing else "seconds"]
    decide = decide_script if request["how"] == "script" else decide_tests
    _, calls, asserted, _ = entries.get("done", (None, 0, 0, 0))
    return [*decide(entries, late, ends), time.monotonic() - started, cpu - loading, calls, bool(asserted)]


def warm(names):
    """Import libraries that forks shall find imported; their random numbers begin at the same place as Python's."""
    for name in names:
        if name not in sys.modules:
            try:
                module = importlib.import_module(name)
            except Exception:
                sys.modules.setdefault(name, None)  # not installed, or broken: do not look again
                continue
            if name == "numpy":
                module.random.seed(0)
            gc.freeze()


def watch(reader, pids, started, request, nonce):
    """The reports as {phase: (status, calls, asserted, size)}, whether the program was out of time, and the CPU seconds
    that imports and loading took.

    The wait ends with the last report, or with the end of the process that reports (not of its pipe, which a process
    of the program's may keep open), or when the wall clock reaches the limit, or when the program has used its
    processor time. Imports have ``load_seconds`` of both; then loading, then running begin with new clocks.
    """
    entries, rest, loading, phases = {}, b"", 0.0, 0
    wall = request["seconds"] * request["patience"]
    deadline = started + (request["load_seconds"] if request["heavy"] else wall)
    budget = request["load_seconds" if request["heavy"] else "cpu_seconds"]
    check = started + budget
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    with Exit(pids[0]) as gone:
        if gone.handle is not None:
            poll.register(gone.handle, select.POLLIN)
        while "done" not in entries:
            now = time.monotonic()
            if now >= deadline:
                return entries, True, loading
            if now >= check:
                left = budget - sum(map(cpu_seconds, pids))
                if left <= 0:
                    return entries, True, loading
                check = now + max(left, 0.01)
            ready = [handle for handle, _ in poll.poll(1000 * (min(deadline, check) - now) + 1)]
            if gone.handle in ready:  # its last report may have come after the look at the pipe
                ready = [handle for handle, _ in poll.poll(0)]
            if reader in ready:
                piece = os.read(reader, REPORT)
                *lines, rest = (rest + piece).split(b"\n")
                rest = rest[:REPORT]
                for line in lines:
                    if line.startswith(nonce):
                        entries |= parse_report(line[len(nonce):])
                if phases < len(entries.keys() & {"imported", "loaded"}):
                    phases = len(entries.keys() & {"imported", "loaded"})
                    loading = sum(map(cpu_seconds, pids))
                    deadline, budget = time.monotonic() + wall, loading + request["cpu_seconds"]
                    check = min(check, time.monotonic() + request["cpu_seconds"])
                if not piece and gone.handle is None:
                    break
                if not piece:
                    poll.unregister(reader)
            elif gone.handle in ready:
                break
    return entries, False, loading


class Exit:
    """``handle`` is readable when a process has ended; None where there is no pidfd (macOS)."""

    def __init__(self, pid):
        self.handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") and isolation.LINUX else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.handle is not None:
            os.close(self.handle)


def parse_report(body):
    """``{phase: (status, calls, asserted, size)}``, empty for what our own reporter would not have written."""
    words = body.decode("ascii", "replace").split(" ")
    if words in (["started"], ["imported"], ["loaded"]):
        return {words[0]: None}
    if len(words) != 5 or words[0] != "done" or words[1] not in STATUSES or not "".join(words[2:]).isdecimal():
        return {}
    return {"done": (words[1], *map(int, words[2:]))}


def reap(pids, namespaces):
    """End the program and all that it may have started; returns the wait statuses of ``pids`` and CPU seconds."""
    ends, cpu = {}, 0.0

    def collect(flags):
        nonlocal cpu
        while True:
            try:
                gone, code, usage = os.wait4(-1, flags)
            except ChildProcessError:
                return
            if not gone:
                return
            if gone in pids:
                ends[gone] = code
                cpu += usage.ru_utime + usage.ru_stime

    collect(os.WNOHANG)
    for pid in pids:
        if pid not in ends:
            kill(os.kill, pid)
        if not namespaces:
            kill(os.killpg, pid)
    if namespaces and os.getpid() == 1:  # of our own PID namespace: "all" is what the program started
        kill(os.kill, -1)
    collect(0)
    return [ends.get(pid, 0) for pid in pids], cpu


def kill(how, pid):
    try:
        how(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def clean(folder):
    """Empty the program's directory, however deep, however its permissions; never follows a link."""
    os.chdir(folder)
    left = [folders_left()]  # of each folder from here down to the current one
    while left:
        if left[-1]:
            os.chdir(left[-1][-1])
            left.append(folders_left())
            continue
        left.pop()
        if left:
            os.chdir(b"..")
            os.rmdir(left[-1].pop())


def folders_left():
    """Remove the files of the current directory; the names of its folders, all of which may be entered now."""
    names = []
    with os.scandir(b".") as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name)
                continue
            names.append(entry.name)
            if entry.stat(follow_symlinks=False).st_mode & 0o700 != 0o700:
                os.chmod(entry.name, 0o700)
    return names


def decide_tests(entries, late, ends):
    """(status, detail, size of the detail that a report left) from the reports, the time and the processes' ends.

    Args:
        ends: wait statuses; the last one is the candidate's, the first one that of the process that reports.
    """
    loaded = "loaded" in entries
    where = "in tests" if loaded else "while loading"
    if "done" in entries:
        status, _, _, size = entries["done"]
        if size or status == "passed":
            return status, "", size
    elif "started" not in entries and not late:
        return "infrastructure", "the sandbox could not be set up", 0
    elif late:
        return "timeout", f"out of time {where}", 0
    elif len(ends) == 2 and os.WIFSIGNALED(ends[0]) and os.WTERMSIG(ends[0]) == signal.SIGKILL:
        return "infrastructure", "somebody killed the judge", 0
    status, detail = ("failed", "exited before the tests finished") if loaded else ("error", "exited while loading")
    if os.WIFSIGNALED(ends[-1]) and os.WTERMSIG(ends[-1]) not in (signal.SIGKILL, signal.SIGXCPU):
        detail = f"killed by signal {os.WTERMSIG(ends[-1])} {where}"
    return status, detail, 0


def decide_script(entries, late, ends):
    """As ``decide_tests``; a script that leaves by itself has ended well."""
    if "done" in entries:
        status, _, _, size = entries["done"]
        return status, "", size
    if late:
        return "timeout", "out of time", 0
    if "started" not in entries:
        return "infrastructure", "the sandbox could not be set up", 0
    if os.WIFSIGNALED(ends[0]):
        return "failed", f"killed by signal {os.WTERMSIG(ends[0])}", 0
    return "passed", "", 0


# --- serving ----------------------------------------------------------------------------------------------------------

def receive(handle):
    head = read(handle, 4)
    return json.loads(read(handle, struct.unpack("I", head)[0])) if len(head) == 4 else None


def read(handle, size):
    data = b""
    while len(data) < size and (piece := os.read(handle, size - len(data))):
        data += piece
    return data


def answer(handle, message):
    body = json.dumps(message).encode()
    os.write(handle, struct.pack("I", len(body)) + body)


def silence():
    """Programs get /dev/null for 0, 1 and 2; until here our own errors go to the harness's standard error."""
    null = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    os.close(null)
    for handle, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(handle, "w" if handle else "r", closefd=False)
        vars(sys).update({name: stream, f"__{name}__": stream})


def isolate(namespaces, folder, number, without):
    """Put all layers in force that work on this host, each tried in a process of its own; returns which do."""
    mounts = bool(namespaces) and "mounts" not in without and isolation.install_root(folder)
    scratch = isolation.SCRATCH if mounts else os.path.join(folder, "work")
    if not mounts:
        os.makedirs(scratch, exist_ok=True)
    version = isolation.landlock_version() if "landlock" not in without else 0
    hidden = [] if mounts else isolation.hidden_paths()
    if version and not isolation.in_a_fork(lambda: isolation.install_landlock(version, scratch, hidden)):
        version = 0
    seccomp = "seccomp" not in without and isolation.seccomp_works()
    os.environ.update(HOME=scratch, TMPDIR=scratch)
    counted = mounts and isolation.become_stranger(scratch, number)
    if counted:
        isolation.limit(resource.RLIMIT_NPROC, isolation.PROCESSES, isolation.PROCESSES)
    if isolation.LINUX:
        isolation.drop_capabilities()
        isolation.forbid_inspection()
        isolation.die_with_parent()  # the kernel forgets it when the user changes
    if version:
        isolation.install_landlock(version, scratch, hidden)
    if seccomp:
        isolation.install_filter(isolation.filter_code(isolation.NEVER))
    isolation.limit(resource.RLIMIT_CORE, 0, 0)
    isolation.limit(resource.RLIMIT_NOFILE, 64, 64)
    return {"namespaces": list(namespaces), "mounts": mounts, "seccomp": seccomp, "landlock": version,
            "scratch": scratch, "processes": counted}


def serve(namespaces, folder, number, joined, without):
    """Answer requests until the input ends, as it does when the harness dies; ``number`` is the worker's pid outside,
    ``joined`` whether it is in control groups of its own.
    """
    layers = isolate(namespaces, folder, number, without)
    os.chdir(layers["scratch"])
    silence()
    answer(ANSWERS, layers | {"groups": joined})
    layers["filter"] = isolation.ProgramFilter() if layers["seccomp"] else None
    while (request := receive(REQUESTS)) is not None:
        answer(ANSWERS, judge(request, layers))
    os._exit(0)
