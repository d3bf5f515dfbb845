"""Trained policies by the hash of their weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from plum_utils.runs import Run
from plum_utils.stages import TRAINING


def adapter_digest(adapter: str | Path | None) -> str:
    """Hash of an adapter's weights, so that results of a retrained policy are never taken for the old one's."""
    if adapter is None:
        return "none"
    return hashlib.sha256((Path(adapter) / "adapter_model.safetensors").read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Policy:
    """A policy to be evaluated; without an adapter it is the baseline."""

    name: str
    seed: int | None
    adapter: Path | None


def load_policies(run: Run) -> list[Policy]:
    """The baseline and every policy that stage 04 trained.

    Raises:
        ValueError: an adapter is not the one that 04_train_kto/policies.json records.
    """
    entries = json.loads((run.path / TRAINING / "policies.json").read_text())
    policies = [Policy("baseline", None, None)]
    for entry in entries:
        adapter = run.path / entry["adapter"]
        if adapter_digest(adapter) != entry["digest"]:
            raise ValueError(f"{entry['adapter']} is not the adapter that policies.json records: run stage 04 again")
        policies.append(Policy(f"{entry['objective']}-seed{entry['seed']}", entry["seed"], adapter))
    return policies
