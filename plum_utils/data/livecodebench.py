"""Stage 6: LiveCodeBench's code-generation problems: its JSONL schema, its encoded private tests, its rules.

The rules are read from its runner: stdin problems compare output line by line after stripping, falling back to numbers;
functional problems call a method of ``class Solution``, or where there is no such class a function, with JSON-decoded
arguments. There are two graders of it: ``current`` is today's, ``v2024`` the one before 2025, with which the numbers that
were published until then were measured. Each has its rule for output (``sandbox.outputs.RULES``), for results
(``judges/method_judge*.py``) and for what stands before a program.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import pickle
import pickletools
import zlib
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Collection, Iterator

from plum_utils.data.judges import source as judge_source
from plum_utils.data.problems import PATIENCE
from plum_utils.jsonl import JsonlError, iter_jsonl
from plum_utils.progress import DownloadBar
from plum_utils.syntax import parsed

RELEASES = {f"release_v{number}": [f"test{part if part > 1 else ''}.jsonl" for part in range(1, number + 1)]
            for number in range(1, 7)}
FIELDS = ("question_title", "question_content", "platform", "question_id", "contest_id", "contest_date",
          "starter_code", "difficulty", "public_test_cases", "private_test_cases", "metadata")
DIFFICULTIES = ("easy", "medium", "hard")
PLATFORMS = {"leetcode": "LeetCode", "atcoder": "AtCoder", "codeforces": "Codeforces"}  # as in rows, and as printed
MAX_TESTS_BYTES = 512 << 20
CONTEST_MB = 4096  # LiveCodeBench sets no limit, contest sites 256 to 1,024
# LiveCodeBench executes every solution after these imports, so that solutions may leave them out.
IMPORTS = "".join(f"from {name} import *\n" for name in (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing")) + (
    "import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools\n"
    "import operator, io, sys, json\n")
_BEFORE = {  # by grader
    "current": "sys.setrecursionlimit(50000)\nsys.set_int_max_str_digits(50000)\n",
    "v2024": "sys.setrecursionlimit(600000)\nexit = quit = None\n"}
_TEXT_ONLY = {"current": "", "v2024": "sys.stdin = io.StringIO(sys.stdin.read())\n"}  # it had no bytes to be read
_JUDGES = {"current": ("judge", "method_judge"), "v2024": ("judge_v2024", "method_judge", "method_judge_v2024")}


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
    """One row of the data set, tests decoded; ``seconds`` is the limit of each test by ``clock``
    (``evaluation.clock``), ``grader`` whose rules decide (``livecodebench.grader``)."""

    task_id: str
    title: str
    content: str
    platform: str
    contest_date: date
    difficulty: str
    starter_code: str
    func_name: str | None
    public_tests: tuple[LcbTest, ...]
    private_tests: tuple[LcbTest, ...]
    seconds: float = 6.0
    grader: str = "current"
    clock: str = "cpu"

    @cached_property
    def digest(self) -> str:
        """Hash of everything that a verdict depends on, made test by test: all tests together take gigabytes."""
        parts = replace(self, public_tests=(), private_tests=()), *self.public_tests, "private", *self.private_tests
        found = hashlib.sha256()
        for part in parts:
            found.update(repr(part).encode("utf-8", "surrogatepass"))
        return found.hexdigest()[:16]

    @property
    def tests(self) -> tuple[LcbTest, ...]:
        return self.public_tests + self.private_tests

    @property
    def is_script(self) -> bool:
        """Whether a solution reads standard input and prints, instead of being called."""
        return not self.func_name

    @property
    def instruction(self) -> str:
        """The user message: the question, then how the program is called (stdin, or the starter code to complete)."""
        if self.starter_code:
            how = f"Complete this starter code.\n\n```python\n{self.starter_code.rstrip()}\n```"
        else:
            how = "Write a whole program that reads standard input and prints the answer to standard output."
        return f"{self.content.strip()}\n\n{how}"

    def programs(self, solution: str) -> dict[str, dict[str, Any]]:
        """All of a ``sandbox.Program`` but its id, for the one suite of public and private tests."""
        setup = IMPORTS + _BEFORE[self.grader]
        if self.is_script:
            cases = tuple((test.input, test.output) for test in self.tests)
            return {"all": {"code": in_a_function(solution), "setup": setup + _TEXT_ONLY[self.grader], "mode": "script",
                            "cases": cases, "rule": self.grader}}
        code = f"{solution}\n_METHOD = {self.func_name!r}\n{judge_source('method_runner')}"
        return {"all": {"code": code, "setup": setup, "tests": _judge(self), "mode": "split"}}

    def limits(self, suite: str, given: Any) -> Any:
        """Of a script each test's seconds and an output of 64 MiB, of a method the seconds for all tests together;
        ``given`` are the sandbox's own limits."""
        seconds = self.seconds if self.is_script else (self.seconds + 1) * len(self.tests) + 5
        return replace(given, seconds=seconds, patience=PATIENCE[self.clock], file_mb=64,
                       memory_mb=max(CONTEST_MB, given.memory_mb))

    def row(self, tried: dict[str, Any], verdicts: dict[str, Any]) -> dict[str, Any]:
        """task_id, difficulty, platform, contest_date (``2023-08-21``), sample_index, solution, passed, status,
        detail."""
        verdict = verdicts["all"]
        return {"task_id": self.task_id, "difficulty": self.difficulty, "platform": self.platform,
                "contest_date": self.contest_date.isoformat(), "sample_index": tried["sample_index"],
                "solution": tried["solution"], "passed": verdict.status == "passed", "status": verdict.status,
                "detail": verdict.detail}


@lru_cache(maxsize=1)  # a problem's solutions, which follow each other, share it; it is as large as the tests
def _judge(problem: LcbProblem) -> str:
    """Runs in a process of its own, where the expected outputs stay."""
    tests = json.dumps([(test.input, test.output) for test in problem.tests])
    name, *files = _JUDGES[problem.grader]
    return f"{judge_source(*files)}\n{name}(_run, json.loads({tests!r}), {problem.seconds!r})\n"


def in_a_function(solution: str) -> str:
    """A script that ``return``s outside of any function as the body of one, its imports before it: LiveCodeBench runs
    all scripts so."""
    tree = parsed(solution)
    if tree is None or not any(isinstance(node, ast.Return) for node in _outside_functions(tree)):
        return solution
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    whole = ast.parse("def _script():\n    pass\n\n_script()")
    function, call = whole.body
    assert isinstance(function, ast.FunctionDef)
    function.body = [node for node in tree.body if node not in imports]
    whole.body = [*imports, function, call]
    return ast.unparse(whole)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for one in ast.iter_child_nodes(node):
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            yield from _outside_functions(one)


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
            found.append(str(argument))
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


def load_livecodebench(source: str = "bundled", release: str = "release_v1", limit: int | None = None,
                       start_date: date | None = None, end_date: date | None = None, platforms: Collection[str] = (),
                       seconds: float = 6.0, grader: str = "current", clock: str = "cpu") -> list[LcbProblem]:
    """Problems of LiveCodeBench, or of the bundled set in its schema.

    Args:
        source: ``bundled``; a JSONL file; a folder with ``test.jsonl``, ``test2.jsonl``, ...; or a hub id.
        release: which files make up the data set (``release_v1`` to ``release_v6``, cumulative).
        limit: at most so many problems, from the start of those that the next three leave.
        start_date, end_date: only contests from the first to the last of these days, both inclusive, whatever the hour
            (LiveCodeBench itself compares with midnight).
        platforms: only these of ``PLATFORMS``; empty: all.
        seconds, clock: limit of each test, and by which clock (``evaluation.clock``).
        grader: ``current`` or ``v2024``.

    Raises:
        LiveCodeBenchUnavailable: files missing, or the hub is out of reach.
        JsonlError: a broken row, with file and line.
        ValueError: an unknown release or platform, or no problem left; it names the dates and platforms there are.
    """
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown:
        raise ValueError(f"livecodebench.platforms: unknown {unknown[0]!r}; any of {', '.join(PLATFORMS)}")
    problems, seen = [], []
    for path in paths_of(source, release):
        for number, row in enumerate(iter_jsonl(path, required=FIELDS), 1):
            day = _day(row, f"{path}:{number}")
            seen.append((day, row["platform"]))
            if (start_date or day) <= day <= (end_date or day) and row["platform"] in (platforms or PLATFORMS):
                problem = _problem(row, day, f"{path}:{number}")  # decoding tests takes time
                problems.append(replace(problem, seconds=seconds, grader=grader, clock=clock))
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
    return Path(__file__).with_name("livecodebench_mini.jsonl")


def paths_of(source: str, release: str) -> list[Path]:
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
        return Path(hf_hub_download(repository, name, repo_type="dataset", tqdm_class=DownloadBar))
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
    if not public + private:
        raise JsonlError(f"{where}: {row['question_id']}: no tests, public or private; any program would pass")
    return LcbProblem(row["question_id"], row["question_title"], row["question_content"], row["platform"],
                      day, row["difficulty"], row["starter_code"], metadata.get("func_name"), public, private)
