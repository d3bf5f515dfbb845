"""Take the program out of a completion.

The rule, the same for every prompt template, in the order in which it is applied:

1. Reasoning (``<think> ... </think>``) is no answer, and what follows the first string at which the model has begun
   another turn (``prompts.template_stops``) is cut off. A byte-order mark and carriage returns go.
2. Fences enclose blocks (``blocks``). A text that begins with a definition is read as if a fence stood before it. Blocks of
   other languages are passed over; so are those without a language beside Python's, unless they parse and do something,
   for they may be samples of input and output.
3. Of a function or class that several blocks define the last one is taken that has a body: a stub (a docstring, ``pass``,
   ``...``, ``raise NotImplementedError``) never wins over it. What these definitions need of the other blocks is put
   together with them, in an order that loads: further definitions, imports, constants, and what sets them up. Usage
   examples, tests and main guards are left out. A lone block is taken as it stands.
4. Where no block defines anything, the last one that does something is the program, with what it needs of those before
   it. So it is with a program that reads standard input (``script``), whatever it defines: LiveCodeBench takes its last
   block, and this rule adds only what would else be missing.
5. Without a fence the text is the program. If it does not parse, a line of it begins a definition, and prose stands
   before or after, then the prose is left out, provided that what remains parses.

Nothing is repaired: code that is cut off or wrong stays as it is, and is judged as such.
"""

from __future__ import annotations

import re
from itertools import islice

from plum_utils.models.blocks import (
    MOST_CUTS,
    Block,
    blocks_of,
    closes_only,
    first_fence,
    plain_lines,
    tree_of,
    without_reasoning,
)
from plum_utils.models.joining import Part, joined
from plum_utils.models.prompts import template_stops

_DEFINES = (r"(?:(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[ \t]*[:(]|@[A-Za-z_][\w.]*(?:\(|[ \t]*$)"
            r"|\w+[ \t]*=[ \t]*lambda\b|from[ \t]+[\w.]+[ \t]+import\b"
            r"|import[ \t]+\w[\w.]*(?:[ \t]+as[ \t]+\w+)?[ \t]*(?:$|[,;#]))")
_DEFINITION = re.compile("^" + _DEFINES, re.MULTILINE)
_BEGINS_WITH_CODE = re.compile(r"(?:[ \t]*+(?:#[^\n]*+)?+\n)*+" + _DEFINES, re.MULTILINE)
# Two words of which the first has a capital, a heading that ends in a colon, or a mark of Markdown.
_PROSE = re.compile(r"^(?:[A-Z][\w'’]*+[,:;]?(?:[ \t]+[\w\"'`(*]|[ \t]*$)|\*\*|(?:[-*+>]|\d+[.)])[ \t]+[A-Za-z`*])",
                    re.MULTILINE)
# A line without anything that a program's lines have.
_TALK = re.compile(r"[A-Za-z][\w'’,.:;!?\-]*+(?:[ \t]+[\w'’`\".,:;!?\-]++)+[ \t]*")


def extract_code(completion: str, template: str = "chat", script: bool = False) -> str:
    """The program in a completion, by the rule at the top of this module.

    Args:
        completion: any text.
        template: the policy's prompt template, which knows how its models begin another turn.
        script: the program reads standard input and prints; nobody calls its functions.

    Returns:
        Source text, or an empty string when the only blocks are empty or of other languages.

    Raises:
        ValueError: an unknown template.
    """
    text = _first_turn(without_reasoning(plain_lines(completion)), template_stops(template))
    blocks = _blocks(text)
    if not blocks:
        return _without_prose(text.strip())
    marked = any(block.is_python for block in blocks)
    candidates = [(block, Part(block.text)) for block in blocks if block.may_be_python and block.text.strip()]
    parts = [part for block, part in candidates if block.is_python or part.acts or not block.tag and not marked]
    return (_last(parts) if script else _program(parts)) if parts else ""


def ends_program(text: str) -> bool:
    """Whether a text that ends with the line of a fence holds its program: the fence closes a block that parses and defines
    a function or a class with a body. An opening fence, one in a docstring and the end of an example do none of that.
    """
    blocks = _blocks(without_reasoning(plain_lines(text)))
    part = Part(blocks[-1].text) if blocks and blocks[-1].may_be_python else Part("")
    return any(unit.defines and not unit.is_stub for unit in part.units)


def _first_turn(text: str, stops: list[str]) -> str:
    text = "\n" + text  # a turn may begin in the very first line
    return text[:min((text.find(stop) for stop in stops if stop in text), default=len(text))][1:]


def _blocks(text: str) -> list[Block]:
    """The fenced blocks; before them what a text begins with whose first fence is missing, or prose around it."""
    lines = text.split("\n")
    fence = first_fence(lines)
    if _BEGINS_WITH_CODE.match(text.lstrip()):
        if fence is None:
            return []  # ticks within its lines are the program's own
        begun = Block("", _without_prose("\n".join(lines[:fence]).strip()))
        return [begun, *blocks_of(text, fence + 1 if closes_only(lines[fence]) else fence)]
    blocks = blocks_of(text)
    if fence and not any(_defines(block) for block in blocks):  # the program stands in the prose before an example
        before = _without_prose("\n".join(lines[:fence]).strip())
        tree = tree_of(before)
        if tree is not None and _DEFINITION.search(before):
            return [Block("", before), *blocks]
    return blocks


def _defines(block: Block) -> bool:
    return block.may_be_python and _DEFINITION.search(block.text) is not None


def _program(parts: list[Part]) -> str:
    """Of blocks whose functions are called: what they define, joined."""
    if len(parts) == 1:
        return parts[0].text
    if any(part.defined for part in parts):
        return joined(parts)
    cut_off = [part.text for part in parts if part.tree is None and _DEFINITION.search(part.text)]
    return cut_off[-1] if cut_off else _last(parts)


def _last(parts: list[Part]) -> str:
    """The last block that acts, with what it needs of those before it; the first of all where none does."""
    place = max((i for i, part in enumerate(parts) if part.acts), default=0)
    return joined(parts[:place], parts[place])


def _without_prose(text: str) -> str:
    definition = _DEFINITION.search(text)
    if not definition or tree_of(text):
        return text
    before = text[:definition.start()]
    talk = _PROSE.match(text) or before.strip() and all(map(_TALK.fullmatch, filter(None, map(str.strip, before.split("\n")))))
    code = text[definition.start():] if talk else text
    for line in islice(_PROSE.finditer(code), MOST_CUTS):
        before = code[:line.start()].rstrip()
        if before and tree_of(before):
            return before
    return code if code != text and tree_of(code) else text
