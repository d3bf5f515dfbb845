"""Split execution: which tests can be split, what crosses between the two processes, and what cannot be forged."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
import re
import sys
import textwrap

import calls
import numpy as np
import pytest
import wire
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_utils.sandbox import Limits, Program, Sandbox
from plum_utils.sandbox.splitting import split_plan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox isolates on Linux only")


# --- which tests can be split -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("tests, names", [
    ("assert f(1) == 2", ("f",)),
    ("assert f(1) == g(2)\nassert sorted(f(3)) == [1]", ("f", "g")),
    ("def check(candidate):\n    assert candidate(1) == 2\ncheck(f)", ("f",)),
    ("for x in range(3):\n    assert f(x) == x, (x, f(x))", ("f",)),
    ("import math\nassert math.isclose(f(1.0), 2.0)", ("f",)),
    ("import pytest\nwith pytest.raises(ValueError):\n    f(-1)", ("f",)),
    ("try:\n    f(-1)\nexcept ValueError as error:\n    assert 'x' in str(error)", ("f",)),
    ("from solution import f\nassert f(1) == 2", ("f",)),
    ("import solution\nassert solution.f(1) == 2", ("f",)),
    ("from solution import *\nassert f(1) == 2", ("f",)),
    ("from solution import f as g\nassert g(1) == 2", ("f",)),
    ("assert f('a').upper() == 'A'\nassert f('b').split(',') == []", ("f",)),
    ("assert isinstance(f(1), int)", ("f",)),
    ("class Case:\n    def test(self):\n        assert f(1) == 2\nCase().test()", ("f",)),
    ("assert f(lambda x: x + 1, [1]) == [2]", ("f",)),
    ("assert all(f(x) for x in (1, 2))\nassert {f(x) for x in 'ab'} == {f('a'), f('b')}", ("f",)),
])
def test_tests_that_only_call_are_split(tests, names):
    found = split_plan(tests)
    assert (found.reason, found.names) == ("", names)


@pytest.mark.parametrize("tests, reason", [
    ("assert Stack().pop() is None", "they make a Stack"),
    ("s = make()\ns.push(1)", "they look for .push of s"),
    ("assert make().size_of_it == 3", "they look for .size_of_it of make"),
    ("try:\n    f()\nexcept Mistake:\n    pass", "they look at Mistake"),
    ("assert isinstance(f(), kind)", "they look at kind"),
    ("assert limit == 5", "they look at limit"),
    ("assert f.__name__ == 'f'", "they look at f"),
    ("import sys, io\nsys.stdin = io.StringIO('3')\nf()", "they use stdin"),
    ("from unittest.mock import patch\nwith patch('builtins.input', return_value='3'):\n    f()", "they use patch"),
    ("import random\nrandom.seed(0)\nassert f() == 3", "they use seed"),
    ("import os\nassert f(os.getcwd())", "they use the module os"),
    ("open('x', 'w').write('1')\nassert f('x') == 1", "they use open"),
    ("assert eval('f(1)') == 2", "they use eval"),
    ("import asyncio\nassert asyncio.run(f()) == 1", "they use the module asyncio"),
    ("global count\ncount = 1\nassert f() == count", "they change count"),
    ("assert sum([1, 2]) == 3", "they call no name but Python's own"),
    ("assert f(1 ==", "the tests do not parse"),
])
def test_tests_that_need_the_candidates_objects_are_not(tests, reason):
    assert split_plan(tests).reason.startswith(reason), split_plan(tests)


def test_a_name_of_pythons_own_is_the_candidates_where_the_reference_defines_it():
    assert split_plan("assert sum([1, 2]) == 3", "def sum(xs):\n    return 3\n").names == ("sum",)
    assert split_plan("assert f([1]) == sum([1])", "def f(xs):\n    return 1\n").names == ("f",)


@settings(max_examples=200)
@given(st.text(max_size=80))
def test_no_text_breaks_the_plan(text):
    assert isinstance(split_plan(text).reason, str)


# --- what crosses -----------------------------------------------------------------------------------------------------

SCALARS = (st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
           | st.complex_numbers(allow_nan=False) | st.fractions() | st.dates() | st.datetimes() | st.timedeltas()
           | st.decimals(allow_nan=False) | st.integers(10 ** 5000, 10 ** 5001))
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.lists(inner).map(tuple)
                      | st.sets(KEYS) | st.frozensets(KEYS) | st.lists(inner).map(collections.deque)
                      | st.binary().map(bytearray), max_leaves=12)


def crossed(value):
    """The value as the other side sees it, JSON included."""
    import json
    code = json.loads(json.dumps(wire.Marshal(None, None, None).encode(value)))
    return wire.Marshal(None, None, None).decode(code)


def same(one, two):
    if type(one) is not type(two):
        return False
    if isinstance(one, (list, tuple, collections.deque)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return same(list(one.items()), list(two.items()))
    return one == two


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_plain_data_arrives_as_it_is(value):
    assert same(crossed(value), value)


@pytest.mark.parametrize("value", [
    float("inf"), "\ud800", range(3, 9, 2), slice(1, None), 2 ** 63, -2 ** 63, 10 ** 5000, int, len, ...,
    collections.Counter("aab"), collections.OrderedDict([(2, 1), (1, 2)]), collections.deque([1, 2], maxlen=2),
    collections.defaultdict(int, {1: 2}), datetime.time(1, 2), datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc),
    decimal.Decimal("1.10"), fractions.Fraction(1, 3), np.float64(1.5), np.int32(3), np.bool_(True)],
    ids=lambda value: type(value).__name__)
def test_special_values(value):
    if value is ...:
        with pytest.raises(wire.NotPlain):
            crossed(value)
        return
    arrived = crossed(value)
    assert type(arrived) is type(value) and arrived == value


def test_nan_numpy_arrays_and_views():
    assert math.isnan(crossed(float("nan"))) and math.copysign(1, crossed(-0.0)) == -1
    for array in (np.arange(6.0).reshape(2, 3), np.array([True, False]), np.zeros((0, 2), dtype="int8")):
        arrived = crossed(array)
        assert arrived.dtype == array.dtype and arrived.shape == array.shape and (arrived == array).all()
    with pytest.raises(wire.NotPlain):
        crossed(np.array([object()]))
    assert list(crossed({1: 2, 3: 2}.values())) == [2, 2] and crossed({1: 2}.keys()) == {1}
    moved = collections.OrderedDict(a=1, b=2)
    moved.move_to_end("a")
    assert list(crossed(moved)) == ["b", "a"]


@pytest.mark.parametrize("value", [
    np.array(["a", "bcd"]), np.array([""]), np.array([b"x", b"yz"]), np.array([], dtype=str), np.array("s"),
    np.datetime64("2024-01-02"), np.timedelta64(3, "D"), np.array(["2024-01-01", "2024-02-03"], dtype="M8[ns]"),
    np.longdouble(1.5), np.float16(2), np.clongdouble(2), np.array([1, "a", None], dtype=object),
    np.array([[1, "b"], [None, 3.5]], dtype=object), np.zeros((2, 0, 3)), np.array([1, 2], dtype=">i4"),
    np.matrix([[1, 2]]), np.ma.array([1, 2], mask=[0, 1]), np.ma.array([[1.5]]),
    np.array([(1, "a"), (2, "b")], dtype=[("n", "i4"), ("s", "U1")]), np.array((1, "a"), dtype=[("n", "i4"), ("s", "U1")])[()],
    np.zeros(2, dtype=[("p", [("x", "f8")]), ("q", "i2", (2, 2))])], ids=lambda value: f"{value.dtype}{value.shape}"[:30])
def test_numpys_text_bytes_dates_and_objects_arrive_as_they_are(value):
    arrived = crossed(value)
    assert type(arrived) is type(value) and arrived.dtype == value.dtype and arrived.shape == value.shape
    assert (arrived == value).all()


@pytest.mark.parametrize("value, plain", [
    (np.str_("abc"), "abc"), (np.str_(""), ""), (np.bytes_(b"a\0"), b"a\0"), (list(np.unique(["b", "a"])), ["a", "b"]),
    ({np.str_("k"): np.str_("v")}, {"k": "v"}), (memoryview(b"abc")[1:], b"bc")])
def test_numpys_text_is_text(value, plain):
    arrived = crossed(value)
    assert same(arrived, plain)


def test_of_a_match_it_is_known_that_there_is_one():
    one, none = crossed([re.match("a", "ab"), re.match("b", "ab")])
    assert one and one is not None and none is None
    with pytest.raises(wire.NotPlain, match="a match, asked for .group"):
        one.group()


@pytest.mark.parametrize("code", [
    ["n", "<U1", None, "////fw=="], ["n", "<U1", [10 ** 9], "AAAA"], ["n", "|O8", None, "AAAAAAAAAAA="],
    ["n", "<V4", None, "AAAAAA=="], ["n", "<M8[xx]", None, "AAAAAAAAAAA="], ["n", "<f3", None, "AAAA"], ["no", [5], 1],
    ["no", [-1], 1], ["n", "<U999999999", None, ""], ["n", "<i8", [2, -1], "AAAAAAAAAAA="],
    ["nv", None], ["nv", [2], "a", 1], ["nv", [], 1, 1], ["nv", None, "a"], ["nv", None, "a", 1, "a", 2], ["nv", [-1], "a", 1],
    ["nm", "1 2"], ["nm"], ["nm", ["n", "|b1", [2, 2, 2], "AAAAAAAAAAA="]], ["nk", ["n", "|b1", [1], "AA=="], 1],
    ["nk", ["n", "|b1", [1], "AA=="], ["n", "|b1", [2], "AAA="]]], ids=str)
def test_numpy_values_that_nobody_would_have_sent_are_refused(code):
    with pytest.raises(wire.Broken):
        wire.Marshal(None, None, None).decode(code)


class Liar(int):
    def __eq__(self, other):
        return True
    __hash__ = int.__hash__


class LyingList(list):
    def __iter__(self):
        return iter([99])
    __len__ = __getitem__ = lambda *_: 99


def test_subclasses_arrive_as_their_plain_base():
    for value, plain in ((Liar(3), 3), (LyingList([1]), [1]), (type("S", (str,), {})("x"), "x"),
                         (type("D", (dict,), {"items": lambda self: []})(a=1), {"a": 1}),
                         (collections.namedtuple("P", "x y")(1, 2), (1, 2)),
                         (type("Day", (datetime.date,), {})(2024, 1, 2), datetime.date(2024, 1, 2))):
        assert type(crossed(value)) is type(plain) and crossed(value) == plain


@pytest.mark.parametrize("value", [object(), Liar, crossed, (x for x in []), sys, eval, open, exec, print, type(sys)])
def test_instances_classes_and_dangerous_builtins_do_not_cross(value):
    with pytest.raises(wire.NotPlain):
        crossed(value)
    with pytest.raises(wire.NotPlain):
        crossed([{"deep": (value,)}])


@pytest.mark.parametrize("name", ["eval", "exec", "open", "__import__", "compile", "input", "breakpoint", "no_such"])
def test_dangerous_builtins_cannot_be_named(name):
    with pytest.raises(wire.Broken):
        wire.Marshal(None, None, None).decode(["T", name])


def test_identity_and_cycles_survive():
    shared = [1]
    value = [shared, shared]
    value.append(value)
    arrived = crossed(value)
    assert arrived[0] is arrived[1] and arrived[2] is arrived and arrived[0] == [1]


@pytest.mark.parametrize("change", [
    lambda x: x["list"].append(4), lambda x: x["list"].clear(), lambda x: x["set"].add(9), lambda x: x.pop("list"),
    lambda x: x["bytes"].extend(b"z"), lambda x: x["deque"].rotate(), lambda x: x["list"].append(x["set"]),
    lambda x: x["inner"]["k"].reverse(), lambda x: x.update(new=x["inner"])])
def test_changes_of_arguments_are_done_to_the_callers(change):
    import json
    ours = {"list": [1, 2, 3], "set": {1}, "bytes": bytearray(b"ab"), "deque": collections.deque([1, 2]),
            "inner": {"k": [1, 2]}}
    kept = dict(ours)
    near, far = wire.Marshal(None, None, None), wire.Marshal(None, None, None)
    theirs = far.decode(json.loads(json.dumps(near.encode(ours))))
    far.remember()
    assert far.changes() == []
    change(theirs)
    near.apply(json.loads(json.dumps(far.changes())))
    assert same(ours, theirs)
    assert all(kept[name] is ours[name] for name in kept if name in ours)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
                    | st.sampled_from([*"ltdsqOCDzibBcRSmfTneFGrv", "no", "nv", "nk", "nm", "vk", "vv", "vi", "td", "dt", "dd", "dm", "ValueError"]),
                    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
                    max_leaves=12)
ALLOWED = (wire.NotPlain, wire.Broken, wire.Gone)


@settings(max_examples=1500, deadline=None)
@given(JSON)
def test_whatever_is_sent_nothing_but_plain_data_or_a_refusal_comes_out(code):
    marshal = wire.Marshal(None, lambda handle: "function", lambda handle: "iterator")
    try:
        value = marshal.decode(code)
        marshal.apply([[0, 1], ["x"]] if isinstance(code, list) else code)
    except ALLOWED:
        return
    assert type(value).__module__ in ("builtins", "collections", "datetime", "decimal", "fractions", "numpy", "numpy.ma")


@settings(max_examples=800, deadline=None)
@given(st.lists(JSON, max_size=5), st.sampled_from(["return", "raise", "end", "unplain", "call", "next", "x"]))
def test_whatever_is_replied_the_judge_gets_a_value_an_exception_or_a_refusal(rest, kind):
    peer = calls.Peer((-1, -1), lambda name: 1 / 0)
    peer.export(lambda *args: args)
    message = [kind, *rest]
    try:
        if kind in ("call", "next"):
            peer.execute(message, peer.marshal()) if kind == "call" else peer.advance(message, peer.marshal())
        else:
            peer.result(message, peer.marshal())
    except ALLOWED:
        pass
    except ZeroDivisionError:
        assert kind == "call"


# --- behaviour --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1, limits=Limits(seconds=5)) as opened:
        yield opened


def run(sandbox, code, tests, **how):
    verdict, = sandbox.run([Program("x", textwrap.dedent(code), textwrap.dedent(tests), **how)])
    return verdict


ALIKE = {
    "in place": ("def f(x):\n    x.sort()", "x = [3, 1, 2]\nassert f(x) is None and x == [1, 2, 3]"),
    "nested in place": ("def f(x):\n    x['a'][0].append(1)", "x = {'a': [[]]}\nf(x)\nassert x == {'a': [[1]]}"),
    "alias": ("def f(x):\n    return x", "x = [1]\nassert f(x) is x"),
    "copy": ("def f(x):\n    return x[:]", "x = [1]\nassert f(x) == x and f(x) is not x"),
    "generator": ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2]\ng = f(2)\nnext(g)\nassert next(g) == 1"),
    "endless generator": ("import itertools\ndef f():\n    return itertools.count(1)",
                          "from itertools import islice\nassert list(islice(f(), 3)) == [1, 2, 3]"),
    "failing generator": ("def f():\n    yield 1\n    raise KeyError('k')",
                          "g = f()\nnext(g)\ntry:\n    next(g)\nexcept KeyError:\n    pass\nelse:\n    assert False"),
    "closure": ("def f(n):\n    return lambda x: x + n", "add = f(2)\nassert add(1) == 3 and f(5)(1) == 6"),
    "counter closure": ("def f():\n    n = 0\n    def g():\n        nonlocal n\n        n += 1\n        return n\n    return g",
                        "g, h = f(), f()\nassert (g(), g(), h()) == (1, 2, 1)"),
    "callback": ("def f(g, xs):\n    return [g(x) for x in xs]", "assert f(lambda x: x * 2, [1, 2]) == [2, 4]"),
    "builtin callback": ("def f(g, xs):\n    return g(xs)", "assert f(len, [1, 2]) == 2 and f(sorted, [2, 1]) == [1, 2]"),
    "callback with an effect": ("def f(g):\n    for x in range(3):\n        g(x)", "seen = []\nf(seen.append)\nassert seen == [0, 1, 2]"),
    "callback that fails": ("def f(g):\n    try:\n        g()\n    except ValueError:\n        return 'caught'",
                            "def g():\n    raise ValueError('x')\nassert f(g) == 'caught'"),
    "callback of a callback": ("def f(g):\n    return g(lambda x: x + 1)", "assert f(lambda h: h(h(1))) == 3"),
    "iterator argument": ("def f(xs):\n    return sum(xs)", "assert f(x for x in range(4)) == 6 and f(iter([1])) == 1"),
    "keywords": ("def f(a, *b, c=1, **d):\n    return [a, b, c, d]", "assert f(1, 2, c=3, e=4) == [1, (2,), 3, {'e': 4}]"),
    "exception": ("def f():\n    raise ValueError('bad', 3)", "try:\n    f()\nexcept ValueError as e:\n    assert e.args == ('bad', 3)\nelse:\n    assert 0"),
    "own exception": ("class Bad(KeyError):\n    pass\ndef f():\n    raise Bad('k')", "try:\n    f()\nexcept KeyError as e:\n    assert e.args == ('k',)"),
    "own text of an exception": ("class Bad(ValueError):\n    def __init__(self, n):\n        self.n = n\n    def __str__(self):\n        return f'bad {self.n}'\ndef f():\n    raise Bad(3)",
                                 "try:\n    f()\nexcept ValueError as e:\n    assert str(e) == 'bad 3'\nelse:\n    assert 0"),
    "what can be called": ("class Add:\n    def __init__(self, n):\n        self.n = n\n    def __call__(self, x):\n        return x + self.n\ndef f(n):\n    return Add(n)",
                           "assert f(2)(1) == 3 and callable(f(2))"),
    "views": ("from collections import OrderedDict\ndef f(xs):\n    return OrderedDict.fromkeys(xs).keys()", "assert list(f('aba')) == ['a', 'b']"),
    "recursion error": ("def f():\n    return f()", "try:\n    f()\nexcept RecursionError:\n    pass\nelse:\n    assert 0"),
    "stop iteration": ("def f():\n    raise StopIteration(3)", "try:\n    f()\nexcept StopIteration as e:\n    assert e.value == 3"),
    "system exit": ("import sys\ndef f():\n    sys.exit(2)", "try:\n    f()\nexcept SystemExit as e:\n    assert e.code == 2\nelse:\n    assert 0"),
    "printing": ("def f():\n    print('a', 1)", "import io\nfrom contextlib import redirect_stdout\nout = io.StringIO()\nwith redirect_stdout(out):\n    f()\nassert out.getvalue() == 'a 1\\n'"),
    "state": ("n = [0]\ndef f():\n    n[0] += 1\n    return n[0]", "assert (f(), f()) == (1, 2)"),
    "wrong": ("def f():\n    return 1", "assert f() == 2"),
    "imported": ("def f(x):\n    return x + 1", "from solution import f\nimport solution\nassert f(1) == solution.f(1) == 2"),
    "imported under other names": ("def f(x):\n    return x + 1", "from solution import f as g\nimport solution as s\nassert g(1) == s.f(1) == 2"),
    "all imported": ("def f(x):\n    return x + 1", "from solution import *\nassert f(1) == 2"),
    "missing": ("def g():\n    return 1", "assert f() == 1"),
    "raises": ("def f():\n    return {}['k']", "f()"),
    "exits": ("import os\ndef f():\n    os._exit(0)", "f()"),
    "large": ("def f(n):\n    return list(range(n))", "assert sum(f(300_000)) == 300_000 * 299_999 // 2"),
    "memory": ("def f():\n    return 'x' * (1 << 40)", "f()"),
    "numpy": ("import numpy as np\ndef f(xs):\n    return np.mean(xs)", "assert f([1, 2, 3]) == 2.0 and isinstance(f([1]), float)"),
}


@pytest.mark.parametrize("name", ALIKE)
def test_split_and_shared_agree(name, sandbox):
    code, tests = ALIKE[name]
    split, shared = (run(sandbox, code, tests, mode=mode) for mode in ("split", "shared"))
    assert (split.status, split.detail) == (shared.status, shared.detail)
    assert (split.assurance, shared.assurance) == ("split", "shared")
    assert split.status == "passed" or name in ("wrong", "missing", "raises", "exits", "memory")


SWALLOW = "try:\n    f()\nexcept BaseException:\n    pass\n"


@pytest.mark.parametrize("body", ["import os; os._exit(0)", "return object()", "import ctypes; ctypes.string_at(0)",
                                  "import os; os.write(4, b'\\x05\\0\\0\\0[1,2]')", "return type('X', (), {})"])
def test_a_call_that_did_not_end_as_calls_end_fails_whatever_the_tests_catch(body, sandbox):
    verdict = run(sandbox, f"def f():\n    {body}", SWALLOW, mode="split")
    assert verdict.status == "failed" and verdict.detail


def test_calls_are_counted(sandbox):
    assert run(sandbox, "def f(x): return x", "assert [f(n) for n in range(7)] == list(range(7))").calls == 7


def test_the_reference_decides(sandbox):
    stack = "class Stack:\n    def __init__(self):\n        self.all = []\n    def push(self, x):\n        self.all.append(x)\n"
    looks_fine = "s = make()\nassert s.real is not None"  # an attribute of plain data too: only running tells
    code = "class Odd:\n    real = 3\ndef make():\n    return Odd()"
    assert run(sandbox, code, looks_fine, reference=code).assurance == "shared"
    assert run(sandbox, stack, "s = Stack()\ns.push(1)\nassert s.all == [1]", reference=stack).status == "passed"
    looks_bad = "import os\nassert f(len(os.sep)) == 2"
    good = "def f(x):\n    return x + 1"
    assert run(sandbox, good, looks_bad).assurance == "shared"
    assert run(sandbox, good, looks_bad, reference=good).assurance == "split"


@pytest.mark.parametrize("body", ["return object()", "import os; os._exit(0)", "raise BaseException('x')", "yield",
                                  "return lambda: object()"])
def test_a_candidate_cannot_change_how_it_is_judged(body, sandbox):
    for reference in (None, "def f(x):\n    return x + 1"):
        verdict = run(sandbox, f"def f(x):\n    {body}", "assert f(1) == 2", reference=reference)
        assert (verdict.status, verdict.assurance) == ("failed", "split")


def test_tests_that_pass_what_cannot_cross_are_run_in_one_process(sandbox):
    tests = "class Box:\n    value = 3\nassert f(Box()) == 3"
    verdict = run(sandbox, "def f(box):\n    return box.value", tests)
    assert (verdict.status, verdict.assurance) == ("passed", "shared")


def test_an_endless_loop_is_stopped_by_the_references_time_and_a_sleeper_by_the_hard_limit():
    good = "def f(x):\n    return x"
    with Sandbox(workers=1, limits=Limits(seconds=2.0, least_seconds=0.3)) as sandbox:
        loop = run(sandbox, "def f(x):\n    while True: pass", "assert f(1) == 1", reference=good)
        sleep = run(sandbox, "import time\ndef f(x):\n    time.sleep(9)", "assert f(1) == 1", reference=good)
        slow = run(sandbox, "import time\ndef f(x):\n    time.sleep(0.8)\n    return x", "assert f(1) == 1", reference=good)
        plain = run(sandbox, "def f(x):\n    while True: pass", "assert f(1) == 1")
    assert loop.status == sleep.status == plain.status == "timeout" and slow.status == "passed"
    assert loop.cpu_seconds < 1.2 and 1.9 < sleep.seconds < 9 and plain.seconds > 1.5


def test_candidates_do_not_inherit_what_was_said_of_earlier_ones(sandbox):
    """The supervisor is forked for every candidate: what it has read, they can find in their memory."""
    import hostile_suite
    source = hostile_suite.programs()["forgery/memory_scan_heap"]
    for number in range(3):
        wrong = run(sandbox, f"def add(a, b): return {number}", hostile_suite.TESTS)
        assert "add(2, 3) == 5" in wrong.detail
        assert run(sandbox, source + f"\n# {number}", hostile_suite.TESTS).status == "failed"
