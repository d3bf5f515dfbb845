"""Mutants by hand, suites strong and weak in the real sandbox, and false-positive rates that can be counted."""

from __future__ import annotations

import ast
from dataclasses import replace
from difflib import unified_diff

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.data.instructions import load_instructions
from plum_utils.sandbox import Program, Sandbox
from plum_utils.testgen.audit import (
    draw_instructions,
    false_positives,
    mutation_scores,
    suite_verdicts,
)
from plum_utils.testgen.mutation import mutants
from plum_utils.testgen.response import parse_response

CLAMP = """def clamp(x, low, high):
    if x < low:
        return low
    if x > high:
        return high
    return x
"""
STRONG = ("assert clamp(-1, 0, 9) == 0\nassert clamp(10, 0, 9) == 9\nassert clamp(4, 0, 9) == 4\n"
          "assert clamp(0, 0, 9) == 0\nassert clamp(9, 0, 9) == 9\n")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(2, quiet=True) as pool:
        yield pool


def lines(solution: str) -> dict[str, list[str]]:
    """Operator -> the changed lines of its mutants, stripped."""
    before, found = ast.unparse(ast.parse(solution)).splitlines(), {}
    for mutant in mutants(solution):
        changed = [line[1:].strip() for line in unified_diff(before, mutant.source.splitlines(), n=0, lineterm="")
                   if line.startswith("+") and not line.startswith("+++")]
        found.setdefault(mutant.operator, []).append("; ".join(changed))
    return found


@pytest.mark.parametrize("body, operator, expected", [
    ("return a < b", "ReplaceComparisonOperator_Lt_LtE", ["return a <= b"]),
    ("return a in b", "ReplaceComparisonOperator_In_NotIn", ["return a not in b"]),
    ("return 1 < a == b", "ReplaceComparisonOperator_Eq_NotEq", ["return 1 < a != b"]),
    ("return a - b", "ReplaceBinaryOperator_Sub_Add", ["return a + b"]),
    ("a *= b", "ReplaceBinaryOperator_Mult_Add", ["a += b"]),
    ("return a and b", "ReplaceAndWithOr", ["return a or b"]),
    ("return a or b", "ReplaceOrWithAnd", ["return a and b"]),
    ("return a[2]", "NumberReplacer_plus", ["return a[3]"]),
    ("return a[2]", "NumberReplacer_minus", ["return a[1]"]),
    ("return True", "ReplaceTrueWithFalse", ["return False"]),
    ("return 'ab'", "StringReplacer", ["return 'XXabXX'"]),
    ("return range(a, b)", "RangeBound_plus", ["return range(a + 1, b)", "return range(a, b + 1)"]),
    ("return range(a, b)", "RangeBound_minus", ["return range(a - 1, b)", "return range(a, b - 1)"]),
    ("return not a", "AddNot", ["return not not a"]),
    ("return a if a else b", "AddNot", ["return a if not a else b"]),
    ("return [c for c in a if c if b]", "AddNot",
     ["return [c for c in a if not c if b]", "return [c for c in a if c if not b]"]),
    ("while a:\n        a = b", "AddNot", ["while not a:"]),
    ("return -a", "ReplaceUnaryOperator_USub_UAdd", ["return +a"]),
    ("return a", "ReturnNone", ["return None"]),
    ("a = b\n    return a", "StatementDeletion", ["pass"]),
    ("try:\n        a = b\n    finally:\n        b()", "StatementDeletion", ["pass", "pass", "pass"]),
])
def test_operators_one_by_one(body, operator, expected):
    assert sorted(lines(f"def f(a, b):\n    {body}\n")[operator]) == sorted(expected)


def test_a_negated_condition_is_made_once():
    assert lines("def f(a):\n    if not a:\n        return 1\n")["AddNot"] == ["if not not a:"]


def test_what_no_test_can_see_is_left_alone():
    quiet = 'def f(a: "int" = None) -> list[3]:\n    """Doc 1 < 2."""\n    b: Literal["x", 1]\n    return None\n'
    assert [mutant.operator for mutant in mutants(quiet)] == ["StatementDeletion"]  # the annotation as a whole
    assert "format" not in "".join(mutant.source for mutant in mutants("def f(a):\n    return f'{a:.2f}'"))
    assert {mutant.operator for mutant in mutants("def f(a):\n    return f'{a:.2f}'")} == {"ReturnNone"}


def test_definitions_imports_and_returns_are_not_deleted():
    source = "import math\n\nclass A:\n    def f(self):\n        pass\n\ndef g():\n    return\n"
    assert mutants(source) == []


def solutions() -> list[str]:
    texts = [text for name in ("basics_train", "oss", "evol", "sharegpt") for item in load_instructions(name)[::9]
             for text in item.responses[:1]]
    parsed = []
    for text in texts:
        try:
            parsed.append(parse_response(text).solution)
        except ValueError:
            pass
    return parsed


def test_mutants_of_recorded_solutions_compile_and_differ_in_one_place():
    programs = solutions()
    assert len(programs) > 40
    for solution in programs:
        original, found = ast.unparse(ast.parse(solution)), mutants(solution, 15)
        sources = [mutant.source for mutant in found]
        assert len(set(sources)) == len(sources) and original not in sources
        for source in sources:
            compile(source, "mutant", "exec")
            same = [line for line in source.splitlines() if line in original.splitlines()]
            assert len(same) >= len(source.splitlines()) - 1 or "pass" in source  # a deleted block takes its lines


@given(st.integers(0, 12), st.integers(0, 5))
def test_a_limit_draws_by_seed_and_keeps_the_order(limit, seed):
    everything, some = mutants(CLAMP), mutants(CLAMP, limit, seed)
    assert len(some) == min(limit, len(everything)) and some == mutants(CLAMP, limit, seed)
    places = [everything.index(mutant) for mutant in some]
    assert places == sorted(set(places))


def test_different_seeds_draw_different_mutants():
    assert len({tuple(mutants(CLAMP, 3, seed)) for seed in range(6)}) > 3


@pytest.mark.parametrize("source", ["def f(:", "", "x = " + "(" * 500 + ")" * 500, "a\0b", "x = " + "-" * 5000 + "1"])
def test_what_cannot_be_parsed_has_no_mutants(source):
    assert mutants(source) == []


def row(test_code: str, solution: str = CLAMP, attempt: int = 0) -> dict:
    return {"instruction_id": "clamp", "source": "by hand", "attempt": attempt, "solution": solution,
            "test_code": test_code, "consistent": True}


def test_a_strong_suite_kills_more_than_a_weak_one(sandbox):
    weak = row("assert clamp(4, 0, 9) == 4\n", attempt=1)
    hollow = row("clamp(1, 2, 3)\nassert True\n", attempt=2)
    scores = mutation_scores([row(STRONG), weak, hollow], sandbox, 100)
    total = len(mutants(CLAMP))
    assert list(scores.columns) == ["source", "instruction_id", "attempt", "mutants", "killed", "score", "survivor"]
    assert list(scores.attempt) == [0, 1, 2] and (scores.mutants == total).all()
    strong, middle, none = scores.score
    assert strong > middle > none == 0
    lived = {mutant.operator for mutant in mutants(CLAMP) if mutant.source == scores.survivor[0]}
    assert lived <= {"ReplaceComparisonOperator_Lt_LtE", "ReplaceComparisonOperator_Gt_GtE"}  # clamp's equivalent ones
    assert strong == pytest.approx((total - 2) / total)


def test_a_survivor_passes_the_suite_and_is_not_the_reference(sandbox):
    suite = row("assert clamp(4, 0, 9) == 4\n")
    survivor = mutation_scores([suite], sandbox, 100).survivor[0]
    assert survivor != ast.unparse(ast.parse(CLAMP))
    assert sandbox.run([Program("survivor", survivor, suite["test_code"])])[0].status == "passed"


def test_an_endless_mutant_is_killed(sandbox):
    source = "def f(n):\n    while n > 0:\n        n -= 1\n    return n\n"
    scores = mutation_scores([row("assert f(3) == 0\n", source)], sandbox, 100)
    assert scores.killed[0] >= sum(mutant.operator in ("ReplaceBinaryOperator_Sub_Add", "StatementDeletion")
                                   for mutant in mutants(source)) - 1


def test_no_mutant_or_a_suite_that_fails_its_own_solution_has_no_score(sandbox):
    nothing = row("assert f() is None\n", "def f():\n    return None\n")
    wrong = row("assert clamp(4, 0, 9) == 5\n", attempt=1)
    scores = mutation_scores([nothing, wrong], sandbox, 5)
    assert list(scores.mutants) == [0, 5] and scores.score.isna().all()
    assert mutation_scores([], sandbox).empty


class Broken:
    """A sandbox that fails on everything."""

    def run(self, programs, limits=None, ended=None):
        with Sandbox(1, quiet=True) as pool:
            return [replace(verdict, status="infrastructure", detail="no fork") for verdict in pool.run(programs[:1])]


def test_our_own_failure_is_no_kill():
    with pytest.raises(RuntimeError, match="0/0: the sandbox failed, not the program: no fork"):
        mutation_scores([row(STRONG)], Broken())
    with pytest.raises(RuntimeError, match="the sandbox failed"):
        suite_verdicts([{"instruction_id": "clamp", "sample_index": 0, "code": CLAMP}], [row(STRONG)], Broken())


def test_suites_judge_one_by_one(sandbox):
    lazy = "def clamp(x, low, high):\n    return x\n"
    samples = [{"instruction_id": "clamp", "sample_index": 0, "code": CLAMP},
               {"instruction_id": "clamp", "sample_index": 1, "code": lazy},
               {"instruction_id": "elsewhere", "sample_index": 0, "code": CLAMP}]
    suites = [row(STRONG), row("assert clamp(4, 0, 9) == 4\n", attempt=2),
              row("assert False\n", attempt=1) | {"consistent": False}]
    verdicts = suite_verdicts(iter(samples), iter(suites), sandbox)
    assert verdicts.values.tolist() == [["clamp", 0, 0, True], ["clamp", 0, 2, True],
                                        ["clamp", 1, 0, False], ["clamp", 1, 2, True]]
    table = false_positives(verdicts).set_index("suite")
    assert table.loc["0", ["chosen", "wrong"]].tolist() == [1, 0]
    assert table.loc["2", ["chosen", "wrong", "rate"]].tolist() == [2, 1, 50]
    assert table.loc["any", ["instructions", "chosen", "wrong"]].tolist() == [1, 3, 1]


def verdict_frame(outcomes: dict[str, list[list[bool]]]) -> pd.DataFrame:
    """Instruction -> for each sample, which suites it passes."""
    return pd.DataFrame([(name, index, attempt, passed) for name, samples in outcomes.items()
                         for index, suites in enumerate(samples) for attempt, passed in enumerate(suites)],
                        columns=["instruction_id", "sample_index", "attempt", "passed"])


outcomes = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3).flatmap(
    lambda suites: st.lists(st.lists(st.booleans(), min_size=suites, max_size=suites), min_size=1, max_size=5)))


@given(outcomes)
def test_false_positives_are_those_that_one_can_count(cases):
    table = false_positives(verdict_frame(cases).astype({"passed": bool}), 50).set_index("suite")
    chosen = [(passed, all(sample)) for samples in cases.values() for sample in samples if len(sample) > 1
              for passed in sample if passed]
    row = table.loc["any"]
    assert (row.chosen, row.wrong) == (len(chosen), sum(not right for _, right in chosen))
    assert table.drop("any").chosen.sum() == row.chosen and table.drop("any").wrong.sum() == row.wrong
    if chosen:
        assert row.rate == pytest.approx(100 * row.wrong / row.chosen)
        assert 0 <= row.low <= row.high <= 100
    else:
        assert np.isnan([row.rate, row.low, row.high]).all()


def test_one_suite_alone_says_nothing():
    assert false_positives(verdict_frame({"a": [[True], [False]]})).chosen.tolist() == [0]


def test_the_interval_knows_that_samples_of_an_instruction_belong_together():
    """Half the instructions have a weak suite: all their samples are wrong at once."""
    row = false_positives(verdict_frame({"a": [[True, False]] * 20, "b": [[True, True]] * 10}), 500).iloc[0]
    assert (row.low, row.high, row.rate) == (0, 100, 50)


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(1, 50), st.integers(0, 3))
def test_drawn_instructions_have_no_more_samples_than_the_limit(ids, limit, seed):
    drawn = draw_instructions(ids, limit, seed)
    assert drawn <= set(ids) and drawn == draw_instructions(reversed(ids), limit, seed)
    assert sum(name in drawn for name in ids) <= limit or len(drawn) == 1
    assert bool(drawn) == bool(ids)
