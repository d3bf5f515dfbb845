"""How good are the tests that label? Mutation scores of suites, and the share of chosen programs that are wrong.

A mutant is the reference solution with one small change; a suite is worth what it notices. The operators are named as
in Cosmic Ray, whose own need a dozen packages (a database, a web client) and mutate files on disk; mutmut needs a test
runner and writes all mutants into one file. Ours are edits of Python's own syntax tree, on source strings: nothing that
a model wrote is run here, only in the sandbox.
"""

from __future__ import annotations

import ast
import random
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, Callable, Iterable, Iterator

import pandas as pd

from plum_utils.sandbox import Program, Sandbox, Verdict
from plum_utils.stats import bootstrap_share_interval

Edit = tuple[str, Callable[[Any], None]]  # operator, and what it does to its node in a copy of the tree

COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
               ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
              ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
              ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd}
BOOLEAN = {ast.And: ast.Or, ast.Or: ast.And}
KEPT = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal,
        ast.Pass, ast.Return)  # statements that are not deleted: without them nothing loads, or the change is another's
UNSAFE = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Mutant:
    """A solution with one change: the operator, and the whole source."""

    operator: str
    source: str


def mutants(solution: str, limit: int | None = None, seed: int = 0) -> list[Mutant]:
    """Mutants of a program in the order of its syntax tree (breadth first); each compiles, differs from the original
    and from the others in more than layout, and is changed in one place.

    Operators: comparisons, arithmetic and ``and``/``or`` swapped; numbers and the bounds of ``range`` off by one;
    booleans and conditions negated, minus signs removed; strings changed; ``return None``; a statement deleted.
    Docstrings, annotations and format specifications are left alone.

    Args:
        limit: draw at most so many, with the seed; their order is kept.

    Returns:
        An empty list where the solution does not parse.
    """
    try:
        tree = ast.parse(solution)
    except UNSAFE:
        return []
    useless, changes = {_source(tree), ""}, list(_changes(tree))
    order = list(range(len(changes)))
    if limit is not None:
        random.Random(seed).shuffle(order)
    found: dict[str, int] = {}
    for number in order:
        if len(found) == limit:
            break
        place, (_, edit) = changes[number]
        source = _source(_changed(solution, place, edit))
        if source not in useless:
            found.setdefault(source, number)
    return [Mutant(changes[number][1][0], source) for source, number in sorted(found.items(), key=itemgetter(1))]


def _changed(solution: str, place: int, edit: Callable[[Any], None]) -> ast.Module:
    tree = ast.parse(solution)  # ten times as fast as a deep copy of the tree
    edit(next(islice(ast.walk(tree), place, None)))
    return tree


def _source(tree: ast.Module) -> str:
    """A tree as source; empty where Python cannot write or compile it."""
    try:
        source = ast.unparse(ast.fix_missing_locations(tree))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<mutant>", "exec", dont_inherit=True)  # compiled, never run
        return source
    except UNSAFE:
        return ""


def _changes(tree: ast.Module) -> Iterator[tuple[int, Edit]]:
    """(place of a node in ``ast.walk``, a change of it), for all changes."""
    silent = _left_alone(tree)
    for place, node in enumerate(ast.walk(tree)):
        for kind, make in MAKERS:
            if isinstance(node, kind) and id(node) not in silent:
                yield from ((place, edit) for edit in make(node))


def _left_alone(tree: ast.Module) -> set[int]:
    """Nodes of docstrings, annotations and format specifications: no test can see a change there, or each does."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node.value)
        roots += [getattr(node, name, None) for name in ("annotation", "returns", "format_spec")]
    return {id(part) for root in roots if root is not None for part in ast.walk(root)}


def _set(field: str, value: Any, index: int | None = None) -> Callable[[Any], None]:
    """An edit that puts a new value, or what it makes of the old one, into a field (or a place of a field's list)."""
    def edit(node: Any) -> None:
        old = getattr(node, field) if index is None else getattr(node, field)[index]
        new = value(old) if callable(value) else value
        if index is None:
            setattr(node, field, new)
        else:
            getattr(node, field)[index] = new
    return edit


def _comparison(node: ast.Compare) -> Iterator[Edit]:
    for index, old in enumerate(node.ops):
        new = COMPARISONS[type(old)]
        yield f"ReplaceComparisonOperator_{type(old).__name__}_{new.__name__}", _set("ops", new(), index)


def _arithmetic(node: ast.BinOp | ast.AugAssign) -> Iterator[Edit]:
    new = ARITHMETIC.get(type(node.op))
    if new:
        yield f"ReplaceBinaryOperator_{type(node.op).__name__}_{new.__name__}", _set("op", new())


def _boolean(node: ast.BoolOp) -> Iterator[Edit]:
    new = BOOLEAN[type(node.op)]
    yield f"Replace{type(node.op).__name__}With{new.__name__}", _set("op", new())


def _sign(node: ast.UnaryOp) -> Iterator[Edit]:
    if isinstance(node.op, ast.Not):
        yield "AddNot", _set("operand", _negated)
    elif isinstance(node.op, ast.USub):
        yield "ReplaceUnaryOperator_USub_UAdd", _set("op", ast.UAdd())


def _constant(node: ast.Constant) -> Iterator[Edit]:
    value = node.value
    if isinstance(value, bool):
        yield f"Replace{value}With{not value}", _set("value", not value)
    elif isinstance(value, (int, float)):
        yield "NumberReplacer_plus", _set("value", value + 1)
        yield "NumberReplacer_minus", _set("value", value - 1)
    elif isinstance(value, str):
        yield "StringReplacer", _set("value", f"XX{value}XX")


def _bounds(node: ast.Call) -> Iterator[Edit]:
    if isinstance(node.func, ast.Name) and node.func.id == "range":
        for index, argument in enumerate(node.args):
            if not isinstance(argument, (ast.Constant, ast.Starred)):  # constants have an operator of their own
                yield "RangeBound_plus", _set("args", partial(_off_by_one, ast.Add()), index)
                yield "RangeBound_minus", _set("args", partial(_off_by_one, ast.Sub()), index)


def _off_by_one(op: ast.operator, old: ast.expr) -> ast.expr:
    return ast.BinOp(old, op, ast.Constant(1))


def _negated(old: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), old)


def _condition(node: ast.If | ast.While | ast.IfExp) -> Iterator[Edit]:
    yield "AddNot", _set("test", _negated)


def _filters(node: ast.comprehension) -> Iterator[Edit]:
    for index in range(len(node.ifs)):
        yield "AddNot", _set("ifs", _negated, index)


def _returned(node: ast.Return) -> Iterator[Edit]:
    if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield "ReturnNone", _set("value", ast.Constant(None))


def _deletions(node: ast.AST) -> Iterator[Edit]:
    for field in ("body", "orelse", "finalbody"):
        statements = getattr(node, field, None)
        for index, statement in enumerate(statements if isinstance(statements, list) else []):
            docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not isinstance(statement, KEPT) and not docstring:
                yield "StatementDeletion", _set(field, ast.Pass(), index)


MAKERS: tuple[tuple[Any, Callable[[Any], Iterator[Edit]]], ...] = (
    (ast.Compare, _comparison), ((ast.BinOp, ast.AugAssign), _arithmetic), (ast.BoolOp, _boolean),
    (ast.UnaryOp, _sign), (ast.Constant, _constant), (ast.Call, _bounds), ((ast.If, ast.While, ast.IfExp), _condition),
    (ast.comprehension, _filters), (ast.Return, _returned), (ast.AST, _deletions))


# --- what a suite notices -------------------------------------------------------------------------------------------

def mutation_scores(rows: list[dict[str, Any]], sandbox: Sandbox, limit_per_suite: int = 20, seed: int = 0
                    ) -> pd.DataFrame:
    """The share of its reference's mutants that each suite kills: that fail a test, do not load, or run out of time.

    Some mutants do what the original does, whatever the input, so that even a perfect suite may stay below 1.

    Args:
        rows: consistent rows of the ``testgen`` contract: instruction_id, source, attempt, solution, test_code.
        limit_per_suite: mutants of a suite, drawn with the seed where there are more.

    Returns:
        One row a suite, in order: source, instruction_id, attempt, ``mutants``, ``killed``, ``score`` (NaN where there
        is no mutant, or where the suite's own solution does not pass it) and ``survivor``, the source of its first
        mutant that lives (empty where none does).

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    made = [mutants(row["solution"], limit_per_suite, seed) for row in rows]
    programs = [Program(f"{place}/{number}", source, row["test_code"], reference=row["solution"])
                for place, (row, some) in enumerate(zip(rows, made))
                for number, source in enumerate([row["solution"], *(one.source for one in some)])]
    passed = iter(_passed(sandbox.run(programs)))
    scored = [_scored(row, some, [next(passed) for _ in range(1 + len(some))]) for row, some in zip(rows, made)]
    columns = ["source", "instruction_id", "attempt", "mutants", "killed", "score", "survivor"]
    return pd.DataFrame(scored, columns=columns)


def _scored(row: dict[str, Any], some: list[Mutant], passed: list[bool]) -> dict[str, Any]:
    itself, *lived = passed
    killed = lived.count(False)
    return {key: row[key] for key in ("source", "instruction_id", "attempt")} | {
        "mutants": len(some), "killed": killed, "score": killed / len(some) if some and itself else float("nan"),
        "survivor": next((one.source for one, lives in zip(some, lived) if lives), "")}


def _passed(verdicts: list[Verdict]) -> list[bool]:
    for verdict in verdicts:
        if verdict.status == "infrastructure":
            raise RuntimeError(f"{verdict.id}: the sandbox failed, not the program: {verdict.detail}")
    return [verdict.status == "passed" for verdict in verdicts]


# --- how often a chosen program is wrong ----------------------------------------------------------------------------

def draw_instructions(instruction_ids: Iterable[str], limit: int, seed: int = 0) -> set[str]:
    """Instructions in an order drawn with the seed, as many as have at most ``limit`` samples together; at least one.

    Args:
        instruction_ids: of each sample, so that an instruction is there as often as it has samples.
    """
    sizes = pd.Series(list(instruction_ids), dtype=object).value_counts().sort_index()
    order = list(sizes.index)
    random.Random(seed).shuffle(order)
    return set(order[:max(1, int((sizes[order].cumsum() <= limit).sum()))])


def suite_verdicts(samples: Iterable[dict[str, Any]], suites: Iterable[dict[str, Any]], sandbox: Sandbox
                   ) -> pd.DataFrame:
    """Each sample against each consistent suite of its instruction by itself, not all together as labels are made.

    Args:
        samples: rows with instruction_id, sample_index and code.
        suites: rows of the ``testgen`` contract.

    Returns:
        One row a sample and suite: instruction_id, sample_index, ``attempt`` (the suite's) and ``passed``. Samples
        without a consistent suite are left out.

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in suites:
        if row["consistent"]:
            by_id.setdefault(row["instruction_id"], []).append(row)
    pairs = [(sample, suite) for sample in samples for suite in by_id.get(sample["instruction_id"], [])]
    programs = [Program(f"{suite['instruction_id']}/{sample['sample_index']}/{suite['attempt']}", sample["code"],
                        suite["test_code"], reference=suite["solution"]) for sample, suite in pairs]
    rows = [(sample["instruction_id"], sample["sample_index"], suite["attempt"], passed)
            for (sample, suite), passed in zip(pairs, _passed(sandbox.run(programs)))]
    return pd.DataFrame(rows, columns=["instruction_id", "sample_index", "attempt", "passed"])


def false_positives(verdicts: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Leave the others out: of the samples that one suite alone would have chosen, the share that fail another suite of
    their instruction. Instructions with a single suite have nothing to check with and are left out.

    Args:
        verdicts: of ``suite_verdicts``.

    Returns:
        A row for each suite (``suite``: its attempt, as text) and one, ``any``, for all together: ``instructions``
        (with a chosen sample), ``chosen`` (pairs of sample and suite), ``wrong``, and in percent ``rate``, ``low`` and
        ``high``: a 95% bootstrap interval over instructions.
    """
    by_sample = verdicts.groupby(["instruction_id", "sample_index"]).passed
    checked = verdicts[by_sample.transform("size") > 1]
    wrong = checked.assign(wrong=~by_sample.transform("all"))
    chosen = wrong[wrong.passed.astype(bool)]
    parts = [("any", chosen), *((str(name), part) for name, part in chosen.groupby("attempt"))]
    return pd.DataFrame([{"suite": name, "instructions": part.instruction_id.nunique()}
                         | _share(part, "instruction_id", n_resamples, seed) for name, part in parts])


def base_false_positives(rows: list[dict[str, Any]], n_resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """Of the solutions that pass a benchmark's base tests, the share that fail its plus tests (EvalPlus), which nobody
    wrote with the base tests in mind.

    Args:
        rows: of the ``evaluation`` contract; those of suites without plus tests (``plus_passed`` is ``None``) are left
            out.

    Returns:
        ``problems`` (with a solution that passes the base tests), ``chosen`` (these solutions), ``wrong``, and in
        percent ``rate``, ``low`` and ``high``: a 95% bootstrap interval over problems; NaN where nothing passes.
    """
    kept = [(row["task_id"], not row["plus_passed"]) for row in rows
            if row["base_passed"] and row["plus_passed"] is not None]
    frame = pd.DataFrame(kept, columns=["task_id", "wrong"])
    return {"problems": frame.task_id.nunique()} | _share(frame, "task_id", n_resamples, seed)


def _share(chosen: pd.DataFrame, cluster: str, n_resamples: int, seed: int) -> dict[str, float]:
    counts = chosen.astype({"wrong": float}).groupby(cluster).wrong.agg(["sum", "size"])
    n, wrong = int(counts["size"].sum()), int(counts["sum"].sum())
    low, high = bootstrap_share_interval(counts["sum"], counts["size"], n_resamples, seed)
    return {"chosen": n, "wrong": wrong, "rate": 100 * wrong / n if n else float("nan"), "low": 100 * low,
            "high": 100 * high}
