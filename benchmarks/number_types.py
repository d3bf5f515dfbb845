"""Does the number type change a result? The untrained policy on the main suite in float32 and in bfloat16, the same prompts and
seeds, problem by problem.

    python benchmarks/number_types.py --out benchmarks/results/number_types.json

Where the processor has no bfloat16, vLLM's products are made as hardware makes them, but by float32's routines: bfloat16 numbers
in, sums in float32, the result rounded to bfloat16. oneDNN's own emulation would take most of an hour. Killed, the same command
goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from plum_utils.data.problems import load_suite
from plum_utils.evaluation.scoring import score  # noqa: E402
from plum_utils.evaluation.solutions import generate_solutions  # noqa: E402
from plum_utils.models.completions import Metered  # noqa: E402
from plum_utils.models.number_types import number_type  # noqa: E402
from plum_utils.models.sampling import open_policy_backend
from plum_utils.models.tokenizer import load_tokenizer  # noqa: E402
from plum_utils.models.weights import resolve_model  # noqa: E402
from plum_utils.params import Params, load_params  # noqa: E402
from plum_utils.provenance import cpu  # noqa: E402
from plum_utils.sandbox.opening import open_sandbox
from plum_utils.stats import bootstrap_mean_interval, problem_rates  # noqa: E402

TYPES = ("float32", "bfloat16")
DECODINGS = (("greedy", 1, 0.0), ("T=0.8", 5, 0.8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="problems; all 200 by default")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "number_types", help="of the shards")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/number_types.json")
    arguments = parser.parse_args()
    found = {name: measure(load_params(ROOT / "params" / "mini.yaml", {"policy.dtype": name}), arguments) for name in TYPES}
    rows = [compared(label, *(found[name][label] for name in TYPES)) for label, *_ in DECODINGS]
    arguments.out.write_text(json.dumps({"cpu": cpu(), "rows": rows}, indent=1) + "\n")
    print(pd.DataFrame(rows).to_string())


def measure(p: Params, arguments: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Decoding -> scored completions with their texts."""

    if number_type(p.policy.dtype).warning:
        multiply_by_float32()
    problems, path = load_suite("heldout_basics", arguments.limit), resolve_model(p.policy.model)
    tokenizer, backend, found = load_tokenizer(path), Metered(open_policy_backend(p, path)), {}
    with open_sandbox(p) as sandbox:
        for label, n, temperature in DECODINGS:
            made = generate_solutions(p, backend, tokenizer, problems, arguments.folder / p.policy.dtype, n=n,
                                      temperature=temperature, max_tokens=p.evaluation.max_tokens, adapter=None, label=label)
            found[label] = pd.DataFrame(score(problems, made, sandbox, progress=False))
            found[label]["completion"] = [row["completion"] for row in made]
            print(p.policy.dtype, label, f"{backend.tokens_per_second:.0f} tokens/s", flush=True)
    backend.close()
    return found


def multiply_by_float32() -> None:
    """vLLM's CPU products of narrower numbers from now on by float32's routines."""
    from vllm import _custom_ops as ops

    create, multiply = ops.create_onednn_mm, ops.onednn_mm
    ops.create_onednn_mm = lambda weight, *size: create(weight.float(), *size)
    ops.onednn_mm = lambda handler, x, bias: multiply(handler, x.float(), bias if bias is None else bias.float()).to(x.dtype)


def compared(label: str, first: pd.DataFrame, second: pd.DataFrame) -> dict[str, object]:
    """pass@1 in percent by type, and bfloat16 less float32, each with its 95% bootstrap interval over problems."""
    row: dict[str, object] = {"decoding": label, "problems": first.task_id.nunique(), "completions": len(first),
                              "same_completions": int((first.completion == second.completion).sum())}
    rates = {name: problem_rates(frame) for name, frame in zip(TYPES, (first, second))}
    rates["difference"] = rates["bfloat16"] - rates["float32"]
    for name, rate in rates.items():
        row[name] = [round(100 * value, 2) for value in (rate.mean(), *bootstrap_mean_interval(rate, 2000, 0))]
    return row


if __name__ == "__main__":
    main()
