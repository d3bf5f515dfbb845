"""Tokens a second of sampling on this machine: vLLM as the study runs it and our loop over ``transformers``, side by side.

    python benchmarks/sampling_speed.py --dtype float32 --out benchmarks/results/sampling_speed.json

Both backends live in processes of their own and take turns: each round gives each of them the same prompts, K completions
a prompt, at the temperature and with the stop string of ``params/mini.yaml``. Ratios are medians over the rounds. CPU
seconds count the backend's whole process tree: on a busy machine they say more than the clock.
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

BACKENDS = ("transformers", "vllm")


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        return work(arguments)
    workers = {name: start(name) for name in arguments.backends}
    rounds = []
    for number in range(arguments.rounds + 1):
        rounds.append({name: turn(worker) for name, worker in workers.items()})
        print(f"round {number}: " + ", ".join(f"{name} {one['tokens'] / one['seconds']:.0f} tokens/s"
                                              for name, one in rounds[-1].items()), flush=True)
    for worker in workers.values():
        worker.stdin.close()
    result = summary(rounds[1:], arguments)  # the first round warms up
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))


def summary(rounds: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Rates and the ratios to the first backend, each a median over the rounds."""
    rates = [{name: one["tokens"] / one["seconds"] for name, one in row.items()} for row in rounds]
    ratios = [row["vllm"] / row["transformers"] for row in rates if set(row) == set(BACKENDS)]
    import torch

    return {"prompts": arguments.prompts, "k": arguments.k, "dtype": arguments.dtype, "threads": torch.get_num_threads(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "tokens_per_cpu_second": {name: round(statistics.median(row[name]["tokens"] / row[name]["cpu_seconds"]
                                                                    for row in rounds), 1) for name in rates[0]},
            "tokens_per_second": {name: round(statistics.median(row[name] for row in rates), 1) for name in rates[0]},
            "mean_tokens": {name: round(sum(row[name]["tokens"] for row in rounds) / len(rounds) / arguments.prompts
                                        / arguments.k, 1) for name in rates[0]},
            "ratio": round(statistics.median(ratios), 2) if ratios else None,
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)] if ratios else None, "rounds": rounds}


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

    from transformers import AutoTokenizer

    from plum_utils.backends import open_backend
    from plum_utils.hub_data import training_instructions
    from plum_utils.models import resolve_model
    from plum_utils.params import load_params
    from plum_utils.study import policy_prompt

    p = load_params(ROOT / "params" / "mini.yaml")
    model_path = resolve_model(p.policy.model)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    prompts = [policy_prompt(p, tokenizer, item.instruction) for item in training_instructions(p)[:arguments.prompts]]
    backend = open_backend(arguments.worker, model_path, arguments.dtype)
    answers.write("{}\n")
    for number, _ in enumerate(sys.stdin):
        started, used = time.perf_counter(), cpu_seconds()
        outputs = backend.generate(prompts, n=arguments.k, temperature=p.sampling.temperature,
                                   max_tokens=p.sampling.max_tokens, stop=p.sampling.stop, seed=number)
        seconds = time.perf_counter() - started
        tokens = sum(out.n_tokens for outs in outputs for out in outs)
        answers.write(json.dumps({"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds() - used, 2),
                                  "tokens": tokens}) + "\n")


def cpu_seconds() -> float:
    """Processor time of this process and its children so far."""
    import psutil

    here = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in [here, *here.children(recursive=True)])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32, help="a shard of params/mini.yaml")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--dtype", default="float32", help="float32 where the CPU has no bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/sampling_speed.json")
    parser.add_argument("--worker", choices=BACKENDS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
