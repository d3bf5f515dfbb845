"""Put into outputs/reference what of finished runs is committed: notebooks, tables, figures (as PNG of 256 colours), report
and manifest of the reference run, its first policy's adapter in half precision, tables and figures of every sweep and of the
rounds, and the search's table. Prints their sizes.

    python benchmarks/reference.py            # of outputs/reference_run, outputs/sweeps, outputs/mini_rounds, outputs/mini_search
    python benchmarks/reference.py table5     # that sweep alone

The READMEs of the folder and of search/ are written by hand, and stay.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Sequence

from PIL import Image
from safetensors.torch import load_file, save_file

from plum_utils.jsonl import write_json
from plum_utils.models.adapters import load_policies
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.stages import STAGES

LIMIT = 12 * 10**6  # bytes in all
RUN = ("notebooks", "tables", "figures", "report.md", "manifest.json")
SHOWN = ("tables", "figures")  # of sweeps
LEFT_OUT = shutil.ignore_patterns(".*", "*.svg")  # each figure is there as PNG


def collect(outputs: Path, target: Path, names: Sequence[str] = ()) -> int:
    """Replace in ``target`` the parts of each run that ``outputs`` has; what it has not stays as it is.

    Args:
        names: of the sweeps (``rounds`` is one) to take alone; none given: all of them, the reference run and the search.

    Returns:
        The bytes of ``target``.

    Raises:
        SystemExit: a named sweep was not run; the reference run is not done, or was made by more than one commit.
    """
    sweeps = {path.name: path for path in sorted((outputs / "sweeps").glob("*/"))} | {"rounds": outputs / "mini_rounds"}
    if missing := [name for name in names if name not in sweeps or not (sweeps[name] / "tables").is_dir()]:
        raise SystemExit(f"{outputs}: no tables of {', '.join(missing)}; run params/mini/{missing[0]}.yaml first")
    if not names:
        _collect_run(Run(outputs / "reference_run"), target)
        for table in (outputs / "mini_search" / "tables").glob("search.*"):
            _copy(table, target / "search" / table.name)
    for name in names or sweeps:
        _replace(sweeps[name], target / "sweeps" / name, SHOWN)
    sizes = {part.name: sum(one.stat().st_size for one in (part, *part.rglob("*")) if one.is_file())
             for part in sorted(target.iterdir())}
    print("\n".join(f"{size:12,}  {name}" for name, size in sizes.items()) + f"\n{sum(sizes.values()):12,}  together")
    return sum(sizes.values())


def _collect_run(run: Run, target: Path) -> None:
    _whole(run)
    _replace(run.path, target, RUN)
    _give_adapter(run, target / "adapters")


def _whole(run: Run) -> None:
    entries = run.manifest()["stages"]
    if missing := [stage.number for stage in STAGES if entries.get(stage.name, {}).get("status") != "done"]:
        raise SystemExit(f"{run.path}: stage {', '.join(missing)} is not done; run params/reference.yaml first")
    if len(commits := {str(entries[stage.name]["commit"]) for stage in STAGES}) > 1:
        raise SystemExit(f"{run.path}: its stages are of {len(commits)} commits, {', '.join(sorted(commits))}; run it again from "
                         "a clean clone")


def _give_adapter(run: Run, target: Path) -> None:
    """The first trained policy's, as PEFT reads it, on the model's name in the parameters instead of a path."""
    policy = load_policies(run)[1]
    assert policy.adapter is not None
    config = json.loads((policy.adapter / "adapter_config.json").read_text())
    shutil.rmtree(target, ignore_errors=True)
    weights = load_file(policy.adapter / "adapter_model.safetensors")
    (target / policy.name).mkdir(parents=True)
    save_file({name: tensor.half() for name, tensor in weights.items()}, target / policy.name / "adapter_model.safetensors")
    write_json(target / policy.name / "adapter_config.json",
               config | {"base_model_name_or_path": run.manifest()["params"]["policy"]["model"]})


def _replace(source: Path, target: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        if (source / part).is_dir():
            shutil.rmtree(target / part, ignore_errors=True)
            shutil.copytree(source / part, target / part, ignore=LEFT_OUT, copy_function=_copy_small)
        elif (source / part).is_file():
            _copy(source / part, target / part)


def _copy_small(source: str, target: str) -> None:
    """A figure with 256 colours has a third of its bytes and looks the same."""
    if source.endswith(".png"):
        Image.open(source).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    else:
        shutil.copyfile(source, target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sweeps", nargs="*", help="names of sweeps to take alone; default: everything")
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs", help="folder of the runs; default: outputs/")
    parser.add_argument("--to", type=Path, default=ROOT / "outputs" / "reference", help="default: outputs/reference/")
    options = parser.parse_args()
    if (size := collect(options.outputs, options.to, options.sweeps)) > LIMIT:
        raise SystemExit(f"{size:,} bytes are more than {LIMIT:,}; leave something out before it is committed")


if __name__ == "__main__":
    main()
