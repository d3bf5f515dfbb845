"""What a text says without being run: which tests can be run in another process than the candidate, which of them the
script does not call itself, where their assertions are, and which libraries a program imports.

Tests can be split when all they do with the candidate's names is to call them or to hand them on. Looking into a name's
attributes, comparing with it, catching it or inheriting from it needs the candidate's own objects; so do tests that
replace parts of the interpreter under the candidate's feet, such as standard input, the clock or the random generator.
"""

from __future__ import annotations

import ast
import builtins
import collections
import datetime
import decimal
import fractions
import re
import sys
from dataclasses import dataclass
from typing import Collection, Iterable

# Modules that tests may use in a process of their own: they compute, and share no state with the candidate.
PURE_MODULES = frozenset((
    "abc", "array", "bisect", "calendar", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "heapq", "io", "itertools", "json", "keyword", "math", "numbers",
    "numpy", "operator", "pprint", "pytest", "random", "re", "statistics", "string", "textwrap", "time", "typing", "unittest",
    "__future__", "__main__", "solution", "traceback", "warnings", "types", "hashlib", "base64", "struct", "zlib"))
# Attributes that reach into shared state, whatever they are taken of.
SHARED_ATTRIBUTES = frozenset((
    "stdin", "argv", "environ", "modules", "path", "seed", "setstate", "patch", "mock", "setattr", "monkeypatch",
    "__globals__", "__dict__", "__code__", "__closure__", "__defaults__", "__annotations__", "__wrapped__", "cache_clear",
    "cache_info", "iscoroutine", "setrecursionlimit", "settrace", "signal"))
SHARED_NAMES = frozenset(("globals", "locals", "exec", "eval", "compile", "open", "input", "setattr", "delattr", "vars",
                          "__import__", "dir", "id"))
PRINTING = frozenset(("stdout", "stderr", "redirect_stdout", "redirect_stderr", "capsys"))
BUILTINS = frozenset(vars(builtins)) | {"__name__", "__file__", "__doc__"}
# What results can be asked for: attributes of the types that cross as plain data.
PLAIN_TYPES = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, BaseException,
               collections.deque, collections.Counter, collections.OrderedDict, datetime.datetime, datetime.timedelta,
               decimal.Decimal, fractions.Fraction)
PLAIN_ATTRIBUTES = frozenset(name for kind in PLAIN_TYPES for name in dir(kind)) | {
    "close", "getvalue", "value", "code", "exception", "shape", "dtype", "tolist", "size", "sum", "all", "any", "readouterr",
    "out", "err"}


@dataclass(frozen=True)
class Plan:
    """``names``: the candidate's names that tests call; ``capture``: they look at what it prints; ``reason``: why they
    cannot be split, empty when they can; ``collect``: test functions and classes that the suite defines and does not
    call; ``checks``: lines of its assertions."""

    names: tuple[str, ...] = ()
    capture: bool = False
    reason: str = ""
    collect: tuple[str, ...] = ()
    checks: tuple[int, ...] = ()


def split_plan(tests: str, reference: str | None = None) -> Plan:
    """How to run tests apart from the candidate.

    Args:
        reference: a solution; where it defines a name that is also Python's own (``sum``), the tests mean the former.
    """
    try:
        tree, found = ast.parse(tests), _Uses()
        found.visit(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Plan(reason=f"the tests do not parse ({type(error).__name__})")
    names = tuple(sorted(found.loaded - found.bound - (BUILTINS - _defined(reference or ""))))
    return Plan(names, found.capture, found.reason(names), _uncalled(tree, found), _checks(tree))


def _uncalled(tree: ast.Module, found: _Uses) -> tuple[str, ...]:
    """Test functions and classes at the top level, by pytest's rules for names, that nobody runs."""
    definitions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    reached = _loaded(node for node in tree.body if node not in definitions)
    if "main" in found.attributes and "unittest" in found.modules:
        reached.update(node.name for node in definitions if isinstance(node, ast.ClassDef))
    bodies = {node.name: _loaded([node]) for node in definitions}
    waiting = list(reached)
    while waiting:
        more = bodies.pop(waiting.pop(), set()) - reached
        reached |= more
        waiting += more
    cases: set[str] = set()
    for node in definitions:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith(("TestCase", *cases)) for base in node.bases):
            cases.add(node.name)
    return tuple(dict.fromkeys(node.name for node in definitions if node.name not in reached and (
        node.name in cases or node.name.startswith("Test" if isinstance(node, ast.ClassDef) else "test"))))


def _loaded(nodes: Iterable[ast.AST]) -> set[str]:
    return {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def assertions(tree: ast.Module) -> list[ast.AST]:
    """Statements and calls that fail where the program is wrong: ``assert``, what holds a statement that would always fail
    (a condition that raises, a loop that is left before it), and calls of what is named so (``assertEqual``)."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Assert) and not _fails(node)
            or isinstance(node, (ast.If, ast.Try, ast.For, ast.While)) and any(map(_fails, (*node.body, *node.orelse)))
            or isinstance(node, ast.Match) and any(_fails(one) for case in node.cases for one in case.body)
            or isinstance(node, ast.FunctionDef) and node.name.startswith("test") and any(map(_fails, node.body))
            or isinstance(node, ast.Call) and re.fullmatch("assert.*|raises", _name(node.func))]


def _fails(node: ast.stmt) -> bool:
    """Whether a statement fails wherever it is reached."""
    if isinstance(node, ast.Assert):
        return isinstance(node.test, ast.Constant) and not node.test.value
    call = node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, ast.Expr) else None
    arguments = call.args if isinstance(call, ast.Call) else []
    name = _name(call.func if isinstance(call, ast.Call) else call)
    if name in ("exit", "quit", "SystemExit"):  # with which status, is the tests' own affair where it is computed
        return any(isinstance(one, ast.JoinedStr) or isinstance(one, ast.Constant) and bool(one.value) for one in arguments)
    return isinstance(node, ast.Raise) or name == "fail"


def _checks(tree: ast.Module) -> tuple[int, ...]:
    """The lines at which an assertion is evaluated."""
    lines: set[int] = set()
    for node in assertions(tree):
        if isinstance(node, ast.Assert):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, (ast.Try, ast.For, ast.While, ast.FunctionDef)):
            lines.update(one.lineno for one in node.body[:2])  # the first may be a docstring, which is not run
        elif isinstance(node, (ast.If, ast.Match, ast.Call)):
            lines.add(node.lineno)
    return tuple(sorted(lines))


def _name(function: ast.expr | None) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


IMPORT = re.compile(r"(?:^|[;:])[ \t]*(?:from[ \t]+([\w.]+)[\s\\]+import\b[ \t\\]*\n?[ \t]*(\([^)]*|[\w*, \t]+)"
                    r"|import[ \t]+([\w., \t]+))|\b(?:import_module|__import__)\(\s*[\"']([\w.]+)", re.MULTILINE)


def heavy_imports(code: str, warm: Collection[str] = ()) -> list[str]:
    """The modules that a program imports anywhere in its text, by a statement or a function, and that are not Python's own,
    nor in ``warm``; what is imported from one may be one too."""
    found: list[str] = []
    for module, parts, modules, asked in IMPORT.findall(code):
        names = [words[0] for words in map(str.split, (parts or modules).strip("(").split(",")) if words]
        found += [module, *(f"{module}.{name}" for name in names)] if module else names or [asked]
    return [name for name in dict.fromkeys(found) if name.partition(".")[0] not in {*sys.stdlib_module_names, *warm, ""}]


def _defined(source: str) -> set[str]:
    """Names of the functions and classes at a program's top level."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))}


class _Uses(ast.NodeVisitor):
    """Names bound and loaded anywhere in the tests (scopes are not told apart), and how each is used."""

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.loaded: set[str] = set()
        self.called: set[ast.Name] = set()  # where a name is called, or handed on to what is called
        self.deep: dict[str, str] = {}  # name -> any other use of it
        self.changed: set[str] = set()  # named in a global statement: the candidate may have them too
        self.attributes: set[str] = set()
        self.modules: set[str] = set()
        self.imported: set[str] = {"self"}
        self.asked: list[tuple[str, str]] = []  # (name, attribute) of what is not an attribute of plain data
        self.capture = False

    def reason(self, names: tuple[str, ...]) -> str:
        """Why the tests cannot be split, or an empty string."""
        deep = next((f"they change {name}" for name in sorted(self.changed)), "") or next(
            (f"{self.deep[name]} {name}" for name in names if name in self.deep), "")
        classes = next((f"they make a {name}" for name in names if name[:1].isupper()), "")
        modules = next((f"they use the module {name}" for name in sorted(self.modules - PURE_MODULES)), "")
        shared = next((f"they use {name}" for name in sorted((self.attributes & SHARED_ATTRIBUTES)
                                                             | (self.loaded & SHARED_NAMES) - self.bound)), "")
        asked = next((f"they look for .{attribute} of {name}" for name, attribute in self.asked
                      if name not in self.imported), "")
        nothing = "" if names else "they call no name but Python's own, which the candidate may have defined anew"
        return deep or classes or modules or shared or asked or nothing

    def visit_Import(self, node: ast.Import) -> None:
        for item in node.names:
            self._module(item.name.partition(".")[0])
            self._imported((item.asname or item.name).partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._module((node.module or ".").partition(".")[0])
        self.attributes.update(item.name for item in node.names)
        if node.module in ("solution", "__main__"):
            self.loaded.update(item.name for item in node.names if item.name != "*")
            self.bound.update(item.asname for item in node.names if item.asname)
        else:
            for item in node.names:
                self._imported(item.asname or item.name)

    def _imported(self, name: str) -> None:
        self.bound.add(name)
        self.imported.add(name)

    def _module(self, name: str) -> None:
        if name == "sys":
            return  # its attributes decide
        self.modules.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.bound.add(node.id)
            return
        self.loaded.add(node.id)
        if node not in self.called:
            self.deep.setdefault(node.id, "they look at")

    def visit_arg(self, node: ast.arg) -> None:
        self.bound.add(node.arg)
        self.capture = self.capture or node.arg in PRINTING
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.bound.add(node.name)
        self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.modules.add("asyncio")
        self.bound.add(node.name)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._imported(node.name)  # the tests' own class: its attributes are theirs
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bound.add(node.name)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.changed.update(node.names)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.attributes.add(node.attr)
        self.capture = self.capture or node.attr in PRINTING
        if isinstance(node.value, ast.Name):
            if node.value.id in ("solution", "__main__"):
                self.loaded.add(node.attr)
            elif node.attr not in PLAIN_ATTRIBUTES:
                self.asked.append((node.value.id, node.attr))
        elif isinstance(node.value, ast.Call) and node.attr not in PLAIN_ATTRIBUTES \
                and isinstance(node.value.func, ast.Name):
            self.asked.append((node.value.func.id, node.attr))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        handed_on = [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(node.func, ast.Name):
            self.capture = self.capture or node.func.id in PRINTING
            if node.func.id in ("isinstance", "issubclass"):
                handed_on = node.args[:1]
        self.called.update(one for one in (node.func, *handed_on) if isinstance(one, ast.Name))
        self.generic_visit(node)
