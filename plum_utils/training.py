"""Stage 4: KTO, DPO and SFT on TRL's trainers with LoRA or QLoRA adapters, resumable after a kill.

Rules kept here: KTO's KL neighbours belong to different instructions, its class weights follow the class counts, and
the policy is trained on the text that it sampled, with an end token only where it sampled one.
"""

from __future__ import annotations

import json
import math
import random
import resource
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)

from plum_utils.distributed_training import is_sharded, launch_phase, shared_dataset
from plum_utils.jsonl import write_json
from plum_utils.memory import card_memory, settle_for
from plum_utils.models.number_type import number_type
from plum_utils.params import TrainingParams
from plum_utils.progress import Bar
from plum_utils.speed import prepare_model, prepare_process

# Prompts are stored rendered, and completions with the end token where the policy sampled one: this template adds
# nothing to either. (TRL appends an end token by itself only to rows that are plain text, not conversations.)
VERBATIM_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
COMPLETE = "complete.json"


def kto_weights(n_desirable: int, n_undesirable: int, ratio: float = 1.0) -> tuple[float, float]:
    """Class weights with ``(w_d * n_d) / (w_u * n_u) == ratio``, the smaller weight being 1.

    Source: KTO paper (Ethayarajh et al. 2024), section 4.2, Eq. 8: the ratio should lie in [1, 4/3].

    Raises:
        ValueError: one side is empty.
    """
    if not n_desirable or not n_undesirable:
        raise ValueError(f"KTO needs both labels; got {n_desirable} desirable and {n_undesirable} undesirable samples. "
                         "Sample more (sampling.k) or take easier instructions.")
    desirable = ratio * n_undesirable / n_desirable
    return (desirable, 1.0) if desirable >= 1 else (1.0, 1 / desirable)


def order_for_kl(rows: list[dict[str, Any]], batch_size: int, seed: int, length_grouped: bool = True
                 ) -> list[dict[str, Any]]:
    """Rows in batches of ``batch_size`` different instructions, of like length, with both labels in each.

    TRL pairs each prompt with the completion of its left neighbour in the same per-device batch (the first with the
    last). Were both of one instruction, the "mismatched" pair would be a matched one and the KL estimate wrong. Rows
    go, by length rank within their label (by chance, where not ``length_grouped``), into the first batch that holds no
    row of their instruction; what is left in unfilled batches is dropped, and the caller can count it.

    Returns:
        Rows in training order, batches shuffled; its length is a multiple of ``batch_size``.
    """
    rng = random.Random(seed)
    ranked = _by_length_rank(rows, rng) if length_grouped else rng.sample(rows, len(rows))
    full, filling = [], []
    for row in ranked:
        batch = next((one for one in filling if row["instruction_id"] not in one), None)
        if batch is None:
            batch = {}
            filling.append(batch)
        batch[row["instruction_id"]] = row
        if len(batch) == batch_size:
            filling.remove(batch)
            full.append(rng.sample(list(batch.values()), batch_size))
    rng.shuffle(full)
    return [row for batch in full for row in batch]


def _by_length_rank(rows: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    ranks = []
    for label in (True, False):
        group = [row for row in rows if row["label"] is label]
        group.sort(key=lambda row: len(row["prompt"][0]["content"]) + len(row["completion"][0]["content"]))
        ranks += [((place + rng.random()) / len(group), place, row) for place, row in enumerate(group)]
    return [row for *_, row in sorted(ranks, key=lambda item: item[:2])]


def repeat_epochs(rows: list[dict[str, Any]], epochs: float, batch_size: int, seed: int, length_grouped: bool = True
                  ) -> list[dict[str, Any]]:
    """``epochs`` passes over the rows, each in its own order, as one list; a last fraction is a part of a pass."""
    ordered: list[dict[str, Any]] = []
    for epoch in range(math.ceil(epochs)):
        one = order_for_kl(rows, batch_size, seed * 1009 + epoch, length_grouped)
        share = min(1.0, epochs - epoch)
        ordered += one[: max(1, round(len(one) * share / batch_size)) * batch_size]
    return ordered


def settle(params: TrainingParams, model_path: str, dtype: str = "auto") -> TrainingParams:
    """The parameters with every ``auto`` decided: by the memory plan of the card at hand, or for a CPU.

    Raises:
        memory.DoesNotFit: nothing that may be chosen fits the card.
    """
    return settle_for(params, AutoConfig.from_pretrained(model_path), card_memory(), number_type(dtype).name)


def without_dropout(config: Any) -> Any:
    """A model's config, with every dropout set to zero. TRL switches off dropout *modules* alone, but StarCoder2's
    (0.1) are functions: policy and reference would each be read through other random holes."""
    for name in ("attention_dropout", "residual_dropout", "embedding_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def load_policy(model_path: str, params: TrainingParams, dtype: str = "auto") -> Any:
    """The policy to be trained; with ``quantization: nf4`` its linear layers are 4-bit NormalFloat with doubly
    quantised scales (QLoRA, Dettmers et al. 2023, section 3), all else keeps ``dtype``.

    PEFT's ``prepare_model_for_kbit_training`` is not used: it turns embeddings and output matrix into float32, which
    for a vocabulary of 92,416 costs 1.5 GB and makes the largest product of the step a float32 one.
    """
    config, quantization = AutoConfig.from_pretrained(model_path), None
    compute = getattr(torch, number_type(dtype).name)
    if params.quantization == "nf4":
        storage = compute if is_sharded() else torch.uint8  # the same bytes; FSDP takes floating-point tensors only
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage=storage,
                                          bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute)
    model = AutoModelForCausalLM.from_pretrained(model_path, config=without_dropout(config), dtype=compute,
                                                 quantization_config=quantization,
                                                 attn_implementation=params.attention)
    model.config.use_cache = False
    return model.train()  # in evaluation mode bitsandbytes repacks 4-bit weights on a CPU for good, for inference alone


def load_tokenizer(model_path: str) -> Any:
    """The policy's tokenizer for training, with the verbatim template and a padding token."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    tokenizer.chat_template = VERBATIM_TEMPLATE
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def trainable_rows(tokenizer: Any, rows: list[dict[str, Any]], max_length: int
                   ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows that train as they were sampled, and those that cannot: (kept, dropped).

    Dropped are rows whose prompt alone fills ``max_length`` (TRL would drop them too, but only after the batches are
    laid out, and every later KL pair would shift), and rows in which the prompt's last token merges with the
    completion's first, so that their context would not be the one that was sampled from.
    """
    def fits(row: dict[str, Any]) -> bool:
        prompt = row["prompt"][0]["content"]
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answers = [row[side][0]["content"] for side in ("completion", "chosen", "rejected") if side in row]
        return len(ids) < max_length and all(
            tokenizer(prompt + answer, add_special_tokens=False)["input_ids"][:len(ids)] == ids for answer in answers)

    kept = [fits(row) for row in rows]
    return [row for row, keep in zip(rows, kept) if keep], [row for row, keep in zip(rows, kept) if not keep]


def new_adapter(model: Any, params: TrainingParams) -> LoraConfig | None:
    """LoRA on all linear layers but the output head; ``None`` where there is an adapter to go on with, or where every
    weight is trained (``lora_r: null``)."""
    if params.lora_r is None or isinstance(model, PeftModel):
        return None
    return LoraConfig(r=params.lora_r, lora_alpha=params.lora_alpha, lora_dropout=params.lora_dropout,
                      target_modules="all-linear", task_type="CAUSAL_LM")


def peak_memory() -> str:
    """This process's largest resident size so far, and the GPU's where there is one, for a line of print."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS reports bytes, Linux KiB
    text = f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:,.0f} MiB"
    return text + (f", GPU {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if torch.cuda.is_available() else "")


def common_arguments(params: TrainingParams, output_dir: Path, seed: int, learning_rate: float, n_rows: int,
                     dtype: torch.dtype) -> dict[str, Any]:
    """Trainer arguments shared by the three objectives. A float16 policy trains under loss scaling: its gradients would
    vanish without."""
    steps = math.ceil(n_rows / (params.batch_size * params.accumulation))
    steps = steps if params.max_steps < 0 else min(steps, params.max_steps)
    on_gpu = torch.cuda.is_available()
    return dict(output_dir=str(output_dir), per_device_train_batch_size=params.batch_size,
                gradient_accumulation_steps=params.accumulation // params.processes, learning_rate=learning_rate,
                max_steps=steps, optim=params.optimizer, use_liger_kernel=params.liger, bf16=params.autocast,
                fp16=on_gpu and dtype == torch.float16,
                warmup_steps=max(1, round(params.warmup_ratio * steps)), lr_scheduler_type=params.scheduler,
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
    return _ready(KTOTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer,
                             peft_config=new_adapter(model, params)), params)


def _ready(trainer: Any, params: TrainingParams) -> Any:
    prepare_model(trainer.model, params)
    return trainer


def make_dpo_trainer(model: Any, tokenizer: Any, rows: list[dict[str, Any]], params: TrainingParams, output_dir: Path,
                     seed: int) -> Any:
    """TRL's DPOTrainer over the balanced pairs (``prompt``, ``chosen``, ``rejected``)."""
    from trl import DPOConfig, DPOTrainer

    n_rows = round(len(rows) * params.epochs)
    config = DPOConfig(**common_arguments(params, output_dir, seed, params.learning_rate, n_rows, model.dtype),
                       beta=params.beta)
    return _ready(DPOTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows).shuffle(seed),
                             processing_class=tokenizer, peft_config=new_adapter(model, params)), params)


def make_sft_trainer(model: Any, tokenizer: Any, rows: list[dict[str, Any]], params: TrainingParams, output_dir: Path,
                     seed: int) -> Any:
    """TRL's SFTTrainer over chosen completions; the loss is on the completion only."""
    from trl import SFTConfig, SFTTrainer

    n_rows = round(len(rows) * params.sft_epochs)
    config = SFTConfig(**common_arguments(params, output_dir, seed, params.sft_learning_rate, n_rows, model.dtype),
                       completion_only_loss=True)
    return _ready(SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows).shuffle(seed),
                             processing_class=tokenizer, peft_config=new_adapter(model, params)), params)


class MarkComplete(TrainerCallback):
    """Marks a checkpoint once everything in it is on disk: a kill while saving leaves no marker.

    TRL keeps the reference of ``sft+kto`` as a second, frozen adapter. Where a checkpoint holds one, transformers loads
    it *instead of* the one in training (5.19, ``Trainer._load_from_checkpoint``), and the training would silently go
    on from its start. It is always SFT's adapter, so it is left out.
    """

    def on_save(self, args, state, control, **_):
        args.distributed_state.wait_for_everyone()  # each process writes its own random state
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        shutil.rmtree(folder / "ref", ignore_errors=True)
        sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        partial = folder / (COMPLETE + ".partial")
        partial.write_text(json.dumps(sizes))
        partial.replace(folder / COMPLETE)


class ShowSteps(TrainerCallback):
    """Progress of a training: seconds a step, and the time left."""

    def __init__(self, name: str):
        self.name = name

    def on_train_begin(self, args, state, control, **_):
        self.bar = Bar(self.name, state.max_steps, "step", hidden=not state.is_world_process_zero)
        self.bar.add(state.global_step, made=False)  # where an interrupted training goes on

    def on_step_end(self, args, state, control, **_):
        self.bar.add()

    def on_train_end(self, args, state, control, **_):
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


def train(objective: str, model_path: str, rows: dict[str, list[dict[str, Any]]], params: TrainingParams,
          stage_dir: Path, seed: int, dtype: str = "auto", policy_name: str = "") -> tuple[Path, pd.DataFrame]:
    """Train one policy; a finished phase is kept, an interrupted one goes on from its last complete checkpoint.

    Args:
        objective: ``kto``, ``dpo``, ``sft`` or ``sft+kto``: KTO then goes on with SFT's adapter, and its reference is
            the policy with that adapter as SFT left it.
        rows: for each single objective the rows its trainer takes.
        stage_dir: adapters go to ``<stage_dir>/<objective>-seed<seed>/<phase>/adapter``.
        policy_name: what the adapter's own record calls its base model; a path would name this machine.

    Returns:
        The adapter's folder and the history: one row per step (``objective``, ``seed``, ``step``, ``loss``, ...).
    """
    params = settle(params, model_path, dtype)
    home = stage_dir / f"{objective.replace('+', '-')}-seed{seed}"
    histories, adapter = [], None
    for phase in objective.split("+"):
        phase_dir = home / phase
        if not (phase_dir / "history.json").exists():
            run_phase = train_phase if params.processes == 1 else launch_phase
            run_phase(phase, model_path, rows[phase], params, phase_dir, seed, dtype, adapter,
                      policy_name or Path(model_path).name)
        histories.append(pd.read_json(phase_dir / "history.json").assign(objective=phase, seed=seed))
        adapter = phase_dir / "adapter"
    return adapter, pd.concat(histories, ignore_index=True)


def _steps(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a step, without the token count, which TRL starts again at zero after a resume."""
    return [{key: value for key, value in entry.items() if key != "num_tokens"} for entry in log if "loss" in entry]


def train_phase(phase: str, model_path: str, rows: list[dict[str, Any]], params: TrainingParams, phase_dir: Path,
                seed: int, dtype: str, adapter: Path | None, policy_name: str) -> None:
    """Train one phase: ``adapter`` and ``history.json`` in ``phase_dir``. Where several processes train together, each
    calls this, and the first one writes.

    Args:
        adapter: to go on with, and to measure KTO's and DPO's rewards from; ``None`` for a new one.
    """
    trainer = _trained(phase, model_path, rows, params, phase_dir, seed, dtype, adapter)
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None  # from all of them
    if trainer.is_world_process_zero():
        save_adapter(trainer.accelerator.unwrap_model(trainer.model), phase_dir / "adapter", policy_name, weights)
        write_json(phase_dir / "history.json", _steps(trainer.state.log_history))
        shutil.rmtree(phase_dir / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _trained(phase: str, model_path: str, rows: list[dict[str, Any]], params: TrainingParams, phase_dir: Path,
             seed: int, dtype: str, adapter: Path | None) -> Any:
    set_seed(seed)
    prepare_process(params)
    tokenizer = load_tokenizer(model_path)
    model = load_policy(model_path, params, dtype)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    rows, _ = trainable_rows(tokenizer, rows, params.max_length)
    trainer = TRAINERS[phase](model, tokenizer, rows, params, phase_dir / "checkpoints", seed)
    trainer.add_callback(MarkComplete())
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ShowSteps(f"{phase}, seed {seed}"))
    with trainer.accelerator.main_process_first():  # it removes incomplete ones
        checkpoint = last_checkpoint(phase_dir / "checkpoints")
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def save_adapter(model: PeftModel, folder: Path, policy_name: str, weights: dict[str, torch.Tensor] | None = None
                 ) -> None:
    """Save the trained adapter alone; its record names no path of this machine, and its sets have a fixed order.

    Args:
        weights: the model's state, where it is not the model that holds it (sharded training).
    """
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, selected_adapters=["default"], state_dict=weights)
    record = json.loads((folder / "adapter_config.json").read_text())
    record |= {"base_model_name_or_path": policy_name, "target_modules": sorted(record["target_modules"])}
    write_json(folder / "adapter_config.json", record)
    (folder / "README.md").unlink(missing_ok=True)
