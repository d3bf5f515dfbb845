"""Our verdicts beside evalplus' own on HumanEval+ and MBPP+: canonical solutions, mutants, and a policy's samples.

    python benchmarks/parity.py [--params params/mini.yaml] [--protocols study evalplus_chat evalplus_base]
                                [--limit N] [--no-samples] [--out benchmarks/results/parity.json]

Under ``study`` both sides judge the same programs. Under EvalPlus' protocols both start from the same completions: theirs
are cut, sanitised and judged by evalplus' own code. Programs of known origin are written as such completions.

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
from textwrap import indent

from evalplus.eval import PASS, untrusted_check
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
from evalplus.gen.util import trusted_exec
from evalplus.provider.utility import EOS, extra_eos_for_direct_completion
from evalplus.sanitize import sanitize
from programs import mutants
from tqdm import tqdm

from plum_utils.data.evalplus import evalplus_rows
from plum_utils.data.problems import load_suite
from plum_utils.evaluation.protocols import PROTOCOLS, load_problems
from plum_utils.evaluation.scoring import score
from plum_utils.evaluation.solutions import MOST_LINES
from plum_utils.params import EvaluationParams, SuiteParams, load_params
from plum_utils.sandbox import Limits, Sandbox

ROOT = Path(__file__).parents[1]
SUITES = ("humaneval", "mbpp")
DRAWS = {"study": ((1, 0.0), (2, 0.8)), "evalplus_chat": ((1, 0.0),), "evalplus_base": ((1, 0.0),)}  # (samples, temperature)
# What is known to differ, and why. Everything else is a defect of ours.
KNOWN = {
    "HumanEval/32": "evalplus 0.3.1 fails every solution: its oracle for this task leaves its list of details empty",
    "Mbpp/255": "evalplus limits a forked process to 4 GiB of address space, and the expected values of the plus tests "
                "(1 GB) and whatever else the calling process holds count; with EVALPLUS_MAX_MEMORY_BYTES raised it "
                "agrees",
}


def policy_samples(path: Path, work: Path, protocols: list[str], limit: int | None) -> dict[tuple[str, str], list]:
    """(suite, protocol) -> distinct (task id, completion) that the policy, untrained, writes greedily and at a temperature.

    In a process of its own: evalplus limits the address space of what it forks to 4 GiB, and an engine's libraries
    alone take more.
    """

    from plum_utils.evaluation.solutions import generate_solutions
    from plum_utils.models.engines import open_backend
    from plum_utils.models.tokenizer import load_tokenizer
    from plum_utils.models.weights import resolve_model

    p = load_params(path)
    model = resolve_model(p.policy.model, p.policy.revision)
    tokenizer = load_tokenizer(model)
    backend = open_backend(p.sampling.backend, model, p.policy.dtype, p.training.lora_r)
    written = {(name, protocol): [row for n, temperature in DRAWS[protocol] for row in generate_solutions(
        p, backend, tokenizer, load_suite(name, limit), work, n=n, temperature=temperature, adapter=None,
        label=f"{name}-{protocol}-T{temperature:g}", **PROTOCOLS[protocol].asking(p, name))]
        for name in SUITES for protocol in protocols}
    backend.close()
    return {place: list(dict.fromkeys((row["task_id"], row["completion"]) for row in rows))
            for place, rows in written.items()}


def as_completion(protocol: str, problem, program: str) -> str:
    """What a policy would have written under a protocol to give this program."""
    if protocol != "evalplus_base":
        return {"study": f"```python\n{program}\n```", "evalplus_chat": f"{program}\n```\n"}[protocol]
    if program == problem.reference:
        return program.removeprefix(problem.prompt)
    tree = ast.parse(program)
    if problem.suite == "mbpp":
        return "\n" + ast.unparse(tree.body[1:])  # a docstring is the prompt's
    function = next(node for node in tree.body if getattr(node, "name", None) == problem.entry_point)
    return indent(ast.unparse(function.body[1:]), "    ") + "\n"


def their_program(protocol: str, suite: str, row: dict, completion: str) -> str | None:
    """evalplus' program of a completion, by its own stop strings and sanitizer; ``None`` where that takes too long."""
    base = protocol == "evalplus_base"
    stops = [*EOS, *(extra_eos_for_direct_completion(suite) if base else ["\n```\n"])]
    text = completion[:min((completion.find(stop) for stop in stops if stop in completion), default=len(completion))]
    text = (row["prompt"].strip() + "\n" if base else "") + text.replace("\t", "    ")
    return sanitize(text, row["entry_point"]) if text.count("\n") < MOST_LINES else None


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


def compared(suite: str, protocol: str, options: argparse.Namespace, written: list[tuple[str, str]]
             ) -> tuple[Counter, list[dict]]:
    """How many verdicts are the same, by tests and kind of program, and those that differ."""
    p, counts, differences = load_params(options.params), Counter(), []
    listed = SuiteParams(name=suite, protocol=protocol, limit=options.limit)
    problems = {problem.task_id: problem for problem in load_problems(listed, EvaluationParams())}
    rows = {row["task_id"]: row for row in evalplus_rows(suite)}
    rng = random.Random(0)
    tried = [{"task_id": name, "sample_index": number, "kind": "mutant" if number else "canonical",
              "completion": as_completion(protocol, problem, code)}
             for name, problem in problems.items()
             for number, code in enumerate(candidates(problem, options.mutants, rng))]
    tried += [{"task_id": name, "sample_index": 100 + number, "completion": text, "kind": "sample"}
              for number, (name, text) in enumerate(written)]
    for one in tried:
        problem = problems[one["task_id"]]
        one["solution"] = PROTOCOLS[protocol].solution(p, problem, one["completion"])
        one["theirs"] = (problem.preamble + problem.runnable(one["solution"]) if protocol == "study"
                         else their_program(protocol, suite, rows[one["task_id"]], one["completion"]))
    label = suite if protocol == "study" else f"{suite}-{protocol}"
    counts[label, "left", "out", "too-long"] = sum(one["theirs"] is None for one in tried)
    tried = [one for one in tried if one["theirs"] is not None]
    with Sandbox(workers=2, limits=Limits(seconds=10, memory_mb=1024)) as sandbox:
        ours = score(list(problems.values()), tried, sandbox)
    cache: dict = {}
    for one, row in zip(tqdm(tried, desc=f"evalplus, {label}"), ours):
        name = one["task_id"]
        base, plus = theirs(suite, rows[name], one["theirs"], cache)
        for kind, us, them, assurance in (("base", row["base_passed"], base, row["assurance"]),
                                          ("plus", bool(row["plus_passed"]), plus, row["plus_assurance"])):
            counts[label, kind, one["kind"], "same" if us == them else "different"] += 1
            counts[label, kind, one["kind"], assurance or "not-run"] += 1
            counts[label, kind, one["kind"], "passed"] += us
            if us != them:
                differences.append({"task_id": name, "protocol": protocol, "tests": kind, "program": one["kind"],
                                    "ours": us, "evalplus": them, "status": row["status"],
                                    "plus_status": row["plus_status"], "detail": row["detail"],
                                    "why": KNOWN.get(name, "UNEXPLAINED"), "solution": one["solution"]})
    return counts, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--params", type=Path, default=ROOT / "params" / "mini.yaml")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "parity")
    parser.add_argument("--protocols", nargs="+", choices=list(DRAWS), default=list(DRAWS))
    parser.add_argument("--mutants", type=int, default=2)
    parser.add_argument("--limit", type=int, help="problems of each suite")
    parser.add_argument("--no-samples", action="store_true", help="canonical solutions and mutants alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    differences, counts, written = [], Counter(), {}
    if not options.no_samples:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            written = pool.submit(policy_samples, options.params, options.work, options.protocols, options.limit).result()
    for suite in SUITES:
        for protocol in options.protocols:
            more, differing = compared(suite, protocol, options, written.get((suite, protocol), []))
            counts += more
            differences += differing
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
