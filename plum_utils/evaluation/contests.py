"""Stage 6: a program against a contest's tests.

Rules read from LiveCodeBench's runner: stdin problems compare output line by line after stripping, falling back to
numbers; functional problems call a method of ``class Solution`` with JSON-decoded arguments.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from plum_utils.data.judges import source
from plum_utils.data.livecodebench import LcbProblem
from plum_utils.sandbox import Limits, Program, Sandbox, judge

MEMORY_MB = 1024  # what contest sites grant; the tests themselves may take a part of it
# LiveCodeBench executes every solution after these imports, so that solutions may leave them out.
IMPORTS = "".join(f"from {name} import *\n" for name in (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing")) + (
    "import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools\n"
    "import operator, io, sys, json\nsys.setrecursionlimit(50000)\n")


def lcb_program(problem: LcbProblem, code: str, name: str, seconds: float = 6.0) -> Program:
    """The program that is judged on all public and private tests; the expected outputs stay in the judge's process.

    A stdin solution is executed once a test as ``__main__``; it must not run at load, so its source travels as data.

    Args:
        seconds: limit of each test (LiveCodeBench: 6); give the sandbox ``lcb_limits`` for the whole.
    """
    tests = json.dumps([(test.input, test.output) for test in problem.public_tests + problem.private_tests])
    kind = "method" if problem.func_name else "stdin"
    judge = f"{source('contest_clock', f'{kind}_judge')}\njudge(_run, json.loads({tests!r}), {seconds!r})\n"
    if problem.func_name:
        runner = f"\n_METHOD = {problem.func_name!r}\n{source('method_runner')}"
        return Program(name, IMPORTS + code + runner, judge, mode="split")
    return Program(name, f"_SOURCE = {IMPORTS + code!r}\n{source('stdin_runner')}", judge, mode="split")


def lcb_limits(problems: list[LcbProblem], limits: Limits, seconds: float) -> Limits:
    """The sandbox's limits for whole programs: each test's seconds for every test of the longest suite."""
    most = max(len(problem.public_tests) + len(problem.private_tests) for problem in problems)
    return replace(limits, seconds=(seconds + 1) * most + 5, memory_mb=max(MEMORY_MB, limits.memory_mb))


def grade(problems: list[LcbProblem], solutions: list[dict[str, Any]], sandbox: Sandbox, seconds: float = 6.0
          ) -> list[dict[str, Any]]:
    """Judge solutions (``task_id``, ``sample_index``, ``solution``) on all tests of their problems.

    Returns:
        Rows task_id, difficulty, platform, contest_date (``2023-08-21``), sample_index, solution, passed, status,
        detail.

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    by_id = {problem.task_id: problem for problem in problems}
    programs = [lcb_program(by_id[row["task_id"]], row["solution"], f"{row['task_id']}/{row['sample_index']}", seconds)
                for row in solutions]
    verdicts = judge(sandbox, programs, lcb_limits(problems, sandbox.limits, seconds))
    return [_origin(by_id[row["task_id"]]) | {
        "sample_index": row["sample_index"], "solution": row["solution"], "passed": verdict.status == "passed",
        "status": verdict.status, "detail": verdict.detail} for row, verdict in zip(solutions, verdicts)]


def _origin(problem: LcbProblem) -> dict[str, str]:
    return {"task_id": problem.task_id, "difficulty": problem.difficulty, "platform": problem.platform,
            "contest_date": problem.contest_date.isoformat()}
