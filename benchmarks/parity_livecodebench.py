"""Our verdicts on contest programs beside those of LiveCodeBench's own grader.

    PYTHONPATH=. python benchmarks/parity_livecodebench.py CHECKOUT [--out benchmarks/results/parity_livecodebench.json]

``CHECKOUT`` is a clone of LiveCodeBench, whose ``lcb_runner.evaluation`` is imported from there. It isolates nothing, so
it runs programs of known origin alone, each in a process of its own: the bundled problems' solutions, mutants of them,
and programs that read, print and end in the ways that differ between graders.

Prints how many verdicts are the same and how many differ, by kind, and each difference with its reason; one without a
known reason is UNEXPLAINED, and the exit status 1.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
from collections import Counter
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from programs import mutants

from plum_utils.data.livecodebench import LcbProblem, load_livecodebench
from plum_utils.evaluation.scoring import score
from plum_utils.sandbox import Limits, Sandbox

ROOT = Path(__file__).parents[1]
SECONDS = 2
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
# (kind, problem, program, why)
FORMS = [(kind, "plum-e1", code, why) for kind, code, why in (
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


def theirs(checkout: str, problem: LcbProblem, code: str) -> bool:
    """LiveCodeBench's verdict: passed only where every test did."""
    tests = {"inputs": [one.input for one in problem.tests], "outputs": [one.output for one in problem.tests],
             "fn_name": problem.func_name}
    ours, official = (context := get_context("fork")).Pipe()
    process = context.Process(target=_official, args=(checkout, json.dumps(tests), code, official))
    process.start()
    official.close()
    try:
        found = ours.recv() if ours.poll((SECONDS + 1) * len(problem.tests) + 20) else []
    except EOFError:  # the program ended the grader
        found = []
    process.kill()
    process.join()
    return bool(found) and all(one is True or one == 1 for one in found)


def _official(checkout: str, tests: str, code: str, pipe: Connection) -> None:
    sys.path.insert(0, checkout)
    from lcb_runner.evaluation import testing_util

    sys.set_int_max_str_digits(50000)  # as compute_code_generation_metrics.py
    results, _ = testing_util.run_test({"input_output": tests}, test=code, timeout=SECONDS)
    pipe.send([bool(one) and one is not None and one > 0 for one in results])


def pairs(problems: dict[str, LcbProblem], rng: random.Random) -> list[tuple[str, str, str, str]]:
    sys.path.insert(0, str(ROOT / "tests"))
    from livecodebench_reference import SOLUTIONS

    found = [("solution", task, code, "") for task, code in SOLUTIONS.items()]
    for task, code in SOLUTIONS.items():
        if not any(isinstance(node, ast.While) for node in ast.walk(ast.parse(code))):
            made = mutants(code)
            found += [("mutant", task, one, "") for one in rng.sample(made, min(4, len(made)))]
    return found + FORMS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    problems = {one.task_id: replace(one, seconds=float(SECONDS)) for one in load_livecodebench()}
    asked = pairs(problems, random.Random(0))
    solutions = [{"task_id": task, "sample_index": number, "solution": code} for number, (_, task, code, _) in enumerate(asked)]
    with Sandbox(workers=2, limits=Limits(seconds=10)) as sandbox:
        ours = score(list(problems.values()), solutions, sandbox)
    counts: Counter[str] = Counter()
    differences: list[dict[str, Any]] = []
    for (kind, task, code, why), row in zip(asked, ours):
        official = theirs(options.checkout, problems[task], code)
        counts[f"{kind} {'same' if official == row['passed'] else 'different'}"] += 1
        if official != row["passed"]:
            differences.append({"kind": kind, "task_id": task, "ours": row["passed"], "official": official,
                                "detail": row["detail"], "why": why or UNKNOWN, "solution": code})
    text = json.dumps({"counts": dict(sorted(counts.items())), "differences": differences}, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    sys.exit(any(one["why"] == UNKNOWN for one in differences))


if __name__ == "__main__":
    main()
