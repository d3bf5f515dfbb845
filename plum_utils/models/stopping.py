"""Where a completion ends that its model would go on with: the same rule for every engine."""

from __future__ import annotations

import re

from plum_utils.models.extract import ends_program

_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*\r?\n", re.MULTILINE)


def stopping_point(text: str, stop: list[str], after_program: bool, seen: int = 0) -> int | None:
    """The number of characters after which a completion ends, ``None`` where it goes on.

    It ends with the stop string that is complete first, or with the fence that closes its first program. What is cut off
    is never sampled otherwise: the text is the beginning of the one that the model would have written without a stop.

    Args:
        after_program: ``sampling.stop_after_program`` (``extract.ends_program``).
        seen: so many characters were asked about before, and nothing ended in them.
    """
    found = ((mark, text.find(mark, max(0, seen - len(mark) + 1))) for mark in stop)
    ends = [place + len(mark) for mark, place in found if place >= 0]
    if after_program:
        lines = _FENCE_LINE.finditer(text, text.rfind("\n", 0, seen) + 1)
        ends += [line.end() for line in lines if ends_program(text[:line.end()])][:1]
    return min(ends, default=None)
