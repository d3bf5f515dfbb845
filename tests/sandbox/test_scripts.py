"""Programs that read standard input and print see what ``python solution.py < input`` sees."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.sandbox import Limits, Program, Sandbox, outputs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox isolates on Linux only")
CASES = (("3\n1 2 3\n", "6"), ("2\n4 5", "9\n"))
SUM = "n = int(input())\nr = sum(map(int, input().split()))\n"
REST = ".split()\nprint(sum(map(int, d[1:])))"  # of a program that has read all as d


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(2, Limits(seconds=3, memory_mb=1024), quiet=True) as one:
        yield one


def ends(sandbox, code, cases=CASES, **how):
    verdict, = sandbox.run([Program("one", code, mode="script", cases=tuple(cases), **how)])
    return verdict.status, verdict.detail


@pytest.mark.parametrize("code", [
    SUM + "print(r)",
    "def main():\n    " + SUM.replace("\n", "\n    ") + "print(r)\nif __name__ == '__main__':\n    main()",
    # descriptors
    "import os\nd = os.read(0, 1 << 20)" + REST,
    "import os, io\nd = io.BytesIO(os.read(0, os.fstat(0).st_size)).read()" + REST,
    "import io\nd = io.open(0).read()" + REST,
    "d = open(0, 'rb').read()" + REST,
    "import os\nd = os.fdopen(0).read()" + REST,
    "import os, sys\nd = os.read(sys.stdin.fileno(), 1000)" + REST,
    "import sys\nd = sys.__stdin__.read()" + REST,
    "import sys\nd = sys.stdin.buffer.read()" + REST,
    "d = open('/dev/stdin').read()" + REST,
    "import pathlib\nd = pathlib.Path('/dev/stdin').read_text()" + REST,
    "import os\nd = os.read(os.open('/dev/stdin', os.O_RDONLY), 1000)" + REST,
    "d = open('/proc/self/fd/0').read()" + REST,
    "import os\nd = open('/dev/stdin' if os.path.exists('/dev/stdin') else 'input.txt').read()" + REST,
    "import sys\nsys.stdin = open(0)\n" + SUM + "print(r)",
    "import sys\n" + SUM + "sys.stdin.close()\nprint(r)",
    "import sys\ninput = sys.stdin.readline\n" + SUM + "print(r)",
    SUM + "import os\nos.write(1, str(r).encode())",
    SUM + "import os\nfile = os.fdopen(os.dup(1), 'w')\nfile.write(str(r))",  # closed when the program is gone
    SUM + "print('x', file=open('/dev/stderr', 'w'))\nprint(r)",
    SUM + "open('/dev/stdout', 'w').write(str(r))",
    SUM + "import sys\nsys.stdout.buffer.write(str(r).encode())",
    SUM + "import sys\nprint(r, file=sys.__stdout__)",
    SUM + "import sys\nprint(r)\nsys.stdout.close()",
    SUM + "import sys\nsys.stdout.reconfigure(line_buffering=True)\nprint(r)",
    SUM + "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)\nprint(r)",
    SUM + "import sys\nraw = sys.stdout.detach()\nraw.write(str(r).encode())",
    SUM + "import io, sys\nold, sys.stdout = sys.stdout, io.StringIO()\nprint(r)\nold.write(sys.stdout.getvalue())",
    SUM + "import sys\nprint(r)\nsys.stdout = None",
    SUM + "import sys\nclass Fast:\n    write = lambda self, text: self.__dict__.setdefault('all', []).append(text)\n"
          "    flush = lambda self: sys.__stdout__.write(''.join(self.all))\nsys.stdout = Fast()\nprint(r)",
    SUM + "import ctypes\nctypes.CDLL(None).printf(b'%d', r)",
    SUM + "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n    print('not this')\nprint(r)",
    # ends
    SUM + "import threading, time\ndef late():\n    time.sleep(0.05)\n    print(r)\nthreading.Thread(target=late).start()",
    SUM + "import atexit\natexit.register(lambda: print(r))",
    SUM + "import os\nprint(r, flush=True)\nos._exit(0)",
    SUM + "class Last:\n    def __del__(self):\n        print(r)\nlast = Last()",
    SUM + "import sys\nprint(r)\nsys.exit()",
    SUM + "print(r)\nexit(1)",
    # a process of its own
    "import fileinput\nd = ' '.join(fileinput.input())" + REST,
    "import sys\nif len(sys.argv) > 1:\n    sys.stdin = open(sys.argv[1])\n" + SUM + "print(r)",
    "import argparse\nargparse.ArgumentParser().parse_args()\n" + SUM + "print(r)",
    SUM + "import pickle\nclass Point:\n    pass\npickle.loads(pickle.dumps(Point()))\nprint(r)",
    SUM + "import typing\nclass Node:\n    next: 'Node'\ntyping.get_type_hints(Node)\nprint(r)",
    SUM + "import __main__\n__main__.r += 0\nassert __file__\nprint(r)",
    SUM + "import math\nassert not hasattr(math, 'seen')\nmath.seen = 1\nprint(r)",
    SUM + "import sys, threading\nsys.setrecursionlimit(10 ** 6)\nthreading.stack_size(1 << 26)\n"
          "def depth(n):\n    return n and 1 + depth(n - 1)\n"
          "one = threading.Thread(target=lambda: print(r + depth(30000) - 30000))\none.start()\none.join()",
    SUM + "import inspect\ndef f():\n    return 1\nassert inspect.getsource(f) in open(__file__).read()\nprint(r)",
    SUM + "import sys\nassert (sys.stdin.name, sys.stdout.name) == ('<stdin>', '<stdout>')\nprint(__builtins__.str(r))",
    "from __future__ import annotations\n" + SUM + "print(r)",
    "\ufeff" + SUM + "print(r)",
], ids=lambda code: ascii(code)[-40:])
def test_right_programs_pass(sandbox, code):
    assert ends(sandbox, code) == ("passed", "")


@pytest.mark.parametrize("code, status, detail", [
    (SUM + "print(r + 1)", "failed", "case 1: printed '7', expected '6'"),
    (SUM + "print(6)", "failed", "case 2: printed '6', expected '9'"),
    (SUM + "print(r)\nprint(r)", "failed", "case 1: printed '6', expected '(nothing)'"),
    ("pass", "failed", "case 1: printed '', expected '6'"),
    (SUM + "print(r)\nraise ValueError('no')", "failed", "case 1: ValueError: no: raise ValueError('no') (line 4)"),
    (SUM + "import atexit\natexit.register(lambda: 1 / 0)\nprint(r)", "passed", ""),  # as Python: told, and no more
    (SUM + "import os\nprint(r)\nos._exit(0)", "failed", "case 1: printed '', expected '6'"),  # never flushed
    ("print(", "syntax", "case 1: SyntaxError"),
    ("while True: pass", "timeout", "case 1: out of time"),
    ("import time\ntime.sleep(99)", "timeout", "case 1: out of time"),
    ("import threading, time\nthreading.Thread(target=lambda: time.sleep(99)).start()", "timeout", "case 1: out of time"),
    ("print('x' * (3 << 20))", "failed", "case 1: OSError: [Errno 27] File too large"),
    ("import ctypes\nctypes.string_at(0)", "failed", "case 1: killed by signal 11"),
    ("import os\nos.kill(os.getpid(), 9)", "failed", "case 1: "),
    ("x = [0] * (1 << 40)", "memory", "case 1: MemoryError while running"),
], ids=lambda text: ascii(text)[:40])
def test_other_ends(sandbox, code, status, detail):
    found = ends(sandbox, code)
    assert found[0] == status and found[1].startswith(detail)


def test_the_setup_stands_before_the_program_and_shifts_no_line(sandbox):
    setup = "import sys\nsys.set_int_max_str_digits(50000)\nfrom math import *\n"
    program = '"""Doc."""\nfrom __future__ import annotations\nn = int(input())\nprint(10 ** n, gcd(4, 6))'
    assert ends(sandbox, program, [("5000", "1" + "0" * 5000 + " 2")], setup=setup) == ("passed", "")
    assert "(line 5)" in ends(sandbox, program + "\n1 / 0", [("1", "10 2")], setup=setup)[1]


def test_a_case_finds_nothing_of_the_one_before_and_never_sees_what_is_expected(sandbox):
    peek = SUM + """import gc, os
found = [handle for handle in range(2, 64) if handle not in (3, 4) and os.path.exists(f'/proc/self/fd/{handle}')]
try:
    old = open('left.txt').read()
except FileNotFoundError:
    old = ''
open('left.txt', 'w').write('x')
texts = [one for one in gc.get_objects() if type(one) is str and 'secret-answer' in one]
print(r, old, texts)"""
    assert ends(sandbox, peek, [("1\n6", "6  []"), ("1\n7", "7  []"), ("1\n8", "8 secret-answer")])[1].startswith("case 3")


def test_scripts_and_suites_share_a_worker(sandbox):
    programs = [Program("a", SUM + "print(r)", mode="script", cases=CASES), Program("b", "def f():\n    return 1", "assert f() == 1"),
                Program("c", SUM + "print(r)", mode="script", cases=CASES)]
    assert [one.status for one in sandbox.run(programs)] == ["passed"] * 3


@pytest.mark.parametrize("got, expected, same", [
    ("1\n2\n", "1\n2", True), (" 1 \n2", "1\n2", True), ("1\n\n2", "1\n2", False), ("1.0", "1", True),
    ("1e3 2", "1000 2.0", True), ("0.1", "0.10000000001", False), ("yes", "YES", False), ("1 a", "1.0 a", False),
    ("", "\n", True), ("nan", "nan", True), ("1\r\n2\r\n", "1\n2", True),
])
def test_outputs_are_compared_by_line_and_as_numbers(got, expected, same):
    assert outputs.same(got, expected) is same
    assert bool(outputs.difference(got, expected)) is not same


@given(st.text(), st.text())
def test_no_output_breaks_the_comparison(got, expected):
    assert outputs.same(got, got) and outputs.same(got, expected) == (not outputs.difference(got, expected))
