"""Our verdicts on contest programs beside those of LiveCodeBench's own grader.

    python benchmarks/parity_livecodebench.py CURRENT V2024 [--out benchmarks/results/parity_livecodebench.json]

Both are checkouts of LiveCodeBench, of today and of f05cda2 (October 2024, the grader before January 2025), whose
``lcb_runner.evaluation.testing_util`` is imported from there. It isolates nothing, so it runs programs of known origin alone,
each in a process of its own: the bundled problems' solutions, mutants of them, and programs that read, print, return and end
in the ways that differ between graders.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from programs import mutants

from plum_utils.data.livecodebench import LcbProblem, LcbTest, load_livecodebench
from plum_utils.evaluation.scoring import score
from plum_utils.sandbox import Limits, Sandbox

ROOT = Path(__file__).parents[1]
SECONDS = 2
MUTANTS = 10  # of each solution, of one change and of two
Asked = tuple[str, str, str, str]  # kind, problem, program, why the two differ, where they are known to
READ = "a, b = map(int, input().split())\n"
UNKNOWN = "UNEXPLAINED"
# Why the two differ, where they do:
MOCKS = "standard input is a mock there, which descriptor 0 is not, and whose read() and iteration are not a file's"
STRING = "standard output is a text in its own process there: no descriptor, no buffer, no end of the process"
LOCAL = "a script is a function's body there, so that its top-level names are locals"
GUARD = "it opens a main guard of one form alone, where it stands last"
FUTURE = "it puts its imports before the program's first line"
TAKEN = "it takes quit, os.remove, os.getcwd and others away"
MENTION = "it looks for the text `class Solution`, which may be a comment"
NONLOCAL = "no Python: a nonlocal of a top-level name passes there since a script is a function's body"
PRINTS = [f"def print(*a, **k):\n    import sys\n    sys.stdout.write({text})\n" for text in (
    "' '.join(map(str, a)) + '\\n\\n'", "'  '.join(map(str, a)) + '  \\n'", "' '.join(f'{x}.0' for x in a) + '\\n'",
    "' '.join('0' + str(x) for x in a) + '\\n'", "' '.join(str(float(x) * (1 + 1e-7)) for x in a) + '\\n'",
    "' '.join(str(float(x) + 0.01) for x in a) + '\\n'", "'\\n'.join(map(str, a)) + '\\n'")]
FORMS: list[Asked] = [(kind, "plum-e1", code, why) for kind, code, why in (
    ("reading", "import sys\nprint(sum(map(int, sys.stdin.read().split())))", ""),
    ("reading", "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", ""),
    ("reading", "import sys\nprint(sum(map(int, sys.stdin.readline().split())))", ""),
    ("reading", "import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())))", ""),
    ("reading", "import sys\nprint(sum(map(int, ' '.join(sys.stdin.readlines()).split())))", ""),
    ("reading", "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))", MOCKS),
    ("reading", "import sys\n" + READ + "print(a + b + len(sys.stdin.read()))", MOCKS),
    ("reading", "print(sum(map(int, open(0).read().split())))", MOCKS),
    ("reading", "print(sum(map(int, open('/dev/stdin').read().split())))", MOCKS),
    ("reading", "import os\nprint(sum(map(int, os.read(0, 1000).split())))", MOCKS),
    ("reading", "import fileinput\nprint(sum(map(int, ' '.join(fileinput.input()).split())))", MOCKS),
    ("reading", "import numpy as np, sys\nprint(np.array(sys.stdin.read().split(), int).sum())", ""),
    ("reading", "try:\n    while True:\n        print(sum(map(int, input().split())))\nexcept EOFError:\n    pass", ""),
    ("reading", "import sys\ninput = sys.stdin.readline\n" + READ + "print(a + b)", ""),
    ("reading", READ + "import sys\ninput = sys.stdin.readline\nprint(a + b)", LOCAL),
    ("reading", "from sys import stdin\nprint(sum(map(int, stdin.readline().split())))", ""),
    ("sizes", READ + "def f(n):\n    return n and 1 + f(n - 1)\nprint(a + b + f(100000) - 100000)", ""),
    ("printing", READ + "print(float(a + b))", ""), ("printing", READ + "print('', a + b, '')", ""),
    ("printing", READ + "import sys\nsys.stdout.write(str(a + b))", ""),
    ("printing", READ + "import sys\nprint(a + b, file=sys.stderr)", ""),
    ("printing", READ + "from sys import stdout\nstdout.write(str(a + b))", STRING),
    ("printing", READ + "import sys\nsys.stdout.buffer.write(str(a + b).encode())", STRING),
    ("printing", READ + "import os\nos.write(1, str(a + b).encode())", STRING),
    ("printing", READ + "import sys\nsys.stdout.reconfigure(line_buffering=True)\nprint(a + b)", STRING),
    ("printing", READ + "import sys\nprint(a + b)\nsys.stdout.close()", STRING),
    ("printing", READ + "print(a + b)\nprint('done')", ""), ("printing", READ + "print(str(a + b) + 'x')", ""),
    ("ending", READ + "print(a + b)\nexit()", ""), ("ending", READ + "import sys\nprint(a + b)\nsys.exit(1)", ""),
    ("ending", READ + "print(a + b)\nquit()", TAKEN), ("ending", READ + "print(a + b)\nraise ValueError", ""),
    ("ending", READ + "print(a + b)\nreturn", ""), ("ending", READ + "if a < 99:\n    return print(a + b)\nprint(a + b)", ""),
    ("ending", "try:\n    a, b = map(int, input().split())\n    print(a + b)\n    return\nexcept:\n    print('no')", ""),
    ("ending", READ + "import os\nprint(a + b, flush=True)\nos._exit(0)", STRING),
    ("ending", READ + "import atexit\natexit.register(print, a + b)", STRING),
    ("ending", READ + "import threading\nthreading.Thread(target=print, args=(a + b,)).start()", ""),
    ("ending", "while True:\n    pass", ""), ("ending", "import time\ntime.sleep(9)", ""),
    ("names", "def main():\n    " + READ + "    print(a + b)\nif __name__ == '__main__':\n    main()", ""),
    ("names", "def main():\n    " + READ + "    print(a + b)\nif '__main__' == __name__:\n    main()", GUARD),
    ("names", READ + "sum = sum([a, b])\nprint(sum)", LOCAL),
    ("names", READ + "c = 0\ndef f():\n    global c\n    c = a + b\nf()\nprint(c)", LOCAL),
    ("names", READ + "global c\nc = a + b\nprint(c)", ""), ("names", READ + "exec('c = a + b')\nprint(c)", LOCAL),
    ("names", "from __future__ import annotations\n" + READ + "print(a + b)", FUTURE),
    ("names", READ + "print(gcd(a + b, 0) * (1 if a + b >= 0 else -1))", ""),
    ("names", READ + "def f():\n    nonlocal a\n    a += b\nf()\nprint(a)", NONLOCAL),
    ("names", READ + "import os\nos.getcwd()\nprint(a + b)", TAKEN),
    ("sizes", READ + "import sys\nsys.setrecursionlimit(10 ** 6)\ndef f(n):\n    return n and 1 + f(n - 1)\nprint(a + b + f(9000) - 9000)", ""),
    ("sizes", READ + "print(a + b if int(str(10 ** 5000)) else 0)", ""),
    ("sizes", READ + "x = [0] * 10 ** 8\nprint(a + b)", ""), ("wrong", "print(7)", ""), ("wrong", "", ""),
    ("wrong", READ + "print(a - b)", ""), ("wrong", "def f(:", ""), ("wrong", "import no_such_module", ""))] + [
    (kind, "plum-e4", code, why) for kind, code, why in (
        *(("methods", f"class Solution:\n    def largest(self, nums):\n        {body}", "") for body in (
            "return float(max(nums))", "return str(max(nums))", "return [max(nums)]", "return (max(nums),)", "yield max(nums)",
            "print(max(nums))", "print('debug')\n        return max(nums)", "nums.sort()\n        return nums.pop()",
            "import numpy as np\n        return np.max(nums)", "return reduce(max, nums)", "raise SystemExit",
            "while True:\n            pass", "return max(nums) + 1e-12", "return Counter(nums) and max(nums)")),
        ("methods", "class Solution:\n    def largest(self, nums: List[int]) -> int:\n        return max(nums)", ""),
        ("methods", "class Solution:\n    @staticmethod\n    def largest(nums):\n        return max(nums)", ""),
        ("methods", "class Solution:\n    def __init__(self, memo={}):\n        self.memo = memo\n"
                    "    def largest(self, nums):\n        return self.memo.get('x', max(nums))", ""),
        ("methods", "class Solution:\n    def __init__(self, nums):\n        pass\n"
                    "    def largest(self, nums):\n        return max(nums)", ""),
        ("methods", "class Solution:\n    def biggest(self, nums):\n        return max(nums)", ""),
        ("methods", "class solution:\n    def largest(self, nums):\n        return max(nums)", ""),
        ("methods", "class Solution:\n    def largest(self, nums):\n        return max(nums)\n\nprint(Solution().largest([1]))", ""),
        ("methods", "def largest(nums: List[int]) -> int:\n    return max(nums)", ""),
        ("methods", "largest = lambda nums: max(nums)", ""), ("methods", "def largest(self, nums):\n    return max(nums)", ""),
        ("methods", "class Solution:\n    pass\ndef largest(nums):\n    return max(nums)", ""),
        ("methods", "# Not a class Solution\ndef largest(nums):\n    return max(nums)", MENTION),
        ("methods", "from __future__ import annotations\nclass Solution:\n    def largest(self, nums):\n        return max(nums)",
         FUTURE))]


def function_problem(name: str, given: str, expected: str) -> LcbProblem:
    test = LcbTest(given, expected, "functional")
    return replace(load_livecodebench()[3], task_id=f"made-up-{name}", func_name="f", public_tests=(test,),
                   private_tests=(), seconds=float(SECONDS))


# What the bundled problems do not have: results in which the two rules differ.
MADE_UP = {one.task_id: one for one in (
    function_problem("rows", "3", "[[1, 2], [3, 4]]"), function_problem("dict", '{"1": 2}', '{"1": 2}'),
    function_problem("list", "1", "[1, 2]"), function_problem("float", "1", "0.3333333333333333"))}
FORMS += [("results", f"made-up-{name}", f"def f(x):\n    {line}", "") for name, lines in {
    "rows": ["return [[1, 2], [3, 4]]", "return [(1, 2), (3, 4)]", "return ([1, 2], [3, 4])", "return ((1, 2), (3, 4))",
             "return [1, 2]", "return [[1, 2]]", "return {1, 2}"],
    "dict": ["return x", "return {1: 2}", "return {'1': 2}", "return [x]", "return [{1: 2}]",
             "return {k + 1: v for k, v in x.items()}"],
    "list": ["return [1, 2]", "return (1, 2)", "return 1", "return 2", "return [2, 1]", "return iter([1, 2])",
             "import numpy as np; return np.array([1, 2])", "return [True, 2.0]"],
    "float": ["return 1 / 3", "return 0.3333333333", "from fractions import Fraction; return Fraction(1, 3)",
              "from decimal import Decimal; return Decimal('0.3333333333333333')"]}.items() for line in lines]


def theirs(checkout: str, problems: dict[str, LcbProblem], asked: list[Asked]) -> list[bool]:
    """A grader's verdicts: passed only where every test did. It is loaded once, and forked for each program."""
    tests = {task: json.dumps({"inputs": [one.input for one in problem.tests], "fn_name": problem.func_name,
                               "outputs": [one.output for one in problem.tests]}) for task, problem in problems.items()}
    found, official = (context := get_context("spawn")).Pipe()
    process = context.Process(target=_official, args=(checkout, [(tests[task], code) for _, task, code, _ in asked], official))
    process.start()
    verdicts = found.recv()
    process.join()
    return verdicts


def _official(checkout: str, programs: list[tuple[str, str]], pipe: Connection) -> None:
    sys.path.insert(0, checkout)
    sys.modules["pyext"] = pyext = ModuleType("pyext")  # with which the grader of 2024 makes a module of a text
    vars(pyext)["RuntimeModule"] = _TextModule
    from lcb_runner.evaluation import testing_util

    if hasattr(testing_util, "grade_stdio"):
        sys.set_int_max_str_digits(50000)  # as today's compute_code_generation_metrics.py
    for handle in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), handle)
    pipe.send([_forked(testing_util.run_test, tests, code) for tests, code in programs])


class _TextModule:
    """What is used of pyext's ``RuntimeModule``, in our own words."""

    @staticmethod
    def from_string(name: str, documentation: str, text: str) -> ModuleType:
        module = ModuleType(name, documentation)
        exec(text, module.__dict__)
        return module


def _forked(run_test: Any, tests: str, code: str) -> bool:
    ours, other = (context := get_context("fork")).Pipe()
    process = context.Process(target=_one, args=(run_test, tests, code, other))
    process.start()
    other.close()
    try:
        found = ours.recv() if ours.poll((SECONDS + 1) * len(json.loads(tests)["inputs"]) + 5) else []
    except EOFError:  # the program ended the grader
        found = []
    process.kill()
    process.join()
    return bool(found) and all(found)


def _one(run_test: Any, tests: str, code: str, pipe: Connection) -> None:
    results, _ = run_test({"input_output": tests}, test=code, timeout=SECONDS)
    pipe.send([bool(np.ravel(one)[0] > 0) for one in results])


def pairs(rng: random.Random) -> list[Asked]:
    """The bundled problems' solutions, mutants of them, solutions that print in other ways, and FORMS."""
    sys.path.insert(0, str(ROOT / "tests"))
    from livecodebench_reference import SOLUTIONS

    found: list[Asked] = [("solution", task, code, "") for task, code in SOLUTIONS.items()]
    for task, code in SOLUTIONS.items():
        once = mutants(code)
        twice = sorted({two for one in once for two in mutants(one)} - {code, *once})
        found += [("mutant", task, one, "") for made in (once, twice) for one in rng.sample(made, min(MUTANTS, len(made)))]
        if "class Solution" not in code:
            found += [("other print", task, way + code, "") for way in PRINTS]
    return found + FORMS


def compared(asked: list[Asked], ours: list[dict[str, Any]], official: list[bool]) -> dict[str, Any]:
    """Counts by kind of program, and every difference with its reason."""
    counts: dict[str, Counter[str]] = {}
    differences = []
    for (kind, task, code, why), row, passed in zip(asked, ours, official, strict=True):
        counts.setdefault(kind, Counter())["same" if passed == row["passed"] else "different"] += 1
        if passed != row["passed"]:
            differences.append({"kind": kind, "task_id": task, "ours": row["passed"], "official": passed,
                                "detail": row["detail"], "why": why or UNKNOWN, "solution": code})
    return {"agree": sum(one["same"] for one in counts.values()), "both pass": sum(
        passed and row["passed"] for row, passed in zip(ours, official)), "by kind": counts, "differences": differences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("current", help="folder of today's checkout")
    parser.add_argument("v2024", help="folder of the one of 2024")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    problems = {one.task_id: replace(one, seconds=float(SECONDS)) for one in load_livecodebench()} | MADE_UP
    asked = pairs(random.Random(0))
    rows = [{"task_id": task, "sample_index": number, "solution": code} for number, (_, task, code, _) in enumerate(asked)]
    report: dict[str, Any] = {"programs": len(asked)}
    for grader in ("current", "v2024"):
        official = theirs(getattr(options, grader), problems, asked)
        with Sandbox(workers=2, limits=Limits(seconds=10)) as sandbox:
            ours = score([replace(one, grader=grader) for one in problems.values()], rows, sandbox, progress=False)
        report[grader] = compared(asked, ours, official)
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
