"""The set-up's inputs: what would break on another machine."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest
import yaml
from notebook_rules import MACHINE_PATH

import setup_env
from plum_utils.provenance import ROOT


def test_constraints_name_neither_machine_nor_local_build():
    path = ROOT / "constraints.txt"
    if not path.exists():
        pytest.skip("constraints.txt is not written yet")
    for line in filter(None, path.read_text().splitlines()):
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_gpu_environment_agrees_with_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {line.split("==")[0]: line for line in
            yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"] if "==" in line}
    for requirement in [*project["optional-dependencies"]["gpu"], *project["dependencies"]]:
        if "==" in requirement:
            assert pins[requirement.split("==")[0]] == requirement


def test_no_registry_host_or_machine_path_is_written_down():
    for name in ("setup_env.py", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not MACHINE_PATH.search(text) and not re.search("https?://", text), name


def test_an_older_python_can_read_the_script_far_enough_to_be_told():
    ast.parse((ROOT / "setup_env.py").read_text(), feature_version=(3, 8))


@pytest.fixture
def empty_checkout(tmp_path, monkeypatch):
    """A checkout whose set-up installs nothing: the calls it would make are listed."""
    calls: list[str] = []
    for name in setup_env.SOURCES:
        (tmp_path / name).write_text("x")
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    for name, path in {"ROOT": tmp_path, "VENV": venv, "READY": venv / ".ready", "BUILDING": venv / ".building",
                       "PYTHON": venv / "bin" / "python"}.items():
        monkeypatch.setattr(setup_env, name, path)
    monkeypatch.setattr(setup_env, "create_venv", lambda: calls.append(
        "anew" if setup_env.BUILDING.exists() else "as it is"))
    monkeypatch.setattr(setup_env, "install_packages", lambda: calls.append("install"))
    monkeypatch.setattr(setup_env, "remove_broken_companions", lambda: None)
    return tmp_path, calls


def test_set_up_runs_once_until_a_source_changes(empty_checkout):
    folder, calls = empty_checkout
    setup_env.main()
    setup_env.main()
    assert calls == ["as it is", "install"]
    (folder / "constraints.txt").write_text("y")
    setup_env.main()
    assert calls == ["as it is", "install"] * 2


def test_an_interrupted_set_up_is_redone_from_an_empty_environment(empty_checkout, monkeypatch):
    _, calls = empty_checkout
    with monkeypatch.context() as patch:
        patch.setattr(setup_env, "install_packages", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            setup_env.main()
    setup_env.main()
    assert calls == ["as it is", "anew", "install"]
