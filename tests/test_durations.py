"""The rule for the marker ``long`` holds, and would not if a test broke it."""

from __future__ import annotations

import durations
import pytest
from durations import KEPT, MARKS, MOST, WHY


def test_what_takes_long_is_marked_long(pytestconfig):
    if not durations.FILE.exists():
        pytest.skip("nothing was measured yet: python -m pytest --record-durations")
    slow = durations.unmarked(pytestconfig.stash[MARKS], durations.read())
    assert slow == [], f"over {MOST:.0f} s: make them quicker or mark them long (tests/durations.py has the rule)"


def test_each_marker_gives_a_reason_of_the_rule(pytestconfig):
    marks = pytestconfig.stash[MARKS]
    assert {test: why for test, why in marks.items() if not {*why} <= {(one,) for one in WHY}} == {}


def test_long_tests_that_were_measured_are_still_there():
    """Under a new name they would not be checked."""
    gone = [test for test, seconds in durations.read().items() if seconds > MOST and not durations.exists(test)]
    assert gone == [], "rename these lines of tests/durations.txt, or take them out"


def test_a_test_that_is_too_slow_or_gone_is_found():
    found = {"t.py::a": MOST + 0.1, "t.py::b": MOST, "t.py::c": 90.0, f"{KEPT}d": 90.0}
    marks = dict.fromkeys(found, []) | {"t.py::c": [("cluster",)], "t.py::not_measured": []}
    assert durations.unmarked(marks, found) == ["t.py::a: 20.1 s"]
    assert durations.exists("tests/test_durations.py::test_a_test_that_is_too_slow_or_gone_is_found[x]")
    assert not durations.exists("tests/test_durations.py::test_of_another_name") and not durations.exists("tests/x.py::a")


def test_a_measurement_replaces_the_lines_of_its_own_tests(tmp_path, monkeypatch):
    here = "tests/test_durations.py::test_what_takes_long_is_marked_long"
    monkeypatch.setattr(durations, "FILE", tmp_path / "tests" / "durations.txt")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text("def test_a(): pass\ndef test_b(): pass\n")
    assert durations.read() == {}
    durations.write({"tests/test_x.py::test_a[1 2]": 3.0, "tests/test_x.py::test_b": 0.1, here: 9.0})
    assert durations.read() == {"tests/test_x.py::test_a[1 2]": 3.0}, "below half a second, or gone"
    recorder = durations.Recorder()
    for when, seconds, outcome in (("setup", 4.0, "passed"), ("call", 2.0, "failed"), ("teardown", 9.0, "passed")):
        recorder.pytest_runtest_logreport(report("tests/test_x.py::test_b", when, seconds, outcome))
    recorder.pytest_runtest_logreport(report("tests/test_x.py::test_a[1 2]", "setup", 0.0, "skipped"))
    recorder.pytest_sessionfinish()
    assert list(durations.read().items()) == [("tests/test_x.py::test_b", 6.0), ("tests/test_x.py::test_a[1 2]", 3.0)]


def report(test: str, when: str, seconds: float, outcome: str) -> pytest.TestReport:
    return pytest.TestReport(test, (test, 0, ""), {}, outcome, None, when, duration=seconds)
