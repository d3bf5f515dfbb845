"""The model to be trained, LoRA or QLoRA."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, BitsAndBytesConfig

from plum_utils.jsonl import write_json
from plum_utils.models.number_types import number_type
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.models.weights import load_model
from plum_utils.params import TrainingParams

# Prompts are stored rendered, and completions with the end token where the policy sampled one: this template adds
# nothing to either. (TRL appends an end token by itself only to rows that are plain text, not conversations.)
VERBATIM_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def without_dropout(config: Any) -> Any:
    """A model's config, with every dropout set to zero. TRL switches off dropout *modules* alone, but StarCoder2's
    (0.1) are functions: policy and reference would each be read through other random holes."""
    for name in ("attention_dropout", "residual_dropout", "embedding_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def is_sharded() -> bool:
    """Whether this is a worker whose launch shares out the model's weights too (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


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
    device = "cpu" if is_sharded() and quantization is None else None  # FSDP hands out the shares
    model = load_model(model_path, number_type(dtype).name, device, config=without_dropout(config),
                       quantization_config=quantization, attn_implementation=params.attention)
    model.config.use_cache = False
    return model.train()  # in evaluation mode bitsandbytes repacks 4-bit weights on a CPU for good, for inference alone


def verbatim_tokenizer(model_path: str) -> Any:
    """The policy's tokenizer for training, with the verbatim template and a padding token."""
    tokenizer = load_tokenizer(model_path)
    tokenizer.chat_template = VERBATIM_TEMPLATE
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def new_adapter(model: Any, params: TrainingParams) -> LoraConfig | None:
    """LoRA on all linear layers but the output head; ``None`` where there is an adapter to go on with, or where every
    weight is trained (``lora_r: null``)."""
    if params.lora_r is None or isinstance(model, PeftModel):
        return None
    return LoraConfig(r=params.lora_r, lora_alpha=params.lora_alpha, lora_dropout=params.lora_dropout,
                      target_modules="all-linear", task_type="CAUSAL_LM")


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
