"""Which training instructions overlap with the benchmarks: by word n-grams, and by the name of the function to write.

The paper does not say whether its data was checked. Two rules, each of which leaves out what is no evidence:

- ``ngram``: the instruction or its gold answer shares ``n`` words in a row with a problem's statement (lower case, runs
  of letters, digits and underscores; a statement of fewer words counts as a whole, in instructions only). Left out:
  n-grams of which more than half are numbers, and those that ``BOILERPLATE`` or more problems of one benchmark share.
- ``name``: the instruction asks for a function, or the gold answer defines one, of the name that a problem asks for.
  Left out: names shorter than ``SHORTEST_NAME`` characters, names of one word (``search``, ``median``), and
  ``COMMON_NAMES``, which any textbook exercise may have.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Iterable, Iterator

import pandas as pd

from plum_utils.data import livecodebench
from plum_utils.data.evalplus import SuiteUnavailable
from plum_utils.data.instructions import Instruction
from plum_utils.data.problems import BUNDLED, Problem, load_suite
from plum_utils.jsonl import iter_jsonl
from plum_utils.params import BENCHMARKS, LiveCodeBenchParams

COLUMNS = ["instruction_id", "benchmark", "task_id", "rule", "evidence"]
BOILERPLATE = 3      # problems of one benchmark: the form of its statements ("each test contains several test cases")
SHORTEST_NAME = 6
COMMON_NAMES = frozenset("""
    add_elements all_unique change_base count_divisors count_upper decimal_to_binary filter_data find_length find_max
    find_min find_sum find_substring first_non_repeating_character fizz_buzz flatten_list flip_case
    greatest_common_divisor heap_sort insert_element is_even is_lower is_palindrome is_perfect_square is_prime is_sorted
    is_sublist is_upper largest_prime_factor letter_grade list_split max_difference max_element max_length max_product
    max_sum merge_sorted_list prime_num rectangle_area remove_duplicates remove_odd remove_vowels replace_spaces
    reverse_list reverse_string reverse_words rotate_left rotate_right sequential_search shell_sort sort_array
    sort_numbers split_words string_to_list sum_digits sum_list sum_of_digits total_cost triangle_area tuple_to_dict
    valid_date""".split())

_WORD = re.compile(r"\w+")
_ASKED = re.compile(r"\b(?:(?:function|method|named|called)\b[ \t:]{1,2})+[`\"']?(\w+)|`(\w+)\(|\bassert[ \t]+(\w+)\(",
                    re.I)
_DEFINED = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\((?![ \t]*(?:self|cls)\b)", re.M)  # no methods ...
_METHOD = re.compile(r"^[ \t]*def[ \t]+(\w+)[ \t]*\(", re.M)  # ... but those of LeetCode's class Solution


@dataclass(frozen=True)
class Task:
    """One problem of a benchmark: what it says, and the function that it asks for (empty where it asks for none)."""

    task_id: str
    statement: str
    entry_point: str = ""


@dataclass(frozen=True)
class Benchmark:
    """The problems of one benchmark; ``unchecked`` says why there are none when its data is not on this machine."""

    name: str
    tasks: tuple[Task, ...] = ()
    unchecked: str = ""


# --- benchmarks -----------------------------------------------------------------------------------------------------

def load_benchmarks(where: LiveCodeBenchParams) -> list[Benchmark]:
    """HumanEval, MBPP, LiveCodeBench (or the bundled set in its place) and the bundled held-out suites.

    Where a benchmark's data cannot be had its ``unchecked`` says so; that is no error, but it belongs in every table.
    """
    contests = "livecodebench_mini" if where.source == "bundled" else "livecodebench"
    loads = {name: partial(_suite_tasks, name) for name in BENCHMARKS}
    loads |= {contests: partial(_contest_tasks, where)} | {name: partial(_suite_tasks, name) for name in BUNDLED}
    found = []
    for name, load in loads.items():
        try:
            found.append(Benchmark(name, load()))
        except (SuiteUnavailable, livecodebench.LiveCodeBenchUnavailable) as error:
            found.append(Benchmark(name, unchecked=str(error)))
    return found


def _suite_tasks(name: str) -> tuple[Task, ...]:
    return tuple(map(_task, load_suite(name)))


def _task(problem: Problem) -> Task:
    """What the benchmark itself says, without the sentence and the fence that we put around HumanEval's prompts."""
    statement = problem.instruction
    if problem.suite == "humaneval":
        statement = statement.partition("```python\n")[2].removesuffix("```")
    return Task(problem.task_id, statement, problem.entry_point)


def _contest_tasks(where: LiveCodeBenchParams) -> tuple[Task, ...]:
    """LiveCodeBench's statements only, one row at a time: decoded, the tests would take gigabytes."""
    rows = (row for path in livecodebench.paths_of(where.source, where.release)
            for row in iter_jsonl(path, livecodebench.FIELDS))
    return tuple(Task(row["question_id"], f"{row['question_content']}\n{row['starter_code']}",
                      (_METHOD.findall(row["starter_code"]) or [""])[-1]) for row in rows)


# --- the two rules --------------------------------------------------------------------------------------------------

Places = list[tuple[str, str]]  # (benchmark, task id)


def find_overlaps(instructions: Iterable[Instruction], benchmarks: list[Benchmark], n: int) -> pd.DataFrame:
    """Every instruction that shares an n-gram or a function's name with a problem of a benchmark.

    Returns:
        One row an instruction, rule and problem: ``instruction_id``, ``benchmark``, ``task_id``, ``rule`` (``ngram`` or
        ``name``), ``evidence`` (the words in a row, or the name); instructions in the order given.
    """
    grams, names = _telling_grams(benchmarks, n), _telling_names(benchmarks)
    sizes = {len(gram) for gram in grams}
    rows = []
    for item in instructions:
        words, answer = _words(item.instruction), _words(item.solution)
        same_words = grams.keys() & chain(_grams(answer, n), *(_grams(words, size) for size in sizes))
        same_names = names.keys() & names_to_write(item.instruction, item.solution)
        found = {"ngram": {place: " ".join(gram) for gram in sorted(same_words, reverse=True) for place in grams[gram]},
                 "name": {place: name for name in same_names for place in names[name]}}
        rows += [[item.instruction_id, *place, rule, evidence] for rule, where in found.items()
                 for place, evidence in sorted(where.items())]
    return pd.DataFrame(rows, columns=COLUMNS)


def overlapping_tasks(instructions: Iterable[Instruction], suites: dict[str, list[Problem]], n: int) -> set[str]:
    """Ids of the suites' problems that share an n-gram or a function's name with an instruction: a slice of results to
    look at apart, for on these a policy may remember instead of solve."""
    benchmarks = [Benchmark(name, tuple(map(_task, problems))) for name, problems in suites.items()]
    return set(find_overlaps(instructions, benchmarks, n).task_id)


def _telling_grams(benchmarks: list[Benchmark], n: int) -> dict[tuple[str, ...], Places]:
    """Where the benchmarks' n-grams occur, and statements of fewer words as a whole; but for what is no evidence."""
    found: dict[tuple[str, ...], Places] = defaultdict(list)
    for benchmark in benchmarks:
        places: dict[tuple[str, ...], Places] = defaultdict(list)
        for task in benchmark.tasks:
            words = _words(task.statement)
            for gram in set(_grams(words, min(n, len(words)))):
                places[gram].append((benchmark.name, task.task_id))
        for gram, where in places.items():
            if len(where) < BOILERPLATE and _is_text(gram):
                found[gram] += where
    return found


def _telling_names(benchmarks: list[Benchmark]) -> dict[str, Places]:
    names: dict[str, Places] = defaultdict(list)
    for benchmark in benchmarks:
        for task in benchmark.tasks:
            if telling_name(task.entry_point):
                names[task.entry_point.casefold()].append((benchmark.name, task.task_id))
    return names


def _is_text(gram: tuple[str, ...]) -> bool:
    return 2 * sum(not word.isdecimal() for word in gram) >= len(gram)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(words: list[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)))


def telling_name(name: str) -> bool:
    """Whether a function's name is evidence: long enough, of two words or more, and no exercise's common name."""
    words = [part for part in re.split(r"_|(?<=[a-z0-9])(?=[A-Z])", name) if part]
    return len(name) >= SHORTEST_NAME and len(words) > 1 and name.casefold() not in COMMON_NAMES


def names_to_write(instruction: str, solution: str = "") -> set[str]:
    """Names of the functions that an instruction asks for or that its gold answer defines, case folded.

    Asked for: ``def name(``, ```name(``, ``assert name(``, or after function, method, named, called. Methods count only
    in a class ``Solution``, the form of LeetCode's problems.
    """
    asked = {name for groups in _ASKED.findall(instruction) for name in groups if name}
    text = f"{instruction}\n{solution}"
    defined = (_METHOD if "class Solution" in text else _DEFINED).findall(text)
    return {name.casefold() for name in (*asked, *defined)}
