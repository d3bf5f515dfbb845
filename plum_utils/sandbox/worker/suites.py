"""A suite of tests, run as the script that it is, with the tests that nobody called called at its end."""

import builtins
import sys
import traceback


class Suite:
    """One suite.

    Args:
        collect: its test functions and classes that the script does not call itself.
        checks: lines of its assertions; None where nobody asks whether one was reached.
        above: lines of the suites before it, in whose numbering a verdict names a line.
    """

    def __init__(self, text, collect=(), checks=None, above=0):
        self.text, self.collect, self.checks, self.above, self.code = text, collect, checks, above, None

    def describe(self, error):
        return describe(error, "<tests>", self.text, self.above)

    def compiled(self):
        """The code, or (status, detail)."""
        if self.code is None:
            try:
                self.code = compile(self.text, "<tests>", "exec", dont_inherit=True)
            except BaseException as error:
                self.code = "failed", self.describe(error)
        return self.code


class Seen:
    """Whether an assertion was evaluated, and whether a function of the program's was called in this process."""

    asserted = called = False


def run(suite, module, seen, peer=None):
    """Run a suite in a module's namespace; ``None`` when all passed, else (status, detail).

    Args:
        peer: the candidate's process, where it has one of its own.
    """
    code = suite.compiled()
    if type(code) is tuple:
        return code
    names, kept = vars(builtins), dict(vars(builtins))
    failures = watch_unittest() if "unittest" in suite.text else []
    if "pytest.main" in suite.text:
        leave_to_us()
    if suite.checks is not None:
        watch(frozenset(suite.checks), seen, peer is not None)
    try:
        return (finished(lambda: exec(code, module.__dict__), suite, peer, failures)
                or finished(lambda: call_tests(suite.collect, module), suite, peer, failures))
    finally:
        sys.settrace(None)
        names.clear()  # what a suite gives Python's own names is its own
        names.update(kept)


def finished(act, suite, peer, failures):
    try:
        act()
    except MemoryError:
        return "memory", "MemoryError in tests"
    except SystemExit as error:
        if not failures and error.code not in (None, 0):
            return "failed", f"the tests exited with status {str(error.code)[:60]}"
        if not failures and not own_exit(error, peer):
            return "failed", "exited before the tests finished"
    except BaseException as error:
        return "failed", suite.describe(error)
    return ("failed", suite.describe(failures[0])) if failures else None


def own_exit(error, peer):
    """Whether the tests themselves, and not the candidate, ended their script. In a shared process only unittest's own
    exit is known to be theirs."""
    if peer is not None:
        return not any(error is one for one in peer.exits)
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    main = sys.modules.get("unittest.main")
    return main is not None and files[-1] == main.__file__ and "<solution>" not in files


def watch(checks, seen, split):
    """Note whether one of the lines ``checks`` is reached and whether the program is called; then look no longer."""
    def calls(frame, event, argument):
        seen.called = seen.called or frame.f_code.co_filename == "<solution>"
        return lines if frame.f_code.co_filename == "<tests>" else None

    def lines(frame, event, argument):
        if event == "line" and frame.f_lineno in checks:
            seen.asserted = True
        if seen.asserted and (seen.called or split):
            sys.settrace(None)
            return None
        return lines

    sys.settrace(calls)


def leave_to_us():
    """Let ``pytest.main``, which looks for files, do nothing: tests that nobody called are called at the end."""
    try:
        import pytest
    except ImportError:
        return
    pytest.main = lambda *_, **__: 0


def watch_unittest():
    """The exceptions that unittest's runners meet from now on, whatever the tests make of their results."""
    import unittest

    failures = []

    def watched(method):
        def note(self, test, *rest):
            if rest and rest[-1] is not None:
                failures.append(rest[-1][1])
            return method(self, test, *rest)
        return note

    for name in ("addFailure", "addError", "addSubTest"):
        setattr(unittest.TestResult, name, watched(getattr(unittest.TestResult, name)))
    return failures


def call_tests(names, module):
    """Call test functions, methods and cases, as pytest does."""
    for name in names:
        found = module.__dict__.get(name)
        if not isinstance(found, type):
            call(found)
        elif hasattr(found, "defaultTestResult"):
            import unittest
            unittest.defaultTestLoader.loadTestsFromTestCase(found).run(unittest.TestResult())
        else:
            for method in [method for method in vars(found) if method.startswith("test")]:
                instance = found()
                getattr(instance, "setup_method", lambda *_: None)(*[None][:takes(instance, "setup_method")])
                call(getattr(instance, method), getattr(found, "pytestmark", ()))


def takes(instance, name):
    """How many arguments a method takes beside its object."""
    method = getattr(type(instance), name, None)
    return method.__code__.co_argcount - 1 if method is not None else 0


def call(function, marks=()):
    """Call a test with each set of arguments that its ``parametrize`` marks (and its class's) give; one that needs more is
    left out."""
    code = getattr(function, "__code__", None)
    if code is None:
        return
    needed = set(code.co_varnames[:code.co_argcount - len(function.__defaults__ or ())]) - {"self"}
    for named in arguments([*getattr(function, "pytestmark", ()), *marks]):
        if needed <= set(named):
            function(**named)


def arguments(marks):
    cases = [{}]
    for mark in marks:
        if mark.name == "skip":
            return []
        if mark.name == "parametrize":
            names, values = (*mark.args, *mark.kwargs.values())[:2]
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
            rows = [getattr(value, "values", value) if type(value).__name__ == "ParameterSet" else
                    value if len(names) > 1 else (value,) for value in values]
            cases = [case | dict(zip(names, row)) for row in rows for case in cases]
    return cases


def describe(error, name, source, above=0):
    """One line: the exception, and the line of the program or of the tests where it rose; ``above``: lines before it."""
    try:
        message = str(error)
        text = type(error).__name__ + (f": {message}" if message else "")
        rows = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == name]
        row = (rows[0] if name == "<tests>" else rows[-1]) if rows else getattr(error, "lineno", None)
        if not row:
            return text
        lines = source.split("\n")
        code = lines[row - 1].strip()[:120] if row <= len(lines) else ""
        return f"{text[:140]}: {code} ({'test ' if name == '<tests>' else ''}line {row + above})"
    except BaseException:  # a hostile exception class
        return type(error).__name__
