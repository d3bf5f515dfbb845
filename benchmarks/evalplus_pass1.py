"""pass@1 by evalplus' own command and by our sandbox on the same samples, base and plus tests.

    python benchmarks/evalplus_pass1.py [--suites humaneval mbpp] [--samples FILE ...] [--postprocess evalplus]
                                        [--limit N] [--out benchmarks/results/evalplus_pass1.json]

Needs evalplus' data (``HUMANEVAL_OVERRIDE_PATH``, ``MBPP_OVERRIDE_PATH``, or its cache). One set of samples is made
here, ``half``: the benchmark's own solutions, every second one mutated. Each ``--samples`` file is a further one: JSON
Lines with ``task_id`` and ``completion`` (as the shards of notebook 05 have them) or ``solution``. Both sides get the
same programs. evalplus runs as its users run it, ``python -m evalplus.evaluate``, but in a scratch folder that is its
home and cache too. It isolates nothing: give it programs of known origin only; our sandbox sees them first.

evalplus limits a program's address space to 4 GiB, of which its worker's own counts. On MBPP+ a worker holds expected
values (1 GB for Mbpp/255 alone); one was seen at 4.3 GiB, and three right programs failed that pass with more room.
So the limit (``EVALPLUS_MAX_MEMORY_BYTES``) is 12 GiB here, unless the environment sets it.

Exit status 1: some verdict differs for a reason that ``parity.KNOWN`` does not name.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from evalplus.eval import PASS, estimate_pass_at_k
from parity import KNOWN, candidates

from plum_utils.data.evalplus import OVERRIDES, SuiteUnavailable, evalplus_path
from plum_utils.data.problems import Problem, load_suite, self_contained
from plum_utils.evaluation.scoring import score
from plum_utils.evaluation.solutions import take_program
from plum_utils.jsonl import iter_jsonl, write_json, write_jsonl
from plum_utils.sandbox import Limits, Sandbox
from plum_utils.stats import problem_rates

TESTS = ("base", "plus")
MEMORY = 12 << 30


def data_file(suite: str, limit: int | None, scratch: Path) -> Path:
    """evalplus' data, or a copy of its first ``limit`` rows."""
    path = evalplus_path(suite)
    if path is None:
        raise SuiteUnavailable(f"{suite}: evalplus' data is not here; set {OVERRIDES[suite]}")
    if limit is None:
        return path.resolve()
    rows = (row for _, row in zip(range(limit), iter_jsonl(path)))
    write_jsonl(scratch / f"{suite}-{limit}.jsonl", list(rows))
    return scratch / f"{suite}-{limit}.jsonl"


def half_mutated(problems: list[Problem]) -> list[dict[str, Any]]:
    """The benchmark's solutions; of every second problem a mutant instead."""
    rng = random.Random(0)
    return [{"task_id": problem.task_id, "sample_index": 0,
             "solution": candidates(problem, 1, rng)[-1] if place % 2 else problem.reference}
            for place, problem in enumerate(problems)]


def from_file(path: Path, problems: list[Problem], postprocess: str) -> list[dict[str, Any]]:
    """The file's samples of these problems, each with its program, numbered problem by problem."""
    by_id, found, counts = {problem.task_id: problem for problem in problems}, [], {}
    for row in iter_jsonl(path):
        problem = by_id.get(row.get("task_id"))  # a shard's header has none
        if problem is not None:
            index = counts[problem.task_id] = counts.get(problem.task_id, -1) + 1
            code = take_program(problem, row["completion"], postprocess) if "completion" in row else row["solution"]
            found.append({"task_id": problem.task_id, "sample_index": index, "solution": code})
    missing = sorted(set(by_id) - set(counts))
    if missing:
        raise SystemExit(f"{path}: no sample of {len(missing)} problems, the first {missing[0]}; evalplus wants all")
    return found


def by_evalplus(suite: str, samples: list[dict[str, Any]], data: Path, scratch: Path, parallel: int
                ) -> tuple[list[dict[str, Any]], list[float]]:
    """Verdicts of ``evalplus.evaluate`` in the samples' order, and the two pass@1 that it prints (rates, 3 digits)."""
    place = Path(tempfile.mkdtemp(prefix=f"{suite}-", dir=scratch))  # without results in it, so that it asks nothing
    write_jsonl(place / "samples.jsonl", [{key: row[key] for key in ("task_id", "solution")} for row in samples])
    command = [sys.executable, "-m", "evalplus.evaluate", "--dataset", suite, "--samples", "samples.jsonl",
               "--i_just_wanna_run", "--parallel", str(parallel)]
    env = {"EVALPLUS_MAX_MEMORY_BYTES": str(MEMORY)} | os.environ | {
        OVERRIDES[suite]: str(data), "HOME": str(scratch), "XDG_CACHE_HOME": str(scratch / "cache")}
    ran = subprocess.run(command, cwd=place, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"evalplus.evaluate left with {ran.returncode}:\n{ran.stderr[-2000:]}")
    found = json.loads((place / "samples_eval_results.json").read_text())["eval"]
    verdicts = [found[row["task_id"]][row["sample_index"]] for row in samples]
    passed = [{"base": one["base_status"] == PASS, "plus": one["base_status"] == one["plus_status"] == PASS,
               "status": f"{one['base_status']}, plus {one['plus_status']}"} for one in verdicts]
    return passed, [float(value) for value in re.findall(r"pass@1:\s+([\d.]+)", ran.stdout)]


def by_us(problems: list[Problem], samples: list[dict[str, Any]], workers: int) -> list[dict[str, Any]]:
    """Our verdicts, in the same form."""
    with Sandbox(workers=workers, limits=Limits(seconds=10, memory_mb=1024)) as sandbox:
        return [{"base": row["base_passed"], "plus": bool(row["plus_passed"]), "detail": row["detail"],
                 "status": f"{row['status']}, plus {row['plus_status']}"}
                for row in score(problems, samples, sandbox)]


def evalplus_pass1(samples: pd.DataFrame) -> float:
    """evalplus' estimate from a table with ``task_id`` and ``passed``."""
    counts = samples.groupby("task_id", sort=False)["passed"].agg(["size", "sum"])
    return float(estimate_pass_at_k(counts["size"].to_numpy(), counts["sum"].to_numpy(), 1).mean())


def compared(samples: list[dict[str, Any]], ours: list[dict[str, Any]], theirs: list[dict[str, Any]],
             printed: list[float]) -> dict[str, Any]:
    """pass@1 in percent of both sides, with and without the tasks known to differ, and every verdict that differs."""
    ids, row, differing = [one["task_id"] for one in samples], {"samples": len(samples)}, []
    for place, tests in enumerate(TESTS):
        us, them = (pd.DataFrame({"task_id": ids, "passed": [one[tests] for one in side]}) for side in (ours, theirs))
        if abs(evalplus_pass1(them) - printed[place]) > 6e-4:
            raise SystemExit(f"evalplus printed {printed[place]} for {tests}, its verdicts say {evalplus_pass1(them)}")
        known = us.task_id.isin(KNOWN)
        row |= {f"ours_{tests}": 100 * problem_rates(us, "passed").mean(),
                f"evalplus_{tests}": 100 * evalplus_pass1(them),
                f"ours_{tests}_without_known": 100 * problem_rates(us[~known], "passed").mean(),
                f"evalplus_{tests}_without_known": 100 * evalplus_pass1(them[~known])}
        differing += [{"task_id": sample["task_id"], "sample_index": sample["sample_index"], "tests": tests,
                       "ours": one[tests], "evalplus": two[tests], "our_status": one["status"],
                       "evalplus_status": two["status"], "detail": one["detail"],
                       "why": KNOWN.get(sample["task_id"], "UNEXPLAINED"), "solution": sample["solution"]}
                      for sample, one, two in zip(samples, ours, theirs) if one[tests] != two[tests]]
    return row | {"differing": differing}


def judged(suite: str, options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """A row for each set of samples of a suite."""
    data = data_file(suite, options.limit, scratch)
    ids = {row["task_id"] for row in iter_jsonl(data)}
    problems = [one for one in load_suite(suite) if one.task_id in ids]
    if options.postprocess == "evalplus":
        problems = list(map(self_contained, problems))
    before = {problem.task_id: problem.preamble for problem in problems}  # empty with evalplus' post-processing
    sets = {"half": half_mutated(problems)} | {
        path.name: from_file(path, problems, options.postprocess) for path in options.samples}
    rows = []
    for name, samples in sets.items():
        ours = by_us(problems, samples, options.workers)
        programs = [row | {"solution": before[row["task_id"]] + row["solution"]} for row in samples]
        theirs, printed = by_evalplus(suite, programs, data, scratch, options.workers)
        rows.append({"suite": suite, "set": name, "problems": len(problems), "postprocess": options.postprocess}
                    | compared(samples, ours, theirs, printed))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--suites", nargs="+", choices=list(OVERRIDES), default=list(OVERRIDES))
    parser.add_argument("--samples", nargs="*", type=Path, default=[])
    parser.add_argument("--postprocess", choices=["evalplus", "extract"], default="evalplus")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plum-evalplus-") as scratch:
        rows = [row for suite in options.suites for row in judged(suite, options, Path(scratch))]
    for row in rows:
        print(f"{row['suite']}, {row['set']} ({row['samples']} samples of {row['problems']} problems):")
        for tests in TESTS:
            us, them = f"ours_{tests}", f"evalplus_{tests}"
            print(f"  {tests}: pass@1 ours {row[us]:.3f}, evalplus {row[them]:.3f}; without known differences "
                  f"{row[us + '_without_known']:.3f}, {row[them + '_without_known']:.3f}")
        for one in row["differing"]:
            print("  differs:", {key: value for key, value in one.items() if key != "solution"})
    if options.out:
        write_json(options.out, rows)
    return int(any(one["why"] == "UNEXPLAINED" for row in rows for one in row["differing"]))


if __name__ == "__main__":
    sys.exit(main())
