"""What runs in the forked processes: the candidate, the judge of its tests, both in one (shared), or a whole program
that reads standard input.

Tests are scripts: each suite has a namespace of its own, in which ``__name__`` is ``__main__``. The candidate is the
module ``solution``, so that its own ``__main__`` guard stays closed.
"""

import atexit
import builtins
import gc
import importlib
import io
import linecache
import os
import random
import resource
import sys
import threading
import types

import calls
import clocks
import doors
import isolation
import suites
import wire

PRINTED = 1 << 20  # characters of a call's output that travel to the judge
DETAIL = 4096      # bytes
NAME = "solution.py"
INPUT, OUTPUT = 5, 6  # a script's files, of which 0 and 1 are copies
LIMIT = 1000  # Python's own, of frames on the stack
OURS = 8      # frames between ``depth`` and a function of the program's, at most


class Reporter:
    """Reports to the supervisor, each a line behind a nonce: ``started``, ``imported``, ``loaded``, and the last one,
    ``done status calls asserted size``. The detail, which may quote the tests, goes past the supervisor into a file of the
    harness: later candidates inherit the supervisor's memory."""

    def __init__(self, handle, details, nonce):
        self.handle, self.details, self.nonce = handle, details, nonce.encode()
        self.write, self.write_at = os.write, os.pwrite
        self.set_limit, self.space = resource.setrlimit, resource.getrlimit(resource.RLIMIT_AS)[1]

    def tell(self, phase):
        self.write(self.handle, self.nonce + phase + b"\n")

    def done(self, status, detail, calls=0, asserted=False):
        """The last report; a program that is out of memory has a little more for it."""
        if status == "memory" and sys.platform == "linux":
            self.set_limit(resource.RLIMIT_AS, (self.space, self.space))
        size = self.write_at(self.details, detail.encode("utf-8", "replace")[:DETAIL], 0) if detail else 0
        self.tell(b"done %s %d %d %d" % (status.encode(), calls, asserted, size))


def preload(names, done):
    """Import libraries that the program names anywhere, so that an import inside a function is loading too; ``done`` is
    called then, before anything of the program's is run."""
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException:  # the program meets it itself
            pass
    gc.freeze()  # a collection at a script's end is then one of its own objects
    if names:
        done()


def depth():
    """How many of our functions are at work below a program's: a script has none below its own."""
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count + OURS


def run_shared(setup, code, tests, reporter):
    """Load the program, then run its tests; a lone suite in the program's own namespace."""
    leave = os._exit
    sys.setrecursionlimit(LIMIT + depth())
    module = named(types.ModuleType("solution"), "solution", "__main__")
    reporter.tell(b"started")
    outcome = load(setup, code, module.__dict__)
    seen = suites.Seen()
    if outcome is None:
        reporter.tell(b"loaded")
        sys.modules["clocks"] = clocks
        for suite in tests:
            if len(tests) > 1:
                module = named(types.ModuleType("__main__"), "__main__")
                module.__dict__.update(sys.modules["solution"].__dict__)
            module.__name__ = "__main__"
            outcome = outcome or suites.run(suite, module, seen)
    reporter.done(*(outcome or ("passed", "")), seen.called, seen.asserted)
    leave(0)


def run_candidate(setup, code, channel, heavy, capture):
    """Load the program, then answer the judge's calls until it has gone.

    Args:
        channel: descriptors to read from and to write to.
        heavy: libraries to import first.
    """
    preload(heavy, lambda: wire.send(channel[1], ["imported"]))
    sys.setrecursionlimit(LIMIT + depth())
    scope = named(types.ModuleType("solution"), "solution", "__main__").__dict__
    output = io.StringIO() if capture else None
    outcome = load(setup, code, scope)
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


def run_judge(tests, names, channel, heavy, reporter, candidate):
    """Run the tests with stubs in the place of the candidate's functions; the candidate is the process of this pid."""
    clocks.candidate = candidate
    sys.modules["clocks"] = clocks  # tests may ask for it
    leave = os._exit
    reporter.tell(b"started")
    peer = calls.Peer(channel, refuse)
    for suite in tests:
        suite.compiled()  # while the candidate loads
    outcome, seen = loading(channel, heavy, reporter), suites.Seen()
    if outcome is None:
        reporter.tell(b"loaded")
        for suite in tests:
            module = named(types.ModuleType("__main__"), "__main__")
            module.__dict__.update({name: peer.stub(name, name) for name in names})
            named(types.ModuleType("solution"), "solution").__getattr__ = lambda name: attribute(peer, name)
            outcome = faulty(peer.fault) or outcome or suites.run(suite, module, seen, peer)
        outcome = faulty(peer.fault) or outcome
    reporter.done(*(outcome or ("passed", "")), peer.calls, seen.asserted)
    leave(0)


def run_script(setup, code, inputs, reporter):
    """Run a program as ``python solution.py`` does, from its first line to the end of its last thread: for one input, or
    for several one after the other in this process, which is faster and settles all that go well.

    Of several the detail holds how much of the output each had left when it ended; the first that does not end well is the
    last. What a program leaves out by ``os._exit`` is left out here too.
    """
    leave, ends, outcome = os._exit, [], None
    with open(NAME, "wb") as file:
        file.write(code.encode("utf-8", "surrogatepass"))
    doors.open_by_name()
    reporter.tell(b"started")
    for given in inputs:
        outcome = script(setup, code, given)
        if outcome is not None:
            break
        ends.append(str(os.fstat(OUTPUT).st_size))
    if len(inputs) > 1:
        outcome = "passed", " ".join(ends)
    reporter.done(*(outcome or ("passed", "")))
    leave(0)


def script(setup, code, given):
    """Run a program on one input; ``None`` when it ended well, else (status, detail)."""
    atexit._clear()
    random.seed(0)
    sys.setrecursionlimit(LIMIT + depth())
    threading.stack_size(0)
    fill(INPUT, given.encode("utf-8", "surrogatepass"))
    os.lseek(OUTPUT, 0, os.SEEK_END)
    os.dup2(INPUT, 0)
    os.dup2(OUTPUT, 1)
    for handle, name, mode in ((0, "stdin", "r"), (1, "stdout", "w")):
        stream = open(handle, mode, encoding="utf-8", errors="surrogateescape", closefd=False)
        stream.buffer.raw.name = f"<{name}>"
        vars(sys).update({name: stream, f"__{name}__": stream})
    outcome = load(setup, code, named(types.ModuleType("__main__"), "__main__").__dict__, script=True)
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        flush()
        sys.stdout = sys.__stdout__
        sys.modules.pop("__main__", None)
        gc.collect()  # open files and objects with ``__del__`` write as they go
        flush()
    except BaseException as error:
        outcome = outcome or ("failed", suites.describe(error, "<solution>", code))
    return outcome


def flush():
    """Flush standard output: what the program left in its place, Python's own, and C's."""
    for stream in (getattr(sys, "stdout", None), sys.__stdout__):
        try:
            stream.flush()
        except (AttributeError, ValueError):  # None, closed, detached, or no stream at all
            pass
    isolation.LIBC.fflush(None)


def fill(handle, data):
    """Make ``data`` the content of a file, to be read from its start."""
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view):]
    os.lseek(handle, 0, os.SEEK_SET)


def attribute(peer, name):
    if name.startswith("__"):
        raise AttributeError(name)
    return peer.stub(name, name)


def loading(channel, heavy, reporter):
    """What became of loading the candidate: None, or (status, detail); no detail where the supervisor knows better."""
    try:
        if heavy:
            wire.receive(channel[0])  # sent before anything of the candidate's ran
            reporter.tell(b"imported")
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


def named(module, *names):
    """A module that bears these names for everybody who imports them."""
    module.__file__, module.__builtins__ = NAME, builtins
    sys.modules.update(dict.fromkeys(names, module))
    return module


def load(setup, code, scope, script=False):
    """Execute a program, after what stands before it; ``None`` when it finished, else (status, detail)."""
    text = len(code), None, code.splitlines(True), NAME
    linecache.cache.update({"<solution>": text, NAME: text})  # for tracebacks and ``inspect``
    return guarded(setup, "<setup>", scope) or guarded(code, "<solution>", scope, script)


def guarded(source, name, scope, script=False):
    """Compile and execute a part of a program; ``None`` when it finished, else (status, detail).

    Args:
        script: the end of the program is the end of all, and its exit no fault.
    """
    try:
        code = compile(source.removeprefix("\ufeff"), name, "exec", dont_inherit=True)
    except BaseException as error:
        return "syntax", suites.describe(error, name, source)
    try:
        exec(code, scope)
    except MemoryError:
        return "memory", "MemoryError " + ("while running" if script else "while loading")
    except SystemExit:
        return None if script else ("error", "exited while loading")
    except BaseException as error:
        return "failed" if script else "error", suites.describe(error, name, source)
    return None
