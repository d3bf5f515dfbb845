"""The code blocks of a Markdown answer: fences by CommonMark's rules, and what models make of them.

Two things go beyond CommonMark, for a program's sake: a fence that stands in a string literal of the program ends no
block, and an opening fence may stand behind text in its line.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass

from plum_utils.syntax import parsed

MOST_PARSED = 100_000  # characters: longer texts count as not parsing, so that no text takes noticeable time
MOST_CUTS = 8          # places at which an end is tried, for the same reason
PYTHON = re.compile(r"i?py(thon)?[23]?(\.\d+)?")
UNMARKED = ("", "code", "text", "txt", "plaintext", "plain")  # tags that do not say which language it is

# Possessive (*+), so that a long line without an end is looked at once.
_TICKS = re.compile(r"([^`]*+)(`{3,}+)[ \t]*+\{?\.?([\w.+#-]*+)[^`]*+")
_TILDES = re.compile(r"([ \t]*+(?:(?:[-*+]|\d++[.)])[ \t]++)?+)(~{3,}+)[ \t]*+\{?\.?([\w.+#-]*+)[^\n]*+")
_FENCE = re.compile(r"([ \t]*+)(`{3,}+|~{3,}+)(.*+)")
_LIST_ITEM = re.compile(r"[ \t>]*+(?:(?:[-*+]|\d++[.)])[ \t]++)?+")
# What Python reads from left to right up to a string of three quotes that does not end.
_IN_A_STRING = re.compile(r"""(?:[^#'"\\]|\\.|\#[^\n]*+|\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}"""
                          r"""|"(?!"")(?:\\.|[^"\\\n])*+"?|'(?!'')(?:\\.|[^'\\\n])*+'?)*+(?:\"{3}|'{3})""", re.DOTALL)
_TAG = r"(?:think|thinking|thought|reasoning|scratchpad)"
_REASONING_ENDS = re.compile(rf"^[ \t]*[<\[]/{_TAG}[>\]]|[<\[]/{_TAG}[>\]][ \t]*$", re.MULTILINE | re.IGNORECASE)
_REASONING_BEGINS = re.compile(rf"^[ \t]*[<\[]{_TAG}[>\]]", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A fenced part of an answer. ``tag``: its language in small letters, as it was written."""

    tag: str
    text: str

    @property
    def is_python(self) -> bool:
        return PYTHON.fullmatch(self.tag) is not None

    @property
    def may_be_python(self) -> bool:
        return self.is_python or self.tag in UNMARKED


def plain_lines(text: str) -> str:
    """Text without a byte-order mark, its lines ended by ``\\n``."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def without_reasoning(text: str) -> str:
    """The answer that follows a model's reasoning (``<think> ... </think>``, whose opening tag the prompt may hold)."""
    ends = list(_REASONING_ENDS.finditer(text))
    if ends:
        text = text[ends[-1].end():]
    begins = _REASONING_BEGINS.search(text)
    return text[:begins.start()] if begins else text


def opening_fence(line: str) -> str:
    """The marks of the fence that a line opens, an empty string where it opens none."""
    opening = _TICKS.fullmatch(line) or _TILDES.fullmatch(line)
    return opening[2] if opening else ""


def blocks_of(text: str, at: int = 0) -> list[Block]:
    """The fenced blocks of a text from line ``at`` on; one without an end reaches to the end of the text."""
    lines, blocks = text.split("\n"), []
    while at < len(lines):
        opening = _TICKS.fullmatch(lines[at]) or _TILDES.fullmatch(lines[at])
        at += 1
        if opening:
            prefix, fence, tag = opening.groups()
            indent = len(prefix.expandtabs(4)) if _LIST_ITEM.fullmatch(prefix) else 0
            end = _end(lines, at, fence, indent, Block(tag.lower(), "").may_be_python)
            blocks.append(Block(tag.lower(), _body(lines[at:end], prefix)))
            at = end + 1 if end < len(lines) and closes_only(lines[end]) else end
    return blocks


def first_fence(lines: list[str]) -> int | None:
    """The number of the first line that begins with a fence."""
    return next((place for place, line in enumerate(lines) if _FENCE.match(line)), None)


def closes_only(line: str) -> bool:
    """Whether a line that begins with a fence says no more, so that it may close a block."""
    match = _FENCE.match(line)
    return match is not None and not match[3].strip()


def _end(lines: list[str], start: int, fence: str, indent: int, python: bool) -> int:
    """The line of the fence that closes a block, the number of all lines where there is none.

    The first one that CommonMark takes; in a program, the first at which no string is open, or where none is such, at
    which the program parses. A fence with a tag behind it ends a program too that parses up to it, and opens another
    one: it could be no part of it.
    """
    tried: list[int] = []
    for place in range(start, len(lines)):
        match = _FENCE.match(lines[place])
        if not match or not match[2].startswith(fence) or len(match[1].expandtabs(4)) > indent + 3:
            continue
        bare = closes_only(lines[place])
        if not python or bare and not tried and not in_a_string("\n".join(lines[start:place])):
            if bare:
                return place
            continue
        if tree_of(_body(lines[start:place], " ")) is not None:
            return place
        tried += [place] if bare else []
        if len(tried) > MOST_CUTS:
            break
    return tried[0] if tried else len(lines)


def in_a_string(text: str) -> bool:
    """Whether a text, read as Python, ends within a string of three quotes."""
    return _IN_A_STRING.match(text) is not None


def _body(lines: list[str], prefix: str) -> str:
    body = "\n".join(lines)
    if prefix and _LIST_ITEM.fullmatch(prefix):
        body = textwrap.dedent(body)  # a block in a list is indented as a whole
    return body.strip("\n")


def tree_of(source: str) -> ast.Module | None:
    """``syntax.parsed`` of a text that is not too long."""
    return parsed(source) if len(source) <= MOST_PARSED else None
