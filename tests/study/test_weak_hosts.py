"""A host that cannot isolate programs, made of this one by leaving layers out: refused at once, or accepted and used."""

from __future__ import annotations

import sys

import pytest

from plum_utils.params import Params
from plum_utils.preferences.verdicts import judge_samples
from plum_utils.sandbox import Limits, Program, Sandbox, weakness
from plum_utils.sandbox.opening import open_sandbox
from plum_utils.study import pipeline as pipeline_module
from plum_utils.study import weak_hosts
from plum_utils.study.commands import main

WEAK = "network and file writes"
SWEEP = "title: t\ntable: x\nruns: [{params: tiny.yaml, model: m, row: r}]\n"


@pytest.fixture
def weak(monkeypatch):
    monkeypatch.setenv("PLUM_SANDBOX_WITHOUT", "namespaces seccomp landlock cgroup")


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, bool]]:
    """The number of each notebook that would run, and ``sandbox.allow_weak`` in its parameters."""
    found: list[tuple[str, bool]] = []

    def stand_in(source, folder, parameters, environment):
        found.append((source.stem[:2], parameters["params"]["sandbox"]["allow_weak"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / source.name).write_text("{}")
        return ""

    monkeypatch.setattr(pipeline_module, "run_notebook", stand_in)
    return found


@pytest.fixture
def run(tmp_path, tiny_notebooks):
    """The command with these options, on tiny notebooks, in ``tmp_path / "out"``."""
    (tmp_path / "tiny.yaml").write_text("name: tiny\n")
    (tmp_path / "sweep.yaml").write_text(SWEEP)

    def call(command: str, file: str, *more: str) -> int:
        return main([command, str(tmp_path / file), "--run-dir", str(tmp_path / "out"), "--notebooks",
                     str(tiny_notebooks), *more])
    return call


@pytest.mark.parametrize("arguments", [("run", "tiny.yaml"), ("run", "tiny.yaml", "--only", "03"),
                                       ("run", "tiny.yaml", "-p", "rounds=2"), ("run", "sweep.yaml"),
                                       ("run", "tiny.yaml", "--dry"), ("search", "tiny.yaml")])
def test_a_weak_host_is_told_first_and_nothing_is_written(weak, run, ran, tmp_path, capsys, arguments):
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert ran == [] and shown.out == "" and not (tmp_path / "out").exists()
    assert shown.err == f"error: {weak_hosts.MESSAGE.format(weakness=WEAK)}\n"
    assert "--allow-weak-sandbox" in shown.err and "docker run" in shown.err


@pytest.mark.parametrize("how", [("--allow-weak-sandbox",), ("-p", "sandbox.allow_weak=true")])
def test_who_accepts_it_gets_the_run(weak, run, ran, how):
    assert run("run", "tiny.yaml", "--only", "01", *how) == 0
    assert ran == [("01", True)]


def test_stages_without_programs_run_anyway(weak, run, ran):
    assert run("run", "tiny.yaml", "--only", "02") == 0 and ran == [("02", False)]


def test_a_cluster_judges_elsewhere(weak):
    weak_hosts.check_host([Params(name="x", sandbox={"ray": "auto"})])


def test_an_ordinary_host_is_not_asked_for_anything(run, ran):
    if weakness():
        pytest.skip("this host is weak")
    assert run("run", "tiny.yaml", "--only", "01") == 0 and ran == [("01", False)]


def test_a_layer_that_there_is_not_is_an_error(monkeypatch):
    monkeypatch.setenv("PLUM_SANDBOX_WITHOUT", "namespaces selinux")
    with pytest.raises(ValueError, match="PLUM_SANDBOX_WITHOUT: unknown layer 'selinux'; any of namespaces, mounts"):
        weakness()


def test_one_layer_of_each_kind_is_enough(monkeypatch):
    if weakness():
        pytest.skip("this host is weak")
    for left_out in ("namespaces", "landlock seccomp"):
        monkeypatch.setenv("PLUM_SANDBOX_WITHOUT", left_out)
        assert weakness() == ""


def test_verdicts_with_limits_alone(weak, tmp_path):
    """Lesson 03's way, split and shared, and what limits stop."""
    p = Params(name="x", sandbox={"allow_weak": True, "seconds": 2})
    good, bad, endless = "def f(x):\n    return x + 1\n", "def f(x):\n    return x\n", "def f(x):\n    while True: pass\n"
    expected = {good: "passed", bad: "failed", endless: "timeout", "import sys; sys.exit(0)": "error", "def f(:": "syntax"}
    if sys.platform == "linux":  # macOS does not limit address space
        expected["x = [0] * 10**9"] = "memory"
    rows = [{"instruction_id": "i", "sample_index": place, "code": code} for place, code in enumerate(expected)]
    with open_sandbox(p) as sandbox:
        assert sandbox.weakness == WEAK and "WEAK" in sandbox.layers
        found = list(judge_samples(p, rows, {"i": "assert f(1) == 2"}, sandbox, tmp_path, {"i": good}))
        shared, = sandbox.run([Program("a", good, "assert f(1) == 2", mode="shared")])
    assert [row["status"] for row in found] == list(expected.values())
    assert found[0]["assurance"] == "split" and shared.status == "passed"
    with Sandbox(1, Limits(allow_weak=True), without=(), quiet=True) as sandbox:
        assert not sandbox.weakness or weakness(), "layers named by hand win over the environment"
