"""A model's configuration, also where its hub cannot be reached: the shapes of the paper's models are bundled."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from plum_utils.models.weights import ModelNotFound, resolve_model

BUNDLED = Path(__file__).parents[1] / "data" / "model_shapes.json"


@cache
def _entries() -> dict[str, dict[str, Any]]:
    entries = json.loads(BUNDLED.read_text())
    return {name: entries[entry["like"]] | entry if "like" in entry else entry for name, entry in entries.items()}


@cache
def bundled_shapes() -> dict[str, dict[str, Any]]:
    """Fields of config.json by hub id, for every model of the paper; the file says where from (``source``)."""
    return {name: {key: value for key, value in entry.items() if key not in ("like", "source", "tokenizer")}
            for name, entry in _entries().items()}


def tokenizer_kind(name: str) -> str:
    """The kind of a bundled model's tokenizer: one of ``plum_utils.study.tiny_tokenizers.KINDS``."""
    return _entries()[name]["tokenizer"]


def model_config(name: str, revision: str | None = None) -> Any:
    """The transformers config of the embedded model, a folder or a hub id.

    Of a hub id: the downloaded config.json, else the bundled one, and only for a model that is not bundled the hub's
    (which takes half a minute to fail where there is none).

    Raises:
        ModelNotFound: none of these has it.
    """
    from transformers import AutoConfig

    if name.startswith("embedded:") or Path(name).is_dir():
        return AutoConfig.from_pretrained(resolve_model(name))
    try:
        return AutoConfig.from_pretrained(name, revision=revision, local_files_only=name in bundled_shapes())
    except (OSError, ValueError) as error:
        if name not in bundled_shapes():
            raise ModelNotFound(
                f"policy.model {name!r}: no folder, not loadable from the hub ({type(error).__name__}), and not in "
                f"{BUNDLED.name}. Give a folder with a config.json, or add the model's shape there.") from error
    fields = dict(bundled_shapes()[name])
    return AutoConfig.for_model(fields.pop("model_type"), **fields)
