"""Samples a second of KTO on this machine: TRL's defaults, ours, and ours with each switch turned back, side by side.

    python benchmarks/training_speed.py --out benchmarks/results/training_speed.json

Each variant is a process of its own with a real ``KTOTrainer.train()``; a callback makes them take turns, one optimizer
step each, so that a slow minute of the machine hits all alike. As many as memory holds run beside TRL's defaults at a
time. Ratios are medians over the rounds. All variants but those of other orders see the same batches, so their losses
can be compared step by step.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TRL = ("trl", "trl_bf16", "trl_shuffled")  # the model by name (float32, or bfloat16), autocast, checkpointing
OURS: dict[str, dict[str, Any]] = {  # what each variant changes in the parameters
    "ours": {},  # params/mini.yaml
    "reference_before": {"precompute_reference": True},
    "checkpointing": {"gradient_checkpointing": True},
    "all_positions": {"score_completions_only": False},
    "give_memory_back": {"reuse_memory": False},
    "pefts_adapters": {"adapters_in_model_dtype": False},
    "autocast": {"autocast": True},
    "shuffled": {"length_grouped": False},
    "nf4": {"quantization": "nf4"},
    "adamw_8bit": {"optimizer": "adamw_bnb_8bit"},
    "sdpa": {"attention": "sdpa"},
    "compiled": {"compile": True},
}
BASELINE, SEED = "trl", 0
NAMES = {"trl": "TRL's defaults", "trl_bf16": "TRL's defaults, bfloat16 weights", "trl_shuffled": "TRL's defaults, any order",
         "ours": "ours", "compiled": "ours, layers compiled", "shuffled": "without: like lengths together",
         "all_positions": "without: completions alone scored", "give_memory_back": "without: freed memory kept",
         "sdpa": "without: eager attention", "checkpointing": "with: checkpointing", "autocast": "with: autocast",
         "pefts_adapters": "with: PEFT's float32 products", "reference_before": "with: reference beforehand (not counted)",
         "adamw_8bit": "with: 8-bit AdamW", "nf4": "with: NF4 weights (QLoRA)"}  # in the figure


def main() -> None:
    """Parent: start the workers, let them take turns, write and print the result. Worker: train when told to."""
    arguments = _arguments()
    if arguments.worker:
        return work(arguments.worker, arguments)
    others = [name for name in arguments.variants or [*TRL, *OURS] if name != BASELINE]
    variants: dict[str, Any] = {}
    for start in range(0, len(others), arguments.at_once - 1):
        together = take_turns([BASELINE, *others[start:start + arguments.at_once - 1]], arguments)
        _compare(together)
        variants = together | variants
    result = {"samples_a_step": arguments.batch_size * arguments.accumulation, "threads": arguments.threads,
              "variants": variants}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    if arguments.figure:
        from benchmarks.speed_figures import fig_training_speed

        fig_training_speed(result["variants"], NAMES).savefig(arguments.figure, dpi=110, metadata={"Software": None})


def take_turns(names: list[str], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Steps, seconds of set-up and peak memory of each variant, all measured in the same rounds."""
    workers = {name: Worker(name, arguments) for name in names}
    for number in range(arguments.rounds):
        for worker in workers.values():
            worker.step()
        print(f"round {number + 1}/{arguments.rounds}: " + ", ".join(f"{name} {worker.steps[-1]['seconds']:.1f} s"
                                                                     for name, worker in workers.items()), flush=True)
    return {name: worker.finish() for name, worker in workers.items()}


class Worker:
    """A variant in its own process; ``step`` lets it do one optimizer step and waits for it."""

    def __init__(self, name: str, arguments: argparse.Namespace):
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", name]
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "TQDM_DISABLE": "1"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         env=environment)
        self.name, self.steps = name, []
        self.ready = self._answer()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name}: the worker ended, exit status {self._process.wait()}; its message is above")

    def step(self) -> None:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.steps.append(self._answer())

    def finish(self) -> dict[str, Any]:
        self._process.stdin.close()
        last = self._answer()
        self._process.wait()
        return {"steps": self.steps} | self.ready | last


def _compare(variants: dict[str, dict[str, Any]]) -> None:
    """Add to each variant its speed against TRL's defaults (median of the rounds' ratios), and how far its losses lie
    from theirs (mean absolute difference of the steps)."""
    base = variants[BASELINE]["steps"]
    for one in variants.values():
        ratios = [theirs["seconds"] / mine["seconds"] for theirs, mine in zip(base, one["steps"])][1:]  # the first warms up
        one["speedup"] = round(statistics.median(ratios), 2)
        one["speedup_range"] = [round(min(ratios), 2), round(max(ratios), 2)]
        one["seconds_a_step"] = round(statistics.median(step["seconds"] for step in one["steps"][1:]), 3)
        one["loss_distance"] = round(statistics.mean(abs(theirs["loss"] - mine["loss"])
                                                     for theirs, mine in zip(base, one["steps"])), 5)


def show(result: dict[str, Any]) -> None:
    """Print one line a variant."""
    print(f"{'variant':20}{'s/step':>9}{'samples/s':>11}{'x TRL':>8}{'range':>14}{'|loss - TRL|':>14}{'peak MiB':>10}")
    for name, one in result["variants"].items():
        rate = result["samples_a_step"] / one["seconds_a_step"]
        print(f"{name:20}{one['seconds_a_step']:9.2f}{rate:11.2f}{one['speedup']:8.2f}"
              f"{'{:.2f}-{:.2f}'.format(*one['speedup_range']):>14}{one['loss_distance']:14.4f}{one['peak_mib']:10,.0f}")


# --- the worker ---------------------------------------------------------------------------------------------------

def work(name: str, arguments: argparse.Namespace) -> None:
    """Train one variant, a step for each line of standard input; the answers are JSON lines on standard output."""
    from transformers import TrainerCallback

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to standard error

    class Turns(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            self.told = sys.stdin.readline()
            if not self.told:
                raise EOFError
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **_):
            self.seconds = time.perf_counter() - self.started

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                kept = {key: logs[key] for key in ("loss", "kl", "rewards/margins", "grad_norm") if key in logs}
                answers.write(json.dumps({"seconds": self.seconds} | kept) + "\n")

    started = time.perf_counter()
    trainer = build(name, arguments)
    trainer.add_callback(Turns())
    answers.write(json.dumps({"set_up_seconds": round(time.perf_counter() - started, 1)}) + "\n")
    try:
        trainer.train()
    except EOFError:
        pass
    answers.write(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}) + "\n")


def build(name: str, arguments: argparse.Namespace) -> Any:
    """The variant's trainer over the run's KTO rows."""
    from plum_utils.jsonl import read_jsonl
    from plum_utils.models.weights import resolve_model
    from plum_utils.params import TrainingParams, load_params
    from plum_utils.training import kl_order, policy, trainers
    from plum_utils.training.speed import prepare_process

    base = load_params(ROOT / "params" / "mini.yaml").training
    changes = {"batch_size": arguments.batch_size, "accumulation": arguments.accumulation,
               "scheduler": "constant_with_warmup", "warmup_ratio": 0.0, "epochs": float(arguments.epochs),
               "save_steps": 10**6} | OURS.get(name, {}) | ({"length_grouped": False} if name == "trl_shuffled" else {})
    params = TrainingParams.model_validate(base.model_dump() | changes)
    model_path, rows = resolve_model("embedded:smollm2"), read_jsonl(arguments.rows)
    tokenizer = policy.verbatim_tokenizer(model_path)
    rows, _ = kl_order.trainable_rows(tokenizer, rows, params.max_length)
    folder = Path(tempfile.mkdtemp(prefix="plum-speed-"))
    if name in TRL:
        return trl_trainer(name, model_path, tokenizer, rows, params, folder)
    prepare_process(params)
    return trainers.make_kto_trainer(policy.load_policy(model_path, params), tokenizer, rows, params, folder, SEED)


def trl_trainer(name: str, model_path: str, tokenizer: Any, rows: list[dict[str, Any]], params: Any, folder: Path
                ) -> Any:
    """TRL as its documentation starts it: KTOConfig's own values but for what the experiment fixes."""
    from collections import Counter

    import torch
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    from plum_utils.training import kl_order, policy

    ordered = kl_order.repeat_epochs(rows, params.epochs, params.batch_size, SEED, params.length_grouped)
    counts = Counter(row["label"] for row in ordered)
    desirable, undesirable = kl_order.kto_weights(counts[True], counts[False], params.desirable_ratio)
    config = KTOConfig(output_dir=str(folder), per_device_train_batch_size=params.batch_size,
                       gradient_accumulation_steps=params.accumulation, learning_rate=params.learning_rate,
                       lr_scheduler_type=params.scheduler, warmup_steps=1, max_length=params.max_length,
                       beta=params.beta, desirable_weight=desirable, undesirable_weight=undesirable, seed=SEED,
                       logging_steps=1, save_strategy="no", report_to=[], use_cpu=not torch.cuda.is_available(),
                       model_init_kwargs={"dtype": "bfloat16"} if name == "trl_bf16" else None)
    return KTOTrainer(model=model_path, args=config, train_dataset=Dataset.from_list(ordered),
                      processing_class=tokenizer, peft_config=policy.new_adapter(None, params))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROOT / "outputs/mini/03_preferences/kto.jsonl",
                        help="KTO rows; default: those that `make study` labels")
    parser.add_argument("--rounds", type=int, default=8, help="optimizer steps of each variant")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=7, help="processes at a time; each takes about 2.7 GiB")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--variants", nargs="*", choices=[*TRL, *OURS])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/training_speed.json")
    parser.add_argument("--figure", type=Path, help="also draw loss curves and ratios into this PNG")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.rows.is_file():
        parser.error(f"{arguments.rows}: no such file; run `make study` first, or name a run's 03_preferences/kto.jsonl")
    return arguments


if __name__ == "__main__":
    main()
