"""What a stop does to the labels: the same samples whole, ended behind their program, and cut at a string.

    python benchmarks/stop_strings.py [--instructions 456] [--k 4] [--out benchmarks/results/stop_strings.json]

Each completion is sampled once without a stop, to the limit of tokens or the model's own end. A stop only ends it earlier,
so the shortened text is its beginning: cut where ``stopping_point`` says, it is what the engine gives with the stop (its
rounding aside, which follows the batch). All three are judged by lesson 01's tests as lesson 03 does.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from plum_utils.data.selection import training_instructions
from plum_utils.models.extract import extract_code
from plum_utils.models.sampling import open_policy_backend, sample_policy
from plum_utils.models.stopping import stopping_point
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.models.weights import resolve_model
from plum_utils.params import Params, load_params
from plum_utils.preferences.labels import label_samples
from plum_utils.preferences.verdicts import judge_samples
from plum_utils.sandbox import open_sandbox
from plum_utils.testgen.generator import responses
from plum_utils.testgen.suites import build_suites, references_by_instruction, suites_by_instruction

ROOT = Path(__file__).parents[1]
STRING = "\n```\n"  # which also opens a block
WAYS = {"stop_after_program": ([], True), "stop_string": ([STRING], False)}
SHOWN = 20  # differences that are kept with their texts


def shortened(row: dict[str, Any], way: str, p: Params) -> dict[str, Any]:
    """The sample as it would have ended with a stop."""
    cut = stopping_point(row["completion"], *WAYS[way])
    if cut is None:
        return row
    text = row["completion"][:cut]
    return row | {"completion": text, "finish_reason": "stop_string", "end": "", "code": extract_code(text, p.policy.prompt)}


def labels(p: Params, samples: list[dict[str, Any]], made: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(status, label) of each sample."""
    suites, references = suites_by_instruction(made), references_by_instruction(made)
    with open_sandbox(p) as sandbox, tempfile.TemporaryDirectory() as folder:
        verdicts = list(judge_samples(p, samples, suites, sandbox, Path(folder), references, len(samples)))
    found = label_samples(verdicts, samples, deduplicate=False)
    return list(zip(found.status, found.label))


def compared(whole: list[dict[str, Any]], cut: list[dict[str, Any]], before: list, now: list, tokenizer: Any
             ) -> dict[str, Any]:
    differ = [place for place in range(len(whole)) if before[place][1] != now[place][1]]
    tokens = [sum(len(tokenizer(row["completion"])["input_ids"]) for row in rows) for rows in (whole, cut)]
    return {"shortened": sum(one["completion"] != two["completion"] for one, two in zip(whole, cut)),
            "no_code": sum(not row["code"] for row in cut), "tokens": tokens[1], "tokens_whole": tokens[0],
            "labels_differ": len(differ),
            "why": dict(Counter(f"{before[place][0]} -> {now[place][0]}" for place in differ)),
            "differences": [{"instruction_id": whole[place]["instruction_id"], "whole": whole[place]["completion"],
                             "shortened": cut[place]["completion"]} for place in differ[:SHOWN]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=ROOT / "params" / "mini.yaml")
    parser.add_argument("--instructions", type=int, default=456)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--backend", default="auto", choices=("auto", "vllm", "transformers"))
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "stop_strings.json")
    options = parser.parse_args()
    p = load_params(options.params, {"sampling.stop": [], "sampling.stop_after_program": False, "sampling.k": options.k,
                                     "sampling.backend": options.backend, "sampling.max_tokens": options.max_tokens})
    everything = training_instructions(p)
    chosen = random.Random(p.seed).sample(everything, min(options.instructions, len(everything)))
    model_path = resolve_model(p.policy.model, p.policy.revision)
    tokenizer = load_tokenizer(model_path)
    with tempfile.TemporaryDirectory() as folder:
        with open_sandbox(p) as sandbox:
            made = build_suites(responses(p, chosen, Path(folder) / "made"), sandbox)
        backend = open_policy_backend(p, model_path)
        samples = sample_policy(p, backend, tokenizer, chosen, Path(folder) / "samples")
        backend.close()
    tested = set(suites_by_instruction(made))
    whole = [row for row in samples if row["instruction_id"] in tested]
    before = labels(p, whole, made)
    report: dict[str, Any] = {"model": p.policy.model, "instructions": len(tested), "samples": len(whole),
                              "labels": dict(Counter(label for _, label in before))}
    for way in WAYS:
        cut = [shortened(row, way, p) for row in whole]
        report[way] = compared(whole, cut, before, labels(p, cut, made), tokenizer)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: {name: one for name, one in value.items() if name != "differences"}
                      if isinstance(value, dict) else value for key, value in report.items()}, indent=1))


if __name__ == "__main__":
    main()
