"""A suite of tests, run as the script that it is, with the tests that nobody called called at its end."""

import builtins
import re
import sys
import threading
import traceback

import collecting

ENDS = re.compile(r"\b(?:exit|quit|SystemExit)\b")


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
    streams, limit = (sys.stdout, sys.stderr), sys.getrecursionlimit()
    failures = watch_unittest() if "unittest" in suite.text else []
    if "pytest" in suite.text:
        leave_to_us()
    if suite.checks is not None:
        watch(frozenset(suite.checks), seen, peer is not None)
    try:
        return (finished(lambda: exec(code, module.__dict__), suite, peer, failures)
                or finished(lambda: collecting.call_tests(suite.collect, module), suite, peer, failures))
    finally:
        sys.settrace(None)
        threading.settrace(None)
        names.clear()  # what a suite gives Python's own names is its own
        names.update(kept)
        sys.stdout, sys.stderr = streams
        sys.setrecursionlimit(limit)


def finished(act, suite, peer, failures):
    try:
        act()
    except MemoryError:
        return "memory", "MemoryError in tests"
    except SystemExit as error:
        if not failures and error.code not in (None, 0):
            return "failed", f"the tests exited with status {str(error.code)[:60]}"
        if not failures and not own_exit(error, suite, peer):
            return "failed", "exited before the tests finished"
    except BaseException as error:
        return "failed", suite.describe(error)
    return ("failed", suite.describe(failures[0])) if failures else None


def own_exit(error, suite, peer):
    """Whether the tests themselves, and not the candidate, ended their script. In a shared process unittest's own exit is
    known to be theirs, and one in a line of theirs that speaks of it."""
    if peer is not None:
        return not any(error is one for one in peer.exits)
    rows = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    files, main = [name for name, _ in rows], sys.modules.get("unittest.main")
    if "<solution>" in files or "<tests>" not in files:
        return False
    line = [line for name, line in rows if name == "<tests>"][-1]
    return main is not None and files[-1] == main.__file__ or ENDS.search(suite.text.split("\n")[line - 1]) is not None


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
    threading.settrace(calls)


def leave_to_us():
    """Let ``pytest.main``, which looks for files, do nothing: tests that nobody called are called at the end."""
    try:
        import pytest
    except ImportError:
        return
    pytest.main = pytest.console_main = lambda *_, **__: 0


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
