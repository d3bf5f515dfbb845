"""Boxes without conda: the Slurm script under stand-ins for Slurm's commands, and what the Dockerfile installs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import setup_env
from plum_utils.models.shapes import bundled_shapes, model_config
from plum_utils.params import load_params
from plum_utils.provenance import ROOT
from plum_utils.training import planner
from plum_utils.training.memory import GIB

SCRIPT, DOCKERFILE = ROOT / "slurm" / "row.sh", (ROOT / "Dockerfile").read_text()
SWEEP, BOXES = "params/paper/table2.yaml", (ROOT / "docs" / "boxes.md").read_text()


@pytest.fixture
def slurm(tmp_path):
    """Slurm's variables, and commands that write down how they were called; `srun` runs what it is given, and the
    stand-in for Python ends with status 3 for the row 3 and waits for a signal in row 2."""
    programs = {"srun": 'exec "$@"', "scontrol": 'echo "scontrol $*" >> "$CALLS"',
                "python": 'echo "python $*" >> "$CALLS"\n[ "$SLURM_ARRAY_TASK_ID" = 3 ] && exit 3\n'
                          '[ "$SLURM_ARRAY_TASK_ID" = 2 ] || exit 0\ntrap \'echo stopped >> "$CALLS"; exit 130\' TERM\n'
                          'for _ in $(seq 200); do sleep 0.05; done'}
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls"), "PLUM_PYTHON": str(tmp_path / "python"),
            "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "77"}


def start(slurm, row: str | None, *arguments: str) -> subprocess.Popen:
    more = {"SLURM_ARRAY_TASK_ID": row} if row else {}
    return subprocess.Popen([shutil.which("bash"), str(SCRIPT), *arguments], env=slurm | more, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def calls(slurm) -> list[str]:
    return Path(slurm["CALLS"]).read_text().splitlines()


@pytest.mark.parametrize(("row", "status"), [("1", 0), ("3", 3)])
def test_a_task_runs_its_row_and_ends_as_the_run_does(slurm, row, status):
    task = start(slurm, row, SWEEP, "-p", "training.seeds=[0]")
    assert task.wait(30) == status, task.stdout.read()
    assert calls(slurm) == [f"python -m plum_utils run {SWEEP} --row {row} -p training.seeds=[0]"]


def test_a_task_that_is_stopped_stops_its_run_and_is_queued_again(slurm):
    task = start(slurm, "2", SWEEP)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not Path(slurm["CALLS"]).exists():
        time.sleep(0.05)
    time.sleep(0.3)  # until the stand-in has set its trap
    task.send_signal(signal.SIGTERM)
    assert task.wait(30) == 0
    assert calls(slurm)[1:] == ["stopped", "scontrol requeue 77"]


@pytest.mark.parametrize(("row", "arguments", "said"), [("1", [], "give a sweep file"), (None, [SWEEP], "give --array")])
def test_what_is_missing_is_said(slurm, row, arguments, said):
    task = start(slurm, row, *arguments)
    assert task.wait(30) != 0 and said in task.stdout.read()


def test_the_cells_for_a_small_card_write_a_parameter_file_that_is_one():
    text, = re.findall(r"^```yaml\n%%writefile params/t4.yaml\n(.*?)^```", BOXES, re.MULTILINE | re.DOTALL)
    values = yaml.safe_load(text)
    params = load_params(ROOT / "params" / values.pop("extends"), {
        f"{section}.{key}": value for section, more in values.items() if section != "name" for key, value in more.items()})
    assert params.policy.dtype == "auto" and params.training.quantization == "auto"


def test_the_plans_for_a_16_gb_card_are_those_that_are_printed(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    rows = re.findall(r"^\| (\S+) \| (\d+) x (\d+) \| ([\d.]+) \|$", BOXES, re.MULTILINE)
    assert len(rows) == 3
    training = load_params(ROOT / "params" / "paper" / "oss_codeqwen_base_kto.yaml").training
    for name, batch, accumulation, needs in rows:
        model = next(one for one in bundled_shapes() if one.endswith(f"/{name}"))
        chosen = planner.plan(model_config(model), training, 16, "float16")
        assert (chosen.training.batch_size, chosen.training.accumulation) == (int(batch), int(accumulation))
        assert f"{chosen.total / GIB:.1f}" == needs and chosen.training.quantization == "nf4"


def test_the_container_installs_the_pins_and_runs_as_an_ordinary_user():
    assert "-r constraints-gpu.txt" in DOCKERFILE and f"--no-deps {setup_env.POLICY}" in DOCKERFILE
    assert re.search(r"^USER \$\{UID\}$", DOCKERFILE, re.MULTILINE) and "ARG UID=0" not in DOCKERFILE
    assert "://" not in DOCKERFILE  # which index: a build argument
    for name in re.findall(r"^COPY --chown=plum (\S+)", DOCKERFILE, re.MULTILINE):
        assert (ROOT / name).exists()
