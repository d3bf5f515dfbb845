"""Give a preference set away: the rows that KTO and DPO train on, with a data card, in a folder that ``datasets`` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plum_utils.data.hub import HUB_SETS
from plum_utils.data.instructions import RECORDED
from plum_utils.jsonl import iter_jsonl, new_folder, sha256_file, to_jsonl
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.stages import PREFERENCES
from plum_utils.study.export import ExportError, is_made, public_name

SETS = ("kto", "dpo")
UNDESIRABLE = {  # by ``training.negatives``
    "failing": "runs, and fails one or takes too much time or memory", "unrunnable": "cannot run",
    "defining": "defines what the tests call, and fails one or takes too much time or memory",
    "undefined": "runs, and does not define what the tests call"}
MESSAGES = "a list of one message, `role` and `content`"
COLUMNS = {
    "kto": {"instruction_id": "of the instruction", "prompt": f"{MESSAGES}: the exact text that the model was given",
            "completion": f"{MESSAGES}: what the model wrote", "label": "true: desirable; false: undesirable"},
    "dpo": {"instruction_id": "of the instruction", "prompt": "as above", "chosen": f"{MESSAGES}: passed every test",
            "rejected": f"{MESSAGES}: ran, and failed a test"},
}


def export_dataset(p: Params, run: Run, target: Path, force: bool = False, resume: bool = False) -> Path:
    """Write ``kto.jsonl`` (with the rejected side that ``training.negatives`` names), ``dpo.jsonl`` where the run has pairs,
    and the data card into the folder ``target``.

    Args:
        force: replace ``target`` if it is there.
        resume: leave a ``target`` that is the export of these very rows as it is.

    Raises:
        ExportError: the run has no preference set, or its files are not as stage 03 left them; or ``target`` is there.
    """
    entry = run.manifest()["stages"].get(PREFERENCES, {})
    if entry.get("status") != "done":
        raise ExportError(f"{run.path}: no preference set here; run the stages up to 03 first. Of a run in rounds, give "
                          "the folder of one round")
    if damaged := run.damaged(entry):
        raise ExportError(f"{run.path / damaged}: missing, or not as stage 03 left it; run stage 03 again")
    files = {name: run.path / PREFERENCES / f"{p.training.sets()[name]}.jsonl" for name in SETS}
    digest = sha256_file(files["kto"])
    if is_made(target, digest, force, resume):
        return target
    with new_folder(target, replace=True) as folder:
        counts = {name: _copy(files[name], folder / f"{name}.jsonl") for name in SETS}
        (folder / "README.md").write_text(data_card(p, run, digest, counts))
    return target


def _copy(source: Path, target: Path) -> dict[str, int]:
    """Copy the rows whose text is UTF-8, for no reader of Parquet or of the hub takes others; no row: no file."""
    counts = {"rows": 0, "desirable": 0, "left out": 0}

    def kept() -> Iterator[dict[str, Any]]:
        for row in iter_jsonl(source):
            try:
                json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError:  # half of a surrogate pair, which models write now and then
                counts["left out"] += 1
                continue
            counts["rows"] += 1
            counts["desirable"] += row.get("label", False)
            yield row

    with open(target, "w") as stream:
        stream.writelines(to_jsonl([row]) for row in kept())
    if not counts["rows"]:
        target.unlink()
    return counts


def data_card(p: Params, run: Run, digest: str, counts: dict[str, dict[str, int]]) -> str:
    """README.md of a preference set: what its rows are, how they were made, whose terms hold.

    Args:
        digest: SHA-256 of the run's KTO rows.
        counts: of each set, its rows, desirable rows, and rows left out.
    """
    from huggingface_hub import DatasetCardData

    made = [name for name in SETS if counts[name]["rows"]]
    hub_set = HUB_SETS[p.data.train].repo if p.data.train in HUB_SETS else None
    head = DatasetCardData(
        license="other", pretty_name=p.name, task_categories=["text-generation"],
        source_datasets=[hub_set] if hub_set else None,
        tags=["code", "preference", "kto", "dpo", "model-written-code"],
        configs=[{"config_name": name, "data_files": f"{name}.jsonl"} for name in made])
    statuses = (run.path / "tables" / "verdicts.md").read_text()
    commit = run.manifest()["stages"][PREFERENCES].get("commit") or "unknown"
    columns = "\n\n".join(f"### {name}\n\n| column | |\n|---|---|\n" + "\n".join(
        f"| `{column}` | {text} |" for column, text in COLUMNS[name].items()) for name in made)
    rows = "\n".join(f"| {name} | {counts[name]['rows']:,} | {counts[name]['desirable'] if name == 'kto' else '-'} | "
                     f"{counts[name]['left out']} |" for name in made)
    return f"""---
{head.to_yaml()}
---
# {p.name}: preferences of {public_name(p.policy.model)} between its own programs

Made by PLUM: a model's own answers to programming instructions, labelled by running them against generated tests.

**The programs were written by a model and are untrusted. Run none of them outside of a sandbox.**

| set | rows | desirable | left out: no UTF-8 |
|---|---:|---:|---:|
{rows}

```python
from datasets import load_dataset

rows = load_dataset("THIS FOLDER OR REPOSITORY", "{made[0]}", split="train")
```

## Columns

{columns}

A completion ends with the model's end token where it wrote one. Training adds nothing to prompt and completion.

## What became of the samples

{statuses}
All samples that were judged. Duplicates and instructions that no sample solved are not in the sets.

## How it was made

| | |
|---|---|
| instructions | {hub_set or public_name(p.data.train)}{f", {p.data.train_limit} of them" if p.data.train_limit else ""} |
| tests | {_generator(p)} |
| samples | {public_name(p.policy.model)}, {p.sampling.k} an instruction, temperature {p.sampling.temperature:g} |
| labels | desirable: passes every test; undesirable: {UNDESIRABLE[p.training.negatives]} |
| run | parameters {p.name}; commit {commit} |
| the run's KTO rows | sha256 {digest} |

## Licences and terms

- Instructions: {_instruction_terms(p, hub_set)}
- Programs: written by {public_name(p.policy.model)}, whose licence may say what its outputs may be used for.
- Labels: they rest on tests ({_generator(p)}). The terms of a generator's provider may forbid
  to train other models with what rests on its outputs.
"""


def _generator(p: Params) -> str:
    return "recorded with the instructions" if p.generator.backend == "recorded" else f"written by {p.generator.model}"


def _instruction_terms(p: Params, hub_set: str | None) -> str:
    if p.data.train in RECORDED:
        return "written for plum-study, in the public domain (CC0 1.0)."
    return f"those of {hub_set or public_name(p.data.train)}; its own page has them."

