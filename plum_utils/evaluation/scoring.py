"""Stages 5 and 6: held-out solutions, judged in our sandbox."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any, Protocol, Sequence

from plum_utils.progress import Bar
from plum_utils.sandbox import Limits, Program, Sandbox, Status, Verdict, judge

AT_ONCE = 256  # programs in memory: those of a contest may have megabytes of tests each


class Judged(Protocol):
    """A problem that knows how a solution of it is judged (``data.problems``, ``data.livecodebench``)."""

    @property
    def task_id(self) -> str: ...

    @property
    def instruction(self) -> str: ...

    @property
    def digest(self) -> str:
        """Hash of everything that a verdict depends on."""

    def programs(self, solution: str) -> dict[str, dict[str, Any]]:
        """By suite of tests: all of a ``sandbox.Program`` but its id. A suite is run where those before it passed."""

    def limits(self, suite: str, given: Limits) -> Limits:
        """What a program of a suite is allowed, where the sandbox's own limits are ``given``."""

    def row(self, tried: dict[str, Any], verdicts: dict[str, Verdict]) -> dict[str, Any]:
        """The row of a judged solution, from the verdict of each suite that was run."""


def score(problems: Sequence[Judged], solutions: list[dict[str, Any]], sandbox: Sandbox, progress: bool = True
          ) -> list[dict[str, Any]]:
    """Judge solutions (``task_id``, ``sample_index``, ``solution``) by their problems' tests: a row each, in order.

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    by_id = {problem.task_id: problem for problem in problems}
    asked = [by_id[row["task_id"]] for row in solutions]
    modes = {task: {suite: program.get("mode") for suite, program in by_id[task].programs("").items()}
             for task in dict.fromkeys(problem.task_id for problem in asked)}
    verdicts: list[dict[str, Verdict]] = [{} for _ in solutions]
    for suite, mode in dict.fromkeys(kind for suites in modes.values() for kind in suites.items()):
        due = [place for place, problem in enumerate(asked) if (suite, mode) in modes[problem.task_id].items()
               and all(verdict.status == Status.PASSED for verdict in verdicts[place].values())]
        if not due:
            continue
        limits = widest([asked[place] for place in due], suite, sandbox.limits)  # what is judged together has the same
        with Bar("sandbox", len(due), "program", hidden=not progress) as bar:
            for start in range(0, len(due), AT_ONCE):
                part = due[start:start + AT_ONCE]
                made = [Program(f"{asked[place].task_id}/{solutions[place]['sample_index']}",
                                **asked[place].programs(solutions[place]["solution"])[suite]) for place in part]
                for place, verdict in zip(part, judge(sandbox, made, limits, bar.add)):
                    verdicts[place][suite] = verdict
    return [problem.row(row, found) for problem, row, found in zip(asked, solutions, verdicts)]


def widest(problems: Sequence[Judged], suite: str, given: Limits) -> Limits:
    """The limits of the problem that needs most: programs are judged together."""
    return max((problem.limits(suite, given) for problem in problems), key=astuple)
