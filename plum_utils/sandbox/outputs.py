"""When the output of a script is the expected one: LiveCodeBench's rule, read from its grader."""

from __future__ import annotations

from decimal import Decimal


def same(got: str, expected: str) -> bool:
    """Line by line without outer blanks; where the texts differ, as numbers, word by word."""
    ours, theirs = _lines(got), _lines(expected)
    return len(ours) == len(theirs) and all(map(_equal, ours, theirs))


def difference(got: str, expected: str) -> str:
    """Nothing where the outputs are the same, else what to say of it: the first line that differs."""
    if same(got, expected):
        return ""
    pairs = zip(_lines(got) + ["(nothing)"], _lines(expected) + ["(nothing)"])
    one, two = next((pair for pair in pairs if not _equal(*pair)), ("more", "less"))
    return f"printed {one[:100]!r}, expected {two[:100]!r}"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _equal(one: str, two: str) -> bool:
    if one == two:
        return True
    numbers = _numbers(one)
    return numbers is not None and numbers == _numbers(two)


def _numbers(line: str) -> list[Decimal] | None:
    try:
        return [Decimal(word) for word in line.split()]
    except ArithmeticError:
        return None
