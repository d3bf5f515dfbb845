"""Small tokenizers in the files of the paper's policies: each kind as its hub repository lays it out, written down without
a copy at hand, trained on a few texts. Dry runs and tests read them, for it is the kind that loaders get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from plum_utils.jsonl import write_json

SIZE = 700  # learnt pieces, the bytes among them
SPACE = "▁"  # sentencepiece's


def write_tokenizer(kind: str, texts: list[str], folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json of one of ``KINDS``, its pieces learnt from ``texts``."""
    tokenizer, config = KINDS[kind](texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", config | {"model_max_length": 16384})


def _deepseek(texts: list[str]) -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE under the label of a Llama tokenizer (DeepSeek-Coder, and what was fine-tuned from it)."""
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in
              (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")]
    tokenizer = _byte_level(texts, [*splits, pre_tokenizers.Digits(individual_digits=True)])
    begin, end = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    tokenizer.add_special_tokens([AddedToken(text, normalized=True, special=True) for text in (begin, end, "<|EOT|>")])
    return tokenizer, {"tokenizer_class": "LlamaTokenizerFast", "legacy": True, "add_bos_token": True,
                       "add_eos_token": False, "bos_token": begin, "eos_token": end, "pad_token": end,
                       "clean_up_tokenization_spaces": False, "sp_model_kwargs": {}, "unk_token": None}


def _starcoder2(texts: list[str]) -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE that takes digits one by one, which GPT-2's class does not (StarCoder2)."""
    end = "<|endoftext|>"
    tokenizer = _byte_level(texts, [pre_tokenizers.Digits(individual_digits=True)], (end,), use_regex=True)
    return tokenizer, {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "bos_token": end, "eos_token": end,
                       "unk_token": end, "clean_up_tokenization_spaces": True}


def _codeqwen(texts: list[str]) -> tuple[Tokenizer, dict[str, Any]]:
    """Sentencepiece's BPE under no label of its own, beside a qwen2 config (CodeQwen1.5)."""
    end, turns = "<|endoftext|>", ["<|im_start|>", "<|im_end|>"]
    tokenizer = _sentencepiece(texts, ["<unk>", "<s>", end, *turns])
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    template = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
    return tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "bos_token": "<s>",
                       "eos_token": end, "unk_token": "<unk>", "pad_token": end, "chat_template": template,
                       "clean_up_tokenization_spaces": False}


def _codellama(texts: list[str]) -> tuple[Tokenizer, dict[str, Any]]:
    """Sentencepiece's BPE with a space put in front, and taken off again (CodeLlama, and what was fine-tuned from it)."""
    tokenizer = _sentencepiece(texts, ["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, {"tokenizer_class": "CodeLlamaTokenizer", "legacy": None, "add_bos_token": True,
                       "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                       "clean_up_tokenization_spaces": False, "sp_model_kwargs": {}}


KINDS: dict[str, Callable[[list[str]], tuple[Tokenizer, dict[str, Any]]]] = {
    "deepseek-coder": _deepseek, "starcoder2": _starcoder2, "codeqwen": _codeqwen, "codellama": _codellama}


def _byte_level(texts: list[str], splits: list[Any], special: tuple[str, ...] = (), use_regex: bool = False
                ) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=list(special), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tokenizer


def _sentencepiece(texts: list[str], special: list[str]) -> Tokenizer:
    """No pre-tokenizer; what is in no piece becomes its bytes. Pieces lie within lines and begin with a space or none."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never")
    learner.train_from_iterator([line for text in texts for line in text.splitlines()],
                                trainers.BpeTrainer(vocab_size=SIZE - 256, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    merges = [*map(tuple, learnt["merges"]), (SPACE, SPACE), (SPACE * 2, SPACE * 2)]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"], SPACE * 2, SPACE * 4]
    model = models.BPE(vocab={piece: place for place, piece in enumerate(pieces)}, merges=merges, unk_token="<unk>",
                       fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return tokenizer
