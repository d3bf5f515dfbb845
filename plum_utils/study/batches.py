"""Many runs, one after another: a sweep's experiments, a run's rounds."""

from __future__ import annotations

import json
from pathlib import Path

from plum_utils.jsonl import new_folder
from plum_utils.models.adapters import adapter_digest
from plum_utils.models.weights import merge_adapter, resolve_model
from plum_utils.params import Params
from plum_utils.provenance import ROOT, portable
from plum_utils.runs import Run
from plum_utils.stages import STAGES, TRAINING
from plum_utils.study.pipeline import NotReady, Pipeline, RunLocked, StageFailed
from plum_utils.study.reuse import runs_beside
from plum_utils.study.sweeps import Experiment, Sweep, round_folder

DIGEST = "plum_adapter.txt"


def execute(sweep: Sweep, experiments: list[Experiment], outputs: Path, notebooks: Path = ROOT / "notebooks",
            force: bool = False) -> dict[str, str]:
    """Run every experiment as far as the sweep's table needs; one that fails does not stop the others.

    Args:
        outputs: folder of the runs' folders, ``<outputs>/<name>``; a finished stage of any of them is taken over.

    Returns:
        Name -> cause of each experiment that failed.
    """
    wanted, failures = [stage for stage in STAGES if stage.number <= sweep.until], {}
    last = {one.params.name: one.round for one in experiments}
    runs = [one for one in experiments if one.round == last[one.params.name]]  # a later round brings the earlier ones
    for place, one in enumerate(runs, 1):
        print(f"=== {place}/{len(runs)} {one.params.name}: {one.row.model}, {one.row.row}", flush=True)
        run = Run(outputs / one.params.name)
        try:
            if one.round:
                execute_rounds(one.params.model_copy(update={"rounds": one.round}), run.path, notebooks, force)
            else:
                Pipeline(one.params, run, notebooks, others=runs_beside(outputs, run)).execute(wanted, force)
        except (StageFailed, NotReady, RunLocked) as error:
            failures[one.params.name] = str(error)
            print(f"failed: {error}", flush=True)
    return failures


def execute_rounds(params: Params, folder: Path, notebooks: Path = ROOT / "notebooks", force: bool = False
                   ) -> list[Run]:
    """Run ``params.rounds`` rounds below ``folder`` (``round1``, ``round2``, ...); finished stages are kept, and taken over
    from the other rounds and the runs beside ``folder``."""
    runs, policy = [], params.policy
    for number in range(1, params.rounds + 1):
        one = params.model_copy(update={"name": f"{params.name}-round{number}", "policy": policy, "rounds": 1})
        run = Run(folder / round_folder(number))
        print(f"=== round {number}/{params.rounds}: policy {Path(policy.model).name}", flush=True)
        others = (*runs_beside(folder, run), *runs_beside(folder.parent, Run(folder)))
        Pipeline(one, run, notebooks, others=others).execute(list(STAGES), force)
        runs.append(run)
        if number < params.rounds:
            merged = merged_policy(run, policy.model, policy.revision, f"policy-{number}", policy.dtype)
            policy = policy.model_copy(update={"model": portable(merged), "revision": None})
    return runs


def merged_policy(run: Run, model: str, revision: str | None, name: str, dtype: str) -> Path:
    """The run's policy of the first training seed with its adapter merged, in ``<run>/<name>``; made once.

    An interrupted merge leaves nothing under the final name; another adapter makes it anew.
    """
    entry = json.loads((run.path / TRAINING / "policies.json").read_text())[0]
    target, digest = run.path / name, adapter_digest(run.path / entry["adapter"])
    if (target / DIGEST).exists() and (target / DIGEST).read_text() == digest:
        return target
    with new_folder(target, replace=True) as folder:
        merge_adapter(resolve_model(model, revision), str(run.path / entry["adapter"]), str(folder), dtype)
        (folder / DIGEST).write_text(digest)
    return target
