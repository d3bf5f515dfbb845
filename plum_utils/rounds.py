"""PLUM in rounds: sample from the policy that the last round trained, label, train again (beyond the paper).

Each round is a whole run in a folder of its own; round r's policy is round r-1's with its adapter merged into the
weights, so that every notebook works as in a single run, and KTO's reference is always the policy that was sampled.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd

from plum_utils.evaluation.tables import headline
from plum_utils.models.adapters import adapter_digest
from plum_utils.models.weights import merge_adapter, resolve_model
from plum_utils.params import Params
from plum_utils.pipeline import Pipeline
from plum_utils.provenance import ROOT, portable
from plum_utils.runs import Run
from plum_utils.stages import STAGES, TRAINING
from plum_utils.sweep_tables import metric
from plum_utils.sweeps import other_runs

MERGED = "policy-{number}"
DIGEST = "plum_adapter.txt"


def execute_rounds(params: Params, folder: Path, notebooks: Path = ROOT / "notebooks", force: bool = False
                   ) -> list[Run]:
    """Run ``params.rounds`` rounds below ``folder`` (``round1``, ``round2``, ...); finished stages are kept."""
    runs, policy = [], params.policy
    for number in range(1, params.rounds + 1):
        one = params.model_copy(update={"name": f"{params.name}-round{number}", "policy": policy, "rounds": 1})
        run = Run(folder / f"round{number}")
        print(f"=== round {number}/{params.rounds}: policy {Path(policy.model).name}", flush=True)
        Pipeline(one, run, notebooks, others=other_runs(folder, run)).execute(list(STAGES), force)
        runs.append(run)
        if number < params.rounds:
            merged = merged_policy(run, policy.model, policy.revision, MERGED.format(number=number), policy.dtype)
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
    partial = target.with_suffix(".partial")
    for old in (partial, target):
        shutil.rmtree(old, ignore_errors=True)
    merge_adapter(resolve_model(model, revision), str(run.path / entry["adapter"]), str(partial), dtype)
    (partial / DIGEST).write_text(digest)
    partial.rename(target)
    return target


def rounds_table(runs: list[Run]) -> pd.DataFrame:
    """pass@1 (percent, with its 95% interval over problems) of the policy before the first round (0) and after each.

    Returns:
        Columns round, metric, value, low, high.
    """
    rows = []
    for number, run in enumerate(runs, 1):
        sides = (("before", 0), ("after", 1)) if number == 1 else (("after", number),)
        for row in headline(run.load_table("results").astype({"seed": str})).itertuples():
            rows += [{"round": place, "metric": metric(row.suite, row.decoding), "value": getattr(row, side),
                      "low": getattr(row, f"{side}_low"), "high": getattr(row, f"{side}_high")}
                     for side, place in sides]
        rows += _reach(run, sides)
    return pd.DataFrame(rows)


def _reach(run: Run, sides: tuple[tuple[str, int], ...]) -> list[dict]:
    """pass@k at the largest k that was sampled: whether rounds widen the policy's reach or only sharpen it."""
    curves, policies, rows = run.load_table("pass_at_k"), {"before": "baseline", "after": "PLUM"}, []
    for (suite, temperature), group in curves[curves.k > 1].groupby(["suite", "temperature"], sort=False):
        last = group[group.k == group.k.max()].set_index("policy")
        rows += [{"round": place, "metric": f"{metric(suite, f'T={temperature:g}')}, pass@{group.k.max()}"}
                 | last.loc[policies[side], ["value", "low", "high"]].to_dict() for side, place in sides]
    return rows
