"""Stage 4: one policy, phase by phase (``sft+kto``), in this process or several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoConfig

from plum_utils.models.number_types import number_type
from plum_utils.params import TrainingParams
from plum_utils.training.launch import launch_phase
from plum_utils.training.planner import card_memory, is_settled, settle_for
from plum_utils.training.trainers import train_phase
from plum_utils.training.watching import Watch, check_tracker, peak_resident


def settle(params: TrainingParams, model_path: str, dtype: str = "auto") -> TrainingParams:
    """The parameters with nothing left to choose: by the memory plan of the card at hand, or for a CPU.

    Raises:
        planner.DoesNotFit: nothing that may be chosen fits the card.
        ValueError: the tracker is not installed.
    """
    check_tracker(params.report_to)
    return settle_for(params, AutoConfig.from_pretrained(model_path), card_memory(), number_type(dtype).name)


def memory_used() -> str:
    """This process's largest resident size so far, and the GPU's where there is one, for a line of print."""
    text = f"peak memory {peak_resident() / 2**20:,.0f} MiB"
    return text + (f", GPU {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if torch.cuda.is_available() else "")


def train(objective: str, model_path: str, rows: dict[str, list[dict[str, Any]]], params: TrainingParams,
          stage_dir: Path, seed: int, dtype: str = "auto", policy_name: str = "", watch: Watch | None = None
          ) -> tuple[Path, pd.DataFrame]:
    """Train one policy; a finished phase is kept, an interrupted one goes on from its last complete checkpoint.

    Args:
        objective: ``kto``, ``dpo``, ``sft`` or ``sft+kto``: KTO then goes on with SFT's adapter, and its reference is
            the policy with that adapter as SFT left it.
        rows: for each single objective the rows its trainer takes.
        params: settled ones (``settle``).
        stage_dir: adapters go to ``<stage_dir>/<objective>-seed<seed>/<phase>/adapter``.
        policy_name: what the adapter's own record calls its base model; a path would name this machine.
        watch: for ``report_to`` and ``validate_steps``; without, there is no tracker and no validation, whatever ``params``
            say (a demonstration, a candidate of ``search``).

    Returns:
        The adapter's folder and the history: one row per step (``objective``, ``seed``, ``step``, ``loss``, ...).

    Raises:
        ValueError: the parameters are not settled.
    """
    if not is_settled(params):
        raise ValueError("training.quantization, gradient_checkpointing, fit_to_card: something is left to choose; give "
                         "train() what settle() returned")
    home = stage_dir / f"{objective.replace('+', '-')}-seed{seed}"
    histories: list[pd.DataFrame] = []
    adapter: Path | None = None
    for phase in objective.split("+"):
        phase_dir = home / phase
        if not (phase_dir / "history.json").exists():
            run_phase = train_phase if params.processes == 1 else launch_phase
            run_phase(phase, model_path, rows[phase], params, phase_dir, seed, dtype, adapter,
                      policy_name or Path(model_path).name, watch)
        histories.append(pd.read_json(phase_dir / "history.json").assign(objective=phase, seed=seed))
        adapter = phase_dir / "adapter"
    return phase_dir / "adapter", pd.concat(histories, ignore_index=True)


def outcome(adapter: Path, phase: str) -> dict[str, Any]:
    """How a phase of the training that left this adapter ended.

    Returns:
        ``steps`` made and ``planned``, ``kept_step`` (whose adapter it is), ``chosen_fell`` (the step at which
        ``training.chosen_falls`` struck, or ``None``) and ``validation``: ``step``, ``pass@1`` in percent.
    """
    return json.loads((adapter.parents[1] / phase / "outcome.json").read_text())
