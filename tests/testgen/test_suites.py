"""Stage 1: the parser takes Figure 3's format and nothing else, the filter keeps what agrees with itself."""

from __future__ import annotations

import ast

import pytest
from test_response import TESTS, response

from plum_utils.data.instructions import Instruction, load_instructions
from plum_utils.sandbox import Limits, Sandbox, Verdict
from plum_utils.testgen.response import parse_response
from plum_utils.testgen.suites import (
    build_suites,
    consistency_by_source,
    count_tests,
    hollow,
    reason_class,
    suites_by_instruction,
    swallowed_asserts,
    vacuous_asserts,
)


@pytest.mark.parametrize(("tests", "count"), [
    (TESTS, 2), ("for x in (1, 2):\n    assert f(x)\n", 1),
    ("def test():\n    assert f(1)\n    assert f(2)\ntest()", 2),
    ("import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(1), 2)", 1),
    ("if f(1) != 2:\n    raise AssertionError", 1), ("if f(1) != 2:\n    assert False", 1),
    ("if f(1) == 2:\n    print('ok')\nelse:\n    exit(1)", 1), ("if f(1) == 2:\n    exit()", 0),
    ("def main():\n    print(f(1))\nif 1:\n    raise SystemExit(main())\nif 2:\n    exit(main())", 0),
    ("for x in '', []:\n    try:\n        f(x)\n    except TypeError:\n        continue\n    assert False", 1),
    ("def test_f():\n    try:\n        f('')\n    except TypeError:\n        return\n    assert False", 1),
    ("try:\n    f('')\n    pytest.fail('no error')\nexcept TypeError:\n    pass", 1), ("import pytest\nwith pytest.raises(ValueError):\n    f(0)", 1),
    ("print(f(1))", 0)])
def test_count_tests(tests, count):
    assert count_tests(tests) == count


@pytest.mark.parametrize(("line", "vacuous"), [
    ("assert f(1) == 2 or True", True), ("assert True or f(1)", True), ("assert True", True), ("assert 'text'", True),
    ("assert (f(1) == 2, 'message')", True), ("assert f(1) == f(1)", True), ("assert 3 <= 3", True),
    ("assert True and (f(1) or 1)", True),
    ("assert f(1) == 2", False), ("assert f(1) == 2 and True", False), ("assert f(1) == 2 or False", False),
    ("assert f(1) != f(1)", False), ("assert f(1) < f(1)", False), ("assert ()", False), ("assert f(1) == f(2)", False),
])
def test_vacuous_asserts(line, vacuous):
    assert vacuous_asserts(f"{TESTS}\n{line}\n") == ([ast.unparse(ast.parse(line))] if vacuous else [])


@pytest.mark.parametrize(("handler", "swallowed"), [
    ("except AssertionError:\n    print('failed')", True), ("except:\n    pass", True), ("except Exception as error:\n    print(error)", True),
    ("except (ValueError, AssertionError):\n    pass", True), ("except ValueError:\n    pass", False),
    ("except AssertionError:\n    raise", False), ("except Exception:\n    assert False", False)])
def test_asserts_that_a_try_swallows(handler, swallowed):
    text = f"assert f(0) == 1\ntry:\n    assert f(1) == 2\n{handler}\n"
    assert swallowed_asserts(text) == (["assert f(1) == 2"] if swallowed else [])
    for error, lost in (("AssertionError", ["assert f(1) == 2"]), ("ValueError", [])):
        assert swallowed_asserts(f"with contextlib.suppress({error}):\n    assert f(1) == 2") == lost


def test_a_hollow_program_keeps_names_and_does_nothing():
    space: dict = {}
    exec(hollow("import math\nclass C:\n    def g(self, x):\n        return x\ndef f(x, y=2):\n    return x\n"), space)
    assert space["f"](1, y=3) is None and space["C"]().g(1) is None


def test_the_bundled_evol_set_holds_the_assert_that_cannot_fail():
    suites = [parse_response(text).test_code for item in load_instructions("evol") for text in item.responses]
    found = [line for suite in suites for line in vacuous_asserts(suite)]
    assert len(found) == 1 and found[0].endswith("or True")


RESPONSES = {
    "consistent": response(),
    "wrong": response(tests="assert f(1) == 3"),
    "no assert": response(tests="print(f(1))"),
    "exits": response(solution="import os\nos._exit(0)\ndef f(x): return x"),
    "never ends": response(solution="def f(x):\n    while True: pass"),
    "malformed": "I cannot help with that.",
    "nobody calls": response(tests="def check(candidate):\n    assert candidate(1) == 2"),
    "never reached": response(tests="for x in []:\n    assert f(x) == 2"),
    "of nothing": response(tests="assert 1 + 1 == 2"),
}


@pytest.fixture(scope="module")
def rows():
    item = Instruction("i1", "here", "Add one.", tuple(RESPONSES.values()))
    with Sandbox(workers=1, limits=Limits(seconds=2, memory_mb=256)) as sandbox:
        return build_suites([item, Instruction("i2", "there", "Nobody answered.")], sandbox, progress=False)


def test_the_filter_keeps_only_what_passes_its_own_tests(rows):
    assert [row["consistent"] for row in rows] == [name == "consistent" for name in RESPONSES]
    assert [row["attempt"] for row in rows] == list(range(len(RESPONSES)))
    assert rows[0]["n_tests"] == 2 and not rows[0]["reason"]


def test_every_dropped_response_has_its_reason(rows):
    assert {name: reason_class(row["reason"]) for name, row in zip(RESPONSES, rows)} == {
        "consistent": "", "wrong": "failed", "no assert": "malformed: no assert in [Test Code]", "exits": "error",
        "never ends": "timeout", "malformed": "malformed: no [Analysis] section", "nobody calls": "untested",
        "never reached": "untested", "of nothing": "untested"}
    assert rows[-1]["reason"] == "untested: the tests never called the solution"


def test_table_1_counts_malformed_responses_in_the_denominator(rows):
    table = consistency_by_source(rows).iloc[0]
    assert (table.source, table.instructions, table.instructions_with_suite) == ("here", 1, 1)
    assert (table.responses, table.malformed, table.consistent) == (9, 2, 1)
    assert table.ours == pytest.approx(100 / 9)


def test_all_consistent_suites_of_an_instruction_apply_to_its_samples():
    made = [{"instruction_id": key, "consistent": kept, "test_code": code}
            for key, kept, code in (("a", True, "assert 1\n"), ("a", False, "assert 2"), ("a", True, "assert 3"),
                                    ("b", False, "assert 4"))]
    assert suites_by_instruction(made) == {"a": ("assert 1", "assert 3")}


def test_a_fault_of_the_sandbox_is_never_an_inconsistency():
    class Broken:
        def run(self, programs, limits, ended):
            return [Verdict(program.id, "infrastructure", "no more processes", 0.0) for program in programs]

    with pytest.raises(RuntimeError, match="i1/0: the sandbox failed, not the program: no more processes"):
        build_suites([Instruction("i1", "here", "Add one.", (response(),))], Broken())
