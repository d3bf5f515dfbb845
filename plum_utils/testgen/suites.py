"""Stage 1: generator responses -> reference solution and tests, kept only when they agree (paper, section 3)."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any, Iterable

import pandas as pd

from plum_utils.data.instructions import Instruction
from plum_utils.progress import Bar
from plum_utils.sandbox import Program, Sandbox, Status, judge
from plum_utils.syntax import UNPARSABLE

SECTIONS = ("Analysis", "Solution", "Start Code", "Test Code")
_HEADING = re.compile(r"^[ \t]*(?:#+[ \t]*)?(?:\*\*)?\[(Analysis|Solution|Start Code|Test Code)\](?:\*\*)?:?[ \t]*$",
                      re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)


class MalformedResponse(ValueError):
    """A generator response that does not follow Figure 3's format; the message is the counted reason."""


@dataclass(frozen=True)
class GeneratorResponse:
    """The four parts Figure 3 asks for."""

    analysis: str
    solution: str
    start_code: str
    test_code: str


def parse_response(text: str) -> GeneratorResponse:
    """Split a response at its section headings; code is taken out of its fence.

    Raises:
        MalformedResponse: a section is missing, twice there, empty, or out of order, or the code does not parse.
    """
    marks = list(_HEADING.finditer(text))
    names = tuple(mark.group(1) for mark in marks)
    missing = [name for name in SECTIONS if name not in names]
    if missing:
        raise MalformedResponse(f"no [{missing[0]}] section")
    if names != SECTIONS:
        raise MalformedResponse("sections repeated or out of order")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    body = {mark.group(1): text[mark.end():end].strip("\n") for mark, end in zip(marks, ends)}
    response = GeneratorResponse(body["Analysis"].strip(), *(_code(body[name]) for name in SECTIONS[1:]))
    for name, code in (("Solution", response.solution), ("Test Code", response.test_code)):
        _check_code(name, code)
    return response


def _code(section: str) -> str:
    blocks = _FENCE.findall(section)
    return "\n".join(block.rstrip() for block in blocks) if blocks else section.strip()


def _check_code(name: str, code: str) -> None:
    if not code.strip():
        raise MalformedResponse(f"empty [{name}] section")
    try:
        ast.parse(code)
    except UNPARSABLE as error:
        raise MalformedResponse(f"[{name}] is not Python ({type(error).__name__})") from error


def count_tests(test_code: str) -> int:
    """Number of ``assert`` statements in a test suite, asserts inside functions and loops included."""
    return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(test_code)))


def vacuous_asserts(test_code: str) -> list[str]:
    """The asserts of a suite that hold whatever the program under test does, as source text (``... or True``)."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(test_code))
            if isinstance(node, ast.Assert) and always_true(node.test)]


def always_true(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.Tuple):  # assert (f(1) == 2, "message")
        return bool(node.elts)
    if isinstance(node, ast.BoolOp):
        return (any if isinstance(node.op, ast.Or) else all)(map(always_true, node.values))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        same = ast.dump(node.left) == ast.dump(node.comparators[0])
        return same and isinstance(node.ops[0], (ast.Eq, ast.Is, ast.LtE, ast.GtE))
    return False


def hollow(solution: str) -> str:
    """A program with the solution's names whose functions and methods do nothing and return ``None``."""
    tree = ast.parse(solution)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [ast.Return(ast.Constant(None))]
    return ast.unparse(ast.fix_missing_locations(tree))


def build_suites(instructions: list[Instruction], sandbox: Sandbox, progress: bool = True) -> list[dict[str, Any]]:
    """Parse every recorded or generated response and run the consistency filter.

    A suite is consistent when its reference solution runs and passes all its own tests. A response whose run failed
    for a reason of ours (``infrastructure``) raises instead of being counted as inconsistent.

    Returns:
        The rows of ``testgen.jsonl``, one a response, instructions and attempts in order: instruction_id, source,
        attempt, response, solution, start_code, test_code, n_tests, ``consistent``, and the ``reason`` if it is not.
    """
    rows = [_parsed_row(item, attempt, text) for item in instructions for attempt, text in enumerate(item.responses)]
    runnable = [row for row in rows if not row["reason"]]
    programs = [Program(f"{row['instruction_id']}/{row['attempt']}", row["solution"], row["test_code"],
                        reference=row["solution"]) for row in runnable]
    with Bar("sandbox", len(programs), "program", hidden=not progress) as bar:
        verdicts = judge(sandbox, programs, ended=bar.add)
    for row, verdict in zip(runnable, verdicts):
        row["consistent"] = verdict.status == Status.PASSED
        row["reason"] = "" if row["consistent"] else f"{verdict.status}: {verdict.detail}"
    return rows


def _parsed_row(item: Instruction, attempt: int, text: str) -> dict[str, Any]:
    row = {"instruction_id": item.instruction_id, "source": item.source, "attempt": attempt, "response": text,
           "solution": "", "start_code": "", "test_code": "", "n_tests": 0, "consistent": False, "reason": ""}
    try:
        parsed = parse_response(text)
    except MalformedResponse as error:
        return row | {"reason": f"malformed: {error}"}
    n_tests = count_tests(parsed.test_code)
    return row | {"solution": parsed.solution, "start_code": parsed.start_code, "test_code": parsed.test_code,
                  "n_tests": n_tests, "reason": "" if n_tests else "malformed: no assert in [Test Code]"}


def consistency_by_source(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Table 1: one row a source with ``instructions``, ``instructions_with_suite`` (a consistent one), ``responses``,
    ``malformed``, ``consistent`` and ``ours``, the self-consistency pass rate in percent of all responses."""
    frame = pd.DataFrame(rows)
    frame["malformed"] = frame.reason.str.startswith("malformed")
    frame["kept_id"] = frame.instruction_id.where(frame.consistent)
    table = frame.groupby("source", sort=False).agg(
        instructions=("instruction_id", "nunique"), instructions_with_suite=("kept_id", "nunique"),
        responses=("attempt", "size"), malformed=("malformed", "sum"), consistent=("consistent", "sum"))
    return table.assign(ours=100 * table.consistent / table.responses).reset_index()


def reason_class(reason: str) -> str:
    """What a reason is counted under: a malformed response's whole reason, else the verdict's status."""
    return reason if reason.startswith("malformed") else reason.partition(":")[0]


def consistent_by_instruction(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Instruction id -> its consistent rows, where there are any."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["consistent"]:
            found.setdefault(row["instruction_id"], []).append(row)
    return found


def suites_by_instruction(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Instruction id -> the test code of all its consistent suites joined: all apply to each sample (Algorithm 1)."""
    return {key: "\n".join(row["test_code"].rstrip() for row in some) + "\n"
            for key, some in consistent_by_instruction(rows).items()}


def references_by_instruction(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Instruction id -> the reference solution of its first consistent suite."""
    return {key: some[0]["solution"] for key, some in consistent_by_instruction(rows).items()}
