"""LiveCodeBench's two rules for the output of a script."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.sandbox import Limits, Program, Sandbox, outputs


@pytest.mark.parametrize("got, expected, current, v2024", [
    ("7\n", "7", True, True), ("  7  \n", "7\n", True, True), ("8", "7", False, False), ("", "7", False, False),
    ("", "", True, True), ("1\n2", "1 \n2\n", True, True), (" 1\n 2 ", "1\n2", True, True), ("1\n2\n3", "1\n2", False, False),
    ("1\n\n2\n", "1\n2\n", False, True), ("1\n2\n", "1\n\n2\n", False, True), ("1\n \n2", "1\n2", False, False),
    ("\n\n1\n2", "1\n2", True, True), ("1  2", "1 2", True, False), ("1.0 2", "1 2", True, False), ("2 1", "1 2", False, False),
    ("7.0", "7", True, True), ("1e1", "10", True, True), ("+7", "7", True, True), ("007", "7", True, False),
    ("7\n8.0", "7\n8", True, True), ("0.3333333333", "0.3333333334", False, True), ("0.3334", "0.3333", False, False),
    ("1.00001", "1", False, True), ("1.0001", "1", False, False), ("100000", "100001", False, False),
    ("100000.0", "100001", False, True), ("-100000", "-100001", False, True), ("0.00000001", "0", False, True),
    ("0.1 0.2", "0.1 0.20000001", False, False), ("nan", "nan", True, True), ("nan ", "NaN", False, False), ("inf", "Infinity", True, True),
    ("inf", "1.5", False, False), ("Yes", "YES", False, False), ("True", "true", False, False), ("1_0.5", "10.5", True, True),
    ("1\x0c2", "1\n2", False, True), ("1\r\n2\r\n", "1\n2", True, True)])
def test_outputs_are_the_same_by_either_rule(got, expected, current, v2024):
    assert outputs.same(got, expected) is outputs.same(got, expected, "current") is current
    assert outputs.same(got, expected, "v2024") is v2024
    for rule, passed in (("current", current), ("v2024", v2024)):
        assert (outputs.difference(got, expected, rule) == "") is passed


NUMBERS = st.lists(st.floats() | st.integers(-2, 2).map(float) | st.floats(0.99999, 1.00001), min_size=1, max_size=3)


@given(NUMBERS, NUMBERS)
def test_near_is_numpys_allclose(ours, theirs):
    got, expected = ("\n".join(f"{one!r}" for one in side) for side in (ours, theirs))
    near = got == expected or len(ours) == len(theirs) and bool(np.allclose(ours, theirs))
    assert outputs.same(got, expected, "v2024") == near


@given(st.text("01. \n"), st.text("01. \n"))
def test_a_difference_is_told_by_either_rule(got, expected):
    for rule in outputs.RULES:
        assert outputs.same(got, got, rule)
        assert outputs.same(got, expected, rule) == (not outputs.difference(got, expected, rule))


def test_a_program_names_the_rule_of_its_cases():
    cases = (("", "1\n2\n"), ("", "1\n2\n"), ("", "1\n2\n"))
    with Sandbox(1, Limits(seconds=10)) as sandbox:
        found = sandbox.run([Program(rule, "print(1, 2, sep='\\n\\n')", mode="script", cases=cases, rule=rule)
                             for rule in outputs.RULES])
    assert [one.status for one in found] == ["failed", "passed"]
