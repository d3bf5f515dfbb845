"""Tests are scripts: what they say by running, by their exit, and by what they define and never call."""

import os
import subprocess
import sys

import pytest

from plum_utils.sandbox import Limits, Program, Sandbox
from plum_utils.sandbox.splitting import heavy_imports, split_plan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox isolates on Linux only")
RIGHT, WRONG = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"
CASE = "import unittest\nclass TestAdd(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n"
FUNCTION = "def test_add():\n    assert add(1, 2) == 3\n"
FIXTURE = "import pytest\n@pytest.fixture"
GUARD = "\nif __name__ == '__main__':\n    "
SUITES = {
    "plain": "assert add(1, 2) == 3",
    "guarded function": FUNCTION + GUARD + "test_add()",
    "called function": FUNCTION + "test_add()",
    "function": FUNCTION,
    "two functions, one called": "def test_one():\n    assert add(1, 0) == 1\n" + FUNCTION + "test_one()",
    "parametrize": "import pytest\n@pytest.mark.parametrize('a, b, c', [(1, 0, 1), (1, 2, 3)])\n"
                   "def test_add(a, b, c):\n    assert add(a, b) == c\n",
    "stacked parametrize": "import pytest\n@pytest.mark.parametrize('a', [0, 1])\n@pytest.mark.parametrize('b', [0, 2])\n"
                           "def test_add(a, b):\n    assert add(a, b) - b == a\n",
    "parametrize with names as a list, values by name": "import pytest\n@pytest.mark.parametrize(argnames=['a'], argvalues="
                                                        "[pytest.param(1), (2,)])\ndef test_add(a):\n    assert add(a, a) == 2 * a\n",
    "pytest.main": "import pytest, sys\n" + FUNCTION + GUARD + "sys.exit(pytest.main([__file__]))",
    "pytest by another name": "import pytest as pt\n" + FUNCTION + GUARD + "raise SystemExit(pt.main())",
    "parametrized class": "import pytest\n@pytest.mark.parametrize('a, b, c', [(1, 2, 3)])\nclass TestAdd:\n"
                          "    def test_add(self, a, b, c):\n        assert add(a, b) == c\n",
    "class": "class TestAdd:\n    def setup_method(self):\n        self.three = 3\n    def test_add(self):\n"
             "        assert add(1, 2) == self.three\n",
    "case": CASE,
    "case, main": CASE + "unittest.main()",
    "case, guarded main": CASE + GUARD + "unittest.main()",
    "case, main that does not exit": CASE + "unittest.main(exit=False)",
    "case, from unittest import main": CASE.replace("import unittest", "import unittest\nfrom unittest import main") + "main()",
    "case, a runner": CASE + "unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(TestAdd))",
    "sys.exit(main())": "import sys\n" + FUNCTION + "def main():\n    test_add()\n    return 0\n" + GUARD + "sys.exit(main())",
    "called by what nobody calls": FUNCTION + "def run_tests():\n    test_add()\n",
    "a case's child": CASE + "class More(TestAdd):\n    def test_more(self):\n        self.assertEqual(add(2, 2), 4)\n",
    "a case, asynchronous": "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n    async def test_add(self):\n"
                            "        self.assertEqual(add(1, 2), 3)\nunittest.main()",
    "asynchronous": "import pytest\n@pytest.mark.asyncio\nasync def test_add():\n    assert add(1, 2) == 3\n",
    "asynchronous, run": "import asyncio\nasync def test_add():\n    assert add(1, 2) == 3\nasyncio.run(test_add())\n",
    "skips": "import pytest, sys\n@pytest.mark.skipif(True, reason='later')\ndef test_a():\n    assert False\n"
             "@pytest.mark.xfail\ndef test_b():\n    assert False\ndef test_c():\n    pytest.skip('later')\n"
             "@pytest.mark.skipif(sys.version_info < (3, 8), reason='old')\n" + FUNCTION,
    "marks of a row": "import pytest\n@pytest.mark.parametrize('a, b', [pytest.param(1, 2, id='x'), pytest.param(0, 0, "
                      "marks=pytest.mark.xfail(reason='no'))])\ndef test_add(a, b):\n    assert add(a, b) == 3\n",
    "set-up of a module": "x = []\ndef setup_module(module):\n    x.append(3)\ndef test_add():\n    assert add(1, 2) == x[0]\n",
    "set-up of a function": "x = []\ndef setup_function():\n    x.append(3)\ndef teardown_function(function):\n    x.clear()\n"
                            "def test_add():\n    assert add(1, 2) == x[0]\ndef test_more():\n    assert x == [add(1, 2)]\n",
    "set-up of a class": "class TestAdd:\n    @classmethod\n    def setup_class(cls):\n        cls.three = 3\n"
                         "    def test_add(self):\n        assert add(1, 2) == self.three\n",
    "inherited methods": "class Base:\n    def test_add(self):\n        assert add(1, 2) == 3\nclass TestAdd(Base):\n    pass\n",
    "method of a class": "class TestAdd:\n    @classmethod\n    def test_add(cls):\n        assert add(1, 2) == 3\n",
    "fixture": FIXTURE + "\ndef three():\n    return 3\ndef test_add(three):\n    assert add(1, 2) == three\n",
    "fixture of a fixture, yielded": FIXTURE + "(scope='module', name='pair')\ndef make():\n    yield 1, 2\n@pytest.fixture()\n"
                                     "def total(pair):\n    return add(*pair)\ndef test_add(total):\n    assert total == 3\n",
    "fixture beside parametrize": FIXTURE + "\ndef f():\n    return add\n@pytest.mark.parametrize('b, c', [(0, 1), (2, 3)])\n"
                                  "def test_add(f, b, c):\n    assert f(1, b) == c\n",
    "fixture with params": FIXTURE + "(params=[(1, 0, 1), (1, 2, 3)])\ndef case(request):\n    return request.param\n"
                           "def test_add(case):\n    assert add(*case[:2]) == case[2]\n",
    "fixture without being asked": "x = []\n" + FIXTURE + "(autouse=True)\ndef fill():\n    x.append(3)\n    yield\n    x.clear()\n"
                                   "def test_add():\n    assert x == [add(1, 2)]\ndef test_more():\n    assert x == [add(1, 2)]\n",
    "fixture of a class": "import pytest\nclass TestAdd:\n    @pytest.fixture\n    def one(self):\n        return 1\n"
                          "    def test_add(self, one):\n        assert add(one, 2) == 3\n",
    "capsys": "def test_add(capsys):\n    print(add(1, 2))\n    assert capsys.readouterr().out == '3\\n'\n",
    "pytest.fail": "import pytest\ndef test_add():\n    if add(1, 2) != 3:\n        pytest.fail('wrong')\n",
    "assert False after a return": "def test_add():\n    '''Type.'''\n    try:\n        if add(1, 2) == 3:\n            add(1, None)\n"
                                   "    except TypeError:\n        return\n    assert False, 'no error'\n",
    "assert False": "if add(1, 2) != 3:\n    assert False, 'wrong'",
    "match": "match add(1, 2):\n    case 3:\n        pass\n    case _:\n        raise AssertionError\n",
    "__main__": "from __main__ import add as plus\nassert plus(1, 2) == 3",
    "thread": "import threading\nx = []\none = threading.Thread(target=lambda: x.append(add(1, 2)))\none.start()\none.join()\n"
              "assert x == [3]",
    "a condition that raises": "if add(1, 2) != 3:\n    raise AssertionError('wrong')",
    "a condition that exits": "import sys\nif add(1, 2) != 3:\n    sys.exit(1)",
    "exit at the end": "import sys\nassert add(1, 2) == 3\nsys.exit(0)",
    "__future__": "from __future__ import annotations\nassert add(1, 2) == 3",
}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(2, Limits(seconds=5), quiet=True) as one:
        yield one


@pytest.mark.parametrize("tests", SUITES.values(), ids=SUITES)
@pytest.mark.parametrize("mode", ["split", "shared"])
def test_a_right_program_passes_and_a_wrong_one_fails(sandbox, tests, mode):
    right, wrong = sandbox.run([Program("right", RIGHT, tests, mode=mode), Program("wrong", WRONG, tests, mode=mode)])
    assert (right.status, right.detail) == ("passed", "")
    assert wrong.status == "failed" and wrong.detail
    if mode == "split":
        assert right.calls > 0


@pytest.mark.parametrize("tests", SUITES.values(), ids=SUITES)
@pytest.mark.parametrize("mode", ["split", "shared"])
def test_of_a_reference_it_is_known_that_an_assertion_was_evaluated(sandbox, tests, mode):
    verdict, = sandbox.run([Program("own", RIGHT, tests, reference=RIGHT, mode=mode)])
    assert (verdict.status, verdict.asserted, verdict.calls > 0) == ("passed", True, True)


@pytest.mark.parametrize("tests, asserted, called", [
    ("def check(candidate):\n    assert candidate(1, 2) == 3\n", False, False),
    ("def test_add(some_fixture):\n    assert add(1, 2) == 3\n", False, False),
    ("if False:\n    assert add(1, 2) == 3", False, False),
    ("add(1, 2)", False, True),
    ("assert True", True, False),
    ("for case in []:\n    assert add(*case) == 3", False, False),
    ("import pytest\n@pytest.mark.skip\ndef test_add():\n    assert add(1, 2) == 3", False, False),
    ("import pytest\npytestmark = pytest.mark.skip\ndef test_add():\n    assert add(1, 2) == 3", False, False),
    ("import pytest\ndef test_add():\n    pytest.skip('later')\n    assert add(1, 2) == 3", False, False),
    ("class TestAdd:\n    def __init__(self, n):\n        pass\n    def test_add(self):\n        assert add(1, 2) == 3", False, False),
    (FIXTURE + "\ndef one(other):\n    return 1\ndef test_add(one):\n    assert add(one, 2) == 3", False, False),
])
@pytest.mark.parametrize("mode", ["split", "shared"])
def test_what_a_suite_did_not_do_is_seen(sandbox, tests, asserted, called, mode):
    verdict, = sandbox.run([Program("own", RIGHT, tests, reference=RIGHT, mode=mode)])
    assert (verdict.status, verdict.asserted, verdict.calls > 0) == ("passed", asserted, called)


@pytest.mark.parametrize("code", [
    "import sys\ndef add(a, b):\n    sys.exit(0)", "def add(a, b):\n    raise SystemExit",
    "class add(SystemExit):\n    def __init__(self, a, b):\n        raise self", "add = exit",
    "def add(a, b):\n    exit()", "import unittest\ndef add(a, b):\n    unittest.main(argv=['x'], module=None)",
])
@pytest.mark.parametrize("tests", [SUITES["plain"], SUITES["case, main"], SUITES["exit at the end"]])
def test_the_candidates_exit_is_no_pass(sandbox, code, tests):
    verdict, = sandbox.run([Program("own", code, tests, mode="split")])
    assert verdict.status == "failed"


@pytest.mark.parametrize("suites", [
    ("assert add(1, 2) == 3", "from __future__ import annotations\nassert add(2, 2) == 4"),
    ("sum = 5", "assert add(sum([1, 1]), 1) == 3"),
    ("add = None", "assert add(1, 1) == 2"),
    ("import builtins\nbuiltins.len = None\nbuiltins.extra = 1",
     "import builtins\nassert add(len([1]), 1) == 2 and not hasattr(builtins, 'extra')"),
    ("def helper(x):\n    return x\nassert add(helper(1), 1) == 2", "def helper(x):\n    return -x\nassert add(helper(1), 1) == 0"),
    ("import sys\nsys.exit(0)", "assert add(1, 2) == 3"), ("quit()", "assert add(1, 2) == 3"),
    ("import sys\nsys.stdout = None\nsys.setrecursionlimit(80)", "import sys\nsys.stdout.write('x')\n"
     "def deep(n):\n    return n and 1 + deep(n - 1)\nassert deep(500) == 500 and add(1, 2) == 3"),
    ("from __main__ import add as plus\nadd = sum = None\nassert plus(1, 2) == 3", "from __main__ import add\nassert add(1, 1) == 2"),
])
@pytest.mark.parametrize("mode", ["split", "shared"])
def test_each_suite_has_a_namespace_of_its_own(sandbox, suites, mode):
    verdict, = sandbox.run([Program("right", RIGHT, suites, mode=mode)])
    assert (verdict.status, verdict.detail) == ("passed", "")


def test_every_suite_counts_and_lines_are_those_of_all_suites_together(sandbox):
    verdict, = sandbox.run([Program("wrong", WRONG, ("assert add(1, 0) == 1", "x = 1\nassert add(1, 2) == 3"))])
    assert verdict.status == "failed" and verdict.detail.endswith("assert add(1, 2) == 3 (test line 3)")


@pytest.mark.parametrize("code", [
    "import argparse\nargparse.ArgumentParser().parse_args()\n" + RIGHT,
    "import sys\nif len(sys.argv) > 1:\n    print(add(int(sys.argv[1]), 1))\n" + RIGHT,
    RIGHT + "\nif __name__ == '__main__':\n    raise SystemExit('the guard stays closed')",
    "import __main__, os\nassert os.path.basename(__file__) == 'solution.py'\n" + RIGHT,
    "import pickle\nclass P:\n    pass\npickle.loads(pickle.dumps(P()))\n" + RIGHT,
    "from __future__ import annotations\n" + RIGHT,
    "\ufeff" + RIGHT,
    "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('x')\n" + RIGHT,
    "assert __builtins__.sum([1]) == 1\n" + RIGHT,
    RIGHT + "\nimport inspect\nassert 'return' in inspect.getsource(add)",
])
@pytest.mark.parametrize("mode", ["split", "shared"])
def test_a_candidate_is_a_module_without_arguments(sandbox, code, mode):
    verdict, = sandbox.run([Program("own", code, SUITES["plain"], mode=mode)])
    assert (verdict.status, verdict.detail) == ("passed", "")


@pytest.mark.parametrize("mode", ["split", "shared"])
def test_a_program_may_recurse_as_deep_as_in_a_script(sandbox, mode):
    code = "def depth(n):\n    return n and 1 + depth(n - 1)"
    near, far = (f"assert depth({n}) == {n}" for n in (990, 1020))
    verdicts = sandbox.run([Program("near", code, near, mode=mode), Program("far", code, far, mode=mode)])
    assert [one.status for one in verdicts] == ["passed", "failed"] and "RecursionError" in verdicts[1].detail


def test_tests_have_no_arguments_either(sandbox):
    verdict, = sandbox.run([Program("own", RIGHT, "import sys\nassert len(sys.argv) == 1 == add(0, 1)\n"
                                                  "assert '/' not in ''.join(sys.argv + sys.orig_argv)", mode="split")])
    assert (verdict.status, verdict.detail) == ("passed", "")


@pytest.mark.parametrize("library", ["torch", "scipy.stats", "pandas", "matplotlib.pyplot"])
@pytest.mark.parametrize("inside", [False, True])
def test_the_time_of_an_import_is_not_the_programs(sandbox, library, inside):
    code = f"def add(a, b):\n    import {library}\n    return a + b" if inside else f"import {library}\n{RIGHT}"
    verdict, = sandbox.run([Program("own", code, SUITES["plain"], reference=RIGHT)])
    assert (verdict.status, verdict.detail) == ("passed", "")
    assert verdict.cpu_seconds < 0.5


@pytest.fixture
def load():
    """Twice as many busy processes as there are processors."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for one in busy:
        one.kill()
        one.wait()


@pytest.mark.long("seconds")
@pytest.mark.parametrize("library", ["torch", "scipy.stats", "pandas"])
def test_under_load_an_import_has_one_verdict(sandbox, load, library):
    programs = [Program(str(number), f"import {library}  # {number}\n{RIGHT}", SUITES["plain"], reference=RIGHT)
                for number in range(10)]
    assert {(one.status, one.detail) for one in sandbox.run(programs)} == {("passed", "")}


def test_an_endless_loop_costs_a_second_wherever_it_is(sandbox):
    programs = [Program(str(place), code, SUITES["plain"], reference=RIGHT)
                for place, code in enumerate(["while True:\n    pass", "def add(a, b):\n    while True:\n        pass"])]
    verdicts = sandbox.run(programs)
    assert [one.status for one in verdicts] == ["timeout", "timeout"]
    assert max(one.cpu_seconds for one in verdicts) < 2.0


def test_after_its_imports_a_loop_has_no_more_time_than_others(sandbox):
    code = "import sortedcontainers\nwhile True:\n    pass"
    verdict, = sandbox.run([Program("x", code, SUITES["plain"], reference=RIGHT)])
    assert verdict.status == "timeout" and verdict.cpu_seconds < 2.0


@pytest.mark.parametrize("code, names", [
    ("import os, numpy as np, scipy.stats as s\nfrom pandas.io import x", ["scipy.stats", "pandas.io", "pandas.io.x"]),
    ("    import torch\nfrom . import y\nimport_me = 1\nx = 'import z'", ["torch"]),
    ("import collections.abc\nfrom __future__ import annotations", []), ("import", []), ("import a,, b", ["a", "b"]),
    ("from scipy import (\n    stats,\n    optimize as o,\n)\nfrom sympy import *\nfrom a \\\n    import b",
     ["scipy", "scipy.stats", "scipy.optimize", "sympy", "sympy.*", "a", "a.b"]),
    ("import os; import torch\ntry: import a\nexcept ImportError: a = None", ["torch", "a"]),
    ("import importlib\nx = importlib.import_module('scipy.stats')\ny = __import__(\"torch\")", ["scipy.stats", "torch"]),
])
def test_heavy_imports(code, names):
    assert heavy_imports(code, ("numpy",)) == names


@pytest.mark.parametrize("tests, names", [
    ("def test_a():\n    pass\ndef helper():\n    pass\ndef test_b():\n    pass\ntest_b()", ("test_a",)),
    ("class TestA:\n    pass\nclass Other:\n    pass", ("TestA",)),
    ("import unittest\nclass A(unittest.TestCase):\n    pass", ("A",)),
    ("from unittest import TestCase\nclass A(TestCase):\n    pass", ("A",)),
    ("import unittest\nclass A(unittest.TestCase):\n    pass\nunittest.main()", ()),
    ("def test_a():\n    pass\nfor one in (test_a,):\n    one()", ()),
    ("def test_a():\n    pass\ndef main():\n    test_a()\nmain()", ()),
    ("def test_a():\n    pass\ndef main():\n    test_a()", ("test_a",)),
    ("import unittest\nclass A(unittest.TestCase):\n    pass\nclass B(A):\n    pass\nasync def test_c():\n    pass",
     ("A", "B", "test_c")),
])
def test_uncalled_tests_are_found(tests, names):
    assert split_plan(tests).collect == names
