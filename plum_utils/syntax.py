"""Texts that may be no Python: models' and data sets' programs."""

from __future__ import annotations

import ast
import warnings

UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)  # what ``ast.parse`` raises


def parsed(text: str) -> ast.Module | None:
    """The syntax tree of a text, or ``None`` where it does not parse; it is not run, and nothing is printed of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in strings
            return ast.parse(text)
    except UNPARSABLE:
        return None
