"""Label many samples end to end with notebook 03: wall time, peak memory, and resume after SIGKILL.

    python benchmarks/labelling.py outputs/mini --samples 60000 [--kills 3] [--out benchmarks/results/labelling.json]

The samples are the real completions of a finished run, repeated with variation (a comment with a number that occurs
once, so that no program is run for another), each repetition under instruction ids of its own. The notebook is run over
a tenth of them, to see how memory follows their number, and once over all undisturbed; then, from nothing, it is killed
with its whole process group each time when a further share of the shards is done, and started again with the same
command. The artifacts of both must be the same files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from plum_utils.jsonl import read_jsonl, write_jsonl

ROOT = Path(__file__).parents[1]
ARTIFACTS = ("verdicts", "kto", "dpo", "sft", "unrunnable", "defining", "undefined")


def build(source: Path, target: Path, n_samples: int) -> None:
    """A run folder with stages 01 and 02 of ``n_samples`` samples."""
    samples = read_jsonl(source / "02_sampling" / "samples.jsonl")
    suites = read_jsonl(source / "01_testgen" / "testgen.jsonl")
    rounds = -(-n_samples // len(samples))
    more = [varied(row, turn) for turn in range(rounds) for row in samples][:n_samples]
    ids = {row["instruction_id"] for row in more}
    suites = [row | {"instruction_id": renamed(row["instruction_id"], turn)} for turn in range(rounds) for row in suites]
    for stage, name, rows in (("01_testgen", "testgen", [row for row in suites if row["instruction_id"] in ids]),
                              ("02_sampling", "samples", more)):
        (target / stage).mkdir(parents=True)
        write_jsonl(target / stage / f"{name}.jsonl", rows)


def renamed(name: str, turn: int) -> str:
    return f"{name}.{turn}"


def varied(row: dict, turn: int) -> dict:
    """The sample with a line of comment before its code, so that its text occurs once."""
    comment, code = f"# variation {turn}\n", row["code"]
    completion = row["completion"].replace(code, comment + code, 1) if code.strip() else row["completion"]
    return row | {"instruction_id": renamed(row["instruction_id"], turn), "completion": completion,
                  "code": comment + code if code.strip() else code}


def start(run: Path) -> subprocess.Popen:
    """Notebook 03 over a run folder, in a process group of its own."""
    script = ("import sys, papermill\n"
              "papermill.execute_notebook('notebooks/03_preferences.ipynb', sys.argv[1] + '/03.ipynb', progress_bar=False,"
              " parameters={'params': 'params/mini.yaml', 'run_dir': sys.argv[1]})")
    return subprocess.Popen([sys.executable, "-c", script, str(run)], cwd=ROOT, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def watch(process: subprocess.Popen, run: Path, until: int | None = None) -> dict[str, float]:
    """Wait for the end, or until a number of shards are done; peak resident MiB of the kernel, the sandbox and mypy."""
    peak = {"notebook": 0.0, "sandbox": 0.0, "mypy": 0.0}
    while process.poll() is None:
        now = dict.fromkeys(peak, 0.0)
        for one in _tree(process.pid):
            try:
                command, size = " ".join(one.cmdline()), one.memory_info().rss / 2**20
            except psutil.Error:
                continue
            kind = "mypy" if "mypy" in command else "sandbox" if "sandbox/worker" in command else "notebook"
            now[kind] += size
        peak = {kind: max(peak[kind], now[kind]) for kind in peak}
        if until is not None and len(list((run / "03_preferences" / "shards").glob("*.jsonl"))) >= until:
            break
        time.sleep(0.25)
    return peak


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the runner and to the notebook's kernel, which has a process group of its own."""
    for one in _tree(process.pid):
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def digests(run: Path) -> dict[str, str]:
    return {name: hashlib.sha256((run / "03_preferences" / f"{name}.jsonl").read_bytes()).hexdigest()
            for name in ARTIFACTS}


def finished(process: subprocess.Popen) -> None:
    if process.returncode != 0:
        raise SystemExit(f"notebook 03 ended with {process.returncode}; see the executed notebook")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "labelling")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    tenth, first, second = (options.work / name for name in ("tenth", "undisturbed", "killed"))
    build(options.source, tenth, options.samples // 10)
    build(options.source, first, options.samples)
    shutil.copytree(first, second)

    peak_of_tenth = watch(process := start(tenth), tenth)
    finished(process)

    started = time.monotonic()
    peak = watch(process := start(first), first)
    wall = time.monotonic() - started
    finished(process)
    n_shards = len(list((first / "03_preferences" / "shards").glob("*.jsonl")))

    kept = []
    for turn in range(1, options.kills + 1):
        watch(process := start(second), second, until=turn * n_shards // (options.kills + 1))
        kill(process)
        kept.append({path.name: path.read_bytes() for path in (second / "03_preferences" / "shards").glob("*.jsonl")})
    watch(process := start(second), second)
    finished(process)
    untouched = all((second / "03_preferences" / "shards" / name).read_bytes() == data
                    for shards in kept for name, data in shards.items())
    verdicts = read_jsonl(second / "03_preferences" / "verdicts.jsonl")
    keys = {(row["instruction_id"], row["sample_index"]) for row in verdicts}
    result = {"samples": options.samples, "verdicts": len(verdicts), "distinct_verdict_keys": len(keys),
              "wall_seconds": wall, "samples_per_second": options.samples / wall, "shards": n_shards,
              "peak_rss_mib": peak, "peak_rss_mib_of_a_tenth": peak_of_tenth,
              "killed_at_shards": [len(shards) for shards in kept],
              "finished_shards_kept": untouched, "same_artifacts": digests(first) == digests(second),
              "split": sum(row["assurance"] == "split" for row in verdicts)}
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
