"""Stage 4: KTO, DPO and SFT on TRL's trainers with LoRA or QLoRA adapters, resumable after a kill.

Rules kept here: KTO's KL neighbours belong to different instructions, its class weights follow the class counts, and
the policy is trained on the text that it sampled, with an end token only where it sampled one.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, load_from_disk
from peft import PeftModel
from transformers import PrinterCallback, TrainerCallback, set_seed

from plum_utils.jsonl import write_json
from plum_utils.models.completions import release_memory
from plum_utils.params import TrainingParams
from plum_utils.progress import Bar
from plum_utils.training.kl_order import kto_weights, repeat_epochs, trainable_rows
from plum_utils.training.policy import load_policy, new_adapter, save_adapter, verbatim_tokenizer
from plum_utils.training.speed import prepare_model, prepare_process
from plum_utils.training.validation import PASSED, Validate, curve
from plum_utils.training.watching import MeasureSteps, Watch, WatchChosen, add_tracker

COMPLETE = "complete.json"


def common_arguments(params: TrainingParams, output_dir: Path, seed: int, learning_rate: float, n_rows: int,
                     dtype: torch.dtype) -> dict[str, Any]:
    """Trainer arguments shared by the three objectives. A float16 policy trains under loss scaling: its gradients would
    vanish without.

    Raises:
        ValueError: the policy is float16 and what is trained of it would not be float32, which loss scaling needs.
    """
    steps = max(1, math.ceil(n_rows / (params.batch_size * params.accumulation)))
    steps = steps if params.max_steps < 0 else min(steps, params.max_steps)
    on_gpu = torch.cuda.is_available()
    scaled = on_gpu and dtype == torch.float16
    if scaled and (params.lora_r is None or params.quantization == "nf4" and not params.adapters_in_model_dtype):
        raise ValueError("training.lora_r: null, adapters_in_model_dtype: false: a float16 policy is trained under loss scaling, "
                         "which needs float32 adapters; leave both at their defaults, or set policy.dtype: float32")
    return dict(output_dir=str(output_dir), per_device_train_batch_size=params.batch_size,
                gradient_accumulation_steps=params.accumulation // params.processes, learning_rate=learning_rate,
                max_steps=steps, optim=params.optimizer, use_liger_kernel=params.liger, bf16=params.autocast,
                fp16=scaled,
                # The first step of a warm-up has a learning rate of 0.
                warmup_steps=0 if steps == 1 else max(1, round(params.warmup_ratio * steps)),
                lr_scheduler_type=params.scheduler,
                weight_decay=params.weight_decay, max_grad_norm=params.max_grad_norm, seed=seed, data_seed=seed,
                max_length=params.max_length, logging_steps=1, save_strategy="steps", save_steps=params.save_steps,
                save_total_limit=2, report_to=[], use_cpu=not on_gpu, dataloader_pin_memory=on_gpu,
                gradient_checkpointing=params.gradient_checkpointing is True, ddp_find_unused_parameters=False,
                disable_tqdm=True)  # ShowSteps says more


def make_kto_trainer(model: Any, tokenizer: Any, rows: list[dict[str, Any]], params: TrainingParams, output_dir: Path,
                     seed: int) -> Any:
    """TRL's KTOTrainer over the rows in an order that keeps the KL rule.

    Args:
        rows: KTO rows (``prompt``, ``completion``, ``label``, ``instruction_id``).

    Raises:
        ValueError: only one label, or fewer instructions than a batch needs.
    """
    from trl import KTOConfig, KTOTrainer

    ordered = repeat_epochs(rows, params.epochs, params.batch_size, seed, params.length_grouped)
    if not ordered:
        raise ValueError(f"training.batch_size is {params.batch_size}, but only "
                         f"{len({row['instruction_id'] for row in rows})} instructions have labelled samples: the KL "
                         "term needs a batch of different instructions. Lower the batch size or label more.")
    counts = Counter(row["label"] for row in ordered)
    desirable, undesirable = kto_weights(counts[True], counts[False], params.desirable_ratio)
    config = KTOConfig(**common_arguments(params, output_dir, seed, params.learning_rate, len(ordered), model.dtype),
                       beta=params.beta, desirable_weight=desirable, undesirable_weight=undesirable,
                       precompute_ref_log_probs=params.precompute_reference)
    dataset = Dataset.from_list(ordered) if params.processes == 1 else shared_dataset(ordered, output_dir / "rows")
    return _trainer(KTOTrainer, config, model, tokenizer, dataset, params)


def reference_points(trainer: Any) -> list[float]:
    """KTO's z0 in each batch of a trainer, in nats: how far its policy has moved from the model without the adapter, on
    TRL's mismatched pairs. Nothing is trained."""
    points = []
    for batch in trainer.get_train_dataloader():
        batch = trainer._prepare_inputs(batch)
        policy = trainer._compute_kl_logps(trainer.model, batch)
        with trainer.accelerator.unwrap_model(trainer.model).disable_adapter():
            reference = trainer._compute_kl_logps(trainer.model, batch)
        points.append((policy - reference).mean().clamp(min=0).item())
    return points


def shared_dataset(rows: list[dict[str, Any]], folder: Path) -> Dataset:
    """The rows as a data set whose cache all processes share: TRL's first process writes the precomputed reference
    there, where the others look for it."""
    state = PartialState()
    with state.main_process_first():
        if state.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            Dataset.from_list(rows).save_to_disk(folder)
        return load_from_disk(folder)


def _trainer(kind: type, config: Any, model: Any, tokenizer: Any, dataset: Dataset, params: TrainingParams) -> Any:
    config._n_gpu = 1  # a process trains on one device; transformers would copy the policy to all that it sees, TRL refuses
    trainer = kind(model=model, args=config, train_dataset=dataset, processing_class=tokenizer,
                   peft_config=new_adapter(model, params))
    prepare_model(trainer.model, params)
    return trainer


def make_dpo_trainer(model: Any, tokenizer: Any, rows: list[dict[str, Any]], params: TrainingParams, output_dir: Path,
                     seed: int) -> Any:
    """TRL's DPOTrainer over the balanced pairs (``prompt``, ``chosen``, ``rejected``), with DPO's loss or IPO's."""
    from trl import DPOConfig, DPOTrainer

    n_rows = round(len(rows) * params.epochs)
    config = DPOConfig(**common_arguments(params, output_dir, seed, params.learning_rate, n_rows, model.dtype),
                       beta=params.beta, loss_type=[params.dpo_loss])
    return _trainer(DPOTrainer, config, model, tokenizer, Dataset.from_list(rows).shuffle(seed), params)


def make_sft_trainer(model: Any, tokenizer: Any, rows: list[dict[str, Any]], params: TrainingParams, output_dir: Path,
                     seed: int) -> Any:
    """TRL's SFTTrainer over chosen completions; the loss is on the completion only."""
    from trl import SFTConfig, SFTTrainer

    n_rows = round(len(rows) * params.sft_epochs)
    config = SFTConfig(**common_arguments(params, output_dir, seed, params.sft_learning_rate, n_rows, model.dtype),
                       completion_only_loss=True)
    return _trainer(SFTTrainer, config, model, tokenizer, Dataset.from_list(rows).shuffle(seed), params)


class MarkComplete(TrainerCallback):
    """Marks a checkpoint once everything in it is on disk: a kill while saving leaves no marker.

    TRL keeps the reference of ``sft+kto`` as a second, frozen adapter. Where a checkpoint holds one, transformers loads
    it *instead of* the one in training (5.19, ``Trainer._load_from_checkpoint``), and the training would silently go
    on from its start. It is always SFT's adapter, so it is left out.
    """

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        args.distributed_state.wait_for_everyone()  # each process writes its own random state
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        shutil.rmtree(folder / "ref", ignore_errors=True)
        write_json(folder / COMPLETE, {})


class ShowSteps(TrainerCallback):
    """Progress of a training: seconds a step, and the time left."""

    def __init__(self, name: str):
        self.name = name

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = Bar(self.name, state.max_steps, "step", hidden=not state.is_world_process_zero)
        self.bar.add(state.global_step, made=False)  # where an interrupted training goes on

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.add()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


def last_checkpoint(output_dir: Path) -> str | None:
    """Newest complete checkpoint, or ``None``; incomplete ones are removed."""
    complete = []
    for folder in output_dir.glob("checkpoint-*"):
        if (folder / COMPLETE).exists():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    newest = max(complete, key=lambda folder: int(folder.name.rsplit("-", 1)[1]), default=None)
    return str(newest) if newest else None


TRAINERS = {"kto": make_kto_trainer, "dpo": make_dpo_trainer, "sft": make_sft_trainer}


def _steps(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a step, without the token count, which TRL starts again at zero after a resume, and without what was
    validated, which also has a step 0."""
    return [{key: value for key, value in entry.items() if key not in ("num_tokens", PASSED)} for entry in log
            if "loss" in entry]


def train_phase(phase: str, model_path: str, rows: list[dict[str, Any]], params: TrainingParams, phase_dir: Path,
                seed: int, dtype: str, adapter: Path | None, policy_name: str, watch: Watch | None = None) -> None:
    """Train one phase: ``adapter``, ``outcome.json`` (how it ended, and what was validated) and, last of all,
    ``history.json`` in ``phase_dir``. Where several processes train together, each calls this, and the first one writes.

    Args:
        adapter: to go on with, and to measure KTO's and DPO's rewards from; ``None`` for a new one.
        watch: as of ``phases.train``.
    """
    trainer = _trained(phase, model_path, rows, params, phase_dir, seed, dtype, adapter, policy_name, watch)
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None  # from all of them
    if trainer.is_world_process_zero():
        validate, state = trainer.pop_callback(Validate), trainer.state
        best = validate.take_best(phase_dir / "adapter") if validate and params.keep == "best" else None
        if best is None:
            save_adapter(trainer.accelerator.unwrap_model(trainer.model), phase_dir / "adapter", policy_name, weights)
        write_json(phase_dir / "outcome.json", {
            "steps": state.global_step, "planned": state.max_steps, "kept_step": best or state.global_step,
            "chosen_fell": trainer.pop_callback(WatchChosen).fell, "validation": curve(state.log_history)})
        write_json(phase_dir / "history.json", _steps(state.log_history))
        shutil.rmtree(phase_dir / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    del trainer, weights  # in a ring of references, so that the policy would stay beside the next one
    release_memory()


def _watch(trainer: Any, phase: str, model_path: str, params: TrainingParams, phase_dir: Path, policy_name: str,
           watch: Watch) -> None:
    """Add the tracker and the validation that the parameters ask for."""
    home = phase_dir.parent  # <objective>-seed<seed>
    name = home.name if phase == params.objective else f"{home.name}-{phase}"
    add_tracker(trainer, params, watch, home.parent, name)
    if params.validate_steps:
        trainer.add_callback(Validate(trainer, model_path, watch, params.validate_steps, phase_dir / "checkpoints",
                                      params.keep == "best", policy_name))


def _trained(phase: str, model_path: str, rows: list[dict[str, Any]], params: TrainingParams, phase_dir: Path,
             seed: int, dtype: str, adapter: Path | None, policy_name: str, watch: Watch | None) -> Any:
    set_seed(seed)
    prepare_process(params)
    tokenizer = verbatim_tokenizer(model_path)
    model = load_policy(model_path, params, dtype)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    rows, dropped = trainable_rows(tokenizer, rows, params.max_length)
    if dropped:
        print(f"{phase}: {len(dropped)} of {len(rows) + len(dropped)} rows are left out: with their prompts they are longer "
              f"than training.max_length ({params.max_length} tokens), or do not begin where the prompt ends")
    kept = {row.get("label") for row in rows}
    if lost := [row for row in dropped if row.get("label") not in kept]:
        which = f"{'desirable' if lost[0]['label'] else 'undesirable'} " if rows else ""
        raise ValueError(f"training.max_length: none of {len(lost)} {which}rows of {phase} fits whole into "
                         f"{params.max_length} tokens; raise it, or lower sampling.max_tokens and sample again")
    trainer = TRAINERS[phase](model, tokenizer, rows, params, phase_dir / "checkpoints", seed)
    trainer.add_callback(MarkComplete())
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ShowSteps(f"{phase}, seed {seed}"))
    trainer.add_callback(MeasureSteps(trainer, phase, params))
    trainer.add_callback(WatchChosen(params, f"{phase}, seed {seed}"))
    if watch is not None:
        _watch(trainer, phase, model_path, params, phase_dir, policy_name, watch)
    with trainer.accelerator.main_process_first():  # it removes incomplete ones
        checkpoint = last_checkpoint(phase_dir / "checkpoints")
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer
