"""Stage 1: a generator's response -> the four parts that Figure 3 asks for, however Markdown wraps them.

A heading is a line that holds a section's name between marks that are no words: ``[Solution]``, ``## Solution``,
``**[Solution]:**``, ``1. [Solution]``, ``> [Solution]``, ``<h3>Solution</h3>``; text may follow behind brackets, a colon,
bold letters or after ``#``. Of several such lines for one section those count that look most like one: without text
behind the name, in brackets, with marks. No line inside of a fence, of a string or of the model's reasoning is one. Of a
section's fenced blocks Python's are its code, or, where none is marked so, those without a language.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from plum_utils.models.blocks import (
    MOST_CUTS,
    blocks_of,
    in_a_string,
    opening_fence,
    plain_lines,
    tree_of,
    without_reasoning,
)

SECTIONS = ("Analysis", "Solution", "Start Code", "Test Code")
_NAMES = {name.replace(" ", "").lower(): name for name in SECTIONS}
_MARKS = r"[\W_]*+"  # possessive, so that a long line is looked at once
_WORDS = r"(analysis|solution|start[ \t_-]*code|test[ \t_-]*code)"
_NUMBER = rf"(?:(?:step|part|section){_MARKS})?+(?:(?:\d{{1,2}}|[ivx]{{1,3}}|[a-d])[\W_]++){{0,3}}+"
_LINE = re.compile(rf"({_MARKS}{_NUMBER})(?<!/){_WORDS}(?![^\W_])(?:[ \t]+section\b)?({_MARKS})(.*)", re.IGNORECASE)
_HTML = re.compile(rf"</?(?!{_WORDS})[A-Za-z][^<>]{{0,80}}>", re.IGNORECASE)
_RULE = r"(?:-[ \t]*+){3,}+|(?:\*[ \t]*+){3,}+|(?:_[ \t]*+){3,}+|={3,}+[ \t]*+|[-=]{3,}+[ \t]*+\w[\w \t]*+[-=]{3,}+"
_NO_CODE = re.compile(rf"[ \t]*+(?:{_RULE}|(?:<[/!A-Za-z][^<>]{{0,80}}>[ \t]*+)++|\[/{_WORDS}\])", re.IGNORECASE)
_LAST_RULE = re.compile(rf"\n[ \t]*+(?:{_RULE}|\[/?[A-Z][\w \t]*+\])\s*+$")
_PROSE = re.compile(r"[#>*\- \t]*+[A-Z][\w'’]*+[,:;.!]?[ \t]+[\w\"'`]|[ \t]*+(?:\[[A-Z][\w \t]*+\]|\*\*[^*]++\*\*:?)[ \t]*+$")
MOST_HEADINGS = 50  # lines that look like one; more are no response, and take no time
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
    analysis = "\n".join(bodies["Analysis"]).strip()
    response = GeneratorResponse(analysis, *(_code(*bodies[name]) for name in SECTIONS[1:]))
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


class _Heading(NamedTuple):
    place: int
    name: str
    rest: str  # of its line
    marks: str  # around its words
    unlike: tuple[bool, bool, bool]  # the lesser, the more it looks like a heading


def _sections(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Section name -> what stands in its heading's line, and its text."""
    lines = _unwrapped(lines)
    marks = _headings(lines)
    names = tuple(mark.name for mark in marks)
    missing = [name for name in SECTIONS if name not in names]
    if missing:
        raise MalformedResponse(f"no [{missing[0]}] section")
    if names != SECTIONS:
        raise MalformedResponse("sections repeated or out of order")
    ends = [mark.place for mark in marks[1:]] + [len(lines)]
    bodies = ["\n".join([_fence_behind(lines[mark.place]), *lines[mark.place + 1:end]]).strip("\n")
              for mark, end in zip(marks, ends)]
    quoted = [lines[mark.place].lstrip().startswith(">") for mark in marks]
    return {mark.name: (mark.rest, re.sub(r"^[ \t]*> ?", "", body, flags=re.MULTILINE) if quote else body)
            for mark, body, quote in zip(marks, bodies, quoted)}


def _fence_behind(heading: str) -> str:
    """The opening fence in a heading's line, with its tag."""
    fence = opening_fence(heading)
    return heading[heading.index(fence):] if fence else ""


def _unwrapped(lines: list[str]) -> list[str]:
    """The lines without a fence around the whole response, which stands right before its first heading."""
    first = next((place for place, line in enumerate(lines) if _heading(place, line)), 0)
    before = [place for place in range(first) if lines[place].strip()]
    fence = opening_fence(lines[before[-1]]) if before else ""
    if not fence:
        return lines
    closing = [place for place in range(first, len(lines)) if lines[place].strip() == fence]
    return [line for place, line in enumerate(lines) if place not in (before[-1], *closing[-1:])]


def _headings(lines: list[str]) -> list[_Heading]:
    """The headings; of several for one section those that look most like one."""
    found, fence, start, looked, after = [], "", 0, 0, -1
    for place, line in enumerate(lines):
        heading = _heading(place, line)
        if fence and heading:
            if after < place:
                rest = range(place, len(lines))
                after = next((i for i in rest if lines[i].strip().startswith(fence)), len(lines))
            if after == len(lines) or lines[after].strip().strip(fence[0]):
                fence = ""  # one that nobody closes ends with its section
        if fence:
            bare = line.strip()
            fence = "" if bare.startswith(fence) and not bare.strip(fence[0]) else fence
        elif heading:
            looked += 1
            if looked <= MOST_HEADINGS and not in_a_string("\n".join(lines[start:place])):
                found.append(heading)
                start, fence, after = place + 1, opening_fence(line), -1
        else:
            fence, after = opening_fence(line), -1
    first = min(found, key=lambda mark: (mark.name != SECTIONS[0], mark.unlike), default=None)
    unlike = [(mark.unlike, first is None or mark.marks != first.marks) for mark in found]
    best = {name: min(one for one, mark in zip(unlike, found) if mark.name == name) for name in {mark.name for mark in found}}
    return [mark for one, mark in zip(unlike, found) if one == best[mark.name]]


def _heading(place: int, line: str) -> _Heading | None:
    bare = _HTML.sub("", line) if "<" in line else line
    match = _LINE.fullmatch(bare)
    if not match:
        return None
    before, words, after, rest = match.groups()
    brackets = re.search(r"[\[【]", before) is not None and re.search(r"[\]】]", after) is not None
    marked = bare != line or re.search(r"[#*`:：]|__", before + after) is not None
    if rest and not brackets and not marked:
        return None
    name, marks = _NAMES[re.sub(r"[ \t_-]", "", words).lower()], re.sub(r"[^\W_]", "", before + after)
    return _Heading(place, name, rest.strip(), marks, (bool(rest), not brackets, not marked))


def _code(rest: str, section: str) -> str:
    """A section's code, which may stand in its heading's line if nothing follows."""
    blocks = [block for block in blocks_of(section) if block.may_be_python]
    python = [block for block in blocks if block.is_python]
    blocks = python or [block for block in blocks if tree_of(block.text) is not None] or blocks
    if blocks or blocks_of(section):
        return "\n".join(block.text.rstrip() for block in blocks)
    return _unfenced(section) or rest


def _unfenced(section: str) -> str:
    """A section without fences; where it is no Python, without Markdown's rules, and without prose before and behind it."""
    section = _LAST_RULE.sub("", section)
    text = textwrap.dedent(section).strip()
    if tree_of(text) is not None:
        return text
    kept = "\n".join(line for line in section.split("\n") if not _NO_CODE.fullmatch(line))
    lines = textwrap.dedent(kept).strip().split("\n")
    while lines and (not lines[0].strip() or _PROSE.match(lines[0])):
        del lines[0]
    ends = [place for place, line in enumerate(lines) if _PROSE.match(line)]
    cuts = ("\n".join(lines[:end]).strip() for end in [len(lines), *islice(ends, MOST_CUTS)])
    return next((cut for cut in cuts if cut and tree_of(cut) is not None), text)


def _check_code(name: str, code: str) -> None:
    if not code.strip():
        raise MalformedResponse(f"empty [{name}] section")
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise MalformedResponse(f"[{name}] is not Python ({type(error).__name__})") from error
