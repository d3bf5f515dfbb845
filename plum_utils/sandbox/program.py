"""What is run in the sandbox, under which limits, and how it ended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

SPLIT, SHARED, AUTO, SCRIPT = "split", "shared", "auto", "script"
Mode = Literal["auto", "split", "shared", "script"]


class SandboxError(RuntimeError):
    """The host cannot isolate untrusted programs well enough."""


@dataclass(frozen=True)
class Limits:
    """Limits of one program: CPU seconds, address space and size of a file in MiB; by the wall clock it has ``patience``
    times the seconds, for what it sleeps and for the machine's load.

    Where a program comes with a reference, its CPU time is limited further: to ``factor`` times the reference's, and at
    least ``least_seconds``. Loading has the same again. Libraries which are not Python's own are imported before a program
    that names them, in at most ``load_seconds``, so that its label does not depend on theirs; it has ``load_mb`` more for
    them. ``allow_weak`` runs programs
    although the host cannot deny them network or writes to the user's files.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    file_mb: int = 1
    allow_weak: bool = False
    factor: float = 50.0
    least_seconds: float = 1.0
    load_seconds: float = 60.0
    load_mb: int = 4096
    patience: float = 1.0


@dataclass(frozen=True)
class Program:
    """A candidate's source, and the tests that call its functions or the cases that it reads and answers.

    Args:
        tests: one suite or several. Each is a script with a namespace of its own; test functions and cases that it does
            not call itself are called at its end. Verdicts count lines as if one suite stood below the other.
        reference: a solution that passes the tests; it is run once for all programs with the same tests, and tells
            whether they can be split and how long they take.
        mode: ``split`` (candidate and tests in processes of their own), ``shared`` (in one), or ``auto``: split where
            the tests allow it. ``script``: the program runs once for each of ``cases`` as ``python solution.py`` would.
        setup: executed first, in the program's namespace; it shifts none of the program's lines.
        cases: (standard input, expected standard output) of a script; outputs are compared by ``outputs.same``.
        rule: by which of ``outputs.RULES`` they are.
    """

    id: str
    code: str
    tests: str | tuple[str, ...] = ()
    reference: str | None = None
    mode: Mode = "auto"
    setup: str = ""
    cases: tuple[tuple[str, str], ...] = ()
    rule: str = "current"

    @property
    def suites(self) -> tuple[str, ...]:
        return (self.tests,) if isinstance(self.tests, str) else self.tests

    @cached_property
    def suite(self) -> str:
        """A digest of all but the name, the code, the cases and their rule."""
        return hashlib.sha256(json.dumps([self.mode, self.reference, self.setup, self.suites]).encode()).hexdigest()


@dataclass(frozen=True)
class Verdict:
    """How a program ended.

    ``status``: passed, failed, error (did not load), timeout, memory, syntax, or infrastructure (our fault); ``detail``
    is one line of at most 300 characters, empty for a pass; ``seconds`` is wall time. ``assurance``: ``split`` verdicts
    cannot be forged; ``shared`` ones can by a program that looks for its judge. ``calls``: how often the judge called
    the candidate (shared: whether, and of references only). ``asserted``: whether one of the tests' assertions was
    evaluated, of a program that is its own reference. ``cpu_seconds`` of all its processes, loading left out.
    """

    id: str
    status: str
    detail: str
    seconds: float
    assurance: str = SHARED
    calls: int = 0
    cpu_seconds: float = 0.0
    asserted: bool = False
