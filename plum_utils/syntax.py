"""Texts that may be no Python: models' and data sets' programs; and when two of them are the same."""

from __future__ import annotations

import ast
import re
import warnings

UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)  # what ``ast.parse`` raises
# Where a line's end is none, or a quote opens nothing: literals of several lines (a cut one goes to the end of the text),
# of one, comments.
_LITERAL = re.compile(r"""(\"{3}(?:\\.|[^\\])*?(?:\"{3}|\Z)|'{3}(?:\\.|[^\\])*?(?:'{3}|\Z)"""
                      r"""|"(?:\\.|[^\\"\n])*"|'(?:\\.|[^\\'\n])*'|\#(?:[ \t]*[^ \t\n]+)*)""", re.DOTALL)


def parsed(text: str) -> ast.Module | None:
    """The syntax tree of a text, or ``None`` where it does not parse; it is not run, and nothing is printed of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in strings
            return ast.parse(text)
    except UNPARSABLE:
        return None


def defines(code: str, name: str) -> bool:
    """Whether a program parses and defines a function or class of this name at its top level."""
    tree = parsed(code)
    return tree is not None and any(getattr(node, "name", None) == name for node in tree.body)


def normalise(completion: str) -> str:
    """A completion without blanks at the ends of its lines and without blank lines: what counts as the same answer.
    Indentation, blanks within a line and all of a literal with three quotes are the program's own."""
    parts = _LITERAL.split(completion.replace("\r\n", "\n").strip("\n"))
    parts[::2] = [re.sub(r"[ \t]*\n\s*\n|[ \t]+\n", "\n", part) for part in parts[::2]]
    return "".join(parts).lstrip("\n").rstrip(" \t\n")
