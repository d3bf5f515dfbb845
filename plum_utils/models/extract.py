"""Take the program out of a completion.

The rule, in the order in which it is applied:

1. What follows the first string at which the model has begun another turn (``prompts.template_stops``) is cut off.
2. Fences (three or more backticks or tildes) enclose blocks; one without an end reaches to the end of the text. A text
   that begins with a definition is read as if a fence stood before it: what comes before its first fence is a block. (Not
   with the template ``chat``, for the embedded policy's committed results were labelled without this and rule 4's mend.)
3. Of several Python blocks, the first that parses and defines a function or class is the program. Blocks before it that
   only import or assign stand in front of it. A block after it is added when it, too, only defines, redefines nothing
   and uses what is there; usage examples and tests are left out. Where no block defines anything, the first is taken.
4. Without a fence the text is the program. If it does not parse, a line of it begins a definition, and prose stands
   before or after, then the prose is left out, provided that what remains parses.

Nothing is repaired: code that is cut off or wrong stays as it is, and is judged as such.
"""

from __future__ import annotations

import ast
import re
import textwrap
from itertools import islice

from plum_utils.models.prompts import template_stops
from plum_utils.syntax import parsed

PYTHON_TAGS = ("", "python", "py", "python3")
MOST_PARSED = 100_000  # characters: longer texts count as not parsing, so that no text takes noticeable time
MOST_CUTS = 8          # lines of prose at which a cut is tried, for the same reason

# Possessive (*+), so that a long line without an end is looked at once.
_OPENING = re.compile(r"([^`]*+)(`{3,}+)[ \t]*+([\w+-]*+)[^`]*+")
_TILDES = re.compile(r"([ \t]*+)(~{3,}+)[ \t]*+([\w+-]*+)[^\n]*+")
_FENCE = re.compile(r"[ \t]*+(`{3,}+|~{3,}+)(.*+)")
_LIST_ITEM = re.compile(r"[ \t]*+(?:(?:[-*+]|\d++[.)])[ \t]++)?+")
_DEFINES = (r"(?:(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[ \t]*[:(]|@[A-Za-z_][\w.]*(?:\(|[ \t]*$)"
            r"|\w+[ \t]*=[ \t]*lambda\b|from[ \t]+[\w.]+[ \t]+import\b"
            r"|import[ \t]+\w[\w.]*(?:[ \t]+as[ \t]+\w+)?[ \t]*(?:$|[,;#]))")
_DEFINITION = re.compile("^" + _DEFINES, re.MULTILINE)
_BEGINS_WITH_CODE = re.compile(r"(?:[ \t]*+(?:#[^\n]*+)?+\n)*+" + _DEFINES, re.MULTILINE)
# Two words of which the first has a capital, a heading that ends in a colon, or a mark of Markdown.
_PROSE = re.compile(r"^(?:[A-Z][\w'’]*+[,:;]?(?:[ \t]+[\w\"'`(*]|[ \t]*$)|\*\*|(?:[-*+>]|\d+[.)])[ \t]+[A-Za-z`*])",
                    re.MULTILINE)


def extract_code(completion: str, template: str = "chat") -> str:
    """The program in a completion, by the rule at the top of this module.

    Args:
        completion: any text.
        template: the policy's prompt template, which knows how its models begin another turn.

    Returns:
        Source text, or an empty string when the only blocks are empty or of other languages.

    Raises:
        ValueError: an unknown template.
    """
    text = _first_turn(completion, template_stops(template))
    blocks = _blocks(text, may_lack_a_fence=template != "chat")
    if not blocks:
        return text.strip() if template == "chat" else _without_prose(text.strip())
    return _program([body for tag, body in blocks if tag in PYTHON_TAGS])


def _first_turn(text: str, stops: list[str]) -> str:
    text = "\n" + text  # a turn may begin in the very first line
    return text[:min((text.find(stop) for stop in stops if stop in text), default=len(text))][1:]


def _blocks(text: str, may_lack_a_fence: bool) -> list[tuple[str, str]]:
    """The fenced blocks: (language in small letters, body)."""
    lines = text.split("\n")
    blocks, at = _unopened(text, lines) if may_lack_a_fence else ([], 0)
    while at < len(lines):
        opening = _OPENING.fullmatch(lines[at]) or _TILDES.fullmatch(lines[at])
        at += 1
        if opening and (may_lack_a_fence or at < len(lines)):
            prefix, fence, tag = opening.groups()
            end = next((i for i in range(at, len(lines)) if _closes(lines[i], fence)), len(lines))
            blocks.append((tag.lower(), _body(lines[at:end], prefix)))
            at = end + 1
    return blocks


def _unopened(text: str, lines: list[str]) -> tuple[list[tuple[str, str]], int]:
    """The block that a text begins with when its fence is missing, and the line at which to go on."""
    if not _BEGINS_WITH_CODE.match(text.lstrip()):
        return [], 0
    fences = ((i, match[2]) for i, match in enumerate(map(_FENCE.match, lines)) if match)
    end, rest = next(fences, (None, ""))
    if end is None:
        return [], len(lines)  # ticks within its lines are the program's own
    return [("", _without_prose("\n".join(lines[:end]).strip()))], end if rest.strip() else end + 1


def _closes(line: str, fence: str) -> bool:
    match = _FENCE.match(line)
    return match is not None and match[1].startswith(fence)


def _body(lines: list[str], prefix: str) -> str:
    body = "\n".join(lines)
    if prefix and _LIST_ITEM.fullmatch(prefix):
        body = textwrap.dedent(body)  # a block in a list is indented as a whole
    return body.strip("\n")


def _program(bodies: list[str]) -> str:
    if len(bodies) < 2:
        return "".join(bodies)
    trees = [_tree(body) for body in bodies]
    defined = [_definitions(tree) if tree else set() for tree in trees]
    first = next((i for i, names in enumerate(defined) if names), None)
    if first is None:
        return bodies[0]
    parts = [body for body, tree in zip(bodies[:first], trees) if tree and tree.body and _only_defines(tree)]
    parts.append(bodies[first])
    names = defined[first]
    for body, tree in zip(bodies[first + 1:], trees[first + 1:]):
        if tree and _continues(tree, names):
            parts.append(body)
            names |= _definitions(tree)
    return "\n\n".join(parts)


def _continues(tree: ast.Module, names: set[str]) -> bool:
    new = _definitions(tree)
    return bool(new) and not new & names and _only_defines(tree) and any(
        isinstance(node, ast.Name) and node.id in names for node in ast.walk(tree))


def _definitions(tree: ast.Module) -> set[str]:
    """Names of the functions and classes at top level."""
    return {node.name for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}


def _only_defines(tree: ast.Module) -> bool:
    """Whether loading it calls nothing: imports, functions, classes, docstrings and assignments without a call."""
    return all(isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
               or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
               or isinstance(node, (ast.Assign, ast.AnnAssign))
               and not any(isinstance(part, ast.Call) for part in ast.walk(node)) for node in tree.body)


def _without_prose(text: str) -> str:
    definition = _DEFINITION.search(text)
    if not definition or _tree(text):
        return text
    code = text[definition.start():] if _PROSE.match(text) else text
    for line in islice(_PROSE.finditer(code), MOST_CUTS):
        before = code[:line.start()].rstrip()
        if before and _tree(before):
            return before
    return code if code != text and _tree(code) else text


def _tree(source: str) -> ast.Module | None:
    """The syntax tree of a text, or None where it does not parse; the text is not run."""
    return parsed(source) if len(source) <= MOST_PARSED else None
