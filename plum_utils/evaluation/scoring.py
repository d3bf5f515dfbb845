"""Stage 5: held-out suites, HumanEval(+) and MBPP(+), judged in our sandbox."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from plum_utils.data.evalplus import presence_counts
from plum_utils.data.judges import source
from plum_utils.data.problems import BUNDLED, Problem
from plum_utils.progress import Bar
from plum_utils.sandbox import Limits, Program, Sandbox, Verdict, judge

BASE_SECONDS = 62.0    # evalplus' limit of all tests together, when there are many
PLUS_SECONDS = 120.0   # twice that: the reference runs beside the candidate
MEMORY_MB = 4096       # as evalplus


def runnable(problem: Problem, solution: str) -> str:
    """The program that is judged: the benchmark's preamble, then the solution (which may define all of it anew).

    Where only the presence of a result counts, a function follows that turns it into plain data.
    """
    program = problem.preamble + solution
    if presence_counts(problem.suite, problem.entry_point):
        program += f"\n\n_plum_counted = {problem.entry_point}\n{source('presence')}"
    return program


# --- scoring --------------------------------------------------------------------------------------------------------

def score(problems: list[Problem], solutions: list[dict[str, Any]], sandbox: Sandbox, progress: bool = True
          ) -> list[dict[str, Any]]:
    """Judge solutions; a plus suite contains the base tests, as in evalplus, so it runs only where those pass.

    Args:
        solutions: rows with ``task_id``, ``sample_index`` and ``solution``.

    Returns:
        Rows of the ``evaluation`` contract: task_id, sample_index, solution, base_passed, plus_passed (``None``
        without plus tests), status, detail, assurance (of the base tests), plus_status and plus_assurance (``None``
        where they did not run).

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    by_id = {problem.task_id: problem for problem in problems}
    bundled = all(problem.suite in BUNDLED for problem in problems)
    programs = [_program(by_id[row["task_id"]], row, by_id[row["task_id"]].base_tests) for row in solutions]
    base = _verdicts(sandbox, programs, progress, sandbox.limits if bundled else _roomy(sandbox.limits, BASE_SECONDS))
    further = [_program(by_id[row["task_id"]], row, tests) for row in solutions
               if base[_name(row)].status == "passed" and (tests := by_id[row["task_id"]].plus_tests)]
    plus = _verdicts(sandbox, further, progress, _roomy(sandbox.limits, PLUS_SECONDS)) if further else {}
    return [_scored(row, base[_name(row)], plus.get(_name(row)), by_id[row["task_id"]].plus_tests is not None)
            for row in solutions]


def _roomy(limits: Limits, seconds: float) -> Limits:
    """evalplus' limits of a whole program; each call has its own in the tests, so that endless ones cost a second."""
    seconds = max(seconds, limits.seconds)
    return replace(limits, seconds=seconds, least_seconds=seconds, memory_mb=max(MEMORY_MB, limits.memory_mb))


def _name(row: dict[str, Any]) -> str:
    return f"{row['task_id']}/{row['sample_index']}"


def _program(problem: Problem, row: dict[str, Any], tests: str) -> Program:
    return Program(_name(row), runnable(problem, row["solution"]), problem.preamble + tests,
                   reference=runnable(problem, problem.reference))


def _verdicts(sandbox: Sandbox, programs: list[Program], progress: bool, limits: Limits) -> dict[str, Verdict]:
    with Bar("sandbox", len(programs), "program", hidden=not progress) as bar:
        return {verdict.id: verdict for verdict in judge(sandbox, programs, limits, bar.add)}


def _scored(row: dict[str, Any], base: Verdict, plus: Verdict | None, has_plus: bool) -> dict[str, Any]:
    return {"task_id": row["task_id"], "sample_index": row["sample_index"], "solution": row["solution"],
            "base_passed": base.status == "passed", "status": base.status, "detail": base.detail,
            "assurance": base.assurance,
            "plus_passed": (plus is not None and plus.status == "passed") if has_plus else None,
            "plus_status": plus.status if plus else None, "plus_assurance": plus.assurance if plus else None}
