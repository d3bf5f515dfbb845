"""One small change to a program."""

from __future__ import annotations

import ast
import random
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, Callable, Iterator

from plum_utils.syntax import UNPARSABLE, parsed

Edit = tuple[str, Callable[[Any], None]]  # operator, and what it does to its node in a copy of the tree
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
               ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
              ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
              ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd}
BOOLEAN = {ast.And: ast.Or, ast.Or: ast.And}
KEPT = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal,
        ast.Pass, ast.Return)  # statements that are not deleted: without them nothing loads, or the change is another's


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
    tree = parsed(solution)
    if tree is None:
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
    except UNPARSABLE:
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
