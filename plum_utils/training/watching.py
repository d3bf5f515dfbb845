"""What a training shows of itself: trackers, speed and memory of each step, and whether chosen programs get less likely."""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from trl.trainer.utils import compute_mfu, get_peak_flops

from plum_utils.params import Params, TrainingParams
from plum_utils.training.flops import attention_flops, linear_weights, passes

PROJECT = "plum-study"
MEASURED = ("tokens_per_second", "samples_per_second", "peak_gib", "mfu")  # of a history's columns; they differ between runs
OTHER_PEAKS = {"NVIDIA GeForce RTX 4090": 165e12}  # dense bfloat16 FLOP/s of its data sheet; TRL's table has no GeForce
CHOSEN = "rewards/chosen"


@dataclass(frozen=True)
class Watch:
    """What a run gives to a training that is to be watched.

    Args:
        run: all parameters: its name is the trackers', and validation asks and judges as stages 02 and 03 do.
        rows: the kept-out instructions (``03_preferences/validation.jsonl``).
    """

    run: Params
    rows: list[dict[str, Any]] = field(default_factory=list)


def check_tracker(name: str) -> None:
    """Raise ``ValueError`` where the tracker's package is not installed."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ValueError(f"training.report_to: {name} is not installed; pip install {name}, or set training.report_to: none")


def add_tracker(trainer: Any, params: TrainingParams, watch: Watch, stage_dir: Path, name: str) -> None:
    """Let transformers' own integration report what the trainer logs; of several processes the first one's alone does.

    TensorBoard writes to ``<stage_dir>/tensorboard/<run name>``. Trackio, wandb and MLflow keep to their own environment
    variables; a training that goes on after a kill is a second run of the same name there.

    Args:
        name: of the training, as ``kto-seed0``; the run's name goes before it.
    """
    if params.report_to == "none":
        return
    check_tracker(params.report_to)
    trainer.args.run_name, trainer.args.project = f"{watch.run.name}-{name}", PROJECT
    os.environ.setdefault("WANDB_PROJECT", PROJECT)
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", PROJECT)
    callback = get_reporting_integration_callbacks(params.report_to)[0]()
    if params.report_to == "tensorboard":
        callback.logging_dir = str(stage_dir / "tensorboard" / trainer.args.run_name)
    trainer.add_callback(callback)
    if params.report_to == "wandb":
        trainer.add_callback(EndWandb())


class EndWandb(TrainerCallback):
    """Ends wandb's run with the training: transformers leaves it open, and the next seed's steps would go into it."""

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        import wandb

        if state.is_world_process_zero:
            wandb.finish()


def peak_resident() -> int:
    """Bytes of this process's largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)  # macOS: bytes


class MeasureSteps(TrainerCallback):
    """Adds to what TRL logs of each step (``MEASURED``): tokens and rows a second, the most memory so far in GiB (of the
    first process's tensors on its GPU; without one, resident), and model FLOP utilisation in percent.

    Tokens are those of the rows themselves, not of KTO's KL pairs; a row of DPO is a pair. The utilisation is against the
    data sheet's peak, and there is none where that is not known, as on a CPU. It counts the head on every token, as TRL
    does: too much by a few percent, for prompts are not scored.
    """

    def __init__(self, trainer: Any, phase: str, params: TrainingParams):
        self.trainer, self.phase = trainer, phase
        model = trainer.model
        self.config, self.passes = model.config.get_text_config(), passes(phase, params)
        self.peak = peak_flops(str(model.dtype).removeprefix("torch."))
        self.weights = sum(linear_weights(self.config)) if self.peak else 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started, self.tokens, self.batches = time.perf_counter(), self.trainer._total_train_tokens, 1

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.batches += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.started
        tokens = self.trainer._total_train_tokens - self.tokens
        rows = self.batches * args.per_device_train_batch_size * args.world_size
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident()
        found = {"tokens_per_second": tokens / seconds, "samples_per_second": rows / seconds, "peak_gib": peak / 2**30}
        if self.peak:
            length = tokens / rows / (2 if self.phase == "dpo" else 1)
            forward = 2 * self.weights + attention_flops(self.config, length) / length
            found["mfu"] = compute_mfu(self.passes * forward, found["tokens_per_second"], args.world_size, self.peak)
        for name, value in found.items():
            self.trainer._metrics["train"][name].append(value)


def peak_flops(dtype: str) -> float | None:
    """The GPU's dense FLOP/s by its data sheet, as TRL knows it; ``None`` without a GPU, for others, and in float32."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return get_peak_flops(name, dtype) or (OTHER_PEAKS.get(name) if dtype == "bfloat16" else None)


class WatchChosen(TrainerCallback):
    """Says once, or stops, when chosen programs have become less likely than they were: ``rewards/chosen``, which starts at
    0, is below 0 in each of the last ``training.chosen_window`` steps. Its own checkpoint is left out then, so that a
    training killed here comes to the same end from the one before.
    """

    def __init__(self, params: TrainingParams, name: str):
        self.params, self.name = params, name
        self.fell: int | None = None  # the step

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.fell is not None or self.params.chosen_falls == "ignore":
            return
        last = [entry[CHOSEN] for entry in state.log_history if CHOSEN in entry][-self.params.chosen_window:]
        if len(last) < self.params.chosen_window or max(last) >= 0:
            return
        self.fell = state.global_step
        stops = self.params.chosen_falls == "stop"
        if state.is_world_process_zero:
            print(f"{self.name}: {'stopped' if stops else 'warning'} at step {self.fell}: {CHOSEN} was below 0, where it "
                  f"started, in each of the last {len(last)} steps: chosen programs become less likely. A lower "
                  "training.learning_rate or a higher training.beta holds them")
        if stops:
            control.should_training_stop, control.should_save = True, False
