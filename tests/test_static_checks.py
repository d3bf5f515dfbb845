"""What the look before running says: parsed by Python's own parser, then by mypy in one build."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_utils import static_checks
from plum_utils.static_checks import CANNOT_RUN_CODES, StaticVerdict, check_programs

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
    monkeypatch.setattr(static_checks, "_mypy_build", lambda sources, timeout: builds.append(sources) or {})
    verdicts = check_programs({f"n{n}": "x = 1\n" for n in range(50)})
    assert builds == [["x = 1\n"]] and len(verdicts) == 50


def test_no_programs_need_no_mypy(monkeypatch):
    monkeypatch.setattr(static_checks, "_mypy_build", lambda *_: pytest.fail("mypy was started"))
    assert check_programs({}) == {} and check_programs({"a": "def"})["a"].status == "syntax"


def test_a_program_that_breaks_mypy_is_found_and_left_to_execution(monkeypatch):
    def build(sources, timeout):
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
