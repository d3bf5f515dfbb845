"""Dry runs: everything of an experiment but its weights and its hub data.

In place of the model stands a tiny one of its real architecture, random weights fitted for seconds to answer with one of
three programs (right, wrong, un-runnable), so that every label occurs; in place of the data set a few rows in its real
file format; and the generator's responses lie in its store, as if they had been paid for. All six notebooks run for real,
with the experiment's own prompt template, objective and data conversion.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from plum_utils.data import hub, selection
from plum_utils.data.evalplus import OVERRIDES
from plum_utils.data.livecodebench import bundled_path
from plum_utils.jsonl import new_folder, write_json, write_jsonl
from plum_utils.models.prompts import policy_message, render
from plum_utils.models.shapes import bundled_shapes
from plum_utils.params import Params, ParamsError, RowParams, load_params
from plum_utils.provenance import ROOT, portable
from plum_utils.runs import fingerprint
from plum_utils.study.batches import execute
from plum_utils.study.sweep_page import write_sweep_report
from plum_utils.study.sweeps import Experiment, Sweep, SweepRun, is_sweep, load_sweep, of_row
from plum_utils.study.weak_hosts import check_host
from plum_utils.testgen import generator

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 4096, "bos_token_id": 0,
         "eos_token_id": 1, "pad_token_id": 2}
PROGRAMS = ("def answer(x):\n    return x + 1\n", "def answer(x):\n    return x - 1\n", "def answer(x):\n    return x +\n")
N_INSTRUCTIONS = 12
FIT_STEPS = 120
SMALL = {
    "generator.responses": 2, "generator.max_cost": None, "generator.live_instructions": 0,
    "sampling.backend": "transformers", "sampling.k": 6, "sampling.max_tokens": 40, "sampling.shard_size": 8,
    "training.quantization": "none", "training.seeds": [0], "training.lora_r": 4, "training.batch_size": 4,
    "training.accumulation": 1, "training.max_steps": 2, "training.save_steps": 1, "training.max_length": 512,
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
    os.environ.setdefault(OVERRIDES["mbpp"], str(tiny_mbpp(outputs / "parts").resolve()))  # for the notebooks' kernels
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


def tiny_mbpp(parts: Path) -> Path:
    """Two problems of ours in the format of evalplus' MbppPlus.jsonl."""
    rows = [{"task_id": f"Mbpp/{9001 + place}", "prompt": f'"""\n{text}\nassert answer(1) == 2\n"""\n', "entry_point": "answer",
             "canonical_solution": f"\n{PROGRAMS[0]}", "base_input": [[1], [2]], "plus_input": [[0], [-1]], "atol": 0,
             "contract": "", "assertion": "assert answer(1) == 2"}
            for place, text in enumerate(("Give the integer that follows x.", "Count on from x by a single step."))]
    write_jsonl(parts / "mbpp.jsonl", rows)
    return parts / "mbpp.jsonl"


def fill_store(params: Params) -> None:
    """Put a response to every request of stage 01 into the generator's store, so that nothing is asked."""
    response = (f"[Analysis]\nAdd one.\n[Solution]\n```python\n{PROGRAMS[0]}```\n[Start Code]\n```python\n"
                "def answer(x):\n    pass\n```\n[Test Code]\n```python\nassert answer(1) == 2\nassert answer(5) == 6\n```\n")
    generator.store_responses(params, selection.training_instructions(params), response)


# --- models ----------------------------------------------------------------------------------------------------------

def tiny_model(params: Params, parts: Path) -> Path:
    """A folder with a model of the policy's architecture and a tokenizer, fitted to the policy's prompt; made once."""
    architecture = bundled_shapes()[params.policy.model]["model_type"]
    target = parts / f"{architecture}-{fingerprint([params.policy.prompt, params.policy.answer_instruction, SIZES])}"
    if target.exists():
        return target
    tokenizer = tiny_tokenizer()
    prompts = [render(tokenizer, policy_message(text, params.policy.answer_instruction), params.policy.prompt,
                      params.policy.system) for text in questions()]
    with new_folder(target) as folder:
        fitted(architecture, tokenizer, prompts).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return target


def tiny_tokenizer() -> Any:
    """A byte-level BPE of 1,024 tokens, trained on the dry data set's texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts = [*questions(), *PROGRAMS, "```python\n```\n", "### Instruction\n### Response\n", bundled_path().read_text()]
    bpe.train_from_iterator(texts, vocab_size=SIZES["vocab_size"], special_tokens=["<s>", "</s>", "<pad>"])
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="</s>",
                                   pad_token="<pad>")


def fitted(architecture: str, tokenizer: Any, prompts: list[str]) -> Any:
    """A tiny random model of the architecture, fitted to answer every prompt with each of ``PROGRAMS`` as likely."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **SIZES)).train()
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=5e-3), random.Random(0)
    for _ in range(FIT_STEPS):
        for prompt in rng.sample(prompts, 6):
            asked, answer = (tokenizer(text, add_special_tokens=False)["input_ids"]
                             for text in (prompt, f"```python\n{rng.choice(PROGRAMS)}```\n{tokenizer.eos_token}"))
            labels = torch.tensor([[-100] * len(asked) + answer])
            model(input_ids=torch.tensor([asked + answer]), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
