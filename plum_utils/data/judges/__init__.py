"""What runs beside a candidate in the sandbox, as files that are read and never imported here."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def source(*names: str) -> str:
    """The text of these files, one after the other."""
    return "\n".join(Path(__file__).with_name(f"{name}.py").read_text() for name in names)
