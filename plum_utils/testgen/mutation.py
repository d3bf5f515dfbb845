"""One small change to a program."""

from __future__ import annotations

import ast
import random
import warnings
from dataclasses import dataclass
from typing import Any, Iterator

from plum_utils.syntax import UNPARSABLE, parsed

Change = tuple[str, Any, Any, Any]  # operator; a node's fields, or a list of one; the place in it; what comes there
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
        An empty list where the solution does not parse, or is nested too deeply to be written again.
    """
    tree = parsed(solution)
    if tree is None or not (original := _source(tree)):
        return []
    useless, silent = {original, ""}, _left_alone(tree)
    changes = [change for node in ast.walk(tree) if id(node) not in silent for change in _changes(node)]
    order = list(range(len(changes)))
    if limit is not None:
        random.Random(seed).shuffle(order)
    found: dict[str, int] = {}
    for number in order:
        if len(found) == limit:
            break
        source = _changed(tree, changes[number])
        if source not in useless:
            found.setdefault(source, number)
    return [Mutant(changes[number][0], source) for source, number in sorted(found.items(), key=lambda item: item[1])]


def _changed(tree: ast.Module, change: Change) -> str:
    """The source of the tree with the change, which is taken back."""
    _, holder, place, new = change
    old, holder[place] = holder[place], new
    source = _source(tree)
    holder[place] = old
    return source


def _source(tree: ast.Module) -> str:
    """A tree as source; empty where Python cannot write or compile it."""
    try:
        source = ast.unparse(tree)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<mutant>", "exec", dont_inherit=True)  # compiled, never run
        return source
    except UNPARSABLE:
        return ""


def _left_alone(tree: ast.Module) -> set[int]:
    """Nodes of docstrings, annotations and format specifications: no test can see a change there, or each does."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node.value)
        roots += [getattr(node, name, None) for name in ("annotation", "returns", "format_spec")]
    return {id(part) for root in roots if root is not None for part in ast.walk(root)}


def _changes(node: ast.AST) -> Iterator[Change]:
    """All changes of a node; operators are named as in Cosmic Ray."""
    old: Any
    new: Any
    fields = vars(node)
    match node:
        case ast.Compare(ops=ops):
            for place, old in enumerate(ops):
                new = COMPARISONS[type(old)]
                yield f"ReplaceComparisonOperator_{type(old).__name__}_{new.__name__}", ops, place, new()
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            new = ARITHMETIC[type(op)]
            yield f"ReplaceBinaryOperator_{type(op).__name__}_{new.__name__}", fields, "op", new()
        case ast.BoolOp(op=op):
            new = BOOLEAN[type(op)]
            yield f"Replace{type(op).__name__}With{new.__name__}", fields, "op", new()
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "AddNot", fields, "operand", _negated(operand)
        case ast.UnaryOp(op=ast.USub()):
            yield "ReplaceUnaryOperator_USub_UAdd", fields, "op", ast.UAdd()
        case ast.Constant(value=bool(value)):
            yield f"Replace{value}With{not value}", fields, "value", not value
        case ast.Constant(value=int(value) | float(value)):
            yield "NumberReplacer_plus", fields, "value", value + 1
            yield "NumberReplacer_minus", fields, "value", value - 1
        case ast.Constant(value=str(value)):
            yield "StringReplacer", fields, "value", f"XX{value}XX"
        case ast.Call(func=ast.Name("range"), args=args):
            for place, old in enumerate(args):
                if not isinstance(old, (ast.Constant, ast.Starred)):  # constants have an operator of their own
                    yield "RangeBound_plus", args, place, ast.BinOp(old, ast.Add(), ast.Constant(1))
                    yield "RangeBound_minus", args, place, ast.BinOp(old, ast.Sub(), ast.Constant(1))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "AddNot", fields, "test", _negated(test)
        case ast.comprehension(ifs=ifs):
            for place, old in enumerate(ifs):
                yield "AddNot", ifs, place, _negated(old)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "ReturnNone", fields, "value", ast.Constant(None)
    yield from _deletions(fields)


def _negated(old: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), old)


def _deletions(fields: dict[str, Any]) -> Iterator[Change]:
    for name in ("body", "orelse", "finalbody"):
        statements = fields.get(name)
        for place, statement in enumerate(statements if isinstance(statements, list) else []):
            docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not isinstance(statement, KEPT) and not docstring:
                yield "StatementDeletion", statements, place, ast.Pass()
