"""Look at programs without running them: syntax by ``ast``, then mypy over many programs in one build.

The paper's static check is mypy (section 3, footnote 2). Most of what mypy reports runs perfectly well, so only the
codes in ``CANNOT_RUN_CODES`` mean *cannot run*.
"""

from __future__ import annotations

import ast
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

from plum_utils.jsonl import cache_dir, new_folder
from plum_utils.sandbox.status import Status
from plum_utils.syntax import UNPARSABLE

OK, TYPE_ERROR, NO_CODE = "ok", "type_error", "no_code"  # beside the sandbox's ``Status``

CANNOT_RUN_CODES = {
    "syntax": "mypy's parser rejects what Python's accepted only in part",
    "name-defined": "a name that nothing defines: NameError as soon as the line is reached",
    "used-before-def": "a name used before its definition: NameError or UnboundLocalError",
    "import-not-found": "a module that is not installed: ModuleNotFoundError at load",
}
# All other codes are kept and change nothing; the tests have a program that runs for each frequent one.
BUILDS = 2    # at a time
TIMEOUT = 600.0  # seconds for one
MOST = 2000   # programs in one build: bounds its memory, and what one that breaks mypy costs the others
FEWEST = 200  # below, a second build beside the first does not pay for its start
STDLIB = ("abc", "asyncio", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime", "decimal",
          "enum", "fractions", "functools", "hashlib", "heapq", "io", "itertools", "json", "logging", "math", "operator",
          "os", "pathlib", "random", "re", "statistics", "string", "sys", "threading", "time", "typing", "unittest")
OPTIONS = ("--no-error-summary", "--hide-error-context", "--no-pretty", "--check-untyped-defs",
           "--follow-imports=silent", "--no-color-output", "--show-error-codes")
_LINE = re.compile(r"^\w+_(\d{6})\.py:(\d+): error: (.*?)(?:  \[([a-z0-9-]+)\])?$")


@dataclass(frozen=True)
class StaticVerdict:
    """``OK``, ``Status.SYNTAX`` or ``TYPE_ERROR``; ``codes`` are all mypy codes reported, harmless ones too."""

    status: str
    codes: tuple[str, ...] = ()
    detail: str = ""


def check_programs(codes: dict[str, str]) -> dict[str, StaticVerdict]:
    """A static verdict for each program; it does not depend on which others are checked with it. A mypy build that fails
    is halved until the program at fault stands alone, and that one counts as ``OK`` (execution will tell).

    Args:
        codes: program name -> source text; equal texts are checked once.
    """
    distinct = list(dict.fromkeys(codes.values()))
    verdicts = {source: _syntax(source) for source in distinct}
    parsed = [source for source in distinct if verdicts[source].status == OK]
    size = min(MOST, max(FEWEST, -(-len(parsed) // BUILDS)))
    parts = [parsed[start:start + size] for start in range(0, len(parsed), size)]
    if parts:
        warm = warm_cache()
        with ThreadPoolExecutor(BUILDS) as pool:
            for found in pool.map(lambda part: _mypy(part, warm), parts):
                verdicts |= found
    return {name: verdicts[source] for name, source in codes.items()}


def warm_cache() -> Path | None:
    """A folder with mypy's cache of the standard library, made once a user and version; ``None`` if it cannot be made.

    Builds work on copies, so that nothing of any program is ever kept in it.
    """
    base = cache_dir()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = base / f"mypy-{version('mypy')}-python-{python}"
    if folder.is_dir():
        return folder
    try:
        with tempfile.TemporaryDirectory(prefix="plum-mypy-") as made, new_folder(folder) as cache_folder:
            source = Path(made) / "warm.py"
            source.write_text("".join(f"import {name}\n" for name in STDLIB))
            subprocess.run(_command(Path(made), cache_folder, [source.name]), cwd=made, capture_output=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):  # no place to write to
        pass
    return folder if folder.is_dir() else None


@cache
def _packages() -> list[str]:
    return sorted(name for name in packages_distributions() if re.fullmatch(r"[A-Za-z]\w*", name))


def _command(folder: Path, cache_folder: Path, arguments: list[str]) -> list[str]:
    """mypy over files in ``folder``; of installed packages only the existence is checked, for some take minutes."""
    config = folder / "mypy.ini"
    config.write_text("[mypy]\n" + "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in _packages()))
    return [sys.executable, "-m", "mypy", f"--config-file={config}", "--cache-dir", str(cache_folder),
            *OPTIONS, *arguments]


def _syntax(source: str) -> StaticVerdict:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<solution>", "exec", flags=ast.PyCF_ONLY_AST, dont_inherit=True)
    except UNPARSABLE as error:
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        return StaticVerdict(Status.SYNTAX, (), f"{type(error).__name__}: {message}{where}"[:300])
    return StaticVerdict(OK)


def _mypy(sources: list[str], warm: Path | None) -> dict[str, StaticVerdict]:
    found = _mypy_build(sources, warm)
    if found is not None:
        return {source: _verdict(found.get(index, [])) for index, source in enumerate(sources)}
    if len(sources) == 1:
        return {sources[0]: StaticVerdict(OK, ("mypy-crash",), "mypy could not check this program")}
    half = len(sources) // 2
    return _mypy(sources[:half], warm) | _mypy(sources[half:], warm)


def _mypy_build(sources: list[str], warm: Path | None) -> dict[int, list[tuple[str, str, str]]] | None:
    """Errors (code, line, message) by program index, or ``None`` when the build itself failed.

    Modules get names that no program can guess, so that none can import another.
    """
    with tempfile.TemporaryDirectory(prefix="plum-mypy-") as name:
        folder, token = Path(name), secrets.token_hex(8)
        names = [f"m{token}_{index:06d}.py" for index in range(len(sources))]
        for name, source in zip(names, sources):
            (folder / name).write_text(source, encoding="utf-8", errors="replace")
        (folder / "files.txt").write_text("\n".join(names))
        if warm is not None:
            shutil.copytree(warm, folder / "cache")
        command = _command(folder, folder / "cache", ["@files.txt"])
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
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
            return StaticVerdict(TYPE_ERROR, codes, f"{message} (line {number}) [{code}]"[:300])
    return StaticVerdict(OK, codes)
