"""What the static check costs: ours against one mypy process a program, without and with a cache, in one run.

    python benchmarks/static_checks.py [--sample 24] [--many 10000] [--out benchmarks/results/static_checks.json]

The programs are the 328 of ``programs.humaneval_programs``, and ``--many`` variations of them (a comment with a number).
One process a program is timed on a sample, since it is slow, interleaved with our builds of all 328. Verdicts of the
sample must be the same in all three.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from programs import humaneval_programs

from plum_utils.preferences import static_checks
from plum_utils.preferences.static_checks import StaticVerdict, check_programs


def one_process(source: str, cache: str) -> StaticVerdict:
    """The same check by a mypy process of its own."""
    syntax = static_checks._syntax(source)
    if syntax.status != "ok":
        return syntax
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "m_000000.py").write_text(source)
        command = static_checks._command(Path(folder), Path(cache), ["m_000000.py"])
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = [match.groups() for match in map(static_checks._LINE.match, done.stdout.splitlines()) if match]
    return static_checks._verdict([(code or "", line, message) for _, line, message, code in found])


def timed(work):
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, time.perf_counter() - started, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, default=24)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    codes = {one.id: one.code for one in humaneval_programs()}
    names = random.Random(0).sample(list(codes), options.sample)
    static_checks.warm_cache()
    totals = {key: [0.0, 0.0] for key in ("no cache", "warm cache", "ours")}
    different, rounds = [], 4
    with tempfile.TemporaryDirectory() as cache:
        one_process("import typing, math\n", cache)
        for turn in range(rounds):
            ours, wall, cpu = timed(lambda: check_programs(codes))
            totals["ours"] = [totals["ours"][0] + wall, totals["ours"][1] + cpu]
            for name in names[turn::rounds]:
                for key, folder in (("no cache", os.devnull), ("warm cache", cache)):
                    verdict, wall, cpu = timed(lambda: one_process(codes[name], folder))
                    totals[key] = [totals[key][0] + wall, totals[key][1] + cpu]
                    different += [(name, key)] * (verdict != ours[name])
    each = {key: [1000 * value / (len(codes) * rounds if key == "ours" else options.sample) for value in values]
            for key, values in totals.items()}
    many = {str(number): f"# variation {number}\n{source}" for number, source in
            zip(range(options.many), list(codes.values()) * (options.many // len(codes) + 1))}
    verdicts, wall, cpu = timed(lambda: check_programs(many))
    result = {"ms_per_program_wall_cpu": each, "programs": len(codes), "sample": options.sample,
              "times_no_cache_wall": each["no cache"][0] / each["ours"][0],
              "times_warm_cache_wall": each["warm cache"][0] / each["ours"][0],
              "times_no_cache_cpu": each["no cache"][1] / each["ours"][1],
              "times_warm_cache_cpu": each["warm cache"][1] / each["ours"][1],
              "different_verdicts": different, "many": options.many, "many_seconds": wall, "many_cpu_seconds": cpu,
              "many_ms_per_program": 1000 * wall / options.many,
              "many_as_one": sum(verdicts[str(n)].status != ours[name].status for n, name in
                                 zip(range(options.many), list(codes) * (options.many // len(codes) + 1)))}
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
