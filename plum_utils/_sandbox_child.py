"""Runs inside the sandbox: a fork server that judges one untrusted program a fork. Standard library only.

Started by ``plum_utils.sandbox`` as a script, with a folder and the layers to leave out as arguments; talks over its
standard input and output in length-prefixed JSON.
"""

import collections  # noqa: F401  (imported once here, so that forked programs find them warm)
import ctypes
import datetime  # noqa: F401
import functools  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import os
import platform
import random
import re  # noqa: F401
import resource
import secrets
import select
import shutil
import signal
import string  # noqa: F401
import struct
import sys
import tempfile
import time
import traceback
import types
import typing  # noqa: F401

LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
CAPABILITY_VERSION_3 = 0x20080522
DETAIL = 300      # characters
REPORT = 1 << 16  # bytes of reports that are kept
SPARE = 64 << 20  # address space that only the report of a program out of memory may use
STATUSES = ("passed", "failed", "error", "memory", "syntax")
sys.modules["plum_utils"] = None  # an editable install would let programs import the harness's own package

# System calls that a program may not make, by architecture: (AUDIT_ARCH, clone, clone3, tgkill, prlimit64, the others).
SYSCALLS = {
    "x86_64": (0xC000003E, 56, 435, 234, 302, {
        "socket": 41, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "kill": 62, "tkill": 200, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
        "pidfd_send_signal": 424, "pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440,
        "setpriority": 141, "ioprio_set": 251, "sched_setparam": 142, "sched_setscheduler": 144,
        "sched_setaffinity": 203, "sched_setattr": 314,
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "mount_setattr": 442, "unshare": 272,
        "setns": 308, "bpf": 321, "userfaultfd": 323, "perf_event_open": 298, "io_uring_setup": 425,
        "keyctl": 250, "add_key": 248, "request_key": 249, "open_by_handle_at": 304,
        "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240,
        "truncate": 76, "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93,
        "lchown": 94, "fchownat": 260, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197,
        "lremovexattr": 198, "fremovexattr": 199, "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280}),
    "aarch64": (0xC00000B7, 220, 435, 131, 261, {
        "socket": 198, "execve": 221, "execveat": 281, "kill": 129, "tkill": 130, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
        "pidfd_send_signal": 424, "pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440,
        "setpriority": 140, "ioprio_set": 30, "sched_setparam": 118, "sched_setscheduler": 119,
        "sched_setaffinity": 122, "sched_setattr": 274,
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "mount_setattr": 442, "unshare": 97,
        "setns": 268, "bpf": 280, "userfaultfd": 282, "perf_event_open": 241, "io_uring_setup": 425,
        "keyctl": 219, "add_key": 217, "request_key": 218, "open_by_handle_at": 265,
        "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180,
        "truncate": 45, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55, "fchownat": 54,
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
        "utimensat": 88}),
}


# --- layers ---------------------------------------------------------------------------------------------------------

def enter_namespaces():
    """New PID, network, IPC and mount namespaces, if the kernel allows all of them; returns their names."""
    uid, gid = os.getuid(), os.getgid()
    private = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS
    if LIBC.unshare(private) != 0:
        if LIBC.unshare(private | CLONE_NEWUSER) != 0:
            return ()
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as handle:
                handle.write(text)
    return ("pid", "network", "ipc", "mount")


def install_mounts(folder):
    """In a mount namespace: ``/proc`` of this PID namespace, ``folder`` in memory (16 MiB), all else read-only."""
    MS_NOSUID_NODEV, MS_REC_PRIVATE = 2 | 4, 0x4000 | 0x40000
    place = folder.encode()
    LIBC.mount(None, b"/", None, MS_REC_PRIVATE, None)
    LIBC.mount(b"proc", b"/proc", b"proc", MS_NOSUID_NODEV, None)  # refused in some containers; Landlock covers
    if LIBC.mount(b"tmpfs", place, b"tmpfs", MS_NOSUID_NODEV, b"size=16m,nr_inodes=1024,mode=0700") != 0:
        return False
    if not set_read_only(b"/", True):
        return False
    return set_read_only(place, False)


def set_read_only(path, wanted):
    """``mount_setattr`` on a mount and all below it (Linux 5.12); returns whether it worked."""
    AT_FDCWD, AT_RECURSIVE, RDONLY = -100, 0x8000, 1
    attributes = struct.pack("QQQQ", RDONLY if wanted else 0, 0 if wanted else RDONLY, 0, 0)
    return LIBC.syscall(442, AT_FDCWD, path, AT_RECURSIVE, attributes, ctypes.c_size_t(32)) == 0


def seccomp_code(pid):
    """The BPF filter that denies ``SYSCALLS``, new processes (threads are allowed) and signals to others."""
    arch, clone, clone3, tgkill, prlimit, denied = SYSCALLS[platform.machine()]
    load, jump_eq, jump_ge, jump_set, ret = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, eperm, enosys = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    code = [(load, 0, 0, 4), (jump_eq, 1, 0, arch), (ret, 0, 0, kill), (load, 0, 0, 0),
            (jump_ge, 0, 1, 0x40000000), (ret, 0, 0, eperm)]
    for number in denied.values():
        code += [(jump_eq, 0, 1, number), (ret, 0, 0, eperm)]
    code += [(jump_eq, 0, 1, clone3), (ret, 0, 0, enosys)]  # C libraries fall back to clone
    for number, test, argument in ((clone, jump_set, 0x00010000), (tgkill, jump_eq, pid), (prlimit, jump_eq, 0)):
        code += [(jump_eq, 0, 4, number), (load, 0, 0, 16), (test, 1, 0, argument), (ret, 0, 0, eperm),
                 (ret, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *line) for line in [*code, (ret, 0, 0, allow)])


def install_seccomp():
    code = seccomp_code(os.getpid())
    body = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(body)))
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return LIBC.prctl(PR_SET_SECCOMP, 2, program, 0, 0) == 0


def landlock_version():
    return max(0, LIBC.syscall(444, None, ctypes.c_size_t(0), 1)) if LINUX else 0


def install_landlock(version, folder):
    """Deny every write outside ``folder`` (reads stay); returns whether it is in force."""
    rights = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))
    rights |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    ruleset = LIBC.syscall(444, struct.pack("Q", rights), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    file_rights = rights & (1 << 1 | 1 << 14)
    for path, allowed in ((folder, rights), ("/dev/null", file_rights)):
        handle = os.open(path, os.O_PATH)
        LIBC.syscall(445, ruleset, 1, struct.pack("=Qi", allowed, handle), 0)
        os.close(handle)
    done = LIBC.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return done


def drop_capabilities():
    """Root's powers (raising limits, mounting, reading anybody's files) are not for programs."""
    return LIBC.capset(struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24)) == 0


def limit(which, soft, hard):
    """Lower a limit as far as the host lets us; a hard limit is never raised (containers forbid it)."""
    highest = resource.getrlimit(which)[1]
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    try:
        resource.setrlimit(which, (soft, hard))
    except (ValueError, OSError):  # macOS refuses RLIMIT_AS
        pass


def set_limits(limits):
    memory, seconds, size = limits["memory_mb"] << 20, int(limits["seconds"]) + 1, limits["file_mb"] << 20
    limit(resource.RLIMIT_AS, memory, memory + SPARE)
    limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    limit(resource.RLIMIT_FSIZE, size, size)
    limit(resource.RLIMIT_NOFILE, 64, 64)
    limit(resource.RLIMIT_CORE, 0, 0)


def in_a_fork(question):
    """Whether ``question()`` is true in a forked process, which may crash or restrict itself."""
    pid = os.fork()
    if pid == 0:
        answer = False
        try:
            answer = question()
        finally:
            os._exit(0 if answer else 1)
    return os.waitpid(pid, 0)[1] == 0


def probe(namespaces, folder, without):
    """The layers that work on this host, each tried in a process of its own."""
    version = landlock_version() if "landlock" not in without else 0
    seccomp = LINUX and platform.machine() in SYSCALLS and "seccomp" not in without
    return {
        "namespaces": list(namespaces),
        "mounts": bool(namespaces) and "mounts" not in without and install_mounts(folder),
        "seccomp": seccomp and in_a_fork(lambda: install_seccomp() and LIBC.socket(2, 1, 0) == -1),
        "landlock": version if version and in_a_fork(lambda: install_landlock(version, folder)) else 0,
    }


# --- one program ----------------------------------------------------------------------------------------------------

def run_program(request, report, nonce):
    """Load the program, then run its tests; each step is reported behind the nonce. Never returns."""
    write, leave, dumps, setrlimit = os.write, os._exit, json.dumps, resource.setrlimit
    space = resource.getrlimit(resource.RLIMIT_AS)[1]

    def tell(phase, status="", detail=""):
        write(report, f"{nonce}{dumps([phase, status, detail])}\n".encode())

    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    tell("started")
    outcome = guarded(request["code"], "<solution>", module.__dict__)
    if outcome is None:
        tell("loaded")
        outcome = guarded(request["tests"], "<tests>", module.__dict__)
    if LINUX:
        setrlimit(resource.RLIMIT_AS, (space, space))
    tell("done", *(outcome or ("passed", "")))
    leave(0)


def guarded(source, name, scope):
    """Execute a source text; ``None`` when it finished, else (status, detail)."""
    loading = name == "<solution>"
    try:
        compiled = compile(source, name, "exec", dont_inherit=True)
    except BaseException as error:
        return "syntax" if loading else "failed", describe(error, name, source)
    try:
        exec(compiled, scope)
    except MemoryError:
        return "memory", "MemoryError " + ("while loading" if loading else "in tests")
    except SystemExit:
        return ("error", "exited while loading") if loading else ("failed", "exited before the tests finished")
    except BaseException as error:
        return "error" if loading else "failed", describe(error, name, source)
    return None


def describe(error, name, source):
    """One line: the exception, and the line of the program or of the tests where it rose."""
    try:
        message = str(error)
        text = type(error).__name__ + (f": {message}" if message else "")
        rows = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
        row = (rows[0] if name == "<tests>" else rows[-1]) if rows else getattr(error, "lineno", None)
        if not row:
            return text
        lines = source.split("\n")
        code = lines[row - 1].strip()[:120] if row <= len(lines) else ""
        return f"{text[:140]}: {code} ({'test ' if name == '<tests>' else ''}line {row})"
    except BaseException:  # a hostile exception class
        return type(error).__name__


def silence():
    null = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    sys.stdin = open(0, closefd=False)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)


def child(request, report, folder, nonce, layers):
    """In the forked process: take away what the program must not have, then run it."""
    os.setsid()
    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder)
    silence()
    os.dup2(report, 3)
    os.closerange(4, 256)
    random.seed(0)
    if LINUX:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if not drop_capabilities():
            return
    set_limits(request["limits"])
    if layers["landlock"] and not install_landlock(layers["landlock"], folder):
        return
    if layers["seccomp"] and not install_seccomp():
        return
    run_program(request, 3, nonce)


def judge(request, layers, place):
    """Fork, wait for the report, the exit or the deadline, kill what is left, decide."""
    folder = tempfile.mkdtemp(dir=place)
    nonce = secrets.token_hex(16)
    reader, writer = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            child(request, writer, folder, nonce, layers)
        finally:
            os._exit(98)
    os.close(writer)
    entries, late = read_reports(reader, started + request["limits"]["seconds"], nonce.encode())
    os.close(reader)
    status, cpu = reap(pid, layers["namespaces"])
    seconds = time.monotonic() - started
    shutil.rmtree(folder, ignore_errors=True)
    return [*decide(entries, late or cpu > request["limits"]["seconds"], status), seconds]


def read_reports(reader, deadline, nonce):
    """The reports of the program's process as {phase: (status, detail)}, and whether it still ran at the deadline.

    The wait ends with the final report or with the end of the pipe. Lines without the nonce are never looked into.
    """
    entries, rest = {}, b""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000 + 1):
            continue
        piece = os.read(reader, REPORT)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(nonce):
                entries |= parse_report(line[len(nonce):])
        if not piece or "done" in entries:
            return entries, False
        rest = rest[:REPORT]
    return entries, True


def parse_report(body):
    """``{phase: (status, detail)}``, empty for what our own reporter would not have written."""
    try:
        phase, status, detail = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return {}
    if not (isinstance(phase, str) and isinstance(detail, str) and (status in STATUSES or phase != "done")):
        return {}
    return {phase: (status, " ".join(detail.encode("utf-8", "replace").decode().split())[:DETAIL])}


def reap(pid, namespaces):
    """Kill the program and everything it may have started; returns its wait status and CPU seconds."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.kill(-1, signal.SIGKILL) if namespaces else os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    status, cpu = 0, 0.0
    while True:
        try:
            gone, code, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return status, cpu
        if gone == pid:
            status, cpu = code, usage.ru_utime + usage.ru_stime


def decide(entries, late, status):
    """(status, detail) from the reports, the time and the way the process ended."""
    if "done" in entries:
        return entries["done"]
    loaded = "loaded" in entries
    where = "in tests" if loaded else "while loading"
    if "started" not in entries and not late:
        return "infrastructure", "the sandbox could not be set up"
    if late:
        return "timeout", f"out of time {where}"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        return "failed" if loaded else "error", f"killed by signal {os.WTERMSIG(status)} {where}"
    return ("failed", "exited before the tests finished") if loaded else ("error", "exited while loading")


# --- the server -----------------------------------------------------------------------------------------------------

def receive(stream):
    head = stream.read(4)
    return json.loads(stream.read(struct.unpack("I", head)[0])) if len(head) == 4 else None


def send(stream, message):
    body = json.dumps(message).encode()
    stream.write(struct.pack("I", len(body)) + body)
    stream.flush()


def serve(namespaces, folder, without):
    """Answer requests until the input ends, as it does when the harness dies."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence()
    layers = probe(namespaces, folder, without)
    send(answers, layers)
    while (request := receive(requests)) is not None:
        send(answers, judge(request, layers, folder))
    os._exit(0)


def main(folder, *without):
    namespaces = enter_namespaces() if LINUX and "namespaces" not in without else ()
    if not namespaces:
        serve((), folder, without)
    pid = os.fork()  # the first process of a new PID namespace: when it ends, the kernel ends the others
    if pid == 0:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        serve(namespaces, folder, without)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
