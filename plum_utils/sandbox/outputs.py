"""When the output of a script is the expected one: LiveCodeBench's two rules, read from its graders.

``current`` is that of today (since January 2025), ``v2024`` the one before it.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import Callable


def same(got: str, expected: str, rule: str = "current") -> bool:
    """Whether the output is the expected one by one of ``RULES``."""
    return RULES[rule](got, expected)


def difference(got: str, expected: str, rule: str = "current") -> str:
    """Nothing where the outputs are the same, else what to say of it: the first line that differs."""
    if same(got, expected, rule):
        return ""
    pairs = zip(_lines(got) + ["(nothing)"], _lines(expected) + ["(nothing)"])
    one, two = next((pair for pair in pairs if not _equal(*pair)), (got, expected))
    return f"printed {one[:100]!r}, expected {two[:100]!r}"


def same_current(got: str, expected: str) -> bool:
    """Line by line without outer blanks; where the texts differ, as numbers, word by word."""
    ours, theirs = _lines(got), _lines(expected)
    return len(ours) == len(theirs) and all(map(_equal, ours, theirs))


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


def same_v2024(got: str, expected: str) -> bool:
    """The same text without blanks around it, or around each line of the output; or the same lines, where empty ones do
    not count; or one number a line, each near enough. Whole numbers are compared as text where all are whole."""
    lines, wanted = got.splitlines(), [line.strip() for line in expected.split("\n") if line]
    filled = [line for line in lines if line]
    stripped = "\n".join(line.strip() for line in lines).strip()
    return (expected.strip() in ("\n".join(lines).strip(), stripped) or wanted in (lines, filled)
            or _near(filled, wanted))


def _near(lines: list[str], wanted: list[str]) -> bool:
    if all(one.isdigit() and two.isdigit() for one, two in zip(lines, wanted)):
        return False
    try:
        pairs = [(float(one), float(two)) for one, two in zip(lines, wanted, strict=True)]
    except ValueError:
        return False
    return all(one == two or isfinite(two) and abs(one - two) <= 1e-8 + 1e-5 * abs(two) for one, two in pairs)


RULES: dict[str, Callable[[str, str], bool]] = {"current": same_current, "v2024": same_v2024}
