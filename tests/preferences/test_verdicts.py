"""Lesson 03's loop: what a verdict says, and that none is made twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stand_ins import P, StubSandbox

from plum_utils.preferences import verdicts
from plum_utils.preferences.verdicts import judge_samples
from plum_utils.sandbox.opening import open_sandbox

SUITE = "assert f(1) == 2\nassert f(2) == 3\n"


@pytest.fixture(scope="module")
def sandbox():
    with open_sandbox(P) as opened:
        yield opened


def sample(code: str, name: str = "i0", index: int = 0) -> dict:
    return {"instruction_id": name, "sample_index": index, "prompt": "p", "completion": code, "code": code}


def judge(rows, sandbox, folder, p=P, suites=None):
    return list(judge_samples(p, iter(rows), suites or {"i0": SUITE}, sandbox, folder))


@pytest.mark.parametrize(("code", "status", "executed", "mypy"), [
    ("def f(x):\n    return x + 1\n", "passed", "passed", "ok"),
    ("def f(x):\n    return x + 2\n", "failed", "failed", "ok"),
    ("def f(x) return x", "syntax", None, "syntax"),
    ("def f(x):\n    return y + 1\n", "failed", "failed", "type_error"),
    ("y + 1\ndef f(x):\n    return x + 1\n", "type_error", "error", "type_error"),
    ("def f(x):\n    out = []  # type: a list of numbers\n    return out\n", "failed", "failed", "type_error"),
    ("def f(x):\n    seen: Set[int] = set()\n    return seen\n", "failed", "failed", "type_error"),
    ("try:\n    import numpy_fast\nexcept ImportError:\n    pass\ndef f(x):\n    return x\n", "failed", "failed", "type_error"),
    ("raise ValueError('at load')\ndef f(x):\n    return x + 1\n", "error", "error", "ok"),
    ("def f(x):\n    if x < 0:\n        return undefined\n    return x + 1\n", "passed", "passed", "type_error"),
    ("   \n", "no_code", None, None),
], ids=["passes", "fails", "syntax", "undefined-name", "undefined-at-load", "type-comment", "annotation-of-a-local",
        "optional-import", "raises-at-load", "undefined-but-never-reached", "no-code"])
def test_what_a_verdict_says(sandbox, tmp_path, code, status, executed, mypy):
    """mypy marks programs that cannot run; of one that did run execution decides."""
    row, = judge([sample(code)], sandbox, tmp_path)
    assert (row["status"], row["executed"], row["mypy"]) == (status, executed, mypy)
    assert (row["instruction_id"], row["sample_index"], row["assurance"]) == ("i0", 0, executed and "split")
    assert (row["detail"] == "") == (status == "passed")


def test_without_mypy_execution_decides(sandbox, tmp_path):
    p = P.model_copy(update={"labels": P.labels.model_copy(update={"mypy": False})})
    row, = judge([sample("def f(x):\n    return y + 1\n")], sandbox, tmp_path, p)
    assert row["status"] == "failed" and row["mypy"] == "type_error" and "name-defined" in row["mypy_codes"]


def test_harmless_type_errors_are_kept_and_change_nothing(tmp_path):
    row, = judge([sample("def f(x):\n    n: int = 'one'\n    return x + 1\n")], StubSandbox(), tmp_path)
    assert row["status"] == "passed" and row["mypy"] == "ok" and row["mypy_codes"] == ["assignment"]


def test_every_suite_of_the_instruction_applies(sandbox, tmp_path):
    rows = judge([sample("def f(x):\n    return x + 1\n")], sandbox, tmp_path,
                 suites={"i0": SUITE + "assert f(0) == 5\n"})
    assert rows[0]["status"] == "failed"


def test_instructions_without_a_consistent_suite_are_left_out(tmp_path):
    rows = judge([sample("x = 1", "i0"), sample("x = 1", "i9")], StubSandbox(), tmp_path)
    assert [row["instruction_id"] for row in rows] == ["i0"]


def test_what_does_not_parse_is_not_executed(tmp_path):
    stub = StubSandbox()
    judge([sample("def f("), sample("x = 1", index=1), sample("", index=2)], stub, tmp_path)
    assert [program.id for program in stub.asked] == ["i0/1"]


def test_a_sandbox_failure_is_no_verdict_and_leaves_no_shard(tmp_path):
    with pytest.raises(RuntimeError, match="i0/0: the sandbox failed, not the program"):
        judge([sample("x = 1")], StubSandbox("infrastructure"), tmp_path)
    assert judge([sample("x = 1")], StubSandbox("passed"), tmp_path)[0]["status"] == "passed"


def test_judged_shards_are_read_not_judged_again(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "JUDGED", 2)
    rows = [sample(f"x = {number}", f"i{number}") for number in range(5)]
    suites = {f"i{number}": SUITE for number in range(5)}
    first = judge(rows, StubSandbox("failed"), tmp_path, suites=suites)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    (tmp_path / "shard_00001.jsonl").unlink()
    stub = StubSandbox("failed")
    assert judge(rows, stub, tmp_path, suites=suites) == first
    assert [program.id for program in stub.asked] == ["i2/0", "i3/0"]
    changed = StubSandbox("failed")
    judge(rows, changed, tmp_path, suites=suites | {"i0": SUITE * 2})
    assert [program.id for program in changed.asked] == ["i0/0", "i1/0"], "only what the change touches"


def test_only_one_shard_of_samples_is_read_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "JUDGED", 2)
    read, seen = [], []

    class Watching(StubSandbox):
        def run(self, programs, limits=None, ended=None):
            seen.append(len(read))
            return super().run(programs)

    stream = (read.append(number) or sample(f"x = {number}", index=number) for number in range(5))
    assert len(list(judge_samples(P, stream, {"i0": SUITE}, Watching("failed"), tmp_path, total=5))) == 5
    assert seen == [2, 4, 5]


def test_verdicts_hold_nothing_that_differs_from_run_to_run(tmp_path):
    judge([sample("x = 1")], StubSandbox("failed"), tmp_path)
    text = next(Path(tmp_path).glob("*.jsonl")).read_text()
    assert "0x7f3a" not in text and "seconds" not in json.loads(text.splitlines()[1])
