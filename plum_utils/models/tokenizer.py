"""A model's tokenizer as its tokenizer.json describes it, the same one for every stage, engine and export.

``AutoTokenizer`` (transformers 5.19) chooses a class by labels in config.json and tokenizer_config.json, and many classes
take only vocabulary and merges out of tokenizer.json. DeepSeek-Coder's byte-level BPE is labelled ``LlamaTokenizerFast``
and CodeQwen1.5's sentencepiece-like BPE stands beside a ``qwen2`` config: both then read code without its spaces. vLLM
calls ``AutoTokenizer`` too, so it is given a folder that ``saved_tokenizer`` wrote.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plum_utils.jsonl import write_json

# Where add_bos_token counts beside tokenizer.json, as in transformers 4, with which these models were trained.
ADD_BOS = ("Llama", "CodeLlama", "Gemma")
PROBE = "def answer(x):\n    return x + 10\n\n\n\tif  x == 'naïve' :\n        pass\n"


class TokenizerError(RuntimeError):
    """A tokenizer that is missing, or that does not give a program's text back."""


def load_tokenizer(model_path: str | Path) -> Any:
    """The tokenizer in a model's folder, with its chat template and special tokens.

    Raises:
        TokenizerError: there is no tokenizer.json, or what was read does not encode as it does, or does not decode to
            the text that was encoded.
    """
    from tokenizers import Tokenizer
    from transformers import TokenizersBackend

    file = Path(model_path) / "tokenizer.json"
    if not file.exists():
        raise TokenizerError(
            f"{model_path}: no tokenizer.json. Of tokenizer.model or vocab.json alone transformers makes another "
            "tokenizer than the author's: take a model that has one, or add it to a local copy of the model (for a "
            "fine-tuned model its base model's, where the vocabulary is the same)")
    # Some configs ask for "clean" spaces before punctuation, which changes programs.
    tokenizer = TokenizersBackend.from_pretrained(model_path, clean_up_tokenization_spaces=False)
    if _begins_with_bos(file.with_name("tokenizer_config.json")) and tokenizer("a")["input_ids"][0] != tokenizer.bos_token_id:
        tokenizer.add_bos_token = True
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if ids != Tokenizer.from_file(str(file)).encode(PROBE, add_special_tokens=False).ids:
        raise TokenizerError(f"{model_path}: transformers does not encode as tokenizer.json says; compare "
                             "tokenizer_config.json with it, and report this with the versions of both packages")
    if (text := tokenizer.decode(ids)) != PROBE:
        raise TokenizerError(f"{model_path}: this tokenizer does not give a program back: {PROBE!r} becomes {text!r}. Its "
                             "tokenizer.json is of no use for code; take another model")
    return tokenizer


def _begins_with_bos(config: Path) -> bool:
    said = json.loads(config.read_text()) if config.exists() else {}
    return bool(said.get("add_bos_token")) and str(said.get("tokenizer_class")).startswith(ADD_BOS)


def spelled(tokenizer: Any, ids: list[int]) -> str:
    """The text of a prompt's tokens. A beginning-of-sequence token is decoded by itself, for sentencepiece's kind of decoder
    takes off the space that its encoder put in front only at the very beginning."""
    first = ids[:1] if ids[:1] == [tokenizer.bos_token_id] else []
    return tokenizer.decode(first) + tokenizer.decode(ids[len(first):])


def save_alone(model_path: str | Path, folder: str | Path) -> None:
    """Write the tokenizer to a folder of its own, where ``AutoTokenizer`` and vLLM read it rightly whatever the model is:
    of the tokenizer of a llama config they believe the class that it was saved with."""
    load_tokenizer(model_path).save_pretrained(folder)
    write_json(Path(folder) / "config.json", {"model_type": "llama"})


@contextmanager
def saved_tokenizer(model_path: str | Path) -> Iterator[str]:
    """A temporary folder of ``save_alone``."""
    with tempfile.TemporaryDirectory(prefix="plum-tokenizer-") as folder:
        save_alone(model_path, folder)
        yield folder


def read_by_class(folder: str | Path) -> bool:
    """Whether ``AutoTokenizer``, and with it vLLM, reads the folder's tokenizer as ``load_tokenizer`` does."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    ids = load_tokenizer(folder)(PROBE, add_special_tokens=False)["input_ids"]
    return theirs(PROBE, add_special_tokens=False)["input_ids"] == ids and theirs.decode(ids) == PROBE
