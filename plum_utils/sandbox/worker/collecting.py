"""Tests that a suite defines and does not call itself, called as pytest and unittest would call them.

Of pytest there are ``parametrize``, ``skip``, ``skipif`` and ``xfail`` (both left out), set-up and tear-down by name, fixtures
(made anew for each test, whatever their scope), and the fixtures of ``OFFERED``. A test that needs another one is left out.
"""

import collections
import contextlib
import inspect
import io
import traceback
import types

SKIPS = ("Skipped", "XFailed", "SkipTest")


class Missing(Exception):
    """A fixture that nobody supplies."""


def call_tests(names, module):
    found = [vars(module)[name] for name in names if name in vars(module)]
    if found:
        hook(module, "setup_module", module)
    for test in found:
        if hasattr(test, "defaultTestResult"):
            import unittest
            unittest.defaultTestLoader.loadTestsFromTestCase(test).run(unittest.TestResult())
        elif isinstance(test, type):
            call_methods(test, module)
        elif callable(test):
            call(test, module, None, "function")
    if found:
        hook(module, "teardown_module", module)


def call_methods(kind, module):
    """Call the test methods of a class, each of an object of its own; pytest collects none that is made of arguments."""
    if needed(kind):
        return
    hook(kind, "setup_class", kind)
    for name in dict.fromkeys(name for one in reversed(kind.__mro__) for name in vars(one) if name.startswith("test")):
        instance = kind()
        if callable(getattr(instance, name)):
            call(getattr(instance, name), module, instance, "method")
    hook(kind, "teardown_class", kind)


def hook(holder, name, argument):
    function = getattr(holder, name, None)
    if function is not None:
        function(*[argument][:len(inspect.signature(function).parameters)])


def call(test, module, instance, what):
    """Call a test, with what ``setup_<what>`` and ``teardown_<what>`` do, once for each set of its arguments."""
    holder, fixtures = module if instance is None else instance, fixtures_of(module, instance)
    marks = [mark for one in (test, type(instance), module) for mark in marks_of(one)]
    automatic = [name for name, (marker, _) in fixtures.items() if marker.autouse]
    names = [*automatic, *needed(test)]
    for given in [] if left_out(marks) else cases(marks, names, fixtures):
        taken = [*needed(test), *(name for name in given if type(name) is str)]
        try:
            with contextlib.ExitStack() as ends:
                for name in names:
                    supply(name, given, fixtures, ends)
                hook(holder, f"setup_{what}", test)
                result = test(**{name: given[name] for name in taken})
                if inspect.iscoroutine(result):
                    import asyncio
                    asyncio.run(result)
                hook(holder, f"teardown_{what}", test)
        except Missing:
            return
        except BaseException as error:
            if not skipped(error):
                raise


def skipped(error):
    """Whether a test, and not the candidate, asked to be left out: in a function that speaks of it."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [code.co_names for code in codes if code.co_filename == "<tests>"][-1:]
    return (type(error).__name__ in SKIPS and not any(code.co_filename == "<solution>" for code in codes)
            and any("skip" in name.lower() or "xfail" in name for some in names for name in some))


def needed(function):
    """The names of the arguments that somebody has to give; ``mock.patch`` gives the first ones."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    names = [one.name for one in parameters if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return names[len(getattr(function, "patchings", ())):]


def marks_of(holder):
    marks = getattr(holder, "pytestmark", [])
    return marks if isinstance(marks, list) else [marks]


def left_out(marks):
    return any(mark.name == "skip" or mark.name in ("skipif", "xfail") and all(mark.args[:1]) and mark.kwargs.get("condition", True)
               for mark in marks)


def cases(marks, names, fixtures):
    """The sets of arguments: those of ``parametrize`` by their names, those of fixtures with ``params`` by (name,)."""
    found = [{}]
    for mark in marks:
        if mark.name == "parametrize":
            said = dict(zip(("argnames", "argvalues"), mark.args)) | mark.kwargs
            some = said["argnames"]
            some = [name.strip() for name in some.split(",") if name.strip()] if isinstance(some, str) else list(some)
            rows = [row for row in map(row_of, said["argvalues"]) if not left_out(row[1])]
            rows = [values if wrapped or len(some) > 1 else (values,) for values, _, wrapped in rows]
            found = [case | dict(zip(some, row)) for row in rows for case in found]
    for name in closure(names, fixtures):
        if fixtures[name][0].params:
            found = [case | {(name,): row_of(value)[0]} for value in fixtures[name][0].params for case in found]
    return found


def row_of(value):
    """(values, marks, whether it was a ``pytest.param``) of a row."""
    if type(value).__name__ == "ParameterSet":
        return value.values, value.marks, True
    return value, (), False


def closure(names, fixtures):
    """The fixtures among some names, and those which they need."""
    found, waiting = [], list(names)
    while waiting:
        name = waiting.pop(0)
        if name in fixtures and name not in found:
            found.append(name)
            waiting += needed(fixtures[name][1])
    return found


def fixtures_of(module, instance):
    """Name -> (pytest's marker, the function that makes it)."""
    found = {}
    methods = [(name, value) for one in reversed(type(instance).__mro__) for name, value in vars(one).items()]
    for name, one in [*list(vars(module).items()), *methods]:
        marker = getattr(one, "_fixture_function_marker", None) or getattr(one, "_pytestfixturefunction", None)
        if type(marker).__name__ == "FixtureFunctionMarker":
            own = vars(module).get(name) is not one
            found[marker.name or name] = marker, one.__wrapped__.__get__(instance) if own else one.__wrapped__
    return found


def supply(name, given, fixtures, ends):
    """Put a fixture's value, and those that it needs, into ``given``.

    Raises:
        Missing: nobody makes it.
    """
    if name not in given and name in fixtures:
        function = fixtures[name][1]
        asked = {"request": types.SimpleNamespace(param=given.get((name,)))}
        for one in needed(function):
            supply(one, asked if one == "request" else given, fixtures, ends)
        value = function(**{one: (given | asked)[one] for one in needed(function)})
        if inspect.isgenerator(value):
            ends.callback(next, value, None)
            value = next(value)
        given[name] = value
    if name not in given and name in OFFERED:
        given[name] = OFFERED[name](ends)
    if name not in given:
        raise Missing(name)


class Captured:
    """What pytest calls ``capsys``."""

    Result = collections.namedtuple("Result", ["out", "err"])

    def __init__(self, ends):
        self.files = [ends.enter_context(redirect(io.StringIO()))
                      for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr)]

    def readouterr(self):
        texts = [file.getvalue() for file in self.files]
        for file in self.files:
            file.seek(0)
            file.truncate()
        return self.Result(*texts)


def monkeypatch(ends):
    import pytest
    return ends.enter_context(pytest.MonkeyPatch.context())


def tmp_path(ends):
    import pathlib
    import tempfile
    return pathlib.Path(ends.enter_context(tempfile.TemporaryDirectory()))


OFFERED = {"capsys": Captured, "monkeypatch": monkeypatch, "tmp_path": tmp_path}
