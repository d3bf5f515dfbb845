"""Shared fixtures: six tiny notebooks with the study's names, for tests of the pipeline; a tiny Llama; the built site."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: one thread each, before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"

from pathlib import Path

import nbformat
import pytest
from hypothesis import settings
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from plum_utils.provenance import ROOT
from plum_utils.stages import STAGES

pytest_plugins = ["durations", "processes", "ray_cluster", "hub_server"]
settings.register_profile("study", deadline=None, derandomize=True)  # a busy machine is no failure; runs are alike
settings.load_profile("study")

OPENING = """
import json, os, time
from plum_utils.params import Params
from plum_utils.runs import Run, fingerprint, shards
p, run = Params.model_validate(params), Run(run_dir)
"""
SHARDS = """
def make(key):
    time.sleep(float(os.environ.get("PLUM_TEST_SLEEP", "0")))
    with open(run.path / "made.txt", "a") as log:
        log.write(key + "\\n")
    return [{"key": key, "k": p.sampling.k}]
rows = shards(run.stage_dir(NAME) / "shards", [f"s{n}" for n in range(6)], make, fingerprint(p.sampling.k), "work")
"""
WRITE = """
if p.seed == 13:
    raise ValueError("seed 13 brings\\nbad luck")
(run.stage_dir(NAME) / "rows.json").write_text(json.dumps({"name": NAME, "seed": p.seed, "k": p.sampling.k}))
import pandas as pd
run.save_table(pd.DataFrame({"stage": [NAME]}), "table_" + NAME)
"""


def tiny_notebook(name: str) -> nbformat.NotebookNode:
    """A notebook that writes shards (stage 02 only), one artifact and one table; it raises for seed 13."""
    parameters = new_code_cell("params = None\nrun_dir = None", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# {name}"), parameters, new_code_cell(f"NAME = {name!r}{OPENING}")]
    if name == "02_sampling":
        cells += [new_markdown_cell("## 2.1 Shards"), new_code_cell(SHARDS.strip())]
    cells += [new_markdown_cell("## 9 Results"), new_code_cell(WRITE.strip())]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "no-such-kernel", "display_name": "x",
                                                              "language": "python"}})


@pytest.fixture(scope="session")
def tiny_notebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebooks")
    for stage in STAGES:
        nbformat.write(tiny_notebook(stage.name), folder / f"{stage.name}.ipynb")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny random Llama (``tiny_llama.save_tiny``)."""
    from tiny_llama import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def reference_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the reference run's site."""
    pytest.importorskip("myst_nb", reason="the packages of `make docs` are not installed")
    reference = ROOT / "outputs" / "reference"
    if not (reference / "manifest.json").exists():
        pytest.skip("outputs/reference is not there")
    from docs.site import build

    target = tmp_path_factory.mktemp("reference") / "site"
    build.build(reference, target)
    return target
