"""What the look before running says: parsed by Python's own parser, then by mypy in one build."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_utils.preferences import static_checks
from plum_utils.preferences.static_checks import CANNOT_RUN_CODES, StaticVerdict, check_programs

PROGRAMS = {
    # name: (source, status, a mypy code that must be among those reported)
    "fine": ("def f(x):\n    return x + 1\n", "ok", None),
    "empty": ("", "ok", None),
    "no colon": ("def f(x)\n    return x\n", "syntax", None),
    "bad indent": ("def f():\nreturn 1\n", "syntax", None),
    "null byte": ("x = 1\0", "syntax", None),
    "too deep": ("x = " + "(" * 3000 + ")" * 3000, "syntax", None),
    "unknown name": ("def f(x):\n    return sqrt(x)\n", "type_error", "name-defined"),
    "unknown module": ("import no_such_module_at_all\n", "type_error", "import-not-found"),
    "used too early": ("print(x)\nx = 1\n", "type_error", "used-before-def"),
    "wrong annotation": ("def f(x: int) -> str:\n    return x + 1\n", "ok", "return-value"),
    "wrong argument": ("def f(x: int) -> int:\n    return x\nf('a')\n", "ok", "arg-type"),
    "needs annotation": ("x = []\n", "ok", "var-annotated"),
    "no such attribute": ("'a'.nothing\n", "ok", "attr-defined"),  # it runs until the line is reached
    "defined twice": ("def f():\n    return 1\ndef f():\n    return 2\n", "ok", "no-redef"),
    "silenced": ("# type: ignore\ndef f():\n    return g()\n", "ok", None),
}


@pytest.fixture(scope="module")
def together() -> dict[str, StaticVerdict]:
    return check_programs({name: source for name, (source, *_) in PROGRAMS.items()})


@pytest.mark.parametrize("name", PROGRAMS)
def test_status_and_codes(name, together):
    _, status, code = PROGRAMS[name]
    assert together[name].status == status, together[name]
    assert code is None or code in together[name].codes
    assert (together[name].detail == "") == (status == "ok")
    assert status != "type_error" or set(together[name].codes) & set(CANNOT_RUN_CODES)


def test_one_bad_program_does_not_touch_the_others(together):
    alone = check_programs({"fine": PROGRAMS["fine"][0]})
    assert alone["fine"] == together["fine"]


def test_programs_do_not_see_each_other():
    """Two programs define the same name in different ways; a third must not find either."""
    verdicts = check_programs({"a": "thing = 1\n", "b": "def thing():\n    return 2\n", "c": "print(thing)\n"})
    assert [verdicts[name].status for name in "abc"] == ["ok", "ok", "type_error"]


def test_equal_programs_are_checked_once(monkeypatch):
    builds = []
    monkeypatch.setattr(static_checks, "_mypy_build", lambda sources, warm: builds.append(sources) or {})
    verdicts = check_programs({f"n{n}": "x = 1\n" for n in range(50)})
    assert builds == [["x = 1\n"]] and len(verdicts) == 50


def test_no_programs_need_no_mypy(monkeypatch):
    monkeypatch.setattr(static_checks, "_mypy_build", lambda *_: pytest.fail("mypy was started"))
    assert check_programs({}) == {} and check_programs({"a": "def"})["a"].status == "syntax"


def test_a_program_that_breaks_mypy_is_found_and_left_to_execution(monkeypatch):
    def build(sources, warm):
        return None if "boom\n" in sources else {index: [] for index in range(len(sources))}

    monkeypatch.setattr(static_checks, "_mypy_build", build)
    verdicts = check_programs({f"n{n}": f"x{n}\n" for n in range(7)} | {"bad": "boom\n"})
    assert verdicts["bad"] == StaticVerdict("ok", ("mypy-crash",), "mypy could not check this program")
    assert all(verdicts[f"n{n}"] == StaticVerdict("ok") for n in range(7))


def test_a_build_that_takes_too_long_is_no_verdict(monkeypatch):
    def run(*args, **kwargs):
        raise subprocess.TimeoutExpired(args[0], kwargs["timeout"])

    monkeypatch.setattr(static_checks.subprocess, "run", run)
    assert check_programs({"a": "x = y\n"})["a"].codes == ("mypy-crash",)


@settings(max_examples=150)
@given(st.text(max_size=60))
def test_the_syntax_check_never_raises_and_agrees_with_the_compiler(source):
    status = static_checks._syntax(source).status
    try:
        compile(source, "<test>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
        compiles = False
    else:
        compiles = True
    assert status == "ok" or not compiles
    assert status in {"ok", "syntax"}


def test_every_name_that_mypy_calls_undefined_is_one(tmp_path):
    """The codes mean what they claim: the flagged programs fail when run, by the error named in the table."""
    for name, error in (("unknown name", "NameError"), ("unknown module", "ModuleNotFoundError"),
                        ("used too early", "NameError")):
        source = PROGRAMS[name][0] + ("f(4)\n" if "def f" in PROGRAMS[name][0] else "")
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=tmp_path)
        assert error in done.stderr


# One program for each code that changes nothing: mypy reports the code, and the program runs to its end.
HARMLESS = {
    "arg-type": "def f(x: int):\n    return x\nf('a')\n",
    "assignment": "x = 1\nx = 'a'\n",
    "attr-defined": "def f(): pass\nf.count = 1\n",
    "call-arg": "def f(x):\n    return x\ndef g():\n    return f(1, 2)\n",
    "call-overload": "def g():\n    return max(1, key=2)\n",
    "has-type": "def g():\n    a, b = (1, 2, 3)\n    return a\n",
    "import-untyped": "import tqdm\n",
    "index": "def g():\n    return (1)[0]\n",
    "misc": "def g():\n    a, b = (1, 2, 3)\n    return a\n",
    "no-redef": "def f():\n    return 1\ndef f():\n    return 2\n",
    "operator": "def g():\n    return 1 + 'a'\n",
    "return-value": "def f() -> str:\n    return 1\nf()\n",
    "type-var": "from typing import TypeVar\nT = TypeVar('T', int, str)\ndef f(x: T) -> T:\n    return x\nf(1.5)\n",
    "union-attr": "import re\nre.match('a', 'a').group()\n",
    "valid-type": "def f(x: max):\n    return x\nf(1)\n",
    "var-annotated": "x = []\n",
}


@pytest.mark.parametrize("code", HARMLESS)
def test_harmless_codes_are_of_programs_that_run(code, tmp_path):
    verdict = check_programs({"x": HARMLESS[code]})["x"]
    assert verdict.status == "ok" and code in verdict.codes
    subprocess.run([sys.executable, "-c", HARMLESS[code]], check=True, cwd=tmp_path)


def test_no_program_can_import_another():
    others = {f"n{number}": f"x{number} = 1\n" for number in range(3)}
    guesses = {"guess": "import p000001\nfrom m000000 import x0\n"}
    assert check_programs(others | guesses)["guess"].status == "type_error"


def test_installed_packages_are_known_and_not_followed():
    """torch takes mypy a minute to follow; that it is there is all a program's verdict needs."""
    sources = {"numpy": "import numpy as np\nprint(np.zeros(3).shape)\n", "torch": "import torch\ntorch.zeros(1)\n",
               "absent": "import tensorflow_of_nowhere\n"}
    before = os.times()
    assert [verdict.status for verdict in check_programs(sources).values()] == ["ok", "ok", "type_error"]
    after = os.times()
    assert after.children_user - before.children_user < 20, "seconds of mypy's processor time"


def test_verdicts_do_not_depend_on_the_neighbours(together):
    names = list(PROGRAMS)
    for seed in range(3):
        some = random.Random(seed).sample(names, 6)
        assert check_programs({name: PROGRAMS[name][0] for name in some}) == {name: together[name] for name in some}


def test_the_warm_cache_is_made_once_and_keeps_nothing_of_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PLUM_CACHE", str(tmp_path))
    folder = static_checks.warm_cache()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before and check_programs({"a": "import json\nx = undefined_name\n"})["a"].status == "type_error"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert static_checks.warm_cache() == folder and [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_without_a_place_for_the_cache_the_verdicts_are_the_same(tmp_path, monkeypatch, together):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLUM_CACHE", str(tmp_path / "file"))
    assert static_checks.warm_cache() is None
    assert check_programs({"a": PROGRAMS["unknown name"][0]})["a"] == together["unknown name"]


def test_many_programs_go_into_builds_of_bounded_size(monkeypatch):
    sizes = []
    monkeypatch.setattr(static_checks, "_mypy_build", lambda sources, warm: sizes.append(len(sources)) or {})
    check_programs({str(number): f"x = {number}\n" for number in range(4100)})
    assert sorted(sizes) == [100, 2000, 2000]
