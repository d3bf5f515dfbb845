"""Overlaps with the benchmarks: what is planted is found by both rules, what is only common speech is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.data import overlaps as overlaps_module
from plum_utils.data.evalplus import SuiteUnavailable
from plum_utils.data.instructions import RECORDED, Instruction, load_instructions
from plum_utils.data.livecodebench import bundled_path
from plum_utils.data.overlaps import (
    COMMON_NAMES,
    Benchmark,
    Task,
    find_overlaps,
    load_benchmarks,
    names_to_write,
    overlapping_tasks,
    telling_name,
)
from plum_utils.data.problems import BUNDLED, load_suite
from plum_utils.jsonl import read_jsonl, write_jsonl
from plum_utils.params import LiveCodeBenchParams

LONG = "count the copper kettles that stand on the upper shelf of the old kitchen before anybody sells them"
WORDS = st.lists(st.sampled_from("abcdefgh"), min_size=0, max_size=30)


def instruction(text: str, solution: str = "", name: str = "a") -> Instruction:
    return Instruction(name, "test", text, solution=solution)


def benchmark(*statements: str, names: tuple[str, ...] = ()) -> list[Benchmark]:
    names = (*names, *[""] * len(statements))
    return [Benchmark("bench", tuple(Task(f"t{place}", text, names[place]) for place, text in enumerate(statements)))]


@pytest.fixture(scope="module")
def loaded():
    """The benchmarks that are here without evalplus' data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps_module, "load_suite", without_mbpp)
        return load_benchmarks(LiveCodeBenchParams())


def without_mbpp(name):
    if name == "mbpp":
        raise SuiteUnavailable("mbpp: evalplus' data is not here")
    return load_suite(name)


# --- n-grams --------------------------------------------------------------------------------------------------------

def test_a_planted_humaneval_problem_is_found_by_both_rules_and_an_innocent_one_by_none(loaded):
    problem = next(one for one in load_suite("humaneval") if one.entry_point == "has_close_elements")
    innocent = instruction("Write a Python function `jars_left(shelf)` that returns how many jars are on the shelf.",
                           "def jars_left(shelf):\n    return len(shelf)\n", "innocent")
    found = find_overlaps([innocent, instruction(problem.instruction, name="planted")], loaded, 10)
    ours = found[found.benchmark == "humaneval"]
    assert set(found.instruction_id) == {"planted"} and set(ours.task_id) == {"HumanEval/0"}
    assert sorted(ours.rule) == ["name", "ngram"]


def test_every_humaneval_problem_is_found_when_its_text_is_put_in_other_clothes(loaded):
    problems = load_suite("humaneval")
    dressed = [instruction("PLEASE help me:\n\n> " + one.instruction.upper().replace("\n", "\n> ").replace(" ", "  "),
                           name=one.task_id) for one in problems]
    found = find_overlaps(dressed, loaded, 10)
    assert set(found[found.rule == "ngram"].instruction_id) == {one.task_id for one in problems}


def test_a_problem_in_the_gold_answer_is_found():
    found = find_overlaps([instruction("Do as you like.", f"# {LONG}\n")], benchmark(LONG), 10)
    assert found[["task_id", "rule"]].values.tolist() == [["t0", "ngram"]]


def test_the_evidence_is_shared_by_both_texts():
    text = f"My task. {LONG.upper()}! Thanks."
    row = find_overlaps([instruction(text)], benchmark(f"Say hello, then {LONG}."), 10).iloc[0]
    assert row.evidence in LONG and len(row.evidence.split()) == 10


@pytest.mark.parametrize(("n", "rows"), [(9, 1), (10, 0)])
def test_n_words_in_a_row_are_needed(n, rows):
    nine = " ".join(LONG.split()[:9])
    assert len(find_overlaps([instruction(f"{nine} something else")], benchmark(LONG), n)) == rows


def test_no_ngram_reaches_from_the_instruction_into_the_answer():
    words = LONG.split()
    item = instruction(" ".join(words[:6]), " ".join(words[6:12]))
    assert find_overlaps([item], benchmark(" ".join(words[:12])), 10).empty


def test_a_short_statement_counts_as_a_whole_and_in_instructions_only():
    short = benchmark("Sort the kettles by age.")
    assert len(find_overlaps([instruction("Please sort the kettles by AGE, quickly")], short, 10)) == 1
    assert find_overlaps([instruction("Sort the kettles by weight.")], short, 10).empty
    assert find_overlaps([instruction("Help.", "# sort the kettles by age\n")], short, 10).empty


def test_numbers_alone_are_no_evidence():
    digits = ", ".join(map(str, range(1, 30)))
    assert find_overlaps([instruction(f"Sum [{digits}].")], benchmark(f"Reverse [{digits}]."), 10).empty


@pytest.mark.parametrize(("copies", "rows"), [(1, 1), (2, 2), (3, 0)])
def test_what_three_problems_share_is_the_form_of_their_statements(copies, rows):
    statements = [f"{LONG}, number {place} {'xyz'[place]} of all" for place in range(copies)]
    assert len(find_overlaps([instruction(LONG)], benchmark(*statements), 10)) == rows


@given(WORDS, WORDS, st.integers(3, 6))
def test_ngrams_are_found_as_by_the_plainest_search(mine, theirs, n):
    found = find_overlaps([instruction(" ".join(mine) or "nothing")], benchmark(" ".join(theirs)), n)
    size = min(n, len(theirs))
    expected = size > 0 and any(mine[start:start + size] == theirs[at:at + size]
                                for start in range(len(mine) - size + 1) for at in range(len(theirs) - size + 1))
    assert bool(len(found)) == expected


# --- names ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "telling"), [
    ("has_close_elements", True), ("minSubArraySum", True), ("Strongest_Extension", True), ("digitSum", True),
    ("add", False), ("is_ok", False), ("median", False), ("concatenate", False), ("_hidden", False), ("", False),
    ("is_prime", False), ("Find_Max", False), ("sort_array", False)])
def test_which_names_are_evidence(name, telling):
    assert telling_name(name) is telling


def test_no_common_name_is_listed_in_vain():
    assert not [name for name in COMMON_NAMES if len(name) < 6 or "_" not in name]


@pytest.mark.parametrize(("text", "solution", "found"), [
    ("Write a function `count_kettles(shelf)`.", "", True),
    ("Write a function called count_kettles that ...", "", True),
    ("a function named: 'count_kettles'", "", True),
    ("Complete:\n```python\ndef Count_Kettles(shelf):\n```", "", True),
    ("It must satisfy:\nassert count_kettles([]) == 0", "", True),
    ("Count them.", "```python\nasync def count_kettles(shelf):\n    pass\n```", True),
    ("Count them.", "class Solution:\n    def count_kettles(self, n):\n        pass\n", True),
    ("Count them.", "class Shelf:\n    def count_kettles(self):\n        pass\n", False),
    ("Sort them; count_kettles was written yesterday.", "n = count_kettles(shelf)", False),
])
def test_names_of_functions_to_be_written(text, solution, found):
    assert ("count_kettles" in names_to_write(text, solution)) is found


def test_a_telling_name_is_found_whatever_its_case_and_a_common_one_is_not():
    items = [instruction("Write `Count_Kettles(x)`.", name="a"), instruction("Write `is_prime(n)`.", name="b")]
    found = find_overlaps(items, benchmark("one", "two", names=("count_kettles", "is_prime")), 10)
    assert found.values.tolist() == [["a", "bench", "t0", "name", "count_kettles"]]


# --- benchmarks and tables ------------------------------------------------------------------------------------------

def test_a_benchmark_that_is_not_here_is_said_not_to_be_checked(loaded):
    found = {one.name: one for one in loaded}
    assert found["mbpp"].unchecked == "mbpp: evalplus' data is not here" and not found["humaneval"].unchecked
    assert len(found["humaneval"].tasks) == 164
    assert set(found) == {"humaneval", "mbpp", "livecodebench_mini", *BUNDLED}


def test_livecodebench_is_read_without_its_tests(tmp_path):
    rows = [row | {"private_test_cases": "broken", "starter_code": "class Solution:\n    def countKettles(self, n):"}
            for row in read_jsonl(bundled_path())[:2]]
    write_jsonl(tmp_path / "test.jsonl", rows)
    where = LiveCodeBenchParams(source=str(tmp_path), release="release_v1")
    found = next(one for one in load_benchmarks(where) if one.name == "livecodebench")
    assert [task.entry_point for task in found.tasks] == ["countKettles"] * 2
    assert rows[0]["question_content"] in found.tasks[0].statement
    missing = load_benchmarks(LiveCodeBenchParams(source=str(tmp_path), release="release_v2"))
    assert next(one for one in missing if one.name == "livecodebench").unchecked.endswith("needs test2.jsonl")


def test_an_instruction_counts_once_however_often_it_is_found():
    asked = "Write `count_kettles(x)`."
    items = [instruction(f"{LONG}. {asked}", name="a"), instruction(asked, name="b"), instruction("Boil.", name="c")]
    benchmarks = benchmark(LONG, f"{LONG} again", names=("count_kettles", "count_kettles"))
    overlaps = find_overlaps(items, benchmarks, 10)
    assert {rule: set(found.instruction_id) for rule, found in overlaps.groupby("rule")} == {"ngram": {"a"}, "name": {"a", "b"}}
    assert {item.instruction_id for item in items} - set(overlaps.instruction_id) == {"c"}


def test_nothing_checked_is_an_empty_frame_with_its_columns():
    assert list(find_overlaps([], [], 10).columns) == overlaps_module.COLUMNS


@pytest.mark.parametrize("name", RECORDED)
def test_the_bundled_sets_share_nothing_with_humaneval(name, loaded):
    found = find_overlaps(load_instructions(name), loaded, 10)
    assert "humaneval" not in set(found.benchmark)


def test_bundled_exercises_that_a_held_out_suite_also_has_are_found(loaded):
    """Both were written for this project; ``oss`` is no training set of the reference run."""
    found = find_overlaps(load_instructions("oss"), loaded, 10)
    assert {("oss-a-0005", "PlumMini/2"), ("oss-b-0006", "PlumMini/9")} <= set(zip(found.instruction_id, found.task_id))


def test_the_tasks_that_resemble_an_instruction_are_named_and_no_other():
    suites = {"humaneval": load_suite("humaneval")[:20]}
    planted = suites["humaneval"][3]
    found = overlapping_tasks([instruction(planted.instruction), instruction(LONG, name="b")], suites, 10)
    assert found == {planted.task_id}
    assert overlapping_tasks([instruction(LONG)], suites, 10) == set()
