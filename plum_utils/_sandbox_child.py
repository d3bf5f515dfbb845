"""Runs inside the sandbox: a fork server that judges one untrusted program a fork. Standard library only.

Started by ``plum_utils.sandbox`` as a script; talks over its standard input and output in length-prefixed JSON.
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
import random  # noqa: F401
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

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
DETAIL = 300

# System calls that a program may not make, by architecture: (AUDIT_ARCH, clone, clone3, the others).
SYSCALLS = {
    "x86_64": (0xC000003E, 56, 435, {
        "socket": 41, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "kill": 62, "tkill": 200, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165, "umount2": 166, "pivot_root": 155,
        "unshare": 272, "setns": 308, "bpf": 321, "userfaultfd": 323, "perf_event_open": 298, "io_uring_setup": 425,
        "keyctl": 250, "add_key": 248, "request_key": 249, "rt_sigqueueinfo": 129, "pidfd_send_signal": 424,
        "pidfd_open": 434, "pidfd_getfd": 438, "open_by_handle_at": 304}),
    "aarch64": (0xC00000B7, 220, 435, {
        "socket": 198, "execve": 221, "execveat": 281, "kill": 129, "tkill": 130, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "mount": 40, "umount2": 39, "pivot_root": 41,
        "unshare": 97, "setns": 268, "bpf": 280, "userfaultfd": 282, "perf_event_open": 241, "io_uring_setup": 425,
        "keyctl": 219, "add_key": 217, "request_key": 218, "rt_sigqueueinfo": 138, "pidfd_send_signal": 424,
        "pidfd_open": 434, "pidfd_getfd": 438, "open_by_handle_at": 265}),
}


# --- layers ---------------------------------------------------------------------------------------------------------

def enter_namespaces():
    """New PID, network, IPC and mount namespaces where the kernel allows them; returns their names."""
    uid, gid = os.getuid(), os.getgid()
    private = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS
    if LIBC.unshare(private) != 0:
        if LIBC.unshare(private | CLONE_NEWUSER) != 0:
            return ()
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as handle:
                handle.write(text)
    return ("pid", "network", "ipc", "mount")


def seccomp_program():
    """The BPF filter that denies ``SYSCALLS`` and new processes (threads are allowed); ``None`` elsewhere."""
    if sys.platform != "linux" or platform.machine() not in SYSCALLS:
        return None
    arch, clone, clone3, denied = SYSCALLS[platform.machine()]
    load, jump_eq, jump_ge, jump_set, ret = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, eperm, enosys = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    code = [(load, 0, 0, 4), (jump_eq, 1, 0, arch), (ret, 0, 0, kill), (load, 0, 0, 0),
            (jump_ge, 0, 1, 0x40000000), (ret, 0, 0, eperm)]
    for number in sorted(denied.values()):
        code += [(jump_eq, 0, 1, number), (ret, 0, 0, eperm)]
    code += [(jump_eq, 0, 1, clone3), (ret, 0, 0, enosys), (jump_eq, 0, 3, clone), (load, 0, 0, 16),
             (jump_set, 1, 0, 0x00010000), (ret, 0, 0, eperm), (ret, 0, 0, allow)]
    body = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    return body, ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(body)))


def install_seccomp(program):
    return LIBC.prctl(PR_SET_SECCOMP, 2, program[1], 0, 0) == 0


def landlock_version():
    return max(0, LIBC.syscall(444, None, ctypes.c_size_t(0), 1)) if sys.platform == "linux" else 0


def install_landlock(version, folder):
    """Deny every write outside ``folder`` (reads stay); returns whether it is in force."""
    rights = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))
    rights |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
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


def limit(which, value):
    """Lower a limit; a hard limit is never raised (containers forbid it)."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def set_limits(limits):
    limit(resource.RLIMIT_AS, limits["memory_mb"] << 20)
    limit(resource.RLIMIT_CPU, int(limits["seconds"]) + 1)
    limit(resource.RLIMIT_FSIZE, limits["file_mb"] << 20)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_CORE, 0)


# --- one program ----------------------------------------------------------------------------------------------------

def run_program(request, report, nonce):
    """Load the program, then run its tests; each step is reported with the nonce. Never returns."""
    write, leave, dumps = os.write, os._exit, json.dumps

    def tell(phase, status="", detail=""):
        write(report, dumps([nonce, phase, status, detail[:DETAIL]]).encode() + b"\n")

    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    outcome = guarded(request["code"], "<solution>", module.__dict__, {SyntaxError: "syntax"}, "error")
    if outcome is None:
        tell("loaded")
        outcome = guarded(request["tests"], "<tests>", module.__dict__, {}, "failed")
    tell("done", *(outcome or ("passed", "")))
    leave(0)


def guarded(source, name, scope, special, otherwise):
    """Execute a source text; ``None`` when it finished, else (status, detail)."""
    stage = "while loading" if name == "<solution>" else "before the tests finished"
    try:
        compiled = compile(source, name, "exec", dont_inherit=True)
    except BaseException as error:
        return special.get(SyntaxError, otherwise), describe(error, name, source)
    try:
        exec(compiled, scope)
    except MemoryError:
        return "memory", f"MemoryError {stage}"
    except SystemExit:
        return otherwise, f"exited {stage}"
    except BaseException as error:
        return otherwise, describe(error, name, source)
    return None


def describe(error, name, source):
    """One line: the exception, and the line of the program or of the tests where it rose."""
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split())
    except BaseException:
        text = type(error).__name__
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    number = lines[0] if lines and name == "<tests>" else lines[-1] if lines else getattr(error, "lineno", None)
    if not number:
        return text
    code = source.splitlines()[number - 1].strip() if number <= len(source.splitlines()) else ""
    return f"{text[:120]} at line {number}: {code}"


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
    silence()
    os.dup2(report, 3)
    os.closerange(4, 256)
    random.seed(0)
    set_limits(request["limits"])
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if layers["landlock"] and not install_landlock(layers["landlock"], folder):
        os._exit(97)
    if layers["seccomp"] and not install_seccomp(layers["seccomp"]):
        os._exit(97)
    run_program(request, 3, nonce)


def judge(request, layers):
    """Fork, wait for the report, the exit or the deadline, kill what is left, decide."""
    folder = tempfile.mkdtemp(dir=request["folder"])
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
    text, late = read_report(reader, started + request["limits"]["seconds"], nonce)
    os.close(reader)
    status = reap(pid, layers["namespaces"])
    seconds = time.monotonic() - started
    shutil.rmtree(folder, ignore_errors=True)
    return [*decide(text, late, status, nonce), seconds]


def read_report(reader, deadline, nonce):
    """What the program's process reported, and whether it was still running at the deadline.

    The wait ends with the final report or with the end of the pipe; at most 64 KiB are kept.
    """
    text = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reader], [], [], left)
        if not ready:
            break
        piece = os.read(reader, 4096)
        text = (text + piece)[-65536:]
        if not piece or final_report(text, nonce):
            return text, False
    return text, True


def reports(text, nonce):
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, list) and len(entry) == 4 and entry[0] == nonce:
            found.append(entry[1:])
    return found


def final_report(text, nonce):
    return any(entry[0] == "done" for entry in reports(text, nonce))


def reap(pid, namespaces):
    """Kill the program and everything it may have started; returns the program's wait status."""
    try:
        os.kill(-1, signal.SIGKILL) if namespaces else os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    status = 0
    while True:
        try:
            gone, code = os.waitpid(-1, 0)
        except ChildProcessError:
            return status
        if gone == pid:
            status = code


def decide(text, late, status, nonce):
    entries = reports(text, nonce)
    loaded = any(entry[0] == "loaded" for entry in entries)
    final = next((entry for entry in entries if entry[0] == "done"), None)
    where = "in the tests" if loaded else "while loading"
    if final:
        return final[1], final[2]
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "timeout", f"out of time {where}"
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) in (97, 98):
        return "infrastructure", "the sandbox could not be set up"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        return ("failed" if loaded else "error"), f"killed by {signal.Signals(os.WTERMSIG(status)).name} {where}"
    return ("failed", "exited before the tests finished") if loaded else ("error", "exited while loading")


# --- the server -----------------------------------------------------------------------------------------------------

def receive(stream):
    head = stream.read(4)
    return json.loads(stream.read(struct.unpack("I", head)[0])) if len(head) == 4 else None


def send(stream, message):
    body = json.dumps(message).encode()
    stream.write(struct.pack("I", len(body)) + body)
    stream.flush()


def serve(namespaces):
    """Answer requests until the input ends."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    layers = {"namespaces": namespaces, "seccomp": seccomp_program(), "landlock": landlock_version()}
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence()
    send(answers, {"namespaces": namespaces, "seccomp": bool(layers["seccomp"]), "landlock": layers["landlock"]})
    while (request := receive(requests)) is not None:
        send(answers, judge(request, layers))
    os._exit(0)


def main():
    namespaces = enter_namespaces() if sys.platform == "linux" else ()
    if not namespaces:
        serve(())
    pid = os.fork()  # the first process of a new PID namespace: when it ends, the kernel ends the others
    if pid == 0:
        serve(namespaces)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
