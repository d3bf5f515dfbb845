"""Our verdicts beside evalplus' own on HumanEval+ and MBPP+: canonical solutions, mutants, and a policy's samples.

    python benchmarks/parity.py [--params params/mini.yaml] [--out benchmarks/results/parity.json]

Needs evalplus' data (``HUMANEVAL_OVERRIDE_PATH``, ``MBPP_OVERRIDE_PATH``). Both sides judge base and plus tests; evalplus
runs in processes of its own, without isolation, on programs of known origin only: benchmark solutions, their mutants,
and what the policy of a parameter file writes (kept by shard below ``--work``), which our sandbox has seen first.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from evalplus.eval import PASS, untrusted_check
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
from evalplus.gen.util import trusted_exec
from programs import mutants
from tqdm import tqdm

from plum_utils.data.evalplus import evalplus_rows
from plum_utils.data.problems import load_suite
from plum_utils.evaluation.scoring import score
from plum_utils.sandbox import Limits, Sandbox

ROOT = Path(__file__).parents[1]
SUITES = ("humaneval", "mbpp")
DRAWS = ((1, 0.0), (2, 0.8))  # (samples of each problem, temperature)
# What is known to differ, and why. Everything else is a defect of ours.
KNOWN = {
    "HumanEval/32": "evalplus 0.3.1 fails every solution: its oracle for this task leaves its list of details empty",
    "Mbpp/255": "evalplus limits a forked process to 4 GiB of address space, and the expected values of the plus tests "
                "(1 GB) and whatever else the calling process holds count; with EVALPLUS_MAX_MEMORY_BYTES raised it "
                "agrees",
}


def policy_samples(path: Path, work: Path) -> dict[str, list[tuple[str, str]]]:
    """suite -> distinct (task id, program) that the policy, untrained, writes greedily and at a temperature.

    In a process of its own: evalplus limits the address space of what it forks to 4 GiB, and an engine's libraries
    alone take more.
    """
    from transformers import AutoTokenizer

    from plum_utils.evaluation.solutions import generate_solutions
    from plum_utils.models.engines import open_backend
    from plum_utils.models.weights import resolve_model
    from plum_utils.params import load_params

    p = load_params(path)
    model = resolve_model(p.policy.model, p.policy.revision)
    tokenizer = AutoTokenizer.from_pretrained(model)
    backend = open_backend(p.sampling.backend, model, p.policy.dtype, p.training.lora_r)
    written = {name: [row for n, temperature in DRAWS for row in generate_solutions(
        p, backend, tokenizer, load_suite(name), work, n=n, temperature=temperature,
        max_tokens=p.evaluation.max_tokens, adapter=None, label=f"{name}-T{temperature:g}")]
        for name in SUITES}
    backend.close()
    return {name: list(dict.fromkeys((row["task_id"], row["solution"]) for row in rows))
            for name, rows in written.items()}


def candidates(problem, n_mutants: int, rng: random.Random) -> list[str]:
    """The canonical solution and mutants of it that need no endless loop to be wrong."""
    tree = ast.parse(problem.reference)
    endless = any(isinstance(node, ast.While) for node in ast.walk(tree))
    found = mutants(problem.reference)
    chosen = found[-1:] if endless else rng.sample(found, min(n_mutants, len(found)))
    return [problem.reference, *chosen]


def theirs(suite: str, row: dict, code: str, cache: dict) -> tuple[bool, bool]:
    """evalplus' verdicts on base and on plus tests."""
    if row["task_id"] not in cache:
        cache.clear()  # expected values of up to 1 GB would count against evalplus' limit of 4 GiB for a forked process
        reference, name = row["prompt"] + row["canonical_solution"], row["entry_point"]
        cache[row["task_id"]] = [(inputs, *trusted_exec(reference, inputs, name, record_time=True,
                                                        output_not_none=name in MBPP_OUTPUT_NOT_NONE_TASKS))
                                 for inputs in (row["base_input"], row["plus_input"])]
    passed = []
    for inputs, expected, times in cache[row["task_id"]]:
        status, _ = untrusted_check(suite, code, inputs, row["entry_point"], expected, row["atol"], times,
                                    fast_check=True)
        passed.append(status == PASS)
    return passed[0], passed[0] and passed[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--params", type=Path, default=ROOT / "params" / "mini.yaml")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "parity")
    parser.add_argument("--mutants", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng, differences, counts = random.Random(0), [], Counter()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        written = pool.submit(policy_samples, options.params, options.work).result()
    for suite in SUITES:
        problems = {problem.task_id: problem for problem in load_suite(suite)}
        rows = {row["task_id"]: row for row in evalplus_rows(suite)}
        solutions = [{"task_id": name, "sample_index": number, "solution": code, "kind": "mutant" if number else "canonical"}
                     for name, problem in problems.items()
                     for number, code in enumerate(candidates(problem, options.mutants, rng))]
        solutions += [{"task_id": name, "sample_index": 100 + number, "solution": text, "kind": "sample"}
                      for number, (name, text) in enumerate(written[suite])]
        with Sandbox(workers=2, limits=Limits(seconds=10, memory_mb=1024)) as sandbox:
            ours = score(list(problems.values()), solutions, sandbox)
        cache: dict = {}
        for solution, row in zip(tqdm(solutions, desc=f"evalplus, {suite}"), ours):
            name = solution["task_id"]
            base, plus = theirs(suite, rows[name], problems[name].preamble + problems[name].runnable(solution["solution"]), cache)
            for kind, us, them, assurance in (("base", row["base_passed"], base, row["assurance"]),
                                              ("plus", bool(row["plus_passed"]), plus, row["plus_assurance"])):
                counts[suite, kind, solution["kind"], "same" if us == them else "different"] += 1
                counts[suite, kind, solution["kind"], assurance or "not-run"] += 1
                if us != them:
                    differences.append({"task_id": name, "tests": kind, "program": solution["kind"], "ours": us,
                                        "evalplus": them, "status": row["status"], "plus_status": row["plus_status"],
                                        "detail": row["detail"], "why": KNOWN.get(name, "UNEXPLAINED"),
                                        "solution": solution["solution"]})
    for key, count in sorted(counts.items()):
        print(*key, count)
    for one in differences:
        print({key: value for key, value in one.items() if key != "solution"})
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"counts": {" ".join(key): count for key, count in sorted(counts.items())},
                                           "differences": differences}, indent=1) + "\n")


if __name__ == "__main__":
    main()
