"""Dry runs: everything of an experiment but its weights and its hub data.

In place of the model stands a tiny one of its real architecture with a tokenizer of its kind, random weights fitted
for seconds to answer with one of three programs (right, wrong, un-runnable), so that every label occurs; in place of
the data set a few rows in its real file format; and the generator's responses lie in its store, as if they had been
paid for. All six notebooks run for real, with the experiment's own prompt template, objective and data conversion.
"""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from typing import Any

from plum_utils.data import hub, selection
from plum_utils.data.evalplus import OVERRIDES
from plum_utils.data.livecodebench import bundled_path
from plum_utils.data.problems import load_suite
from plum_utils.jsonl import new_folder, write_json, write_jsonl
from plum_utils.models.prompts import policy_message, render
from plum_utils.models.shapes import bundled_shapes, tokenizer_kind
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.params import Params, ParamsError, RowParams, load_params
from plum_utils.provenance import ROOT, portable
from plum_utils.runs import fingerprint
from plum_utils.study.batches import execute
from plum_utils.study.sweep_page import write_sweep_report
from plum_utils.study.sweeps import Experiment, Sweep, SweepRun, is_sweep, load_sweep, of_row
from plum_utils.study.tiny_tokenizers import write_tokenizer
from plum_utils.study.weak_hosts import check_host
from plum_utils.testgen import generator

# Heads of 32 numbers: the smallest that vLLM's attention on a CPU takes.
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "max_position_embeddings": 4096}
PROGRAMS = ("def answer(x):\n    return x + 1\n", "def answer(x):\n    return x - 1\n", "def answer(x):\n    return x +\n")
N_INSTRUCTIONS = 12
FIT_STEPS = 200
SMALL = {
    "generator.responses": 2, "generator.max_cost": None, "generator.live_instructions": 0,
    "sampling.k": 6, "sampling.max_tokens": 40, "sampling.shard_size": 8,
    "training.quantization": "none", "training.seeds": [0], "training.lora_r": 4, "training.batch_size": 4,
    "training.max_steps": 2, "training.save_steps": 1, "training.max_length": 512,
    "evaluation.k": [1, 2], "evaluation.max_tokens": 40, "evaluation.bootstrap": 200,
    "livecodebench.limit": 2, "livecodebench.max_tokens": 40, "livecodebench.start_date": None,
    "livecodebench.end_date": None, "livecodebench.platforms": [],
}


def dry_run(path: Path, outputs: Path, overrides: dict[str, Any], notebooks: Path = ROOT / "notebooks",
            row: int | None = None) -> int:
    """Run a parameter file, or every experiment of a sweep, or its ``row``, dry; returns the exit status.

    Args:
        outputs: folder of the runs' folders, and of the tiny models, data and responses (``parts``).
    """
    sweep, experiments = load_sweep(path, overrides) if is_sweep(path) else _alone(load_params(path, overrides), path)
    experiments = of_row(experiments, row)
    check_host([one.params for one in experiments])
    dry = [Experiment(dry_params(one.params, outputs / "parts"), one.path, one.row) for one in experiments]
    for suite, rows in (("humaneval", tiny_humaneval()), ("mbpp", tiny_mbpp())):  # variables of the notebooks' kernels
        file = outputs / "parts" / f"{suite}.jsonl"
        write_jsonl(file, rows)
        os.environ.setdefault(OVERRIDES[suite], str(file.resolve()))
    sweep = sweep.model_copy(update={"until": "06", "title": f"Dry run, not evidence: {sweep.title}"})
    failures = execute(sweep, dry, outputs, notebooks)
    print(f"report: {write_sweep_report(sweep, dry, outputs, path.stem, failures)}")
    return 1 if failures else 0


def _alone(params: Params, path: Path) -> tuple[Sweep, list[Experiment]]:
    row = RowParams(table="alone", model=params.policy.model, row="PLUM")
    sweep = Sweep(title=params.name, table="alone", runs=[SweepRun(params=path.name)])
    return sweep, [Experiment(params, path, row)]


def dry_params(params: Params, parts: Path) -> Params:
    """The experiment's parameters with its model, data and generator's store replaced, and everything small.

    Raises:
        ParamsError: a model whose architecture is not known, or a data set that is not one of the hub's.
    """
    if params.policy.model not in bundled_shapes():
        raise ParamsError(f"--dry: policy.model {params.policy.model!r} is of no known architecture; add it to "
                          "plum_utils/study/dry.py's models, which are those of plum_utils/data/model_shapes.json")
    if params.data.train not in hub.HUB_SETS:
        raise ParamsError(f"--dry: data.train {params.data.train!r} is no hub data set; it needs no dry run")
    values = params.model_dump(mode="json")
    changes = SMALL | {
        "policy.model": portable(tiny_model(params, parts)), "policy.revision": None,
        "data.source": portable(tiny_data(params.data.train, parts)), "data.revision": None,
        "data.train_limit": N_INSTRUCTIONS, "livecodebench.source": portable(bundled_path()),
        "generator.store": portable(parts / "responses"), "rounds": 1,
        "training.accumulation": params.training.processes,  # a batch a process
        "sampling.backend": "auto" if params.sampling.backend == "vllm" else params.sampling.backend,
        "evaluation.suites": [suite.model_dump() | {"limit": 2, "n": min(suite.n, 2)} for suite in params.evaluation.suites],
    }
    if params.labels.instructions:
        changes |= {"labels.instructions": N_INSTRUCTIONS - 2, "labels.first_k": 5}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        values[section] = values[section] | {name: value} if name else value
    small = Params.model_validate(values)
    fill_store(small)
    return small


# --- data and responses ----------------------------------------------------------------------------------------------

def questions() -> list[str]:
    """The dry data set's instructions: all ask for the same function in other words."""
    things = ("apples", "pages", "steps", "coins", "guests", "days", "points", "letters", "rows", "stamps", "keys", "cups")
    return [f"Write a Python function answer(x) that takes a number of {thing} and returns one more."
            for thing in things]


def tiny_data(name: str, parts: Path) -> Path:
    """A folder with the data set's files, in its real format; written once, so that runs on it stay up to date."""
    folder, solution = parts / name, f"```python\n{PROGRAMS[0]}```"
    (file,) = hub.HUB_SETS[name].files
    if (folder / file).exists():
        return folder
    if name == "oss_instruct":
        write_jsonl(folder / file, [{"lang": "python", "raw_index": index, "index": index, "seed": "x = 1",
                                     "openai_fingerprint": "", "problem": text, "solution": solution}
                                    for index, text in enumerate(questions())])
    elif name == "evol_instruct":
        write_json(folder / file, [{"instruction": text, "output": solution} for text in questions()])
    else:
        write_json(folder / file, [{"id": f"dry{index}_0", "conversations": [{"from": "human", "value": text},
                                                                             {"from": "gpt", "value": solution}]}
                                   for index, text in enumerate(questions())])
    return folder


def tiny_mbpp() -> list[dict[str, Any]]:
    """Two problems of ours in the format of evalplus' MbppPlus.jsonl."""
    return [{"task_id": f"Mbpp/{9001 + place}", "prompt": f'"""\n{text}\nassert answer(1) == 2\n"""\n', "entry_point": "answer",
             "canonical_solution": f"\n{PROGRAMS[0]}", "base_input": [[1], [2]], "plus_input": [[0], [-1]], "atol": 0,
             "contract": "", "assertion": "assert answer(1) == 2"}
            for place, text in enumerate(("Give the integer that follows x.", "Count on from x by a single step."))]


def tiny_humaneval() -> list[dict[str, Any]]:
    """HumanEval's first two problems, with inputs of ours, in the format of evalplus' HumanEvalPlus.jsonl."""
    inputs: list[list[Any]] = [[[[1.0, 2.0], 0.5], [[1.0, 1.1], 0.5]], [["()"], ["( ) (( ))"]]]
    return [{"task_id": problem.task_id, "prompt": problem.prompt, "entry_point": problem.entry_point, "contract": "",
             "canonical_solution": problem.reference.removeprefix(problem.prompt), "base_input": [base],
             "plus_input": [plus], "atol": 0} for problem, (base, plus) in zip(load_suite("humaneval", 2), inputs)]


def fill_store(params: Params) -> None:
    """Put a response to every request of stage 01 into the generator's store, so that nothing is asked."""
    response = (f"[Analysis]\nAdd one.\n[Solution]\n```python\n{PROGRAMS[0]}```\n[Start Code]\n```python\n"
                "def answer(x):\n    pass\n```\n[Test Code]\n```python\nassert answer(1) == 2\nassert answer(5) == 6\n```\n")
    generator.store_responses(params, selection.training_instructions(params), response)


# --- models ----------------------------------------------------------------------------------------------------------

def tiny_model(params: Params, parts: Path) -> Path:
    """A folder in a hub repository's layout: a model of the policy's architecture, fitted to the policy's prompt, and a
    tokenizer of its kind; made once."""
    architecture, kind = bundled_shapes()[params.policy.model]["model_type"], tokenizer_kind(params.policy.model)
    target = parts / f"{kind}-{fingerprint([params.policy.prompt, params.policy.answer_instruction, SIZES])}"
    if target.exists():
        return target
    texts = [*questions(), *PROGRAMS, "```python\n```\n", "### Instruction\n### Response\n", bundled_path().read_text()]
    with new_folder(target) as folder:
        write_tokenizer(kind, texts, folder)
        tokenizer = load_tokenizer(folder)
        prompts = [render(tokenizer, policy_message(text, params.policy.answer_instruction), params.policy.prompt,
                          params.policy.system) for text in questions()]
        fitted(architecture, tokenizer, prompts).save_pretrained(folder)
    return target


def fitted(architecture: str, tokenizer: Any, prompts: list[str]) -> Any:
    """A tiny random model of the architecture, fitted to answer every prompt with each of ``PROGRAMS`` as likely."""
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, **SIZES, vocab_size=64 * math.ceil(len(tokenizer) / 64), bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = AutoModelForCausalLM.from_config(config).train()
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=5e-3), random.Random(0)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, FIT_STEPS)  # else chance decides what the last steps leave
    answers = [f"```python\n{program}```\n{tokenizer.eos_token}" for program in PROGRAMS]
    for _ in range(FIT_STEPS):
        rows = [(prompt, prompt + rng.choice(answers)) for prompt in rng.sample(prompts, 6)]
        asked, whole = (tokenizer(list(texts), add_special_tokens=False)["input_ids"] for texts in zip(*rows))
        ids = pad_sequence([torch.tensor(row) for row in whole], batch_first=True)
        labels = pad_sequence([torch.tensor([-100] * len(start) + row[len(start):]) for start, row in zip(asked, whole)],
                              batch_first=True, padding_value=-100)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        slower.step()
        optimizer.zero_grad()
    return model.eval()
