"""Put a program together from the code blocks of an answer."""

from __future__ import annotations

import ast
import symtable
from functools import cached_property
from typing import Iterable, Iterator

from plum_utils.models.blocks import tree_of

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
SHOWING = {"print", "input", "help", "main"}                  # calls of a usage example
TESTING = {"unittest", "doctest", "pytest", "timeit"}         # modules of tests and examples


class Unit:
    """One or more top-level statements that share their lines, with the comments before them."""

    def __init__(self, nodes: list[ast.stmt], text: str):
        self.nodes, self.text = nodes, text

    @cached_property
    def bound(self) -> set[str]:
        """Names that it binds at the top level, or whose values it changes."""
        return {name for node in self.nodes for name in _bound(node)}

    @cached_property
    def uses(self) -> set[str]:
        """Global names that it reads anywhere, in the bodies of functions too."""
        try:
            return set(_global_names(symtable.symtable(self.text, "", "exec")))
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # such as a ``return`` outside of a function
            return {node.id for node in self._walk() if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}

    @cached_property
    def uses_at_load(self) -> set[str]:
        """Names that it reads when it is loaded."""
        return {name for node in self.nodes for name in _read_at_load(node)}

    @property
    def defines(self) -> set[str]:
        """Functions and classes, those that test others left out."""
        return {node.name for node in self.nodes if isinstance(node, DEFINITIONS) and not _is_test(node)}

    @property
    def is_stub(self) -> bool:
        return all(isinstance(node, DEFINITIONS) and _is_stub(node) for node in self.nodes)

    @property
    def is_import(self) -> bool:
        return all(isinstance(node, IMPORTS) for node in self.nodes)

    @cached_property
    def shows(self) -> bool:
        """Whether it is a usage example, a test or a main guard, as far as it can be seen without the rest."""
        if any(isinstance(node, ast.Assert) or isinstance(node, DEFINITIONS) and _is_test(node) or _is_guard(node)
               for node in self.nodes):
            return True
        if self.defines or self.is_import:
            return False
        return any(isinstance(node, ast.Call) and _root(node.func) in SHOWING | TESTING or isinstance(node, ast.Assert)
                   for node in self._walk())

    @property
    def calls(self) -> bool:
        return any(isinstance(node, ast.Call) for node in self._walk())

    def _walk(self) -> Iterator[ast.AST]:
        for node in self.nodes:
            yield from ast.walk(node)


class Part:
    """One block of an answer: its text, and its statements where it parses."""

    def __init__(self, text: str):
        self.text, self.tree = text, tree_of(text)

    @cached_property
    def units(self) -> list[Unit]:
        return list(_units(self.text, self.tree)) if self.tree else []

    @cached_property
    def defined(self) -> set[str]:
        """Functions and classes with a body, or without one."""
        return {name for unit in self.units for name in unit.defines}

    @property
    def acts(self) -> bool:
        """Whether it is a program and no data: it calls, imports, defines or loops."""
        return self.tree is not None and any(
            isinstance(node, (ast.Call, ast.For, ast.While, *IMPORTS, *DEFINITIONS)) for node in ast.walk(self.tree))


def joined(parts: list[Part], last: Part | None = None) -> str:
    """One program of several blocks.

    Args:
        last: a block that stays whole, however it is; the others give what it needs. Without it they give all that they
            define, with what that needs.
    """
    chosen = _chosen(parts)
    if last is None:
        mixed = {id(unit) for part in parts if any(one.shows for one in part.units) for unit in part.units}
        kept = [unit for unit in chosen if unit.defines or unit.is_import and id(unit) not in mixed]
    else:
        whole = Unit(list(last.tree.body) if last.tree else [], last.text)
        chosen, kept = [unit for unit in chosen if not unit.bound & whole.bound], [whole]
    kept += _needed(kept, [unit for unit in chosen if not unit.shows])
    order = [unit for unit in chosen if any(unit is one for one in kept)] + ([] if last is None else [whole])
    return _text(list(_loading_order(order)), parts)


def _chosen(parts: list[Part]) -> list[Unit]:
    """The statements of all blocks, but for definitions that another block has better, and repeated imports."""
    best: dict[str, Part] = {}
    for part in parts:
        for unit in part.units:
            for name in unit.defines:
                if name not in best or not unit.is_stub or all(
                        one.is_stub for one in best[name].units if name in one.defines):
                    best[name] = part
    found, seen = [], set()
    for part in parts:
        for unit in part.units:
            beaten = unit.defines and all(best[name] is not part for name in unit.defines)
            if beaten or unit.is_import and unit.text.strip() in seen:
                continue
            seen.add(unit.text.strip())
            found.append(unit)
    return found


def _needed(kept: list[Unit], others: list[Unit]) -> Iterator[Unit]:
    """Those of the other statements that bind what the kept ones read, and so on; and calls that only set up."""
    names = {name for unit in kept for name in unit.uses}
    left = [unit for unit in others if not any(unit is one for one in kept)]
    grown = True
    while grown:
        grown = False
        for unit in list(left):
            if unit.bound & names or "*" in unit.bound or _sets_up(unit, others):
                left.remove(unit)
                names |= unit.uses
                grown = True
                yield unit


def _sets_up(unit: Unit, others: list[Unit]) -> bool:
    """Whether it only calls a module (``sys.setrecursionlimit(...)``) or assigns to one's attribute, or is a constant."""
    if unit.defines or unit.is_import:
        return False
    imported = {name for one in others if one.is_import for name in one.bound}
    defined = {name for one in others for name in one.defines}
    if unit.uses & defined:
        return False
    roots = {_root(node.value.func) for node in unit.nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)}
    if roots:
        return roots <= imported
    return not unit.calls and all(isinstance(node, (ast.Assign, ast.AnnAssign)) for node in unit.nodes)


def _loading_order(units: list[Unit]) -> Iterator[Unit]:
    """The statements in their order, but what one reads when it is loaded before it."""
    waiting = sorted(units, key=lambda unit: not any(_is_future(node) for node in unit.nodes))
    done: list[Unit] = []

    def emit(unit: Unit, above: tuple[Unit, ...]) -> Iterator[Unit]:
        if any(unit is one for one in (*done, *above)):
            return
        for name in sorted(unit.uses_at_load):
            if not any(name in one.bound for one in done):
                for other in waiting:
                    if name in other.bound and other is not unit:
                        yield from emit(other, (*above, unit))
                        break
        done.append(unit)
        yield unit

    for unit in waiting:
        yield from emit(unit, ())


def _text(units: list[Unit], parts: list[Part]) -> str:
    """The source; a block that was taken whole and in order stands as it was written."""
    pieces, at = [], 0
    while at < len(units):
        whole = next((part for part in parts if part.units and part.units[0] is units[at]
                      and len(units) - at >= len(part.units)
                      and all(one is two for one, two in zip(part.units, units[at:]))), None)
        pieces.append(whole.text if whole else units[at].text)
        at += len(whole.units) if whole else 1
    return "\n\n".join(piece.strip("\n") for piece in pieces)


def _units(text: str, tree: ast.Module) -> Iterator[Unit]:
    lines, at, nodes = text.split("\n"), 0, []
    for node, after in zip(tree.body, [*tree.body[1:], None]):
        nodes.append(node)
        end = node.end_lineno or node.lineno
        if after is None or _first_line(after) > end:
            yield Unit(nodes, "\n".join(lines[at:end if after else len(lines)]))
            at, nodes = end, []


def _global_names(table: symtable.SymbolTable) -> Iterator[str]:
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _global_names(inner)


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, DEFINITIONS):
        yield node.name
        return
    for part in ast.walk(node):
        if isinstance(part, IMPORTS):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in part.names)
        elif isinstance(part, DEFINITIONS):
            yield part.name
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id
        elif isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(part.ctx, ast.Store):
            yield _root(part)
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            yield _root(part.func)  # ``table.append(1)``


def _read_at_load(node: ast.AST) -> Iterator[str]:
    """Names read when a statement is executed: not those in the bodies of its functions."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        inner = [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
    elif isinstance(node, ast.Lambda):
        inner = [node.args]
    for one in inner:
        yield from _read_at_load(one)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_stub(node: ast.stmt) -> bool:
    if isinstance(node, ast.ClassDef):
        return all(isinstance(one, DEFINITIONS) and _is_stub(one) or _is_nothing(one) for one in node.body)
    return all(map(_is_nothing, getattr(node, "body", [node])))


def _is_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return node.exc is not None and _root(node.exc) in ("NotImplementedError", "NotImplemented")
    return isinstance(node, ast.Pass) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_test(node: ast.stmt) -> bool:
    if isinstance(node, ast.ClassDef):
        return node.name.startswith("Test") or any(ast.unparse(base).endswith("TestCase") for base in node.bases)
    return isinstance(node, DEFINITIONS) and node.name.startswith("test_")


def _is_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
