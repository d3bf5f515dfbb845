"""A tiny random Llama with a byte tokenizer, labelled rows for it, and parameters that train it in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from plum_utils.params import TrainingParams
from plum_utils.training import policy, trainers

END = "<|end|>"
BASE = dict(quantization="none", lora_r=4, lora_alpha=8, learning_rate=2e-2, sft_learning_rate=2e-2, batch_size=4,
            accumulation=1, save_steps=2, max_length=128, gradient_checkpointing=False,
            scheduler="constant_with_warmup", warmup_ratio=0.0)


def params(**changes) -> TrainingParams:
    return TrainingParams(**BASE | changes)


def row(instruction: int, completion: str, label: bool, end: str = "") -> dict:
    return {"instruction_id": f"i{instruction}", "prompt": [{"role": "user", "content": f"ask {instruction}?\n"}],
            "completion": [{"role": "assistant", "content": completion + end}], "label": label}


def kto_rows(instructions: int = 6) -> list[dict]:
    """For each instruction two chosen completions and two rejected ones, of different lengths."""
    return [row(one, f"{'good' if label else 'bad'} {one}" + "!" * n, label, END if n else "")
            for one in range(instructions) for label in (True, False) for n in range(2)]


def all_rows() -> dict[str, list[dict]]:
    rows = kto_rows()
    sft = [{key: value for key, value in one.items() if key != "label"} for one in rows if one["label"]]
    dpo = [{"instruction_id": good["instruction_id"], "prompt": good["prompt"], "chosen": good["completion"],
            "rejected": bad["completion"]} for good, bad in zip(rows[::4], rows[2::4])]
    return {"kto": rows, "dpo": dpo, "sft": sft}


def kto_trainer(tiny: str, tmp_path: Path, rows: list[dict], changed: TrainingParams, dtype: str = "float32"):
    model = policy.load_policy(tiny, changed, dtype)
    return trainers.make_kto_trainer(model, policy.verbatim_tokenizer(tiny), rows, changed, tmp_path / "out", seed=3)


def save_tiny(folder: Path) -> str:
    """Save a two-layer Llama and a byte tokenizer whose only merge is of two line breaks; returns the folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    newline = "\u010a"
    vocab = {piece: number for number, piece in enumerate([*alphabet, newline * 2])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[(newline, newline)]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True), AddedToken("<pad>", special=True)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token="<pad>")
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(wrapped), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                         pad_token_id=wrapped.pad_token_id, eos_token_id=wrapped.eos_token_id, bos_token_id=None)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
