"""What runs in the forked processes: the candidate, the judge of its tests, or (shared) both in one."""

import io
import os
import resource
import sys
import traceback
import types

import calls
import wire

PRINTED = 1 << 20  # characters of a call's output that travel to the judge
DETAIL = 4096      # bytes


class Reporter:
    """Reports to the supervisor, each a line behind a nonce: ``started``, ``loaded``, and the last one,
    ``done status calls size``. The detail, which may quote the tests, goes past the supervisor into a file of the
    harness: later candidates inherit the supervisor's memory."""

    def __init__(self, handle, details, nonce):
        self.handle, self.details, self.nonce = handle, details, nonce.encode()
        self.write, self.write_at = os.write, os.pwrite
        self.set_limit, self.space = resource.setrlimit, resource.getrlimit(resource.RLIMIT_AS)[1]

    def tell(self, phase):
        self.write(self.handle, self.nonce + phase + b"\n")

    def done(self, status, detail, calls=0):
        """The last report; a program that is out of memory has a little more for it."""
        if status == "memory" and sys.platform == "linux":
            self.set_limit(resource.RLIMIT_AS, (self.space, self.space))
        size = self.write_at(self.details, detail.encode("utf-8", "replace")[:DETAIL], 0) if detail else 0
        self.tell(b"done %s %d %d" % (status.encode(), calls, size))


def run_shared(code, tests, reporter):
    """Load the program, then run its tests in the same namespace."""
    leave = os._exit
    scope = solution().__dict__
    reporter.tell(b"started")
    outcome = guarded(code, "<solution>", scope)
    if outcome is None:
        reporter.tell(b"loaded")
        outcome = guarded(tests, "<tests>", scope)
    reporter.done(*(outcome or ("passed", "")))
    leave(0)


def run_candidate(code, channel, capture):
    """Load the program, then answer the judge's calls until it has gone.

    Args:
        channel: descriptors to read from and to write to.
    """
    scope = solution().__dict__
    output = io.StringIO() if capture else None
    outcome = guarded(code, "<solution>", scope)
    wire.send(channel[1], ["error", *outcome] if outcome else ["loaded"])

    def lookup(name):
        try:
            return scope[name]
        except KeyError:
            raise NameError(f"name {name!r} is not defined") from None

    def printed():
        text = output.getvalue()
        output.seek(0)
        output.truncate()
        return text[:PRINTED]

    if capture:
        sys.stdout = output
    peer = calls.Peer(channel, lookup, printed if capture else lambda: None)
    while True:
        peer.answer(wire.receive(channel[0]))


def run_judge(tests, names, channel, reporter):
    """Run the tests with stubs in the place of the candidate's functions; the candidate is in another process."""
    leave = os._exit
    reporter.tell(b"started")
    peer = calls.Peer(channel, refuse)
    code = compiled(tests, "<tests>")  # while the candidate loads
    outcome = loading(channel)
    if outcome is None:
        reporter.tell(b"loaded")
        module = solution()
        module.__dict__.update({name: peer.stub(name, name) for name in names})
        module.__getattr__ = lambda name: attribute(peer, name)  # for ``import solution``
        outcome = execute(code, tests, "<tests>", module.__dict__)
        outcome = faulty(peer.fault) or outcome
    reporter.done(*(outcome or ("passed", "")), peer.calls)
    leave(0)


def attribute(peer, name):
    if name.startswith("__"):
        raise AttributeError(name)
    return peer.stub(name, name)


def loading(channel):
    """What became of loading the candidate: None, or (status, detail); no detail where the supervisor knows better."""
    try:
        message = wire.receive(channel[0])
    except wire.Gone:
        return "error", ""
    except wire.Broken:
        message = None
    if message == ["loaded"]:
        return None
    if type(message) is list and len(message) == 3 and message[0] == "error" and message[1] in (
            "error", "syntax", "memory") and type(message[2]) is str:
        return message[1], message[2]
    return "failed", "the program wrote into the judge's channel"


def faulty(fault):
    """The verdict on a call that did not end as calls end, whatever the tests made of it."""
    if fault is None:
        return None
    if isinstance(fault, wire.Gone):
        return "failed", ""
    if isinstance(fault, wire.Broken):
        return "failed", f"the program sent {fault}, which is no plain data"
    if getattr(fault, "ours", False):
        return "unsplittable", f"the tests pass {fault}"
    return "failed", f"returned {fault}, which is not plain data"


def refuse(name):
    raise NameError(f"name {name!r} is not defined")


def solution():
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    return module


def guarded(source, name, scope):
    """Compile and execute a source text; ``None`` when it finished, else (status, detail)."""
    return execute(compiled(source, name), source, name, scope)


def compiled(source, name):
    """The code of a source text, or (status, detail)."""
    try:
        return compile(source, name, "exec", dont_inherit=True)
    except BaseException as error:
        return "syntax" if name == "<solution>" else "failed", describe(error, name, source)


def execute(code, source, name, scope):
    """Execute what ``compiled`` gave; ``None`` when it finished, else (status, detail)."""
    if type(code) is tuple:
        return code
    loading = name == "<solution>"
    try:
        exec(code, scope)
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
        rows = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == name]
        row = (rows[0] if name == "<tests>" else rows[-1]) if rows else getattr(error, "lineno", None)
        if not row:
            return text
        lines = source.split("\n")
        code = lines[row - 1].strip()[:120] if row <= len(lines) else ""
        return f"{text[:140]}: {code} ({'test ' if name == '<tests>' else ''}line {row})"
    except BaseException:  # a hostile exception class
        return type(error).__name__
