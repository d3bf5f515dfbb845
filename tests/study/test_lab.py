"""JupyterLab as ``make lab`` opens it: command and environment (the browser tests start it)."""

from __future__ import annotations

import json
import os

from plum_utils.provenance import ROOT
from plum_utils.study import lab
from plum_utils.study.notebooks import MARK


def test_it_opens_the_first_lesson_in_the_repository(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    command = lab.command(["--port=9000"])
    assert (ROOT / lab.FIRST).is_file() and f"--LabApp.default_url=/lab/tree/{lab.FIRST}" in command
    assert f"--ServerApp.root_dir={ROOT}" in command and command[-1] == "--port=9000"
    assert "--allow-root" not in command


def test_root_in_a_container_may(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--allow-root" in lab.command([])


def test_kernels_are_this_environments_and_no_runs_leftovers(monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/their/own")
    environment = lab.environment()
    assert environment["JUPYTER_PREFER_ENV_PATH"] == "1" and MARK not in environment
    assert environment["JUPYTER_CONFIG_PATH"].split(os.pathsep) == [str(lab.CONFIG), "/their/own"]
    config = json.loads((lab.CONFIG / "labconfig" / "page_config.json").read_text())
    assert config["disabledExtensions"]["@jupyterlab/apputils-extension:announcements"] is True
