"""Suites, scoring, parity with evalplus' own checker, and the tables and sentences of stage 5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from plum_utils.data import evalplus
from plum_utils.data import problems as problems_module
from plum_utils.data.evalplus import OVERRIDES, SuiteUnavailable
from plum_utils.data.judges import source
from plum_utils.data.problems import BUNDLED, Problem, load_suite, preamble, self_contained
from plum_utils.evaluation import tables
from plum_utils.evaluation.beside_paper import table2
from plum_utils.evaluation.scoring import score
from plum_utils.evaluation.solutions import MOST_LINES, defines, sanitised, take_program
from plum_utils.evaluation.tables import (
    describe_change,
    describe_sharpness,
    headline,
    long_form,
    pass_at_k_table,
    results_table,
    wins_losses,
)
from plum_utils.models.extract import extract_code
from plum_utils.params import SuiteParams
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


# --- suites and scoring ---------------------------------------------------------------------------------------------

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


def test_suites_have_distinct_problems_and_a_limit():
    for suite in BUNDLED:
        names = [one.task_id for one in load_suite(suite)]
        assert len(names) == len(set(names)) >= 60
        assert [one.task_id for one in load_suite(suite, 3)] == names[:3]
    with pytest.raises(ValueError, match="unknown suite 'heldout'"):
        load_suite("heldout")


def test_mbpp_without_data_says_how_to_bring_it(monkeypatch):
    monkeypatch.delenv(OVERRIDES["mbpp"], raising=False)
    monkeypatch.setattr("evalplus.data.utils.CACHE_DIR", "/nonexistent")
    with pytest.raises(SuiteUnavailable, match="MBPP_OVERRIDE_PATH"):
        load_suite("mbpp")


def test_an_override_that_names_no_file_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv(OVERRIDES["mbpp"], str(tmp_path / "absent.jsonl"))
    with pytest.raises(SuiteUnavailable, match="absent.jsonl: no such file"):
        load_suite("mbpp")


def test_humanevals_imports_and_helpers_stand_before_a_solution():
    source = "import math\n\ndef helper(x):\n    return x\n\ndef wanted(x):\n    '''Doc.'''\n"
    assert preamble(source, "wanted") == "import math\ndef helper(x):\n    return x\n"
    assert preamble("def wanted(x):\n    '''Doc.'''\n", "wanted") == ""


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


@pytest.mark.parametrize("code, found", [("def f(x):\n    return x", True), ("async def f(): pass", True),
                                         ("class f: pass", True), ("def g():\n    def f(): pass", False),
                                         ("def f(:", False), ("", False), ("f = 1", False)])
def test_defines(code, found):
    assert defines(code, "f") is found


# --- the program in a completion ------------------------------------------------------------------------------------

ANSWER = """Here is the function:

```python
import math
from typing import List

LIMIT = 3

def helper(x):
\treturn x + LIMIT

def unused(x):
    return x

def f(xs: List[int]):
    return [helper(x) for x in xs]

print(f([1, 2]))
```
It adds three."""


def problem_of(suite: str, **more) -> Problem:
    return Problem("t/0", suite, "Do it.", "f", "def f(x):\n    return x\n", "assert f(1) == 1\n", **more)


def test_evalplus_keeps_what_the_function_needs():
    code = take_program(problem_of("humaneval"), ANSWER, "evalplus")
    assert code == ("import math\nfrom typing import List\nLIMIT = 3\ndef helper(x):\n    return x + LIMIT\n"
                    "def f(xs: List[int]):\n    return [helper(x) for x in xs]")
    from evalplus.sanitize import sanitize

    assert code == sanitize(ANSWER.replace("\t", "    "), "f")


@pytest.mark.parametrize("suite, postprocess", [("humaneval", "extract"), ("heldout_basics", "evalplus")])
def test_all_else_is_extracted(suite, postprocess):
    code = take_program(problem_of(suite), ANSWER, postprocess)
    assert code == extract_code(ANSWER) and "print(" in code and "unused" in code


def test_problems_without_a_suite_are_extracted():
    """LiveCodeBench's."""
    assert take_program(object(), ANSWER, "evalplus") == extract_code(ANSWER)


@pytest.mark.parametrize("completion", ["", "\n", "No code here.", "def f(x:\n    return", "x = 1\n```\ndef f(): pass"])
def test_any_text_gives_what_evalplus_gives(completion):
    from evalplus.sanitize import sanitize

    assert sanitised(completion, "f") == sanitize(completion.rstrip(), "f")


@pytest.mark.parametrize("completion", [
    "```python\ndef f():\n    return '\ud800'\n```", "```python\ndef f():\n    return " + "-" * 5000 + "1\n```",
    "```python\ndef f():\n    return 1\n" + "x = 1\n" * MOST_LINES + "```"], ids=["surrogate", "depth", "lines"])
def test_what_evalplus_cannot_take_is_extracted(completion):
    code = sanitised(completion, "f")
    assert code == extract_code(completion) and code.startswith("def f():")


def test_reading_a_completion_runs_nothing(tmp_path):
    mark = tmp_path / "ran"
    completion = f"```python\nopen({str(mark)!r}, 'w')\ndef f(x=open({str(mark)!r}, 'w')):\n    return x\n```"
    assert "def f" in sanitised(completion, "f") and not mark.exists()


def test_evalplus_wants_programs_that_bring_their_imports(sandbox):
    """Of a chat model evalplus judges the answer alone; the benchmark's own tests keep its helpers."""
    given = problem_of("humaneval", preamble="import math\n")
    tests = "assert f(math.pi) == 3\n"
    given = replace(given, base_tests=tests, plus_tests=tests, reference="import math\nf = math.floor\n")
    codes = ["def f(x):\n    return math.floor(x)", "import math\ndef f(x):\n    return math.floor(x)"]
    rows = [{"task_id": "t/0", "sample_index": index, "solution": code} for index, code in enumerate(codes)]
    passed = {name: [(row["base_passed"], row["plus_passed"]) for row in score([one], rows, sandbox, False)]
              for name, one in (("extract", given), ("evalplus", self_contained(given)))}
    assert passed == {"extract": [(True, True)] * 2, "evalplus": [(False, False), (True, True)]}


# --- evalplus -------------------------------------------------------------------------------------------------------

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


# --- tables and sentences -------------------------------------------------------------------------------------------

def scored_rows(after: dict[int, list[list[int]]], before: list[list[int]], decoding: str = "T=0.8") -> pd.DataFrame:
    """Rows of a suite: for each problem the outcomes of its samples; ``after`` by training seed."""
    rows = []
    for policy, seed, problems in [("baseline", None, before)] + [(f"kto-seed{s}", s, a) for s, a in after.items()]:
        rows += [{"suite": "s", "policy": policy, "seed": seed, "decoding": decoding, "temperature": 0.8,
                  "task_id": f"t{place}", "sample_index": index, "base_passed": bool(value), "plus_passed": None}
                 for place, samples in enumerate(problems) for index, value in enumerate(samples)]
    return long_form(rows)


def test_results_have_a_row_a_seed_and_one_for_the_mean():
    table = results_table(scored_rows({3: [[1, 1], [0, 0]], 5: [[1, 0], [1, 0]]}, [[0, 0], [0, 1]]), 200)
    assert list(table.seed) == ["3", "5", "mean"] and list(table.before) == [25.0] * 3
    assert list(table.after) == [50.0, 50.0, 50.0]
    assert headline(table).seed.tolist() == ["mean"] and headline(table)["spread"].item() == 0
    assert (table[table.seed == "3"].wins.item(), table[table.seed == "3"].losses.item()) == (1, 1)
    assert headline(table).wins.item() == 1 and headline(table).losses.item() == 1


def test_one_seed_has_no_mean():
    table = results_table(scored_rows({0: [[1], [0]]}, [[0], [0]]), 200)
    assert table.seed.tolist() == ["0"] and headline(table).equals(table)


def test_pass_at_k_stops_at_the_samples_there_are():
    curves = pass_at_k_table(scored_rows({0: [[1, 1], [0, 0]]}, [[1, 0], [0, 0]]), [1, 2, 5], 200)
    told = {(row.policy, row.k): row.value for row in curves.itertuples()}
    assert told == {("baseline", 1): 25, ("PLUM", 1): 50, ("baseline", 2): 50, ("PLUM", 2): 50}


def test_plus_tests_are_a_suite_of_their_own():
    rows = [{"suite": "humaneval", "policy": "baseline", "seed": None, "base_passed": True, "plus_passed": plus}
            for plus in (True, False)]
    told = long_form(rows).groupby("suite")["passed"].mean().to_dict()
    assert told == {"humaneval": 1.0, "humaneval+": 0.5}


def test_wins_and_losses_average_to_the_difference():
    scored = scored_rows({0: [[1, 1], [0, 0]], 1: [[0, 1], [0, 1]]}, [[0, 0], [1, 1]])
    assert wins_losses(scored).change.tolist() == [75.0, -75.0]
    assert wins_losses(scored).change.mean() == pytest.approx(headline(results_table(scored, 200))["difference"].item())


def test_table2_puts_this_run_above_the_papers_rows():
    results = results_table(scored_rows({0: [[1], [1]]}, [[1], [0]], "greedy").assign(suite="humaneval"), 200)
    table = table2(results, "tiny")
    assert table[["data", "row", "HE"]].values.tolist()[:3] == [
        ["this run", "Baseline", 50.0], ["this run", "PLUM", 100.0], ["this run", "Rel. +", 100.0]]
    assert table.loc[table.model == "MagiCoder-S-CL-7B", "HE+"].tolist() == [66.5, 69.5, 4.5]
    assert table.MBPP[:3].isna().all()


@pytest.mark.parametrize("before, after, word", [(0, 1, ": better:"), (1, 0, ": worse:"),
                                                 (1, 1, ": no difference beyond chance:")])
def test_sentences_follow_the_numbers(before, after, word):
    table = results_table(scored_rows({0: [[after]] * 20}, [[before]] * 20), 200)
    assert word in describe_change(next(table.itertuples()))


@pytest.mark.parametrize("one, many, words", [
    ((1, 3), (1, 3), "at this temperature"), ((1, 3), (-1, 2), "sharper: it finds"),
    ((1, 3), (-3, -1), "price of variety"),
    ((-1, 1), (-1, 1), "pass@1: no difference"), ((-3, -1), (-3, -1), "pass@1: worse; pass@10: worse")])
def test_better_or_only_sharper(one, many, words):
    table = pd.DataFrame([{"k": k, "difference": sum(interval) / 2, "difference_low": interval[0],
                           "difference_high": interval[1]} for k, interval in ((1, one), (10, many))])
    assert words in describe_sharpness(table)


def test_reach_gives_each_side_its_best_temperature():
    """A policy that is only sharper looks better at T=1, and is not once the baseline may be sampled colder."""
    cold = scored_rows({0: [[1, 1], [0, 0]]}, [[1, 0], [0, 0]])
    hot = scored_rows({0: [[1, 1], [0, 0]]}, [[0, 0], [0, 0]]).assign(temperature=1.0, decoding="T=1")
    both = pd.concat([cold, hot])
    at_one = pass_at_k_table(hot, [2], 200)
    assert at_one[(at_one.k == 2) & (at_one.policy == "PLUM")]["difference"].item() == 50
    row = next(tables.reach_table(both, 200).itertuples())
    assert (row.k, row.before_temperature, row.before, row.after, row.difference) == (2, 0.8, 50, 50, 0)
    assert "no sign that more problems" in tables.describe_reach(row)


def test_reach_of_greedy_answers_is_not_asked():
    greedy = scored_rows({0: [[1]]}, [[0]], "greedy").assign(temperature=0.0)
    assert tables.reach_table(greedy).empty


def test_a_tiny_p_value_is_not_zero():
    table = results_table(scored_rows({0: [[1]] * 30}, [[0]] * 30), 200)
    assert "p < 0.001" in describe_change(next(table.itertuples()))


def test_decodings():
    assert [one.label for one in SuiteParams(name="s", n=4, temperatures=[0.8, 1.0]).decodings()] == [
        "greedy", "T=0.8", "T=1"]
    assert [one.n for one in SuiteParams(name="s", temperatures=[0.8]).decodings()] == [1]
