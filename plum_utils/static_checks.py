"""Look at programs without running them: syntax by ``ast``, then mypy over many programs in one build.

The paper's static check is mypy (section 3, footnote 2). Most of what mypy reports runs perfectly well, so only the
codes in ``CANNOT_RUN_CODES`` mean *cannot run*.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

CANNOT_RUN_CODES = {
    "syntax": "mypy's parser rejects what Python's accepted only in part",
    "name-defined": "a name that nothing defines: NameError as soon as the line is reached",
    "used-before-def": "a name used before its definition: NameError or UnboundLocalError",
    "import-not-found": "a module that is not installed: ModuleNotFoundError at load",
}
_LINE = re.compile(r"^p(\d+)\.py:(\d+): error: (.*?)(?:  \[([a-z0-9-]+)\])?$")


@dataclass(frozen=True)
class StaticVerdict:
    """``ok``, ``syntax`` or ``type_error``; ``codes`` are all mypy codes reported, harmless ones too."""

    status: str
    codes: tuple[str, ...] = ()
    detail: str = ""


def check_programs(codes: dict[str, str], timeout: float = 600.0) -> dict[str, StaticVerdict]:
    """A static verdict for each program.

    Args:
        codes: program name -> source text; equal texts are checked once.
        timeout: seconds for one mypy build; a build that fails is halved until the program at fault stands alone,
            and that one counts as ``ok`` (execution will tell).
    """
    distinct = list(dict.fromkeys(codes.values()))
    verdicts = {source: _syntax(source) for source in distinct}
    parsed = [source for source in distinct if verdicts[source].status == "ok"]
    verdicts |= _mypy(parsed, timeout)
    return {name: verdicts[source] for name, source in codes.items()}


def _syntax(source: str) -> StaticVerdict:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<solution>", "exec", flags=ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        return StaticVerdict("syntax", (), f"{type(error).__name__}: {message}{where}"[:300])
    return StaticVerdict("ok")


def _mypy(sources: list[str], timeout: float) -> dict[str, StaticVerdict]:
    if not sources:
        return {}
    found = _mypy_build(sources, timeout)
    if found is not None:
        return {source: _verdict(found.get(index, [])) for index, source in enumerate(sources)}
    if len(sources) == 1:
        return {sources[0]: StaticVerdict("ok", ("mypy-crash",), "mypy could not check this program")}
    half = len(sources) // 2
    return _mypy(sources[:half], timeout) | _mypy(sources[half:], timeout)


def _mypy_build(sources: list[str], timeout: float) -> dict[int, list[tuple[str, str, str]]] | None:
    """Errors (code, line, message) by program index, or ``None`` when the build itself failed."""
    with tempfile.TemporaryDirectory(prefix="plum-mypy-") as folder:
        names = [f"p{index:06d}.py" for index in range(len(sources))]
        for name, source in zip(names, sources):
            (Path(folder) / name).write_text(source, encoding="utf-8", errors="replace")
        (Path(folder) / "files.txt").write_text("\n".join(names))
        command = [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir", os.devnull, "--no-error-summary",
                   "--hide-error-context", "--no-pretty", "--check-untyped-defs", "--follow-imports=silent",
                   "--no-color-output", "--show-error-codes", "@files.txt"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return None
    errors: dict[int, list[tuple[str, str, str]]] = {}
    for line in done.stdout.splitlines():
        match = _LINE.match(line)
        if match:
            index, number, message, code = match.groups()
            errors.setdefault(int(index), []).append((code or "", number, message))
    blocked = any(code == "syntax" for items in errors.values() for code, *_ in items)
    crashed = done.returncode not in (0, 1) and not (blocked and len(sources) == 1)
    return None if crashed else errors


def _verdict(errors: list[tuple[str, str, str]]) -> StaticVerdict:
    codes = tuple(sorted({code for code, *_ in errors if code}))
    for code, number, message in errors:
        if code in CANNOT_RUN_CODES:
            return StaticVerdict("type_error", codes, f"{message} (line {number}) [{code}]"[:300])
    return StaticVerdict("ok", codes)
