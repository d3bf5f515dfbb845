"""The rule for the marker ``long``, and the measured seconds that it is checked against (``durations.txt``).

``make test`` leaves out what is long and must end within ten minutes; ``make test-long`` is the rest. A test is marked
``@pytest.mark.long(why)`` if it

- takes more than 20 seconds on two cores, its fixtures' set-up included, or repeats what another test has shown once,
  with another layer or seed, and takes that long as a whole (``seconds``);
- or guards what only another version of a package can break (``upgrade``);
- or needs a ``browser``, a ``cluster`` (Ray, or several processes that train together) or a ``card``.

The one exception is the file in ``KEPT``. To measure, on a quiet machine with two cores:

    .venv/bin/python -m pytest --record-durations

A part of the tests (a file, ``-m "not long"``) replaces its own lines only, so that new tests can be measured alone.
"""

from __future__ import annotations

import ast
import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("durations.txt")
MOST = 20.0   # seconds
LEAST = 0.5   # less is not worth a line
WHY = {"seconds", "upgrade", "browser", "cluster", "card"}
# In `make test` however long it takes: the six notebooks, run by the fixture that all tests of this file share.
KEPT = "tests/lessons/test_smoke.py::"
MARKS = pytest.StashKey[dict[str, list[tuple]]]()  # of every test collected: the arguments of its markers `long`


def read() -> dict[str, float]:
    """Seconds of set-up and call by test; empty before the first measurement."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    parts = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return {test: float(seconds) for seconds, test in parts}


def write(found: dict[str, float]) -> None:
    head = (f"# Seconds of set-up and call by test, {os.cpu_count()} cores; {LEAST} s and more. Written by\n"
            "# `python -m pytest --record-durations`, see durations.py.\n")
    kept = {test: seconds for test, seconds in found.items() if seconds >= LEAST and exists(test)}
    ordered = sorted(kept.items(), key=lambda item: (-item[1], item[0]))
    FILE.write_text(head + "".join(f"{seconds:.1f} {test}\n" for test, seconds in ordered))


def unmarked(marks: dict[str, list[tuple]], found: dict[str, float]) -> list[str]:
    """The collected tests that took too long for ``make test`` and are not marked."""
    return [f"{test}: {found[test]} s" for test, why in marks.items()
            if found.get(test, 0) > MOST and not why and not test.startswith(KEPT)]


def exists(test: str) -> bool:
    """Whether the file still has the test's function; its parameters may be others."""
    file, _, name = test.partition("::")
    return name.partition("[")[0] in functions(FILE.parents[1] / file)


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text() if path.exists() else "")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


class Recorder:
    """Adds up what each test takes; a skipped one keeps the line that it has."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown" and not report.skipped:
            self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        write(read() | self.seconds)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-durations", action="store_true", help=f"write {FILE.name}: what each test takes")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--record-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())


@pytest.hookimpl(tryfirst=True)  # before `-m` takes some away
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[MARKS] = {item.nodeid: [mark.args for mark in item.iter_markers("long")] for item in items}
