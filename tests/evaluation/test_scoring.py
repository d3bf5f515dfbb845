"""Scoring, and parity with evalplus' own checker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from plum_utils.data import evalplus
from plum_utils.data import problems as problems_module
from plum_utils.data.evalplus import OVERRIDES
from plum_utils.data.judges import source
from plum_utils.data.problems import BUNDLED, Problem, load_suite, self_contained
from plum_utils.evaluation.scoring import score
from plum_utils.provenance import ROOT
from plum_utils.sandbox import Limits, Sandbox

MUTATIONS = (("return ", "return not "), (" + ", " - "), (" - ", " + "), ("==", "!="), (" < ", " >= "), ("1", "2"))


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2, limits=Limits(seconds=10, memory_mb=1024)) as one:
        yield one


def evalplus_data(suite: str) -> None:
    """Skip the test unless the override variable names evalplus' released data."""
    variable = OVERRIDES[suite]
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set: evalplus' data is not at hand")


def rows_of(problems, solution=lambda problem: problem.reference) -> list[dict]:
    return [{"task_id": one.task_id, "sample_index": 0, "solution": solution(one)} for one in problems]


def mutated(source: str) -> str | None:
    """The source with its first operator or constant changed; ``None`` where nothing can be changed."""
    head, mark, body = source.rpartition('"""')
    head, body = (head + mark, body) if mark else source.split("\n", 1)
    for old, new in MUTATIONS:
        if old in body:
            return head + ("" if mark else "\n") + body.replace(old, new, 1)
    return None


@pytest.mark.parametrize("suite", [*BUNDLED, "humaneval"])
def test_every_reference_passes_its_own_tests(suite, sandbox, monkeypatch):
    monkeypatch.setattr(problems_module, "evalplus_rows", lambda _: None)  # the plus tests have their own test
    problems = load_suite(suite)
    judged = score(problems, rows_of(problems), sandbox, False)
    assert [row["task_id"] for row in judged if not row["base_passed"]] == []


@pytest.mark.parametrize("suite", [*BUNDLED, "humaneval"])
def test_mutated_references_fail(suite, sandbox, monkeypatch):
    """Nearly all one-character mutants of a few dozen references are caught; an equivalent mutant may pass."""
    monkeypatch.setattr(problems_module, "evalplus_rows", lambda _: None)
    problems = [one for one in load_suite(suite)[::3] if mutated(one.reference)]
    judged = score(problems, rows_of(problems, lambda one: mutated(one.reference)), sandbox, False)
    assert len(problems) >= 15
    assert np.mean([row["base_passed"] for row in judged]) < 0.15


def test_score_keeps_order_and_says_why(sandbox):
    problems = load_suite("heldout_basics", 2)
    rows = [{"task_id": problems[1].task_id, "sample_index": 1, "solution": "def broken(:"},
            {"task_id": problems[0].task_id, "sample_index": 0, "solution": problems[0].reference},
            {"task_id": problems[1].task_id, "sample_index": 0, "solution": ""}]
    judged = score(problems, rows, sandbox, False)
    key = ("task_id", "sample_index")
    assert [[row[name] for name in key] for row in judged] == [[row[name] for name in key] for row in rows]
    assert [row["base_passed"] for row in judged] == [False, True, False]
    assert judged[0]["status"] == "syntax" and "NameError" in judged[2]["detail"]
    assert all(row["plus_passed"] is None for row in judged)


def test_a_fault_of_the_sandbox_is_no_verdict():
    with Sandbox(workers=1) as closed:
        pass
    problems = load_suite("heldout_basics", 1)
    with pytest.raises(RuntimeError, match="the sandbox failed, not the program"):
        score(problems, rows_of(problems), closed, False)


def test_evalplus_wants_programs_that_bring_their_imports(sandbox):
    """Of a chat model evalplus judges the answer alone; the benchmark's own tests keep its helpers."""
    given = Problem("t/0", "humaneval", "Do it.", "f", "", "", preamble="import math\n")
    tests = "assert f(math.pi) == 3\n"
    given = replace(given, base_tests=tests, plus_tests=tests, reference="import math\nf = math.floor\n")
    codes = ["def f(x):\n    return math.floor(x)", "import math\ndef f(x):\n    return math.floor(x)"]
    rows = [{"task_id": "t/0", "sample_index": index, "solution": code} for index, code in enumerate(codes)]
    passed = {name: [(row["base_passed"], row["plus_passed"]) for row in score([one], rows, sandbox, False)]
              for name, one in (("extract", given), ("evalplus", self_contained(given)))}
    assert passed == {"extract": [(True, True)] * 2, "evalplus": [(False, False), (True, True)]}


@pytest.mark.parametrize("suite, step", [("humaneval", 12), ("mbpp", 30)])
def test_references_pass_the_plus_tests(suite, step, sandbox):
    evalplus_data(suite)
    problems = load_suite(suite)[::step]
    judged = score(problems, rows_of(problems), sandbox, False)
    assert [row["task_id"] for row in judged if not row["plus_passed"]] == []


@pytest.mark.long("upgrade")
@pytest.mark.parametrize("suite, step", [("humaneval", 12), ("mbpp", 30)])
def test_verdicts_are_those_of_evalplus(suite, step, sandbox):
    """Right and mutated programs, judged by our sandbox and by evalplus' ``untrusted_check``."""
    evalplus_data(suite)
    rows = {row["task_id"]: row for row in evalplus.evalplus_rows(suite)}
    problems = [one for one in load_suite(suite)[::step] if mutated(one.reference)]
    wrong = rows_of(problems, lambda problem: mutated(problem.reference))
    solutions = rows_of(problems) + [row | {"sample_index": 1} for row in wrong]
    ours = {(row["task_id"], row["sample_index"]): (row["base_passed"], row["plus_passed"])
            for row in score(problems, solutions, sandbox, False)}
    theirs = {(row["task_id"], row["sample_index"]): theirs_of(suite, rows[row["task_id"]], row["solution"])
              for row in solutions}
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]} == {}
    assert {passed for passed, _ in ours.values()} == {True, False}


def theirs_of(suite: str, row: dict, solution: str) -> tuple[bool, bool]:
    from evalplus.eval import PASS, untrusted_check
    from evalplus.gen.util import trusted_exec

    passed = []
    for inputs in (row["base_input"], row["plus_input"]):
        reference = row["prompt"] + row["canonical_solution"]
        output_not_none = suite == "mbpp" and row["entry_point"] in evaluation_not_none()
        expected, seconds = trusted_exec(reference, inputs, row["entry_point"], record_time=True,
                                         output_not_none=output_not_none)
        status, _ = untrusted_check(suite, solution, inputs, row["entry_point"], expected, row["atol"], seconds,
                                    fast_check=True, min_time_limit=5.0)
        passed.append(status == PASS)
    return passed[0], all(passed)


def evaluation_not_none() -> list[str]:
    from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS

    return MBPP_OUTPUT_NOT_NONE_TASKS


@pytest.mark.long("upgrade")
@pytest.mark.parametrize("suite", OVERRIDES)
def test_pass_at_1_is_that_of_evalplus_own_command(suite, tmp_path):
    """``evalplus.evaluate`` and ours on the same 20 programs, right ones and mutants."""
    evalplus_data(suite)
    command = [sys.executable, str(ROOT / "benchmarks" / "evalplus_pass1.py"), "--suites", suite, "--limit", "20",
               "--out", str(tmp_path / "found.json")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    row, = json.loads((tmp_path / "found.json").read_text())
    assert row["problems"] == row["samples"] == 20 and row["differing"] == []
    assert (row["ours_base"], row["ours_plus"]) == pytest.approx((row["evalplus_base"], row["evalplus_plus"]))
    assert 0 < row["ours_plus"] <= row["ours_base"] < 100


def test_the_judges_lists_of_exceptions_are_those_of_evalplus():
    from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS, MBPP_OUTPUT_SET_EQ_TASKS

    assert set(evalplus.NOT_NONE_TASKS) == set(MBPP_OUTPUT_NOT_NONE_TASKS)
    for name in MBPP_OUTPUT_SET_EQ_TASKS:
        assert f'"{name}"' in source("evalplus_judge"), name


def judged_by_oracle(sandbox: Sandbox, code: str, name: str, reference: str, inputs: list, suite: str) -> bool:
    row = {"prompt": "", "canonical_solution": reference, "entry_point": name, "atol": 0}
    problem = problems_module.Problem("x", suite, "", name, reference, evalplus.evalplus_tests(suite, row, inputs))
    return score([problem], [{"task_id": "x", "sample_index": 0, "solution": code}], sandbox, False)[0]["base_passed"]


@pytest.mark.parametrize("code, passes", [
    ("def f(x): return x / 3 + 1e-9", True), ("def f(x): return x / 3 + 1e-3", False),
    ("def f(x): return None", False)])
def test_floats_are_compared_with_a_tolerance(code, passes, sandbox):
    assert judged_by_oracle(sandbox, code, "f", "def f(x): return x / 3", [[1], [2]], "humaneval") is passes


@pytest.mark.parametrize("name, code, passes", [
    ("check_str", "def check_str(s): return s == 'ab' or None", True),  # not None where the reference is not None
    ("check_str", "def check_str(s): return 1", False),
    ("Diff", "def Diff(s): return list(reversed(sorted(set(s))))", True),  # the order does not count
    ("Diff", "def Diff(s): return []", False)])
def test_mbpps_named_oracles(name, code, passes, sandbox):
    reference = {"check_str": "def check_str(s): return 'm' if s == 'ab' else None",
                 "Diff": "def Diff(s): return sorted(set(s))"}[name]
    assert judged_by_oracle(sandbox, code, name, reference, [["ab"], ["cd"]], "mbpp") is passes
