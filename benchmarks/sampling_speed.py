"""Tokens a second of sampling on this machine: vLLM and ``transformers`` as the study runs them, and vLLM as it once ran
(bfloat16 whatever the processor, each sample's prompt computed anew), side by side.

    python benchmarks/sampling_speed.py --out benchmarks/results/sampling_speed.json

All live in processes of their own and take turns: each round gives each of them the same prompts, K completions a prompt,
at the temperature and with the stop string of ``params/mini.yaml``. Ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BACKENDS = ("before", "transformers", "vllm")
BEFORE = {"dtype": "bfloat16", "enable_prefix_caching": False, "block_size": 128}


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        return work(arguments)
    workers = {name: start(name) for name in arguments.backends}
    rounds = []
    for number in range(arguments.warm_ups + arguments.rounds):
        rounds.append({name: turn(worker) for name, worker in workers.items()})
        print(f"round {number}: " + ", ".join(f"{name} {one['tokens'] / one['seconds']:.0f} tokens/s"
                                              for name, one in rounds[-1].items()), flush=True)
    for worker in workers.values():
        worker.stdin.close()
    result = summary(rounds[arguments.warm_ups:], arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))


def summary(rounds: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Rates, and vLLM's as a multiple of the others', each a median over the rounds."""
    from plum_utils.models.number_types import number_type
    from plum_utils.provenance import cpu

    rates = [{name: one["tokens"] / one["seconds"] for name, one in row.items()} for row in rounds]
    ratios = {name: sorted(row["vllm"] / row[name] for row in rates) for name in rates[0] if "vllm" in rates[0]}
    return {"prompts": arguments.prompts, "k": arguments.k, "threads": os.cpu_count(), "cpu": cpu(),
            "number_type": number_type("auto").name,
            "tokens_per_second": {name: round(statistics.median(row[name] for row in rates), 1) for name in rates[0]},
            "mean_tokens": {name: round(sum(row[name]["tokens"] for row in rounds) / len(rounds) / arguments.prompts
                                        / arguments.k, 1) for name in rates[0]},
            "vllm_times": {name: [round(statistics.median(found), 2), round(found[0], 2), round(found[-1], 2)]
                           for name, found in ratios.items() if name != "vllm"}, "rounds": rounds}


def start(name: str) -> subprocess.Popen:
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", name]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    answer(worker)  # loaded
    return worker


def turn(worker: subprocess.Popen) -> dict[str, Any]:
    worker.stdin.write("go\n")
    worker.stdin.flush()
    return answer(worker)


def answer(worker: subprocess.Popen) -> dict[str, Any]:
    for line in worker.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError(f"a backend ended, exit status {worker.wait()}; its message is above")


def work(arguments: argparse.Namespace) -> None:
    """Worker: load a backend, then sample the same prompts at each line of standard input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to standard error


    from plum_utils.data.selection import training_instructions
    from plum_utils.models import engines, vllm_engine
    from plum_utils.models.prompts import policy_prompt
    from plum_utils.models.tokenizer import load_tokenizer
    from plum_utils.models.weights import resolve_model
    from plum_utils.params import load_params

    p = load_params(ROOT / "params" / "mini.yaml")
    model_path = resolve_model(p.policy.model)
    tokenizer = load_tokenizer(model_path)
    prompts = [policy_prompt(p, tokenizer, item.instruction) for item in training_instructions(p)[:arguments.prompts]]
    kind, dtype = arguments.worker, p.policy.dtype
    if kind == "before":
        now = vllm_engine.engine_settings
        vllm_engine.engine_settings = lambda *how: now(*how) | BEFORE
        kind, dtype = "vllm", BEFORE["dtype"]
    backend = engines.open_backend(kind, model_path, dtype)
    answers.write("{}\n")
    for number, _ in enumerate(sys.stdin):
        started = time.perf_counter()
        outputs = backend.generate(prompts, n=arguments.k, temperature=p.sampling.temperature,
                                   max_tokens=p.sampling.max_tokens, stop=p.sampling.stop,
                                   stop_after_program=p.sampling.stop_after_program, seed=number)
        seconds = time.perf_counter() - started
        tokens = sum(out.n_tokens for outs in outputs for out in outs)
        answers.write(json.dumps({"seconds": round(seconds, 2), "tokens": tokens}) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32, help="a shard of params/mini.yaml")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-ups", type=int, default=1, help="rounds before, which do not count")
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/sampling_speed.json")
    parser.add_argument("--worker", choices=BACKENDS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
