"""Validation while a policy is trained: greedy pass@1 on kept-out instructions, and the adapter of the best step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback

from plum_utils.models.completions import release_memory
from plum_utils.models.extract import extract_code
from plum_utils.models.transformers_engine import TransformersBackend
from plum_utils.sandbox import Program, Status, judge, open_sandbox
from plum_utils.training.policy import save_adapter
from plum_utils.training.watching import Watch

PASSED = "eval_pass@1"  # percent, among what TRL logs; trackers show it as eval/pass@1


@contextmanager
def inference_mode(model: Any) -> Iterator[None]:
    """The model without dropout and checkpointing; then every module as it was. 4-bit layers stay as in training, for on
    a CPU bitsandbytes would repack their weights for good."""
    from bitsandbytes.nn import Linear4bit

    modules = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modules:
            module.training = isinstance(module, Linear4bit)
        yield
    finally:
        for module, training in modules:
            module.training = training


def answers(model: Any, model_path: str, watch: Watch) -> list[str]:
    """The program in the policy's greedy answer to each kept-out instruction, asked as in sampling. Several processes
    share the instructions out, and each gets all programs."""
    how, template = watch.run.sampling, watch.run.policy.prompt
    release_memory()
    with inference_mode(model), PartialState().split_between_processes(watch.rows) as mine:
        backend = TransformersBackend(model_path, model=model)
        outputs = backend.generate([row["prompt"] for row in mine], max_tokens=how.max_tokens, stop=how.stop,
                                   stop_after_program=how.stop_after_program) if mine else []
    release_memory()
    return gather_object([extract_code(output.text, template) for (output,) in outputs])


def passed(programs: list[str], watch: Watch) -> float:
    """Percent of the programs that pass their instruction's tests."""
    made = [Program(row["instruction_id"], code, tuple(row["tests"]), row["reference"])
            for row, code in zip(watch.rows, programs)]
    with open_sandbox(watch.run) as sandbox:
        verdicts = judge(sandbox, made)
    return 100 * sum(verdict.status == Status.PASSED for verdict in verdicts) / len(verdicts)


class Validate(TrainerCallback):
    """Measures the policy before the first step, every ``training.validate_steps`` and after the last one, and keeps the
    adapter of the best step, the earliest of equal ones, where ``training.keep`` asks for it. What was measured is in the trainer's
    own log, which a checkpoint holds. No random number of the training's is drawn, so that it ends with the same bytes.

    Raises:
        ValueError: nothing to ask, or a policy whose weights are shared out (FSDP).
    """

    def __init__(self, trainer: Any, model_path: str, watch: Watch, every: int, folder: Path, keep_best: bool,
                 policy_name: str):
        if not watch.rows:
            raise ValueError("training.validate_steps: 03_preferences/validation.jsonl has no instruction; raise "
                             "data.validation_fraction and run lesson 03 again, or set training.validate_steps: 0")
        if trainer.is_fsdp_enabled:
            raise ValueError("training.validate_steps: expected 0 where accelerate shares out the policy's weights (FSDP), "
                             f"got {every}; take an accelerate_config of whole copies, or set it to 0")
        self.trainer, self.model_path, self.watch, self.every = trainer, model_path, watch, every
        self.folder, self.keep_best, self.policy_name = folder, keep_best, policy_name

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            self.trainer.log({PASSED: self._measure()})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        value = self._measure()
        self.trainer._metrics["train"][PASSED].append(value)
        best = best_step(curve(state.log_history))
        if self.keep_best and (best is None or value > best["pass@1"]) and state.is_world_process_zero:
            save_adapter(self._model(), self._place(state.global_step), self.policy_name)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Nothing goes back behind the checkpoint just saved, so of the adapters only its best is of use."""
        best = best_step(curve(state.log_history))
        if self.keep_best and best and state.is_world_process_zero:
            for place in self.folder.glob("best-*"):
                if place != self._place(best["step"]):
                    shutil.rmtree(place)

    def take_best(self, adapter: Path) -> int | None:
        """Put the best step's adapter there and return the step; ``None`` where no step was validated before a stop."""
        best = best_step(curve(self.trainer.state.log_history))
        if best is None:
            return None
        shutil.rmtree(adapter, ignore_errors=True)
        shutil.copytree(self._place(best["step"]), adapter)
        return best["step"]

    def _model(self) -> Any:
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def _measure(self) -> float:
        """The same in every process: the first one judges."""
        programs = answers(self._model(), self.model_path, self.watch)
        mine = [passed(programs, self.watch)] if self.trainer.is_world_process_zero() else []
        return gather_object(mine)[0]

    def _place(self, step: int) -> Path:
        return self.folder / f"best-{step}"


def curve(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured, by step, from a trainer's log: ``step``, ``pass@1`` in percent."""
    return [{"step": entry["step"], "pass@1": entry[PASSED]} for entry in log if PASSED in entry]


def best_step(measured: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first of the best entries, of those where something is trained: not before step 2, for warm-up begins with a learning
    rate of 0."""
    return max((entry for entry in measured if entry["step"] > 1), key=lambda entry: entry["pass@1"], default=None)
