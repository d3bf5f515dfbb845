"""Put a program together from the code blocks of an answer."""

from __future__ import annotations

import ast
import symtable
import sys
from collections import defaultdict
from functools import cached_property
from itertools import zip_longest
from typing import Iterator

from plum_utils.models.blocks import tree_of

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
SHOWING = {"print", "input", "help", "main"}                  # calls of a usage example
TESTING = {"unittest", "doctest", "pytest", "timeit"}         # modules of tests and examples
MOST_ORDERED = 500  # statements: more than these stand in the order in which they were written, so that it takes no time


class Unit:
    """One or more top-level statements that share their lines, with the comments before them."""

    def __init__(self, nodes: list[ast.stmt], text: str):
        self.nodes, self.text = nodes, text

    @cached_property
    def assigned(self) -> set[str]:
        """Names that it binds at the top level."""
        return {name for node in self.nodes for name in _assigned(node)}

    @cached_property
    def bound(self) -> set[str]:
        """Names that it binds at the top level, or whose values it changes."""
        return self.assigned | {name for node in self.nodes for name in _changed(node)}

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

    @cached_property
    def called(self) -> set[str]:
        """Names whose values it calls, or whose methods."""
        return {_root(node.func) for node in self._walk() if isinstance(node, ast.Call)}

    @property
    def assigns(self) -> bool:
        return all(isinstance(node, (ast.Assign, ast.AnnAssign)) for node in self.nodes)

    @cached_property
    def reads_input(self) -> bool:
        """Whether it takes what a program is given and keeps it: ``n = int(input())``."""
        return self.assigns and any(isinstance(node, ast.Name) and node.id == "input"
                                    or isinstance(node, ast.Attribute) and node.attr == "stdin" for node in self._walk())

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
    def versions(self) -> dict[str, dict[str, bool]]:
        """Of each function and class that it defines: it (``""``) and its methods, and whether each is but a stub."""
        found: dict[str, dict[str, bool]] = defaultdict(dict)
        for node in (node for unit in self.units for node in unit.nodes):
            if isinstance(node, DEFINITIONS) and not _is_test(node):
                for name, one in [("", node), *_methods(node)]:
                    found[node.name][name] = found[node.name].get(name, True) and _is_stub(one)
        return found

    def is_example(self, defined: set[str]) -> bool:
        """Whether it only shows the use of what other blocks define."""
        return not self.versions and any(unit.shows or unit.called & defined for unit in self.units)

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
    defined = {name for part in parts for name in part.versions}
    examples = {id(unit) for part in parts if part.is_example(defined) for unit in part.units}
    if last is None:
        mixed = {id(unit) for part in parts if any(one.shows for one in part.units) for unit in part.units}
        kept = [unit for unit in chosen if unit.defines or unit.is_import and id(unit) not in mixed]
        # ``f = cached(f)`` in the block that defines ``f``
        own = {id(unit) for part in parts for unit in part.units if unit.assigns and unit.assigned & part.versions.keys()}
        kept += [unit for unit in chosen if id(unit) in own]
        others = [unit for unit in chosen if not unit.shows]
    else:
        whole = Unit(list(last.tree.body) if last.tree else [], last.text)
        chosen, kept = [unit for unit in chosen if not unit.assigned & whole.assigned], [whole]
        others = [unit for unit in chosen if unit.reads_input or not unit.shows]
    firm = [unit for unit in others if id(unit) not in examples]
    settled = {name for unit in [*kept, *firm] for name in unit.assigned}
    loose = [unit for unit in others if id(unit) in examples and not unit.assigned & settled]
    imported = {name for unit in others if unit.is_import for name in unit.assigned}
    setting_up = [unit for unit in firm if _sets_up(unit, imported, defined)]
    setting_up += [unit for unit in loose if _is_alias(unit) or unit.uses & defined and _sets_up(unit, imported, defined)]
    taken = {id(unit) for unit in _needed([*kept, *setting_up], firm + loose, parts)}
    order = [unit for unit in chosen if id(unit) in taken] + ([] if last is None else [whole])
    return _text(list(_loading_order(order)), parts)


def _chosen(parts: list[Part]) -> list[Unit]:
    """The statements of all blocks, but for definitions that another block has better, and repeated imports."""
    best: dict[str, Part] = {}
    for part in parts:
        for name, new in part.versions.items():
            old = best[name].versions[name] if name in best else {}
            if not any(is_stub and old.get(one) is False for one, is_stub in new.items()):
                best[name] = part
    found, seen = [], set()
    for part in parts:
        for unit in part.units:
            beaten = unit.defines and all(best[name] is not part for name in unit.defines)
            if beaten or unit.is_import and unit.text.strip() in seen or _is_of_another_block(unit, best):
                continue
            seen.add(unit.text.strip())
            found.append(unit)
    return found


def _is_of_another_block(unit: Unit, best: dict[str, Part]) -> bool:
    """``from helper import step``, where a block (``# helper.py``) defines ``step``."""
    return all(isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in sys.stdlib_module_names
               and all(alias.name in best and not alias.asname for alias in node.names) for node in unit.nodes)


def _needed(kept: list[Unit], others: list[Unit], parts: list[Part]) -> Iterator[Unit]:
    """What is kept, and those of the other statements that bind what it reads, and so on."""
    readers = {id(unit): [one for one in part.units if one.reads_input]
               for part in parts if any(one.reads_input for one in part.units) for unit in part.units if unit.reads_input}
    binding: dict[str, list[Unit]] = defaultdict(list)
    for unit in others:
        for name in unit.bound:
            binding[name] += readers.get(id(unit), [unit])  # lines of the input are read in their order, all or none
    todo, taken, names = list(kept), set(), {"*"}
    todo += binding["*"]
    while todo:
        unit = todo.pop()
        if id(unit) not in taken:
            taken.add(id(unit))
            yield unit
            todo += [one for name in unit.uses - names for one in binding[name]]
            names |= unit.uses


def _sets_up(unit: Unit, imported: set[str], defined: set[str]) -> bool:
    """Whether it only calls a module (``sys.setrecursionlimit(...)``), or names a constant or a function anew."""
    if unit.defines or unit.is_import or unit.called & defined:
        return False
    if any(isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) for node in unit.nodes):
        return not unit.uses & defined and {_root(node.value.func) for node in unit.nodes if isinstance(
            node, ast.Expr) and isinstance(node.value, ast.Call)} <= imported
    return unit.assigns and (not unit.called or unit.called <= imported and bool(unit.uses & defined))  # partial(f, 1)


def _is_alias(unit: Unit) -> bool:
    """``solve = Solution().solve`` without the call: another name of something."""
    return unit.assigns and all(isinstance(getattr(node, "value", None), (ast.Name, ast.Attribute)) for node in unit.nodes)


def _loading_order(units: list[Unit]) -> Iterator[Unit]:
    """The statements in their order, but what one reads when it is loaded before it."""
    waiting = sorted(units, key=lambda unit: not any(_is_future(node) for node in unit.nodes))
    if len(waiting) > MOST_ORDERED:
        yield from waiting
        return
    binding: dict[str, list[Unit]] = defaultdict(list)
    for unit in waiting:
        for name in unit.bound:
            binding[name].append(unit)
    names: set[str] = set()
    begun: set[int] = set()
    done: set[int] = set()
    for unit in waiting:
        stack = [unit]
        while stack:
            one = stack[-1]
            first = [] if id(one) in begun else [
                other for name in sorted(_reads(one, binding) - names)
                for other in [other for other in binding.get(name, []) if other is not one][:1] if id(other) not in begun]
            begun.add(id(one))
            stack += first
            if not first:
                stack.pop()
                if id(one) not in done:
                    done.add(id(one))
                    names |= one.bound
                    yield one


def _reads(unit: Unit, binding: dict[str, list[Unit]]) -> set[str]:
    """Names that are read when a statement is loaded, by the functions too that it may call."""
    found: set[str] = set()
    left = list(unit.uses_at_load)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [used for other in binding.get(name, []) if other.defines for used in other.uses]
    return found


def _text(units: list[Unit], parts: list[Part]) -> str:
    """The source; a block that was taken whole and in order stands as it was written."""
    beginning = {id(part.units[0]): part for part in parts if part.units}
    pieces, at = [], 0
    while at < len(units):
        part = beginning.get(id(units[at]))
        whole = part and all(one is two for one, two in zip_longest(part.units, units[at:at + len(part.units)]))
        pieces.append(part.text if part and whole else units[at].text)
        at += len(part.units) if part and whole else 1
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


def _assigned(node: ast.stmt) -> Iterator[str]:
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


def _changed(node: ast.stmt) -> Iterator[str]:
    """Names whose values a statement changes: ``table[1] = 2``, ``table.append(1)``."""
    for part in ast.walk(node) if not isinstance(node, DEFINITIONS) else ():
        stored = isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(part.ctx, ast.Store)
        if stored or isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            value = part.func if isinstance(part, ast.Call) else part
            while isinstance(value, (ast.Attribute, ast.Subscript)):
                value = value.value
            if isinstance(value, ast.Name):
                yield value.id


def _read_at_load(node: ast.AST) -> Iterator[str]:
    """Names read when a statement is executed: not those in the bodies of its functions."""
    left = [node]
    while left:
        node = left.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            left += [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
        else:
            left += [node.args] if isinstance(node, ast.Lambda) else ast.iter_child_nodes(node)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_stub(node: ast.stmt) -> bool:
    if isinstance(node, ast.ClassDef):
        return all(isinstance(one, DEFINITIONS) and _is_stub(one) or _is_nothing(one) for one in node.body)
    return all(map(_is_nothing, getattr(node, "body", [node])))


def _methods(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """Those that are asked for by name: an ``__init__`` may well do nothing."""
    for one in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(one, DEFINITIONS) and one.name != "__init__":
            yield one.name, one


def _is_nothing(node: ast.stmt) -> bool:
    value = node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, (ast.Return, ast.Expr)) else None
    if isinstance(node, ast.Raise) or isinstance(node, ast.Return) and isinstance(value, ast.Name):
        return value is not None and _root(value) in ("NotImplementedError", "NotImplemented")
    if isinstance(node, ast.Return):  # of nothing
        return value is None or isinstance(value, ast.Constant) and value.value in (None, ...)
    return isinstance(node, (ast.Pass, ast.Global)) or isinstance(node, ast.Expr) and isinstance(value, ast.Constant)


def _is_test(node: ast.stmt) -> bool:
    if isinstance(node, ast.ClassDef):
        return node.name.startswith("Test") or any(
            getattr(base, "attr", getattr(base, "id", "")).endswith("TestCase") for base in node.bases)
    return isinstance(node, DEFINITIONS) and node.name.startswith("test_")


def _is_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
