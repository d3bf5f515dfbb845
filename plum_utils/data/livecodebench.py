"""Stage 6: LiveCodeBench's code-generation problems: its JSONL schema, its encoded private tests, its grading.

Rules read from LiveCodeBench's runner: stdin problems compare output line by line after stripping, falling back to
numbers; functional problems call a method of ``class Solution`` with JSON-decoded arguments.
"""

from __future__ import annotations

import base64
import json
import pickle
import pickletools
import zlib
from dataclasses import dataclass, replace
from datetime import date, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Collection

import pandas as pd

from plum_utils.data import paper
from plum_utils.jsonl import JsonlError, iter_jsonl
from plum_utils.sandbox import Limits, Program, Sandbox
from plum_utils.stats import compare, problem_rates

HUB_ID = "livecodebench/code_generation_lite"
RELEASES = {f"release_v{number}": [f"test{part if part > 1 else ''}.jsonl" for part in range(1, number + 1)]
            for number in range(1, 7)}
FIELDS = ("question_title", "question_content", "platform", "question_id", "contest_id", "contest_date",
          "starter_code", "difficulty", "public_test_cases", "private_test_cases", "metadata")
DIFFICULTIES = ("easy", "medium", "hard")
PLATFORMS = {"leetcode": "LeetCode", "atcoder": "AtCoder", "codeforces": "Codeforces"}  # as in rows, and as printed
MAX_TESTS_BYTES = 512 << 20


class LiveCodeBenchUnavailable(RuntimeError):
    """The data set is not on this machine and no hub is reachable; the message says how to bring it."""


@dataclass(frozen=True)
class LcbTest:
    """One test: standard input and output, or JSON arguments (one a line) and JSON result."""

    input: str
    output: str
    testtype: str  # "stdin" or "functional"


@dataclass(frozen=True)
class LcbProblem:
    """One row of the data set, tests decoded."""

    question_id: str
    title: str
    content: str
    platform: str
    contest_date: date
    difficulty: str
    starter_code: str
    func_name: str | None
    public_tests: tuple[LcbTest, ...]
    private_tests: tuple[LcbTest, ...]

    @property
    def task_id(self) -> str:
        return self.question_id

    @property
    def instruction(self) -> str:
        return lcb_message(self)


STRING_OPCODES = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
IDLE_OPCODES = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}


def pickled_string(raw: bytes) -> str:
    """The string that a pickle holds, read from its opcodes: nothing is unpickled, so nothing can be called.

    Raises:
        ValueError: any opcode that a lone string does not need (a global, a call, a container), or a damaged pickle.
    """
    found: list[str] = []
    for opcode, argument, _ in pickletools.genops(raw):
        if opcode.name in STRING_OPCODES:
            found.append(argument)
        elif opcode.name not in IDLE_OPCODES:
            named = f" {argument}" if isinstance(argument, str) else f" {'.'.join(found)}" if found else ""
            raise ValueError(f"refused {opcode.name}{named[:80]}: private tests are one pickled string")
    if len(found) != 1:
        raise ValueError(f"a pickle of {len(found)} strings; private tests are one")
    return found[0]


def decode_private_tests(text: str) -> list[dict[str, str]]:
    """Private tests: plain JSON, or base64 of zlib of a pickled JSON string, as LiveCodeBench publishes them.

    No pickle is loaded (``pickled_string``), so that a data file cannot run code here.

    Raises:
        ValueError: neither form, a pickle that holds anything but a string, or more than 512 MiB.
    """
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(base64.b64decode(text, validate=True), MAX_TESTS_BYTES)
        if stream.unconsumed_tail:
            raise ValueError(f"private tests of more than {MAX_TESTS_BYTES >> 20} MiB")
        return json.loads(pickled_string(raw))
    except (zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"private tests cannot be decoded: {error}") from error


def encode_private_tests(tests: list[dict[str, str]]) -> str:
    """The inverse of ``decode_private_tests``, in LiveCodeBench's form."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def load_livecodebench(source: str = "bundled", release: str = "release_v2", limit: int | None = None,
                       start_date: date | None = None, end_date: date | None = None, platforms: Collection[str] = ()
                       ) -> list[LcbProblem]:
    """Problems of LiveCodeBench, or of the bundled set in its schema.

    Args:
        source: ``bundled``; a JSONL file; a folder with ``test.jsonl``, ``test2.jsonl``, ...; or a hub id.
        release: which files make up the data set (``release_v1`` to ``release_v6``, cumulative).
        limit: at most so many problems, from the start of those that the next three leave.
        start_date, end_date: only contests from the first to the last of these days, both inclusive, whatever the hour
            (LiveCodeBench itself compares with midnight).
        platforms: only these of ``PLATFORMS``; empty: all.

    Raises:
        LiveCodeBenchUnavailable: files missing, or the hub is out of reach.
        JsonlError: a broken row, with file and line.
        ValueError: an unknown release or platform, or no problem left; it names the dates and platforms there are.
    """
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown:
        raise ValueError(f"livecodebench.platforms: unknown {unknown[0]!r}; any of {', '.join(PLATFORMS)}")
    problems, seen = [], []
    for path in _paths(source, release):
        for number, row in enumerate(iter_jsonl(path, required=FIELDS), 1):
            day = _day(row, f"{path}:{number}")
            seen.append((day, row["platform"]))
            if (start_date or day) <= day <= (end_date or day) and row["platform"] in (platforms or PLATFORMS):
                problems.append(_problem(row, day, f"{path}:{number}"))  # decoding its tests is what takes time
            if len(problems) == limit:
                return problems
    if not problems:
        raise ValueError(_nothing_left(start_date, end_date, platforms, seen))
    return problems


def _day(row: dict[str, Any], where: str) -> date:
    if row["platform"] not in PLATFORMS:
        raise JsonlError(f"{where}: {row['question_id']}: platform: expected one of {', '.join(PLATFORMS)}, got "
                         f"{row['platform']!r}")
    try:
        return datetime.fromisoformat(str(row["contest_date"])).date()
    except ValueError:
        raise JsonlError(f"{where}: {row['question_id']}: contest_date: expected a date such as 2023-08-21T00:00:00, "
                         f"got {row['contest_date']!r}") from None


def _nothing_left(start: date | None, end: date | None, platforms: Collection[str], seen: list[tuple[date, str]]
                  ) -> str:
    asked = f"{start or 'the first'} to {end or 'the last'}" + (f" on {', '.join(platforms)}" if platforms else "")
    if not seen:
        return "livecodebench.source: the file holds no problems"
    days, where = [day for day, _ in seen], sorted({platform for _, platform in seen})
    return (f"livecodebench.start_date, end_date, platforms: no problem of contests from {asked}; there are "
            f"{len(seen)} from {min(days)} to {max(days)} on {', '.join(where)}")


def bundled_path() -> Path:
    """File of the 16 bundled problems, in LiveCodeBench's schema."""
    return Path(str(files("plum_utils") / "data" / "livecodebench_mini.jsonl"))


def _paths(source: str, release: str) -> list[Path]:
    if source == "bundled":
        return [bundled_path()]
    if Path(source).is_file():
        return [Path(source)]
    if release not in RELEASES:
        raise ValueError(f"livecodebench.release: unknown {release!r}; one of {', '.join(RELEASES)}")
    if Path(source).is_dir():
        paths = [Path(source) / name for name in RELEASES[release]]
        missing = [path.name for path in paths if not path.exists()]
        if missing:
            raise LiveCodeBenchUnavailable(f"{source}: {release} needs {', '.join(missing)}")
        return paths
    return [_from_hub(source, name) for name in RELEASES[release]]


def _from_hub(repository: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except Exception as error:
        raise LiveCodeBenchUnavailable(
            f"{repository}/{name}: not loadable ({type(error).__name__}). Give a folder that holds {name}, use "
            "livecodebench.source: bundled, or unset HF_HUB_OFFLINE where a hub is reachable") from error


def _problem(row: dict[str, Any], day: date, where: str) -> LcbProblem:
    try:
        public = tuple(LcbTest(**test) for test in json.loads(row["public_test_cases"]))
        private = tuple(LcbTest(**test) for test in decode_private_tests(row["private_test_cases"]))
        metadata = json.loads(row["metadata"]) if row["metadata"] else {}
    except (ValueError, TypeError) as error:
        raise JsonlError(f"{where}: {row['question_id']}: {error}; fetch the file again") from error
    return LcbProblem(row["question_id"], row["question_title"], row["question_content"], row["platform"],
                      day, row["difficulty"], row["starter_code"], metadata.get("func_name"), public, private)


def lcb_message(problem: LcbProblem) -> str:
    """The user message: the question, then how the program is called (stdin, or the starter code to complete)."""
    if problem.starter_code:
        how = f"Complete this starter code.\n\n```python\n{problem.starter_code.rstrip()}\n```"
    else:
        how = "Write a whole program that reads standard input and prints the answer to standard output."
    return f"{problem.content.strip()}\n\n{how}"


# --- grading, in the sandbox ---------------------------------------------------------------------------------------

MEMORY_MB = 1024  # what contest sites grant; the tests themselves may take a part of it

# LiveCodeBench executes every solution after these imports, so that solutions may leave them out.
IMPORTS = "".join(f"from {name} import *\n" for name in (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing")) + (
    "import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools\n"
    "import operator, io, sys, json\nsys.setrecursionlimit(50000)\n")

# In the candidate's process: a program that reads standard input, as a function from input to output.
STDIN_RUNNER = '''
import builtins as _builtins, io as _io, sys as _sys

_open, _compiled = open, []

def _run(given):
    if not _compiled:
        _compiled.append(compile(_SOURCE, "<solution>", "exec"))
    buffer = _io.TextIOWrapper(_io.BytesIO(given.encode()), encoding="utf-8")
    kept, out = (_sys.stdin, _sys.stdout), _io.StringIO()
    _sys.stdin, _sys.stdout = buffer, out
    _builtins.open = lambda file, *rest, **named: buffer if file == 0 else _open(file, *rest, **named)
    try:
        exec(_compiled[0], {"__name__": "__main__"})
    except SystemExit:
        pass
    finally:
        _builtins.open, (_sys.stdin, _sys.stdout) = _open, kept
    return out.getvalue()
'''

# The same for a method of the class Solution, made once.
METHOD_RUNNER = '''
_solution = []

def _run(*arguments):
    if not _solution:
        _solution.append(Solution())
    return _solution[0].{method}(*arguments)
'''

# In the judge's process, where the time of each test is measured and expected outputs stay.
JUDGE = '''
import json, signal

class OutOfTime(Exception):
    pass

def alarm(*_):
    raise OutOfTime("out of time in one test")

def timed(function, arguments, seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

signal.signal(signal.SIGALRM, alarm)
'''

STDIN_JUDGE = JUDGE + '''
from decimal import Decimal

def numbers(line):
    try:
        return [Decimal(word) for word in line.split()]
    except ArithmeticError:
        return None

def same(got, expected):
    got = [line.strip() for line in got.strip().split("\\n")]
    expected = [line.strip() for line in expected.strip().split("\\n")]
    if len(got) != len(expected):
        return False
    for one, two in zip(got, expected):
        if one != two and (numbers(one) is None or numbers(one) != numbers(two)):
            return False
    return True

def judge(run, tests, seconds):
    for given, expected in tests:
        out = timed(run, (given,), seconds)
        assert type(out) is str and same(out, expected), (given[:60], str(out)[:60], expected[:60])
'''

METHOD_JUDGE = JUDGE + '''
def judge(run, tests, seconds):
    for given, expected in tests:
        out = timed(run, [json.loads(line) for line in given.split("\\n")], seconds)
        out = list(out) if isinstance(out, tuple) else out
        assert out == json.loads(expected), (given[:60], str(out)[:60], expected[:60])
'''


def lcb_program(problem: LcbProblem, code: str, name: str, seconds: float = 6.0) -> Program:
    """The program that is judged on all public and private tests; the expected outputs stay in the judge's process.

    A stdin solution is executed once a test as ``__main__``; it must not run at load, so its source travels as data.

    Args:
        seconds: limit of each test (LiveCodeBench: 6); give the sandbox ``lcb_limits`` for the whole.
    """
    tests = json.dumps([(test.input, test.output) for test in problem.public_tests + problem.private_tests])
    judge = f"{METHOD_JUDGE if problem.func_name else STDIN_JUDGE}\njudge(_run, json.loads({tests!r}), {seconds!r})\n"
    if problem.func_name:
        return Program(name, IMPORTS + code + METHOD_RUNNER.format(method=problem.func_name), judge, mode="split")
    return Program(name, f"_SOURCE = {IMPORTS + code!r}\n{STDIN_RUNNER}", judge, mode="split")


def lcb_limits(problems: list[LcbProblem], limits: Limits, seconds: float) -> Limits:
    """The sandbox's limits for whole programs: each test's seconds for every test of the longest suite."""
    most = max(len(problem.public_tests) + len(problem.private_tests) for problem in problems)
    return replace(limits, seconds=(seconds + 1) * most + 5, memory_mb=max(MEMORY_MB, limits.memory_mb))


def grade(problems: list[LcbProblem], solutions: list[dict[str, Any]], sandbox: Sandbox, seconds: float = 6.0
          ) -> list[dict[str, Any]]:
    """Judge solutions (``task_id``, ``sample_index``, ``solution``) on all tests of their problems.

    Returns:
        Rows task_id, difficulty, platform, contest_date (``2023-08-21``), sample_index, solution, passed, status,
        detail.

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    by_id = {problem.task_id: problem for problem in problems}
    programs = [lcb_program(by_id[row["task_id"]], row["solution"], f"{row['task_id']}/{row['sample_index']}", seconds)
                for row in solutions]
    verdicts = sandbox.run(programs, limits=lcb_limits(problems, sandbox.limits, seconds))
    broken = next((verdict for verdict in verdicts if verdict.status == "infrastructure"), None)
    if broken:
        raise RuntimeError(f"{broken.id}: the sandbox failed, not the program: {broken.detail}")
    return [_origin(by_id[row["task_id"]]) | {
        "sample_index": row["sample_index"], "solution": row["solution"], "passed": verdict.status == "passed",
        "status": verdict.status, "detail": verdict.detail} for row, verdict in zip(solutions, verdicts)]


def _origin(problem: LcbProblem) -> dict[str, str]:
    return {"task_id": problem.task_id, "difficulty": problem.difficulty, "platform": problem.platform,
            "contest_date": problem.contest_date.isoformat()}


# --- Table 4, and the same by platform and by date --------------------------------------------------------------------

def difficulty_table(scored: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """pass@1 in percent by difficulty and overall, before and after, with intervals over problems.

    Args:
        scored: graded rows with ``policy`` (``baseline`` or a trained one) and ``seed``; several training seeds are
            averaged problem by problem.

    Returns:
        Columns label (Easy, Medium, Hard, Overall; those with problems) and all of ``stats.compare``.
    """
    return _by_label(scored, scored.difficulty.str.capitalize(), [name.capitalize() for name in DIFFICULTIES],
                     n_resamples, seed)


def platform_table(scored: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """As ``difficulty_table``, by contest site: LeetCode, AtCoder, Codeforces (those with problems), Overall."""
    return _by_label(scored, scored.platform.map(PLATFORMS), list(PLATFORMS.values()), n_resamples, seed)


def window_table(scored: pd.DataFrame, cut: date | None = None, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """As ``difficulty_table``, by the month of the contest (``2023-08``), or before a day and from it on.

    Args:
        cut: the day after a model's training data ends: what is older may have been in it. Of a policy that does better
            on the older problems only, contamination is the first suspect (LiveCodeBench's own reading of its dates).
    """
    if cut is None:
        months = scored.contest_date.str[:7]
        return _by_label(scored, months, sorted(set(months)), n_resamples, seed)
    names = [f"before {cut}", f"from {cut}"]
    newer = scored.contest_date >= cut.isoformat()
    return _by_label(scored, newer.map({False: names[0], True: names[1]}), names, n_resamples, seed)


def _by_label(scored: pd.DataFrame, labels: pd.Series, order: list[str], n_resamples: int, seed: int) -> pd.DataFrame:
    """``stats.compare`` for the problems of each label (one for each row of ``scored``) and for all: ``Overall``."""
    before = problem_rates(scored[scored.policy == "baseline"], "passed")
    trained = scored[scored.policy != "baseline"].groupby("seed")
    after = pd.concat([problem_rates(part, "passed") for _, part in trained], axis=1).mean(axis=1)
    label = labels.groupby(scored.task_id).first()
    groups = {name: label.index[label == name] for name in order} | {"Overall": label.index}
    return pd.DataFrame([{"label": name} | compare(before[ids], after[ids], n_resamples, seed)
                         for name, ids in groups.items() if len(ids)])


def table4(levels: pd.DataFrame, model: str) -> pd.DataFrame:
    """Table 4's form: this run above the paper's rows, as printed; percent."""
    ours = [{"data": "this run", "model": model, "row": name, **dict(zip(levels.label, levels[column]))}
            for name, column in (("Baseline", "before"), ("PLUM", "after"), ("Rel. +", "relative_percent"))]
    printed = paper.table(4).assign(data="paper")
    return pd.concat([pd.DataFrame(ours), printed], ignore_index=True).reindex(
        columns=["data", "model", "row", *paper.DIFFICULTIES]).round(1)
