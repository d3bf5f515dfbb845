"""Take the program out of a completion."""

from __future__ import annotations

import re

# Possessive (*+), so that a long line without an end is looked at once.
_BLOCK = re.compile(r"^[^\n`]*+```[ \t]*+([\w+-]*+)[^\n`]*+\n(.*?)(?:^[ \t]*+```|\Z)", re.DOTALL | re.MULTILINE)
PYTHON_TAGS = ("", "python", "py", "python3")


def extract_code(completion: str) -> str:
    """The first Python code block, closed or cut off at the end of the text; without any fence, the whole text.

    Returns:
        Source text, or an empty string when the only blocks are of other languages.
    """
    blocks = [(tag.lower(), body) for tag, body in _BLOCK.findall(completion)]
    for tag, body in blocks:
        if tag in PYTHON_TAGS:
            return body.strip("\n")
    return "" if blocks else completion.strip()
