"""LiveCodeBench's rules: what passes, what fails, and in which time."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from datetime import date

import pytest
from livecodebench_reference import SOLUTIONS
from stand_ins import StubSandbox

from plum_utils.data import livecodebench
from plum_utils.data.livecodebench import LcbProblem, LcbTest, load_livecodebench
from plum_utils.evaluation import scoring
from plum_utils.evaluation.scoring import score, widest
from plum_utils.evaluation.solutions import score_solutions
from plum_utils.params import Params
from plum_utils.sandbox import Limits, Program, Sandbox


@pytest.fixture(scope="module")
def problems():
    return {one.task_id: one for one in load_livecodebench()}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2, limits=Limits(seconds=10, memory_mb=512)) as one:
        yield one


def graded(problems, sandbox, *solutions: tuple[str, str], seconds: float = 2.0) -> list[dict]:
    rows = [{"task_id": task, "sample_index": index, "solution": code} for index, (task, code) in enumerate(solutions)]
    asked = [replace(problems[task], seconds=seconds) for task in {task for task, _ in solutions}]
    return score(asked, rows, sandbox, False)


def test_every_bundled_problem_is_solved_by_its_reference(problems, sandbox):
    assert set(SOLUTIONS) == set(problems)
    assert [row["task_id"] for row in graded(problems, sandbox, *SOLUTIONS.items()) if not row["passed"]] == []


def test_no_reference_solves_another_problem(problems, sandbox):
    names = list(SOLUTIONS)
    rotated = [(task, SOLUTIONS[other]) for task, other in zip(names, names[1:] + names[:1])]
    assert [row["task_id"] for row in graded(problems, sandbox, *rotated) if row["passed"]] == []


def test_programs_that_read_in_other_ways_pass(problems, sandbox):
    ways = ["import sys\nprint(sum(map(int, sys.stdin.read().split())))",
            "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
            "print(sum(map(int, open(0).read().split())))",
            "for line in sys.stdin:\n    print(sum(map(int, line.split())))",  # LiveCodeBench imports sys for them
            "def main():\n    print(sum(map(int, input().split())))\n\nif __name__ == '__main__':\n    main()",
            "print(float(sum(map(int, input().split()))))",
            "print(' ', sum(map(int, input().split())), ' ')\nexit()"]
    rows = graded(problems, sandbox, *(("plum-e1", code) for code in ways))
    assert [(row["solution"], row["detail"]) for row in rows if not row["passed"]] == []


@pytest.mark.parametrize("task, code", [
    ("plum-e1", ""), ("plum-e1", "print(7)"), ("plum-e1", "a, b = map(int, input().split())\nprint(a - b)"),
    ("plum-e1", "print(sum(map(int, input().split())))\nprint('done')"), ("plum-e1", "def f(:"),
    ("plum-e1", "import os\nos._exit(0)"), ("plum-e1", "raise SystemExit"),
    ("plum-e4", "def biggest(nums):\n    return max(nums)"), ("plum-e4", "class Solution:\n    pass"),
    ("plum-e4", "class Solution:\n    def largest(self, nums):\n        return str(max(nums))"),
    ("plum-e4", "class Solution:\n    def largest(self, nums):\n        return nums[0]")])
def test_wrong_programs_fail(task, code, problems, sandbox):
    row, = graded(problems, sandbox, (task, code))
    assert not row["passed"] and row["status"] in ("failed", "error", "syntax") and row["detail"]


@pytest.mark.parametrize("task, code", [
    ("plum-e4", "def largest(nums: List[int]) -> int:\n    return max(nums)"),  # LiveCodeBench then looks in the module
    ("plum-e4", "from __future__ import annotations\nclass Solution:\n    def largest(self, nums):\n        return max(nums)"),
    ("plum-e1", "from __future__ import annotations\nprint(sum(map(int, input().split())))"),
    ("plum-e1", "a, b = map(int, input().split())\nif a > b:\n    print(a + b)\n    return\nprint(a + b)"),
    ("plum-e1", "import sys\ntry:\n    a, b = map(int, input().split())\n    return print(a + b)\nexcept:\n    print('no')"),
    ("plum-e1", "import math\nassert not hasattr(math, 'seen')\nmath.seen = 1\nprint(sum(map(int, input().split())))"),
    ("plum-e1", "import sys\nsys.stdout.buffer.write(str(sum(map(int, input().split()))).encode())")])
def test_right_programs_in_other_forms_pass(task, code, problems, sandbox):
    row, = graded(problems, sandbox, (task, code))
    assert (row["passed"], row["detail"]) == (True, "")


def test_integers_may_have_fifty_thousand_digits(problems, sandbox):
    def asked(task, given, expected):
        test = livecodebench.LcbTest(given, expected, "")
        return replace(problems[task], public_tests=(test,), private_tests=())
    long = "1" + "0" * 5000
    rows = [{"task_id": "plum-e1", "sample_index": 0, "solution": "n = int(input())\nprint(10 ** n)"},
            {"task_id": "plum-e4", "sample_index": 0, "solution": "def largest(nums):\n    return max(nums)"}]
    found = score([asked("plum-e1", "5000", long), asked("plum-e4", f"[1, {long}]", long)], rows, sandbox, False)
    assert [row["passed"] for row in found] == [True, True]


def test_graded_rows_say_where_a_problem_comes_from(problems, sandbox):
    row, = graded(problems, sandbox, ("plum-e1", SOLUTIONS["plum-e1"]))
    assert (row["difficulty"], row["platform"], row["contest_date"]) == ("easy", "atcoder", "2026-11-01")
    json.dumps(row)


def test_each_test_has_its_own_time_limit(problems, sandbox):
    slow, endless = graded(problems, sandbox, ("plum-e1", "import time\ntime.sleep(.2)\n" + SOLUTIONS["plum-e1"]),
                           ("plum-e1", "while True: pass"), seconds=0.6)
    assert slow["passed"]  # twelve tests of 0.2 s are more than 0.6 s
    assert not endless["passed"] and endless["detail"] == "case 1: out of time"


def test_a_method_cannot_swallow_the_time_limit_of_a_test(problems):
    """The clock runs in the judge's process."""
    code = ("def largest(nums):\n    while True:\n        try:\n            while True: sum([1, 2])\n"
            "        except BaseException: pass")
    with Sandbox(workers=1) as one:
        parts = replace(problems["plum-e4"], seconds=0.2).programs(code)["all"]
        verdict, = one.run([Program("x", **parts)], limits=Limits(seconds=5.0))
    assert (verdict.status, verdict.assurance) == ("failed", "split") and "out of time in one call" in verdict.detail
    assert verdict.cpu_seconds < 2


def test_limits_are_a_tests_of_a_script_and_all_tests_of_a_method(problems):
    given = Limits(seconds=1, memory_mb=64)
    script, method = (widest([problems[task]], "all", given) for task in ("plum-e1", "plum-e4"))
    assert script.seconds == 6.0 and method.seconds >= 6.0 * len(problems["plum-e4"].tests)
    assert script.memory_mb == method.memory_mb == livecodebench.CONTEST_MB


@pytest.mark.parametrize("given, expected, lines, current, v2024", [
    ("1", "[1, 2]", "return [1, 2]", True, True), ("1", "[1, 2]", "return (1, 2)", True, True),
    ("1", "[1, 2]", "return 1", False, True), ("1", "[1, 2]", "return 2", False, False),
    ("1", "[[1, 2], [3]]", "return [(1, 2), (3,)]", False, False), ("1", "[[1, 2], [3]]", "return [1, 2]", False, True),
    ("1", "[[[1, 2], [3]]]", "return [(1, 2), (3,)]", False, True), ("1", "[]", "return []", True, True),
    ("1", "[]", "return None", False, False), ("1", "1.5", "return 1.5000000001", False, False),
    ('{"1": 2}', '{"1": 2}', "return x", True, True), ('{"1": 2}', '{"1": 2}', "return {1: 2}", False, True),
    ('{"1": 2}', '{"1": 2}', "return [{1: 2}]", False, True), ('{"1": 2}', "3", "return sum(x) + 2", False, True),
    ('{"a": 2}', '{"a": 2}', "return x", True, True), ("1", '[{"1": 2}, {"3": 4}]', "return {1: 2}", False, True),
    ("1", "1.5", "from fractions import Fraction\n    return Fraction(3, 2)", True, False),
    ("1", "1", "import numpy as np\n    return np.int64(1)", True, False), ("1", "true", "return 1", True, True)])
def test_results_are_compared_by_the_problems_grader(given, expected, lines, current, v2024, problems, sandbox):
    test = livecodebench.LcbTest(given, expected, "functional")
    passed = {}
    for grader in ("current", "v2024"):
        asked = replace(problems["plum-e4"], func_name="f", public_tests=(test,), private_tests=(), grader=grader)
        row, = score([asked], [{"task_id": "plum-e4", "sample_index": 0, "solution": f"def f(x):\n    {lines}"}], sandbox, False)
        passed[grader] = row["passed"]
    assert passed == {"current": current, "v2024": v2024}


@pytest.mark.parametrize("code, current, v2024", [
    ("print(a + b)\nexit()", True, False), ("print(a + b)\nquit()", True, False), ("print(a + b)\nsys.exit()", True, True),
    ("def f(n):\n    return n and 1 + f(n - 1)\nprint(a + b + f(100000) - 100000)", False, True),
    ("print(a + b if str(10 ** 5000) else 0)", True, False), ("print(a + b + len(sys.stdin.buffer.read()))", True, False),
    ("print(a + b + len(open(0).read()))", True, True), ("print(a + b + len(sys.stdin.read()))", True, True)])
def test_what_a_program_may_do_is_up_to_the_grader(code, current, v2024, problems, sandbox):
    rows = [{"task_id": "plum-e1", "sample_index": 0, "solution": f"a, b = map(int, input().split())\n{code}"}]
    assert [score([replace(problems["plum-e1"], grader=grader)], rows, sandbox, False)[0]["passed"]
            for grader in ("current", "v2024")] == [current, v2024]


def test_every_reference_passes_by_the_rules_of_2024_too(problems, sandbox):
    asked = {task: replace(one, grader="v2024") for task, one in problems.items()}
    assert [row["task_id"] for row in graded(asked, sandbox, *SOLUTIONS.items()) if not row["passed"]] == []


class Forgetful(StubSandbox):
    """The stand-in that keeps nothing."""

    limits = Limits()

    def run(self, programs, limits=None, ended=None):
        found = super().run(programs)
        self.asked = []
        return found


def test_judging_holds_little_more_than_the_tests_themselves(tmp_path, monkeypatch):
    """Neither a shard's mark nor the programs that are judged at a time are a copy of all tests."""
    monkeypatch.setattr(scoring, "AT_ONCE", 8)
    long = "[" + "1, " * 20_000 + "1]"
    made = [LcbProblem(f"q{number}", "t", "c", "leetcode", date(2024, 1, 1), "easy", "", "f", (),
                       (LcbTest(long, str(number), "functional"),)) for number in range(200)]
    rows = [{"task_id": one.task_id, "sample_index": 0, "solution": "x", "prompt_digest": "", "finish_reason": "length",
             "n_tokens": 1} for one in made]
    tracemalloc.start()
    try:
        found = score_solutions(Params(name="x"), made, rows, Forgetful(), tmp_path, "baseline")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [row["task_id"] for row in found] == [one.task_id for one in made] and all(row["passed"] for row in found)
    assert peak < 0.2 * len(made) * len(long)


def test_a_problems_digest_tells_its_tests_and_limits_apart():
    one = LcbProblem("q", "t", "c", "leetcode", date(2024, 1, 1), "easy", "", "f", (LcbTest("1", "2", "stdin"),), ())
    others = [replace(one, seconds=1.0), replace(one, grader="v2024"), replace(one, private_tests=one.public_tests),
              replace(one, public_tests=(), private_tests=one.public_tests), replace(one, content="d")]
    assert len({other.digest for other in (one, *others)}) == 6 and replace(one).digest == one.digest
