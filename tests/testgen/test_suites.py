"""Stage 1: the parser takes Figure 3's format and nothing else, the filter keeps what agrees with itself."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.data.instructions import Instruction, load_instructions
from plum_utils.sandbox import Limits, Sandbox, Verdict
from plum_utils.testgen import suites as suites_module
from plum_utils.testgen.suites import (
    MalformedResponse,
    build_suites,
    consistency_by_source,
    count_tests,
    hollow,
    parse_response,
    reason_class,
    suites_by_instruction,
    vacuous_asserts,
)

SOLUTION = "def f(x):\n    return x + 1"
TESTS = "assert f(1) == 2\nassert f(-1) == 0"


def response(analysis="Add one.", solution=SOLUTION, start="def f(x):\n    pass", tests=TESTS, fence="```"):
    """A response in Figure 3's format, its code fenced unless ``fence`` is empty."""
    def block(code):
        return f"{fence}python\n{code}\n{fence}" if fence else code
    return (f"[Analysis]\n{analysis}\n[Solution]\n{block(solution)}\n[Start Code]\n{block(start)}\n"
            f"[Test Code]\n{block(tests)}\n")


EXPRESSION = st.recursive(st.integers(0, 9).map(str) | st.sampled_from(["x", "f(x)", "''", "[]"]),
                          lambda inner: st.tuples(inner, inner).map(lambda pair: f"({pair[0]} + {pair[1]})"),
                          max_leaves=4)
PROGRAM = st.lists(EXPRESSION.map("value = {}".format), min_size=1, max_size=4).map("\n".join)
SUITE = st.lists(st.tuples(EXPRESSION, EXPRESSION).map(lambda pair: f"assert {pair[0]} == {pair[1]}"), min_size=1,
                 max_size=5).map("\n".join)
PROSE = st.text(st.characters(blacklist_characters="[]`#*\r", blacklist_categories=("Cs", "Cc", "Zl", "Zp")),
                max_size=40)


@given(PROSE, PROGRAM, PROGRAM, SUITE, st.sampled_from(["```", ""]))
def test_round_trip(analysis, solution, start, tests, fence):
    parsed = parse_response(response(analysis, solution, start, tests, fence))
    assert (parsed.analysis, parsed.solution, parsed.start_code, parsed.test_code) == (
        analysis.strip(), solution, start, tests)


PIECES = st.sampled_from(["[Analysis]", "[Solution]", "[Start Code]", "[Test Code]", "\n", "```", "```python\n",
                          "assert 1", "def f(:", "**", "# ", ":", "\x00", " ", "if x:\n", "(" * 300, "-" * 5000])


@given(st.text(st.characters(), max_size=80) | st.lists(PIECES, max_size=25).map("".join))
def test_any_text_is_parsed_or_malformed(text):
    try:
        parsed = parse_response(text)
    except MalformedResponse as reason:
        assert str(reason)
    else:
        ast.parse(parsed.solution), ast.parse(parsed.test_code)


@pytest.mark.parametrize(("text", "reason"), [
    ("", "no [Analysis] section"),
    (response().partition("[Start Code]")[0], "no [Start Code] section"),
    (response() + "[Solution]\nx = 1\n", "sections repeated or out of order"),
    (response().replace("[Start Code]", "[X]").replace("[Solution]", "[Start Code]").replace("[X]", "[Solution]"),
     "sections repeated or out of order"),
    (response(tests="", fence=""), "empty [Test Code] section"),
    (response(solution="def f(x: return"), "[Solution] is not Python (SyntaxError)"),
    (response(tests="assert f(1) == (2,"), "[Test Code] is not Python (SyntaxError)"),
    (response(solution="x = '\x00'"), "[Solution] is not Python"),
    (response(solution="x = " + "-" * 200_000 + "1"), "[Solution] is not Python"),
])
def test_reasons(text, reason):
    with pytest.raises(MalformedResponse) as caught:
        parse_response(text)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("heading", ["## [{}]", "**[{}]**", "[{}]:", "  [{}]  ", "### **[{}]**"])
def test_decorated_headings_are_headings(heading):
    text = response()
    for name in suites_module.SECTIONS:
        text = text.replace(f"[{name}]", heading.format(name))
    assert parse_response(text).solution == SOLUTION


def test_a_heading_inside_a_line_is_text():
    assert parse_response(response(analysis="The [Test Code] section follows.")).test_code == TESTS


def test_several_blocks_of_a_section_are_joined():
    assert parse_response(response(tests="assert f(1) == 2\n```\nand\n```python\nassert f(2) == 3")).test_code == (
        "assert f(1) == 2\nassert f(2) == 3")


def test_a_fence_cut_off_at_the_end_still_holds_code():
    assert parse_response(response().rstrip().removesuffix("```")).test_code == TESTS


@pytest.mark.parametrize(("tests", "count"), [
    (TESTS, 2), ("for x in (1, 2):\n    assert f(x)\n", 1),
    ("def test():\n    assert f(1)\n    assert f(2)\ntest()", 2),
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
        "never ends": "timeout", "malformed": "malformed: no [Analysis] section"}


def test_table_1_counts_malformed_responses_in_the_denominator(rows):
    table = consistency_by_source(rows).iloc[0]
    assert (table.source, table.instructions, table.instructions_with_suite) == ("here", 1, 1)
    assert (table.responses, table.malformed, table.consistent) == (6, 2, 1)
    assert table.ours == pytest.approx(100 / 6)


def test_all_consistent_suites_of_an_instruction_apply_to_its_samples():
    made = [{"instruction_id": key, "consistent": kept, "test_code": code}
            for key, kept, code in (("a", True, "assert 1\n"), ("a", False, "assert 2"), ("a", True, "assert 3"),
                                    ("b", False, "assert 4"))]
    assert suites_by_instruction(made) == {"a": "assert 1\nassert 3\n"}


def test_a_fault_of_the_sandbox_is_never_an_inconsistency():
    class Broken:
        def run(self, programs, limits, ended):
            return [Verdict(program.id, "infrastructure", "no more processes", 0.0) for program in programs]

    with pytest.raises(RuntimeError, match="i1/0: the sandbox failed, not the program: no more processes"):
        build_suites([Instruction("i1", "here", "Add one.", (response(),))], Broken())
