"""``plum_utils.exercises``: what a student reads when an answer is missing or wrong."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from plum_utils.exercises import Exercise, NotRight, same


def half(n):
    return n / 2


def message(call) -> str:
    with pytest.raises(NotRight) as caught:
        call()
    assert caught.value._render_traceback_() == str(caught.value).splitlines()
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_a_blank_says_what_to_replace_and_where():
    def square(n):
        raise NotImplementedError()

    for call in (lambda: Exercise(3, square).expect((2,), 4), lambda: Exercise(3, square).value((2,)),
                 lambda: Exercise(3, square).refuse((2,), ValueError)):
        assert message(call) == ("Exercise 3 is not written yet: replace `raise NotImplementedError()` in `square`, "
                                 "run that cell, then run this one again.")


def test_an_answer_that_needs_a_blank_one_names_that_one():
    def square(n):
        raise NotImplementedError()

    def fourth(n):
        return square(square(n))

    said = message(lambda: Exercise(4, fourth).expect((2,), 16))
    assert "Exercise 4 uses an earlier answer" in said and "in `square`" in said


def test_a_wrong_answer_shows_input_wanted_got_and_hint():
    said = message(lambda: Exercise(1, half).expect((7,), 3, "whole numbers"))
    assert said.splitlines() == ["Exercise 1, `half`: another result than expected.", "    n         7",
                                 "    expected  3", "    got       3.5", "Hint: whole numbers"]


def test_a_text_of_several_lines_is_shown_as_a_block():
    said = message(lambda: Exercise(1, lambda text: 0).expect(("a\n  b",), 1))
    assert "    text:\n        a\n          b\n" in said


def test_an_argument_may_have_a_name_of_the_message():
    said = message(lambda: Exercise(1, lambda got, expected: 0).expect((5, 6), 7))
    assert said.splitlines()[1:] == ["    got       5", "    expected  6", "    expected  7", "    got       0"]


def test_long_values_are_cut():
    said = message(lambda: Exercise(1, lambda text: text).expect((["x" * 5000] * 5000,), 1))
    assert len(said) < 4000


def test_an_error_in_the_answer_is_told_with_its_line():
    def broken(n):
        return n / 0

    said = message(lambda: Exercise(2, broken).expect((1,), 1))
    assert "stopped with ZeroDivisionError: division by zero in line" in said and "return n / 0" in said
    assert "    n         1" in said and "    expected  1" in said
    assert "stopped with ZeroDivisionError" in message(lambda: Exercise(2, broken).refuse((1,), ValueError))


def test_a_changed_signature_is_an_error_like_others():
    said = message(lambda: Exercise(2, half).expect((1, 2), 1))
    assert "TypeError" in said and "argument 2" in said


def test_a_missing_return_is_named():
    assert "is a `return` missing?" in message(lambda: Exercise(2, lambda n: None).expect((1,), 1))


def test_refuse_wants_this_error():
    def strict(n):
        raise ValueError("no")

    exercise = Exercise(1, strict)
    exercise.refuse((1,), ValueError)
    assert exercise.checks == 1
    said = message(lambda: Exercise(1, half).refuse((3,), ValueError, "halves"))
    assert "nothing was refused" in said and "an error, ValueError" in said and "1.5" in said and "halves" in said


def test_the_answer_gets_copies():
    def greedy(items):
        items.clear()
        return 0

    items = [1]
    Exercise(1, greedy).expect((items,), 0)
    assert items == [1]


def test_require_and_done(capsys):
    exercise = Exercise(5, half)
    exercise.require(True, "no")
    exercise.done()
    assert capsys.readouterr().out == "Exercise 5: `half` is right (1 checks).\n"
    said = message(lambda: exercise.require(False, "too small.", (1,), "look", expected=2, got=1))
    assert said.splitlines()[0] == "Exercise 5, `half`: too small." and said.endswith("Hint: look")


@pytest.mark.parametrize("one, two", [
    (1, 1.0), (0.1 + 0.2, 0.3), (math.nan, math.nan), ([1, 2.0], (1.0, 2)), ({"a": [1]}, {"a": (1.0,)}),
    (np.array([1.0, 2.0]), [1, 2]), (np.bool_(True), True), (np.float64(0.5), 0.5), ("a", "a"),
    (None, None), ({1}, {1}),
    (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1.0]})), (pd.Series([1, 2]), [1, 2])])
def test_same(one, two):
    assert same(one, two) and same(two, one)


@pytest.mark.parametrize("one, two", [
    (1, 2), (0.3, 0.3001), (True, 1), (None, 0), (None, False), ([1], [1, 2]), ([1, 2], [2, 1]), ({"a": 1}, {"b": 1}),
    ("1", 1), ([], {}), (math.nan, 0.0), (10**20, 10**20 + 1), ("a", ["a"]), (pd.DataFrame({"a": [1]}), 1)])
def test_not_same(one, two):
    assert not same(one, two) and not same(two, one)


def test_tensors_are_compared_by_value():
    torch = pytest.importorskip("torch")
    assert same(torch.tensor([1.0, 2.0], requires_grad=True), [1, 2]) and same(torch.tensor(0.5), 0.5)
    assert not same(torch.tensor([1.0]), 1.0)
    assert "got       [0.1]" in message(lambda: Exercise(1, lambda n: torch.tensor([0.1])).expect((1,), 2))
