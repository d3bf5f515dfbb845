"""Choose the training's hyper-parameters on a validation split of the training instructions, never on held-out problems.

Each candidate trains on the instructions that notebook 03 left in the preference sets and is measured on those it kept
out, with the generator's own consistent tests. Finished candidates are kept: the same command goes on after a kill.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd

from plum_utils.data.problems import Problem
from plum_utils.data.selection import training_instructions
from plum_utils.evaluation.scoring import score
from plum_utils.evaluation.solutions import generate_solutions
from plum_utils.jsonl import read_jsonl, write_json
from plum_utils.models.sampling import open_policy_backend
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.models.weights import resolve_model
from plum_utils.params import Params, TrainingParams
from plum_utils.runs import Run, fingerprint
from plum_utils.sandbox.opening import open_sandbox
from plum_utils.stages import PREFERENCES, TESTGEN
from plum_utils.stats import bootstrap_mean_interval, problem_rates
from plum_utils.testgen.suites import references_by_instruction, suites_by_instruction
from plum_utils.training.objectives import training_sets
from plum_utils.training.phases import settle, train

BASELINE = "baseline"
DECODINGS = ("greedy", "sampled")


def search(p: Params, run: Run) -> pd.DataFrame:
    """Train and measure every candidate of ``p.search``; one row each, the untrained policy first.

    Returns:
        Columns ``candidate``, ``rows`` (training samples), ``steps``, ``greedy``, ``sampled`` (pass@1 in percent on the
        validation instructions), ``greedy_change`` and ``sampled_change`` (against the untrained policy on the same
        instructions), each of the four with ``_low`` and ``_high`` (95% bootstrap interval over instructions).

    Raises:
        ValueError: notebook 03 of this run kept no validation instructions.
    """
    problems = _validation_problems(p, run)
    home = run.path / "search"
    untrained = _measured(p, problems, home, BASELINE, None, {})
    rows = [_row(p, untrained, untrained)]
    for candidate in p.search.candidates:
        training = TrainingParams.model_validate(p.training.model_dump() | candidate)
        name = ", ".join(f"{key}={value}" for key, value in candidate.items()) or "as in the file"
        sets = {phase: read_jsonl(run.stage_dir(PREFERENCES) / f"{one}.jsonl") for phase, one in training.sets().items()}
        rows.append(_row(p, _measured(p, problems, home, name, training, sets), untrained))
        run.save_table(pd.DataFrame(rows).round(2), "search")
        print(", ".join(f"{label} {rows[-1][label]:.1f}" for label in DECODINGS), "with", name, flush=True)
    return pd.DataFrame(rows)


def _row(p: Params, measured: dict[str, Any], untrained: dict[str, Any]) -> dict[str, Any]:
    row = {name: measured[name] for name in ("candidate", "rows", "steps")}
    for label in DECODINGS:
        rates = pd.Series(measured[label])
        for name, values in {label: rates, f"{label}_change": rates - pd.Series(untrained[label])}.items():
            low, high = bootstrap_mean_interval(values, p.evaluation.bootstrap, p.seed)
            row |= {name: 100 * values.mean(), f"{name}_low": 100 * low, f"{name}_high": 100 * high}
    return row


def _validation_problems(p: Params, run: Run) -> list[Problem]:
    kept_out = set(json.loads((run.stage_dir(PREFERENCES) / "validation_ids.json").read_text()))
    generated = read_jsonl(run.stage_dir(TESTGEN) / "testgen.jsonl")
    suites, references = suites_by_instruction(generated), references_by_instruction(generated)
    problems = [Problem(name, "validation", item.instruction, "", references[name], suites[name])
                for item in training_instructions(p) if (name := item.instruction_id) in kept_out & set(suites)]
    if not problems:
        raise ValueError("no validation instructions: set data.validation_fraction above 0 and run notebooks 01 to 03")
    return problems


def _measured(p: Params, problems: list[Problem], home: Path, name: str, training: TrainingParams | None,
              sets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """``candidate``, ``rows``, ``steps``, and of each decoding the share of passing answers by instruction."""
    folder = home / fingerprint([name, training and training.model_dump(), p.seed, [one.task_id for one in problems]])
    if (folder / "result.json").exists():
        return json.loads((folder / "result.json").read_text())
    row: dict[str, Any] = {"candidate": name, "rows": 0, "steps": 0}
    model, adapter = resolve_model(p.policy.model, p.policy.revision), None
    if training is not None:
        capped = training_sets(sets, training, p.seed)
        adapter, history = train(training.objective, model, capped, settle(training, model, p.policy.dtype), folder,
                                 p.seed, p.policy.dtype)
        row |= {"rows": sum(len(capped[phase]) for phase in training.objective.split("+")),
                "steps": int(history.groupby("objective").step.max().sum())}
    row |= _pass_rates(p, model, problems, folder, adapter)
    write_json(folder / "result.json", row)
    return row


def _pass_rates(p: Params, model: str, problems: list[Problem], folder: Path, adapter: Path | None
                ) -> dict[str, dict[str, float]]:
    tokenizer = load_tokenizer(model)
    rates = {}
    with closing(open_policy_backend(p, model, p.training.lora_r)) as backend, open_sandbox(p) as sandbox:
        for label, n, temperature in zip(DECODINGS, (1, p.search.n), (0.0, p.sampling.temperature)):
            solutions = generate_solutions(p, backend, tokenizer, problems, folder / "shards", n=n,
                                           temperature=temperature, max_tokens=p.sampling.max_tokens, adapter=adapter,
                                           label=label)
            rates[label] = problem_rates(pd.DataFrame(score(problems, solutions, sandbox, progress=False))).to_dict()
    return rates
