"""What is collected for outputs/reference, and from which runs it is not."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load, save_file

from benchmarks.reference import collect
from plum_utils.jsonl import write_json, write_text
from plum_utils.models.adapters import adapter_digest
from plum_utils.runs import Run
from plum_utils.stages import STAGES


def save_figure(path):
    """A picture with a colour in each point, as smooth curves have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").convert("RGBA").save(path)


@pytest.fixture
def outputs(tmp_path):
    """A finished run of two policies, two sweeps, rounds and a search, each with files that belong nowhere."""
    run = Run(tmp_path / "outputs" / "reference_run")
    for stage in STAGES:
        run.update_stage(stage.name, {"status": "done", "commit": "abc"})
    write_json(run.path / "manifest.json", run.manifest() | {"params": {"policy": {"model": "embedded:smollm2"}}})
    policies = []
    for seed in (0, 1):
        folder = run.path / f"04_train_kto/kto-seed{seed}/adapter"
        write_json(folder / "adapter_config.json", {"r": 2, "base_model_name_or_path": "/somewhere/else"})
        save_file({"lora_A": torch.tensor([0.1, 1.0])}, folder / "adapter_model.safetensors")
        policies.append({"objective": "kto", "seed": seed, "digest": adapter_digest(folder),
                         "adapter": folder.relative_to(run.path).as_posix()})
    write_json(run.path / "04_train_kto/policies.json", policies)
    for name in ("report.md", "report.html", "02_sampling/samples.jsonl", "tables/results.csv", "figures/a.svg",
                 "notebooks/01.ipynb", "tables/.partial"):
        write_text(run.path / name, "new")
    save_figure(run.path / "figures/a.png")
    for folder in ("sweeps/table5", "sweeps/table6", "mini_rounds"):
        for name in ("tables/methods.csv", "figures/methods.svg", "report.html"):
            write_text(run.path.parent / folder / name, folder)
        save_figure(run.path.parent / folder / "figures/methods.png")
    write_text(run.path.parent / "mini_search/tables/search.csv", "s")
    return run.path.parent


def test_what_is_shown_is_collected_and_what_was_there_is_replaced(outputs, tmp_path, capsys):
    target = tmp_path / "reference"
    for name in ("README.md", "search/README.md", "tables/old.csv", "sweeps/table5/tables/old.csv", "sweeps/table1/tables/kept.csv"):
        write_text(target / name, "old")
    size = collect(outputs, target)
    files = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    figures = {name: files.pop(name) for name in list(files) if name.endswith(".png")}
    adapter = {f"adapters/kto-seed0/{name}": files[f"adapters/kto-seed0/{name}"]
               for name in ("adapter_config.json", "adapter_model.safetensors")}
    sweeps = {f"sweeps/{name}/tables/methods.csv": source for name, source in (
        ("table5", b"sweeps/table5"), ("table6", b"sweeps/table6"), ("rounds", b"mini_rounds"))}
    kept = dict.fromkeys(("README.md", "search/README.md", "sweeps/table1/tables/kept.csv"), b"old")
    run = dict.fromkeys(("report.md", "tables/results.csv", "notebooks/01.ipynb"), b"new")
    assert files == sweeps | kept | run | adapter | {"search/search.csv": b"s", "manifest.json": files["manifest.json"]}
    config = json.loads(files["adapters/kto-seed0/adapter_config.json"])
    assert config == {"r": 2, "base_model_name_or_path": "embedded:smollm2"}
    assert load(files["adapters/kto-seed0/adapter_model.safetensors"])["lora_A"].equal(torch.tensor([0.1, 1.0]).half())
    assert sorted(figures) == ["figures/a.png"] + [f"sweeps/{name}/figures/methods.png" for name in ("rounds", "table5", "table6")]
    assert size == sum(map(len, [*files.values(), *figures.values()]))
    assert capsys.readouterr().out.splitlines()[-1].split() == [f"{size:,}", "together"]


def test_a_figure_looks_the_same_with_fewer_colours(outputs, tmp_path):
    collect(outputs, tmp_path / "reference", ["table5"])
    made, taken = (Image.open(folder / "table5/figures/methods.png") for folder in (outputs / "sweeps", tmp_path / "reference/sweeps"))
    assert taken.mode == "P" and taken.size == made.size
    difference = ImageChops.difference(made.convert("RGB"), taken.convert("RGB"))
    assert max(high for _, high in difference.getextrema()) <= 8  # of 255


@pytest.mark.parametrize(("entry", "said"), [({"status": "failed", "commit": "abc"}, "stage 05 is not done"),
                                             ({"status": "done", "commit": "abc+changes"}, "of 2 commits, abc, abc")])
def test_a_run_that_is_not_of_one_piece_is_not_collected(outputs, tmp_path, entry, said):
    Run(outputs / "reference_run").update_stage("05_evalplus_eval", entry)
    with pytest.raises(SystemExit, match=said):
        collect(outputs, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def test_named_sweeps_are_collected_alone(outputs, tmp_path):
    target = tmp_path / "reference"
    collect(outputs, target, ["table6", "rounds"])
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*.*")) == [
        f"sweeps/{name}/{file}" for name in ("rounds", "table6") for file in ("figures/methods.png", "tables/methods.csv")]


@pytest.mark.parametrize("name", ["table9", "reference_run"])
def test_a_sweep_that_was_not_run_is_not_collected(outputs, tmp_path, name):
    with pytest.raises(SystemExit, match=f"no tables of {name}; run params/mini/{name}.yaml first"):
        collect(outputs, tmp_path / "reference", ["table5", name])
    assert not (tmp_path / "reference").exists()
