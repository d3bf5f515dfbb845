"""Stages 5 and 6: held-out solutions, judged in our sandbox."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any, Protocol, Sequence

from plum_utils.progress import Bar
from plum_utils.sandbox import Limits, Program, Sandbox, Status, Verdict, judge


class Judged(Protocol):
    """A problem that knows how a solution of it is judged (``data.problems``, ``data.livecodebench``)."""

    @property
    def task_id(self) -> str: ...

    @property
    def instruction(self) -> str: ...

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
    names = [f"{row['task_id']}/{row['sample_index']}" for row in solutions]
    programs = [by_id[row["task_id"]].programs(row["solution"]) for row in solutions]
    verdicts: list[dict[str, Verdict]] = [{} for _ in solutions]
    kinds = dict.fromkeys((suite, program.get("mode")) for suites in programs for suite, program in suites.items())
    for suite, mode in kinds:  # what is judged together has the same limits
        due = [place for place, suites in enumerate(programs) if suite in suites and suites[suite].get("mode") == mode
               and all(verdict.status == Status.PASSED for verdict in verdicts[place].values())]
        made = [Program(names[place], **programs[place][suite]) for place in due]
        with Bar("sandbox", len(made), "program", hidden=not progress) as bar:
            asked = [by_id[solutions[place]["task_id"]] for place in due]
            found = judge(sandbox, made, widest(asked, suite, sandbox.limits) if due else None, bar.add)
        for place, verdict in zip(due, found):
            verdicts[place][suite] = verdict
    return [by_id[row["task_id"]].row(row, found) for row, found in zip(solutions, verdicts)]


def widest(problems: Sequence[Judged], suite: str, given: Limits) -> Limits:
    """The limits of the problem that needs most: programs are judged together."""
    return max((problem.limits(suite, given) for problem in problems), key=astuple)
