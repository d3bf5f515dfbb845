"""Stage 1: generator responses -> reference solution and tests, kept only when they agree (paper, section 3)."""

from __future__ import annotations

import ast
from typing import Any, Iterable

import pandas as pd

from plum_utils.data.instructions import Instruction
from plum_utils.progress import Bar
from plum_utils.sandbox import Program, Sandbox, Status, Verdict, judge
from plum_utils.sandbox.splitting import assertions
from plum_utils.testgen.response import MalformedResponse, parse_response, strictly_formatted


def count_tests(test_code: str) -> int:
    """Number of assertions in a test suite (``splitting.assertions``), those inside functions and loops included."""
    return len(assertions(ast.parse(test_code)))


def vacuous_asserts(test_code: str) -> list[str]:
    """The asserts of a suite that hold whatever the program under test does, as source text (``... or True``)."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(test_code))
            if isinstance(node, ast.Assert) and always_true(node.test)]


def swallowed_asserts(test_code: str) -> list[str]:
    """The asserts of a suite whose failure a ``try`` or ``suppress`` around them may swallow, as source text."""
    around = [node for node in ast.walk(ast.parse(test_code)) if isinstance(node, ast.Try) and any(map(_swallows, node.handlers))
              or isinstance(node, ast.With) and any(_suppresses(item.context_expr) for item in node.items)]
    return [ast.unparse(one) for node in around for line in node.body for one in ast.walk(line) if isinstance(one, ast.Assert)]


def _swallows(handler: ast.ExceptHandler) -> bool:
    named = handler.type is None or _names_failures(handler.type)
    return named and not any(isinstance(node, (ast.Raise, ast.Assert)) for line in handler.body for node in ast.walk(line))


def _suppresses(manager: ast.expr) -> bool:
    return isinstance(manager, ast.Call) and ast.unparse(manager.func).endswith("suppress") and _names_failures(manager)


def _names_failures(node: ast.expr) -> bool:
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return bool(names & {"AssertionError", "Exception", "BaseException"})


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

    A suite is consistent when its reference solution runs and passes all its own tests, of which one was evaluated and
    called the solution. A response whose run failed for a reason of ours (``infrastructure``) raises instead of being
    counted as inconsistent.

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
        row["reason"] = _inconsistency(verdict)
        row["consistent"] = not row["reason"]
    return rows


def _inconsistency(verdict: Verdict) -> str:
    if verdict.status != Status.PASSED:
        return f"{verdict.status}: {verdict.detail}"
    if not verdict.asserted:
        return "untested: no assertion was evaluated"
    return "" if verdict.calls else "untested: the tests never called the solution"


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
    ``malformed``, ``consistent``, ``saved`` (read although a stricter reading of the format would have lost them) and
    ``ours``, the self-consistency pass rate in percent of all responses."""
    frame = pd.DataFrame(rows)
    frame["malformed"] = frame.reason.str.startswith("malformed")
    strict = frame.response.map(strictly_formatted) if "response" in frame else True
    frame["saved"] = ~frame.malformed & ~pd.Series(strict, index=frame.index)
    frame["kept_id"] = frame.instruction_id.where(frame.consistent)
    table = frame.groupby("source", sort=False).agg(
        instructions=("instruction_id", "nunique"), instructions_with_suite=("kept_id", "nunique"),
        responses=("attempt", "size"), malformed=("malformed", "sum"), consistent=("consistent", "sum"),
        saved=("saved", "sum"))
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


def suites_by_instruction(rows: Iterable[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Instruction id -> the test code of its consistent suites: all apply to each sample (Algorithm 1)."""
    return {key: tuple(row["test_code"].rstrip() for row in some) for key, some in consistent_by_instruction(rows).items()}


def references_by_instruction(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Instruction id -> the reference solution of its first consistent suite."""
    return {key: some[0]["solution"] for key, some in consistent_by_instruction(rows).items()}
