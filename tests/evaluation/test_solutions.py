"""Lessons 05 and 06: prompts, programs in answers, and what is generated again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from stand_ins import INSTRUCTIONS, Memory, P, TwoMemories, Words

from plum_utils.data.instructions import Instruction
from plum_utils.data.problems import Problem
from plum_utils.evaluation.solutions import MOST_LINES, generate_solutions, sanitised, solve_all, take_program
from plum_utils.models.completions import Completion, draw_seeds
from plum_utils.models.extract import extract_code
from plum_utils.models.prompts import policy_prompt
from plum_utils.models.sampling import sample_policy


class Stepping(Memory):
    """A backend that tells its steps."""

    def generate(self, prompts, n=1, watch=None, **how):
        for step in (1, 2, 3):
            watch(step * n * len(prompts), 0)
        return super().generate(prompts, n, **how)


def test_every_loop_of_generation_follows_the_backends_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PLUM_PROGRESS", "0")
    monkeypatch.setattr("plum_utils.progress.BAR_SECONDS", 0.0)
    rows = sample_policy(P, Stepping(), Words(), INSTRUCTIONS, tmp_path)
    solutions(Stepping(), tmp_path)
    said = capsys.readouterr().err
    assert f"sampling: 100%|██████████| 3/3 shards, {len(rows)} of {len(rows)} completions" in said
    assert "baseline-T0.8: 100%|██████████| 4 of 4 completions" in said and said.count("0 of 4 completions") > 3
    measured = json.loads((tmp_path / "first_call.json").read_text())
    assert measured["completions"] == 6 and measured["tokens"] == 7 * 6 and measured["seconds"] > 0


def test_no_completion_shares_its_random_numbers_with_another(tmp_path):
    """Neither within a shard nor with a neighbouring one, another seed, round, temperature, lesson or policy."""
    many = [Instruction(f"i{number}", "test", f"Write f{number}.") for number in range(40)]
    problems = [Problem(item.instruction_id, "x", item.instruction, "f", "", "") for item in many]
    backend, trained = Memory(), tmp_path / "adapter"
    trained.mkdir()
    (trained / "adapter_model.safetensors").write_bytes(b"weights")
    for seed, model in ((0, "m"), (1, "m"), (0, "m/policy-1"), (0, "m/policy-2")):
        p = P.model_copy(update={"seed": seed, "policy": P.policy.model_copy(update={"model": model})})
        folder = tmp_path / f"{seed} {Path(model).name}"
        sample_policy(p, backend, Words(), many, folder)
        for label, adapter in (("T0.8", None), ("T0.2", None), ("T0.8", trained)):
            generate_solutions(p, backend, Words(), problems, folder / str(adapter and adapter.name), n=3, temperature=0.8,
                               max_tokens=5, adapter=adapter, label=label)
    seeds = [seed for call in backend.calls
             for draws in draw_seeds(call["seed"], len(call["prompts"]), 20) for seed in draws]
    assert len(backend.calls) == 4 * (20 + 3) and len(set(seeds)) == len(seeds) == 4 * (1 + 3) * 40 * 20
    assert all(0 <= seed < 2**52 for seed in seeds), "exact in JSON, and a seed for torch and vLLM"


def solutions(backend, folder, adapter=None, temperature=0.8):
    @dataclass
    class Problem:
        task_id: str
        instruction: str

    problems = [Problem("t/0", "Add."), Problem("t/1", "Subtract.")]
    return generate_solutions(P, backend, Words(), problems, folder, n=2, temperature=temperature, max_tokens=5,
                              adapter=adapter, label="baseline-T0.8")


def test_solutions_are_conditioned_on_the_training_prompt(tmp_path):
    backend = Memory()
    rows = solutions(backend, tmp_path)
    assert [(row["task_id"], row["sample_index"]) for row in rows] == [("t/0", 0), ("t/0", 1), ("t/1", 0), ("t/1", 1)]
    assert backend.calls[0]["prompts"][0] == policy_prompt(P, Words(), "Add.")
    assert rows[0]["solution"].startswith("x = ") and rows[0]["n_tokens"] == 7


def test_as_many_jobs_are_solved_at_a_time_as_there_are_engines_and_nothing_else_changes(tmp_path, capsys):
    jobs = [(0.0, "a"), (0.8, "a"), (0.0, "b"), (0.8, "b")]
    problems = [Problem("t/0", "x", "Add.", "f", "", "")]

    def solved(backend, folder):
        rows = solve_all(backend, lambda job: generate_solutions(
            P, backend, Words(), problems, folder, n=2, temperature=job[0], max_tokens=5, adapter=None,
            label=f"{job[0]}-{job[1]}"), jobs)
        return rows, {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}

    two = solved(TwoMemories(), tmp_path / "two")
    said = capsys.readouterr().err
    assert two == solved(Memory(), tmp_path / "one") and list(two[0]) == jobs and len(two[1]) == 4
    assert "solutions: 4/4 suites" in said and "0.8-a" not in said, "one bar for all"


ANSWER = "Here:\n```python\nimport re\n\ndef unused():\n    return 0\n\ndef f(x):\n    return x\n```"


class Answers(Memory):
    """A backend that always gives the same answer."""

    def generate(self, prompts, **how):
        super().generate(prompts, **how)
        return [[Completion(ANSWER, "end_token", 7)] * how["n"] for _ in prompts]


def test_another_post_processing_needs_no_new_generation(tmp_path):
    problems = [Problem(f"t/{suite}", suite, "Add.", "f", "", "") for suite in ("humaneval", "heldout_basics")]
    backend, found = Answers(), {}
    for how in ("extract", "evalplus"):
        p = P.model_copy(update={"evaluation": P.evaluation.model_copy(update={"postprocess": how})})
        rows = generate_solutions(p, backend, Words(), problems, tmp_path, n=1, temperature=0.0, max_tokens=5,
                                  adapter=None, label="x")
        found[how] = [row["solution"] for row in rows]
    assert len(backend.calls) == 1
    whole = ANSWER.split("```python\n")[1].removesuffix("\n```")
    assert found == {"extract": [whole] * 2, "evalplus": ["import re\ndef f(x):\n    return x", whole]}
    assert "solution" not in json.loads((tmp_path / "x.jsonl").read_text().splitlines()[1])


def test_old_shards_that_hold_solutions_are_still_good(tmp_path):
    first = solutions(Memory(), tmp_path)
    head, *rows = (tmp_path / "baseline-T0.8.jsonl").read_text().splitlines()
    body = "".join(json.dumps(json.loads(row) | {"solution": "taken by an older rule"}) + "\n" for row in rows)
    head = json.loads(head) | {"sha256": hashlib.sha256(body.encode()).hexdigest()}
    (tmp_path / "baseline-T0.8.jsonl").write_text(json.dumps(head) + "\n" + body)
    backend = Memory()
    assert solutions(backend, tmp_path) == first and not backend.calls


def test_solutions_of_another_adapter_are_not_taken_for_these(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    for expected, given in ((1, None), (0, None), (1, adapter), (0, adapter)):
        backend = Memory()
        solutions(backend, tmp_path / "out", given)
        assert len(backend.calls) == expected
    (adapter / "adapter_model.safetensors").write_bytes(b"trained again")
    solutions(backend := Memory(), tmp_path / "out", adapter)
    assert len(backend.calls) == 1 and backend.calls[0]["adapter"] == str(adapter)


CHATTY = """Here is the function:

```python
import math
from typing import List

LIMIT = 3

def helper(x):
\treturn x + LIMIT

def unused(x):
    return x

def f(xs: List[int]):
    return [helper(x) for x in xs]

print(f([1, 2]))
```
It adds three."""


def problem_of(suite: str, **more) -> Problem:
    return Problem("t/0", suite, "Do it.", "f", "def f(x):\n    return x\n", "assert f(1) == 1\n", **more)


def test_evalplus_keeps_what_the_function_needs():
    code = take_program(problem_of("humaneval"), CHATTY, "evalplus")
    assert code == ("import math\nfrom typing import List\nLIMIT = 3\ndef helper(x):\n    return x + LIMIT\n"
                    "def f(xs: List[int]):\n    return [helper(x) for x in xs]")
    from evalplus.sanitize import sanitize

    assert code == sanitize(CHATTY.replace("\t", "    "), "f")


@pytest.mark.parametrize("suite, postprocess", [("humaneval", "extract"), ("heldout_basics", "evalplus")])
def test_all_else_is_extracted(suite, postprocess):
    code = take_program(problem_of(suite), CHATTY, postprocess)
    assert code == extract_code(CHATTY) and "print(" in code and "unused" in code


def test_problems_without_a_suite_are_extracted():
    """LiveCodeBench's."""
    assert take_program(object(), CHATTY, "evalplus") == extract_code(CHATTY)


@pytest.mark.parametrize("completion", ["", "\n", "No code here.", "def f(x:\n    return", "x = 1\n```\ndef f(): pass"])
def test_any_text_gives_what_evalplus_gives(completion):
    from evalplus.sanitize import sanitize

    assert sanitised(completion, "f") == sanitize(completion, "f")


@pytest.mark.parametrize("completion", [
    "```python\ndef f():\n    return '\ud800'\n```", "```python\ndef f():\n    return " + "-" * 5000 + "1\n```",
    "```python\ndef f():\n    return 1\n" + "x = 1\n" * MOST_LINES + "```"], ids=["surrogate", "depth", "lines"])
def test_what_evalplus_cannot_take_is_extracted(completion):
    code = sanitised(completion, "f")
    assert code == extract_code(completion) and code.startswith("def f():")


def test_reading_a_completion_runs_nothing(tmp_path):
    mark = tmp_path / "ran"
    completion = f"```python\nopen({str(mark)!r}, 'w')\ndef f(x=open({str(mark)!r}, 'w')):\n    return x\n```"
    assert "def f" in sanitised(completion, "f") and not mark.exists()
