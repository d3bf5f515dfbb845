"""Take the program out of a completion.

The rule, the same for every prompt template, in the order in which it is applied:

1. Reasoning (``<think> ... </think>``) is no answer, unless the tag is part of a program; block quotes are opened; what
   follows the first string at which the model has begun another turn (``prompts.template_stops``) is cut off. A
   byte-order mark, carriage returns and end tokens go.
2. Fences enclose blocks (``blocks``). A text that begins with a definition is read as if a fence stood before it. Blocks of
   other languages are passed over; so are those without a language beside Python's, unless they parse and do something,
   for they may be samples of input and output. Where all are of other languages, those that are Python's count.
3. Of a function or class that several blocks define the last one is taken that has a body: a stub (a docstring, ``pass``,
   ``...``, ``return None``, ``raise NotImplementedError``) never wins over it, nor a class with a stub for a method that
   the other has. What these definitions need of the other blocks is put together with them, in an order that loads:
   further definitions, imports, constants, and what sets them up. Usage examples, tests and main guards are left out. A
   lone block is taken as it stands.
4. Where no block defines anything, the last one that does something is the program, with what it needs of those before
   it. So it is with a program that reads standard input (``script``), whatever it defines: LiveCodeBench takes its last
   block, and this rule adds only what would else be missing.
5. Without a fence other marks may enclose it (``<code>``, ``<answer>``, ``[PYTHON]``, an indentation of four blanks); else
   the text is the program. If it does not parse and a line of it begins a definition, then the prose before, between
   and after is left out, provided that what remains parses, and so is a word that would be a ``NameError``.

Nothing is repaired: code that is cut off or wrong stays as it is, and is judged as such. What only keeps a program from
being read is no part of it: a session's prompts (``>>> ``), marks and blanks that nobody sees, a web page's ``&lt;``.
"""

from __future__ import annotations

import ast
import html
import re
import textwrap
from itertools import islice
from typing import Iterator

from plum_utils.models.blocks import (
    MOST_CUTS,
    Block,
    as_source,
    blocks_of,
    closes_only,
    first_fence,
    plain_lines,
    tree_of,
    unquoted,
    without_end_tokens,
    without_reasoning,
)
from plum_utils.models.completions import before_stop
from plum_utils.models.joining import Part, joined
from plum_utils.models.prompts import template_stops

MOST_BEFORE = 40  # lines before the first definition among which statements are looked for
_DEFINES = (r"(?:(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[ \t]*[:(]|@[A-Za-z_][\w.]*(?:\(|[ \t]*$)"
            r"|\w+[ \t]*=[ \t]*lambda\b|from[ \t]+[\w.]+[ \t]+import\b"
            r"|import[ \t]+\w[\w.]*(?:[ \t]+as[ \t]+\w+)?[ \t]*(?:$|[,;#]))")
_DEFINITION = re.compile("^" + _DEFINES, re.MULTILINE)
_BEGINS_WITH_CODE = re.compile(r"(?:[ \t]*+(?:#[^\n]*+)?+\n)*+" + _DEFINES, re.MULTILINE)
# What begins no statement, or two words of which the first has a capital, or a sentence up to its full stop.
_PROSE = re.compile(r"^(?:[A-Z][\w'’]*+[,:;]?(?:[ \t]+[\w\"'`(*]|[ \t]*$)|\*\*|(?:[-*+>]|\d+[.)])[ \t]+[A-Za-z`*]"
                    r"|[^\x00-\x7f]|[=<>`|$%&!?/]|\[/|[-=*_]{3,}+[ \t]*$"
                    r"|[a-z`(](?=[^\n]*+(?:(?<=[\w)`][.!])|(?<=[.!][)*]))$)[^\s]*+[ \t])", re.MULTILINE)
_MARKUP = r"(?:pre|code|python|answer|solution|output)"
_WRAPPED = re.compile(rf"^[ \t]*+(?:(?:<{_MARKUP}(?:[ \t][^<>\n]{{0,200}})?>|\[(?:python|answer|solution|begin)\]"
                      r"|<\|begin_of_solution\|>)\s*+)++", re.MULTILINE | re.IGNORECASE)
_WRAP_ENDS = re.compile(rf"^[ \t]*+(?:</{_MARKUP}>|\[(?:/python|/answer|/solution|done)\]|<\|end_of_solution\|>)"
                        rf"|</{_MARKUP}>(?=$|<)", re.MULTILINE | re.IGNORECASE)
_INDENTED = re.compile(r"(?:^(?: {4}|\t)[^\n]*+\n?|^[ \t]*+\n)++", re.MULTILINE)  # Markdown's other form of a block


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
    text = _first_turn(without_reasoning(unquoted(plain_lines(without_end_tokens(completion)))), template_stops(template))
    blocks = _blocks(text)
    if not blocks:
        pieces = [Part(as_source(piece)) for piece in _pieces(text.strip())]
        return _last(pieces) if script else _program(pieces)
    marked = any(block.is_python for block in blocks)
    candidates = [(block, _part(block)) for block in blocks if block.may_be_python and block.text.strip()]
    parts = [part for block, part in candidates if block.is_python or part.acts or not block.tag and not marked]
    if not candidates:  # of blocks of other languages those that are Python's nevertheless
        parts = [part for part in map(_part, blocks) if part.acts]
    return (_last(parts) if script else _program(parts)) if parts else ""


def ends_program(text: str) -> bool:
    """Whether a text that ends with the line of a fence holds its program: the fence closes a block that parses and defines
    a function or a class with a body. An opening fence, one in a docstring and the end of an example do none of that.
    """
    blocks = _blocks(without_reasoning(unquoted(plain_lines(text))))
    part = Part(blocks[-1].text) if blocks and blocks[-1].may_be_python else Part("")
    return any(not is_stub[""] for is_stub in part.versions.values())


def _first_turn(text: str, stops: list[str]) -> str:
    return before_stop("\n" + text, stops)[1:]  # a turn may begin in the very first line


def _part(block: Block) -> Part:
    return Part(as_source(block.text if block.ends else _without_prose(block.text)))


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
        before = Part(_without_prose("\n".join(lines[:fence]).strip()))
        if before.tree and (_DEFINITION.search(before.text) or before.acts and not any(block.text for block in blocks)):
            return [Block("", before.text), *blocks]
    return blocks or _unfenced(text)


def _unfenced(text: str) -> list[Block]:
    """What stands between other marks than fences, or is indented as a whole."""
    definition = _DEFINITION.search(text)
    wrapped = _WRAPPED.search(text)
    if wrapped and tree_of(text.strip()) is None and not (definition and definition.start() < wrapped.start()):
        ends = _WRAP_ENDS.search(text, wrapped.end())
        body = text[wrapped.end():ends.start() if ends else len(text)].strip("\n")
        return [Block("", html.unescape(body) if "<" in wrapped[0] and tree_of(body) is None else body, ends is not None)]
    indented = [Block("", textwrap.dedent(part[0]).strip("\n")) for part in _INDENTED.finditer(text)] if not definition else []
    return indented if any(_defines(block) for block in indented) else []


def _defines(block: Block) -> bool:
    return block.may_be_python and _DEFINITION.search(block.text) is not None


def _program(parts: list[Part]) -> str:
    """Of blocks whose functions are called: what they define, joined."""
    if len(parts) == 1:
        return parts[0].text
    if any(part.versions for part in parts):
        return joined(parts)
    cut_off = [part.text for part in parts if part.tree is None and _DEFINITION.search(part.text)]
    return cut_off[-1] if cut_off else _last(parts)


def _last(parts: list[Part]) -> str:
    """The last block that acts, with what it needs of those before it; the first of all where none does."""
    place = max((i for i, part in enumerate(parts) if part.acts), default=0)
    return joined(parts[:place], parts[place])


def _pieces(text: str) -> Iterator[str]:
    """The programs between which prose stands in a text without a fence."""
    for _ in range(MOST_CUTS):
        piece = _without_prose(text)
        yield piece
        text = text[text.find(piece) + len(piece):]
        if not _DEFINITION.search(text):
            break


def _without_prose(text: str) -> str:
    """A text that no fence ends, without the prose before and after its program."""
    definition = _DEFINITION.search(text)
    if not definition:
        return text
    if tree := tree_of(text):
        return _without_words(text, tree)
    code = text[_begin(text, definition.start()):].strip("\n")
    for place in islice(_PROSE.finditer(code), MOST_CUTS):
        before, line = code[:place.start()].rstrip(), code[place.start():].partition("\n")[0]
        if before and not _is_code(line) and (tree := tree_of(before)):
            return _without_words(before, tree)
    tree = tree_of(code)
    return _without_words(code, tree) if tree and code != text else text


def _begin(text: str, definition: int) -> int:
    """Where the statements begin that stand before a program's first definition."""
    begin = at = definition
    for _ in range(MOST_BEFORE):
        at = text.rfind("\n", 0, max(0, at - 1)) + 1
        if _is_code(text[at:definition]):
            begin = at
    return begin


def _is_code(text: str) -> bool:
    """Whether a text parses, and does not begin with mere words."""
    tree = tree_of(text)
    return tree is not None and not (tree.body and _is_words(tree.body[0]))


def _without_words(text: str, tree: ast.Module) -> str:
    """A program without what parses at its begin and end, and would only raise a ``NameError``: ``Explanation``."""
    said = [_is_words(node) for node in tree.body]
    if all(said) or not said[0] and not said[-1]:
        return text
    first, last = said.index(False), len(said) - 1 - said[::-1].index(False)
    lines = text.split("\n")
    start = tree.body[first - 1].end_lineno if first else 0
    end = tree.body[last + 1].lineno - 1 if last + 1 < len(said) else len(lines)
    return "\n".join(lines[start:end]).strip("\n")


def _is_words(node: ast.stmt) -> bool:
    """``Explanation``, ``[Solution]``, ``* item``, ``User: thanks``."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, (ast.Name, ast.Starred)) or isinstance(node, ast.AnnAssign) and node.value is None or (
        isinstance(value, (ast.List, ast.Tuple)) and all(isinstance(one, ast.Name) for one in value.elts))
