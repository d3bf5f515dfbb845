"""The benchmark for a card, on small models: what it needs of packages, what it trains on, and what it keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks import gpu_training
from plum_utils.provenance import ROOT

NEEDED = ("torch", "transformers", "accelerate", "peft", "trl", "datasets", "bitsandbytes")
RUN = """
import sys
from pathlib import Path
folder, shape = sys.argv[1], "bigcode/starcoder2-7b"
for hidden in ("openai", "vllm", "evalplus", "lazy_loader", "matplotlib", "plotly", "papermill"):
    try:
        __import__(hidden)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{hidden} is there")
from benchmarks import gpu_training
gpu_training.without_lazy_loader()
gpu_training.random_checkpoint(shape, True, Path(folder))
for worker in ("trl", "card_24"):
    sys.argv = ["", "--small", "--length", "48", "--steps", "2", "--shapes", shape, "--model", folder, "--worker", worker]
    gpu_training.main()
"""


def with_its_needs(names: list[str]) -> set[str]:
    """Names of the installed distributions that these need."""
    found: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-")
        if name not in found:
            try:
                needs = map(Requirement, distribution(name).requires or [])
            except PackageNotFoundError:  # of another platform
                continue
            found.add(name)
            names += [one.name for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.long("seconds")
def test_it_runs_with_seven_packages_and_what_they_need_alone(tmp_path):
    site = tmp_path / "site-packages"  # dill knows installed packages by this name
    site.mkdir()
    for name in with_its_needs(list(NEEDED)):
        one = distribution(name)
        for top in {path.parts[0] for path in one.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(one.locate_file(top))
    done = subprocess.run([sys._base_executable, "-s", "-c", RUN, str(tmp_path / "model")], capture_output=True, text=True,
                          env={"PYTHONPATH": f"{site}:{ROOT}", "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path),
                               "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    trl, ours = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"'))
    assert trl["planned_gib"] is None and ours["planned_gib"] > 0 and ours["mfu"] is None
    for one in (trl, ours):
        assert one["steps"] == 2 and one["tokens_per_second"] > 0 and one["peak_gib"] >= one["left_gib"] > 0
        assert len(one["losses"]) == 2 and one["losses"][0] == 0.5  # half the mean weight


def test_rows_differ_and_fill_their_length():
    tokenizer = gpu_training.byte_tokenizer()
    rows = gpu_training.full_rows(tokenizer, 8, 64, 0.25)
    for part in ("prompt", "completion"):
        assert len({row[part][0]["content"] for row in rows}) == 8
    for row in rows:
        assert len(tokenizer(row["prompt"][0]["content"])["input_ids"]) == 16
        assert len(tokenizer(row["completion"][0]["content"])["input_ids"]) >= 64
        assert (" + " in row["completion"][0]["content"]) == row["label"]


def test_a_busy_cpu_whose_products_are_slow_is_no_error():
    rows = {"trl": {"tokens_per_second": 2.0, "model_tflops": 0.001}, "card_24": {"tokens_per_second": 3.0, "model_tflops": 0.002},
            "card_at_hand": {"error": "out of memory"}}
    gpu_training.compare(rows, 0.004)
    assert rows["card_24"] == {"tokens_per_second": 3.0, "model_tflops": 0.002, "share_of_roofline": 0.5, "speedup": 1.5}


@pytest.mark.parametrize(("length", "kept"), [(2048, ["a"]), (128, [])])
def test_a_call_adds_to_the_results_of_an_earlier_one_under_the_same_conditions(length, kept, tmp_path):
    file = tmp_path / "results" / "gpu.json"
    gpu_training.write_json(file, {"device": "H100", "length": 2048, "shapes": {"a": {}}})
    assert list(gpu_training.earlier(file, device="H100", length=length)["shapes"]) == kept
    assert gpu_training.earlier(Path(tmp_path / "none"), device="H100")["shapes"] == {}
