"""Stage 1: a generator's response -> the four parts that Figure 3 asks for, however Markdown wraps them.

A heading is a line that holds a section's name and marks of Markdown: ``[Solution]``, ``## Solution``, ``**[Solution]:**``,
``1. [Solution]``, ``> [Solution]``, ``\\[Solution\\]``; behind one in brackets text may follow. No line inside of a fence, of a string or of the
model's reasoning is one. Of a section's fenced blocks Python's are its code, or, where none is marked so, those without a
language.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from plum_utils.models.blocks import blocks_of, in_a_string, plain_lines, tree_of, without_reasoning

SECTIONS = ("Analysis", "Solution", "Start Code", "Test Code")
_NAMES = {name.replace(" ", "").lower(): name for name in SECTIONS}
_WRAP = r"[ \t#*_`~>\\]*+"  # possessive, so that a long line is looked at once
_HTML = re.compile(r"</?[A-Za-z][^<>]{0,80}>")
_WORDS = r"(analysis|solution|start[ \t_-]*code|test[ \t_-]*code)"
_LINE = re.compile(rf"({_WRAP}(?:(?:[-+]|\d+[.)])[ \t]++)?+{_WRAP})(\[?){_WRAP}{_WORDS}{_WRAP}(\]?)({_WRAP}[:：]?{_WRAP})(.*)",
                   re.IGNORECASE)
_RULE = re.compile(r"[ \t]*+(?:(?:-[ \t]*+){3,}+|(?:\*[ \t]*+){3,}+|(?:_[ \t]*+){3,}+|={3,}+[ \t]*+)")
MOST_HEADINGS = 50  # lines that look like one; more are no response, and take no time
_FENCE_LINE = re.compile(r"[ \t]*(`{3,}|~{3,})")
# What was read before every wrapping of Markdown counted.
_STRICT_HEADING = re.compile(r"^[ \t]*(?:#+[ \t]*)?(?:\*\*)?\[(Analysis|Solution|Start Code|Test Code)\](?:\*\*)?:?[ \t]*$",
                             re.MULTILINE)
_STRICT_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)


class MalformedResponse(ValueError):
    """A generator response that does not follow Figure 3's format; the message is the counted reason."""


@dataclass(frozen=True)
class GeneratorResponse:
    """The four parts Figure 3 asks for."""

    analysis: str
    solution: str
    start_code: str
    test_code: str


def parse_response(text: str) -> GeneratorResponse:
    """Split a response at its section headings; code is taken out of its fences.

    Raises:
        MalformedResponse: a section is missing, twice there, empty, or out of order, or the code does not parse.
    """
    bodies = _sections(without_reasoning(plain_lines(text)).split("\n"))
    response = GeneratorResponse(bodies["Analysis"].strip(), *(_code(bodies[name]) for name in SECTIONS[1:]))
    for name, code in (("Solution", response.solution), ("Test Code", response.test_code)):
        _check_code(name, code)
    return response


def strictly_formatted(text: str) -> bool:
    """Whether a response is one that also a reading which knows fewer wrappings of headings and fences would take."""
    marks = list(_STRICT_HEADING.finditer(text))
    if tuple(mark[1] for mark in marks) != SECTIONS:
        return False
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = [text[mark.end():end] for mark, end in zip(marks, ends)]
    codes = ["\n".join(_STRICT_FENCE.findall(part)) or part.strip() for part in (parts[1], parts[3])]
    return all(code.strip() and tree_of(code) is not None for code in codes)


def _sections(lines: list[str]) -> dict[str, str]:
    """Section name -> its text."""
    marks = _headings(lines)
    names = tuple(name for _, name, _ in marks)
    missing = [name for name in SECTIONS if name not in names]
    if missing:
        raise MalformedResponse(f"no [{missing[0]}] section")
    if names != SECTIONS:
        raise MalformedResponse("sections repeated or out of order")
    ends = [place for place, _, _ in marks[1:]] + [len(lines)]
    return {name: "\n".join([rest, *lines[place + 1:end]]).strip("\n") for (place, name, rest), end in zip(marks, ends)}


def _headings(lines: list[str]) -> list[tuple[int, str, str]]:
    """(line, section, text behind it) of each heading. One with text behind it counts only where no line holds the
    section's name alone."""
    found, fence, start, looked = [], "", 0, 0
    for place, line in enumerate(lines):
        opened = _FENCE_LINE.match(line)
        heading = _heading(line)
        if fence and heading:
            places = range(place, len(lines))
            after = next((lines[i].strip() for i in places if lines[i].strip().startswith(fence)), "none")
            fence = "" if after.strip(fence[0]) else fence  # one that nobody closes ends with its section
        if fence:
            fence = "" if opened and opened[1].startswith(fence) and not line.strip().strip(fence[0]) else fence
        elif opened:
            fence = opened[1]
        elif heading:
            looked += 1
            if looked <= MOST_HEADINGS and not in_a_string("\n".join(lines[start:place])):
                found.append((place, *heading))
                start = place + 1
    alone = {name for _, name, rest in found if not rest}
    return [mark for mark in found if not mark[2] or mark[1] not in alone]


def _heading(line: str) -> tuple[str, str] | None:
    match = _LINE.fullmatch(_HTML.sub("", line) if "<" in line else line)
    if not match:
        return None
    before, opening, words, closing, after, rest = match.groups()
    if bool(opening) != bool(closing) or not opening and (rest.strip() or not re.search("[#*_:：]", before + after)):
        return None
    return _NAMES[re.sub(r"[ \t_-]", "", words).lower()], rest.strip()


def _code(section: str) -> str:
    blocks = [block for block in blocks_of(section) if block.may_be_python]
    blocks = [block for block in blocks if block.is_python] or blocks
    if blocks or blocks_of(section):
        return "\n".join(block.text.rstrip() for block in blocks)
    return "\n".join(line for line in section.split("\n") if not _RULE.fullmatch(line)).strip()


def _check_code(name: str, code: str) -> None:
    if not code.strip():
        raise MalformedResponse(f"empty [{name}] section")
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise MalformedResponse(f"[{name}] is not Python ({type(error).__name__})") from error
