"""The code blocks of a Markdown answer: fences by CommonMark's rules, and what models make of them.

Two things go beyond CommonMark, for a program's sake: a fence that stands in a string literal of the program ends no
block, and an opening fence may stand behind text in its line.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from typing import Iterator

from plum_utils.syntax import parsed

MOST_PARSED = 30_000   # characters: longer texts count as not parsing, so that no text takes noticeable time
MOST_CUTS = 8          # places at which an end is tried, for the same reason
PYTHON = re.compile(r"i?py(thon)?[23]?(\.\d+)?")
UNMARKED = ("", "code", "text", "txt", "plaintext", "plain", "none")  # tags that do not say which language it is
MARKDOWN = ("markdown", "md")  # an answer within the answer

# Possessive (*+), so that a long line without an end is looked at once.
_TICKS = re.compile(r"([^`]*+)(`{3,}+)[ \t]*+\{?\.?([\w.+#-]*+)[^`]*+")
_TILDES = re.compile(r"([ \t]*+(?:(?:[-*+]|\d++[.)])[ \t]++)?+)(~{3,}+)[ \t]*+\{?\.?([\w.+#-]*+)[^\n]*+")
_FENCE = re.compile(r"([ \t]*+)(`{3,}+|~{3,}+)(.*+)")
_LIST_ITEM = re.compile(r"[ \t>]*+(?:(?:[-*+]|\d++[.)])[ \t]++)?+")
# What Python reads from left to right up to a string of three quotes that does not end.
_IN_A_STRING = re.compile(r"""(?:[^#'"\\]|\\.|\#[^\n]*+|\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}"""
                          r"""|"(?!"")(?:\\.|[^"\\\n])*+"?|'(?!'')(?:\\.|[^'\\\n])*+'?)*+(?:\"{3}|'{3})""", re.DOTALL)
_NAME = r"(?:\w{1,20}:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)(?:[ \t][^<>\n]{0,200})?"
_REASONING = re.compile(rf"<(?P<end>/)?{_NAME}>|(?P<bracket>\[)(?P<end2>/)?{_NAME}\]|◁(?P<end3>/)?think▷"
                        r"|<\|(?:begin|(?P<end4>end))_of_thought\|>", re.IGNORECASE)
_QUOTED = re.compile(r"(?:^ {0,3}>(?!>)[^\n]*+\n?)++", re.MULTILINE)
_QUOTE_MARK = re.compile(r"^ {0,3}> ?", re.MULTILINE)
_INVISIBLE = str.maketrans({"\ufeff": None, "\u200b": None, "\u2060": None, "\u00a0": " "})
_END_TOKEN = re.compile(r"(?:<[|｜][\w▁]{1,30}[|｜]>|</s>)\Z")
_REPL = re.compile(r"(?:>>>|\.\.\.)(?: |$)")


@dataclass(frozen=True)
class Block:
    """A fenced part of an answer. ``tag``: its language in small letters, as it was written. ``ends``: with a fence."""

    tag: str
    text: str
    ends: bool = True

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
    """The answer beside a model's reasoning (``<think> ... </think>``, whose opening tag the prompt may hold).

    A tag counts at the begin or the end of its line, and not where it is part of a program.
    """
    tags = list(_REASONING.finditer(text))
    if not tags or tree_of(text) is not None:
        return text
    lines, line, seen = _lines_of_programs(text), 0, 0
    ends = [tag["end"] or tag["end2"] or tag["end3"] or tag["end4"] for tag in tags]
    closed = any(end and tag["bracket"] for tag, end in zip(tags, ends))  # else ``[Reasoning]`` is a heading
    kept: list[str] = []
    at, inside = 0, False
    for tag, end in zip(tags, ends):
        line, seen = line + text.count("\n", seen, tag.start()), tag.start()
        if line in lines or not (inside and end or _is_at_an_edge(text, tag)) or tag["bracket"] and not closed:
            continue
        if end:
            kept, at, inside = kept if inside else [], tag.end(), False
        elif not inside:
            kept.append(text[at:tag.start()])
            inside = True
    return "".join(kept) + ("" if inside else text[at:])


def _lines_of_programs(text: str) -> set[int]:
    """The numbers of the lines of blocks that parse."""
    blocks = _placed(text.split("\n"), 0, inner=True)
    return {line for lines, block in blocks if block.may_be_python and tree_of(block.text) for line in lines}


def _is_at_an_edge(text: str, tag: re.Match[str]) -> bool:
    before = text[max(0, tag.start() - 80):tag.start()].rpartition("\n")[2].strip()
    after = text[tag.end():tag.end() + 80].partition("\n")[0].strip()
    return not before or not after or after.startswith("```")


def without_end_tokens(text: str) -> str:
    """A text without blanks and a model's end tokens (``<|endoftext|>``, ``</s>``) at its end."""
    while end := _END_TOKEN.search(text := text.rstrip(), max(0, len(text) - 40)):
        text = text[:end.start()]
    return text


def unquoted(text: str) -> str:
    """A text whose block quotes (``> ``) that hold a fence are no quotes any more."""
    return _QUOTED.sub(lambda quote: _QUOTE_MARK.sub("", quote[0]) if "```" in quote[0] or "~~~" in quote[0] else quote[0], text)


def opening_fence(line: str) -> str:
    """The marks of the fence that a line opens, an empty string where it opens none."""
    opening = _opening(line)
    return opening[2] if opening else ""


def _opening(line: str) -> re.Match[str] | None:
    return _TICKS.fullmatch(line) or _TILDES.fullmatch(line)


def blocks_of(text: str, at: int = 0) -> list[Block]:
    """The fenced blocks of a text from line ``at`` on; one without an end reaches to the end of the text."""
    return [block for _, block in _placed(text.split("\n"), at)]


def _placed(lines: list[str], at: int, inner: bool = False) -> Iterator[tuple[range, Block]]:
    """The blocks, and the numbers of their lines. Of a block of Markdown the blocks in it, once."""
    while at < len(lines):
        opening = _opening(lines[at])
        at += 1
        if not opening:
            continue
        prefix, fence, tag = opening[1], opening[2], opening[3].lower()
        if not tag and at < len(lines) and PYTHON.fullmatch(lines[at].strip().lower()):
            tag, at = "python", at + 1  # the tag stands in a line of its own
        indent = len(prefix.expandtabs(4)) if _LIST_ITEM.fullmatch(prefix) else 0
        body, after = _until_end(lines, at, fence, indent, Block(tag, "").may_be_python)
        text = _body(body, prefix)
        if tag in MARKDOWN and not inner:
            yield from _placed(text.split("\n"), 0, inner=True)
        else:
            yield range(at, at + len(body)), Block(tag, text, at + len(body) < len(lines))
        at = after


def first_fence(lines: list[str]) -> int | None:
    """The number of the first line that begins with a fence."""
    return next((place for place, line in enumerate(lines) if _FENCE.match(line)), None)


def closes_only(line: str) -> bool:
    """Whether a line that begins with a fence says no more, so that it may close a block."""
    match = _FENCE.match(line)
    return match is not None and not match[3].strip()


def _until_end(lines: list[str], start: int, fence: str, indent: int, python: bool) -> tuple[list[str], int]:
    """The lines of a block, and where the text goes on.

    It ends at the first fence that CommonMark takes; in a program, at the first at which no string is open, or where
    none is such, at which the program parses. A fence with a tag behind it ends a program too that parses up to it, and
    opens another one: it could be no part of it. So does a fence behind the last line of a program that parses.
    """
    bare: list[int] = []
    tries = 0
    for place in range(start, len(lines)):
        match, line = _FENCE.match(lines[place]), lines[place].rstrip()
        glued = python and not match and line.endswith(fence) and line.count(fence) == 1
        if not glued and (not match or not match[2].startswith(fence) or len(match[1].expandtabs(4)) > indent + 3):
            continue
        closes = closes_only(lines[place])
        if closes and not (python and (bare or in_a_string("\n".join(lines[start:place])))):
            return lines[start:place], place + 1
        if python and tries < 2 * MOST_CUTS:
            body = [*lines[start:place], line.removesuffix(fence)] if glued else lines[start:place]
            tries += 1
            if tree_of(_body(body, " ")) is not None:
                return body, place + (glued or closes)
        bare += [place] if closes else []
        if len(bare) > MOST_CUTS:
            break
    return (lines[start:bare[0]], bare[0] + 1) if bare else (lines[start:], len(lines))


def in_a_string(text: str) -> bool:
    """Whether a text, read as Python, ends within a string of three quotes."""
    return _IN_A_STRING.match(text) is not None


def _body(lines: list[str], prefix: str) -> str:
    body = "\n".join(lines)
    if prefix and _LIST_ITEM.fullmatch(prefix):
        body = textwrap.dedent(body)  # a block in a list is indented as a whole
    return body.strip("\n")


def as_source(text: str) -> str:
    """A block as Python reads it: of a session its input (``>>> ``), and without characters that nobody sees and that
    keep it from parsing (marks, blanks without a break)."""
    if text.lstrip().startswith(">>> "):
        text = "\n".join(line[4:] for line in text.split("\n") if _REPL.match(line))
    visible = text.translate(_INVISIBLE)
    return visible if visible != text and tree_of(text) is None and tree_of(visible) is not None else text


def tree_of(source: str) -> ast.Module | None:
    """``syntax.parsed`` of a text that is not too long."""
    return parsed(source) if len(source) <= MOST_PARSED else None
