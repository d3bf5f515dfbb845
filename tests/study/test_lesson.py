"""The loops of sampling and judging over a model that lives in memory: rows, resume, what a verdict says."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from plum_utils.data.instructions import Instruction
from plum_utils.data.problems import Problem
from plum_utils.evaluation.solutions import generate_solutions
from plum_utils.models import ray_engines
from plum_utils.models.adapters import adapter_digest
from plum_utils.models.completions import Completion
from plum_utils.models.number_type import settled
from plum_utils.models.prompts import policy_prompt
from plum_utils.models.sampling import open_policy_backend, sample_policy
from plum_utils.params import Params, ParamsError
from plum_utils.preferences import verdicts
from plum_utils.preferences.verdicts import judge_samples
from plum_utils.sandbox import Verdict
from plum_utils.sandbox.opening import open_sandbox
from plum_utils.study import lesson
from plum_utils.study.lesson import caption, open_stage
from plum_utils.training.objectives import gold_rows

P = Params(name="x", policy={"system": "Be brief."}, sampling={"k": 3, "shard_size": 2, "max_tokens": 9})
INSTRUCTIONS = [Instruction(f"i{number}", "test", f"Write f{number}.") for number in range(5)]
GOOD = "```python\ndef f(x):\n    return x + 1\n```"
SUITE = "assert f(1) == 2\nassert f(2) == 3\n"


class Words:
    """A tokenizer whose chat template shows roles and contents."""

    chat_template = "there is one"

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        assert add_generation_prompt and not tokenize
        return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"


class Memory:
    """A backend that answers each prompt with its length, the seed and the sample's number, and keeps its calls."""

    name = "memory"

    def __init__(self, fail_at_call: int | None = None):
        self.calls, self.fail_at_call = [], fail_at_call

    def generate(self, prompts, n=1, temperature=0.0, top_p=1.0, max_tokens=512, stop=None, seed=0, adapter=None,
                 watch=None):
        if len(self.calls) == self.fail_at_call:
            raise KeyboardInterrupt
        self.calls.append({"prompts": prompts, "n": n, "temperature": temperature, "top_p": top_p, "stop": stop,
                           "max_tokens": max_tokens, "seed": seed, "adapter": adapter})
        return [[Completion(f"```python\nx = {len(prompt)}, {seed}, {index}\n```", "stop", 7) for index in range(n)]
                for prompt in prompts]

    def close(self):
        pass


@dataclass
class StubSandbox:
    """Answers each program with a fixed status; keeps what it was asked."""

    status: str = "passed"

    def __post_init__(self):
        self.asked = []

    def run(self, programs, limits=None, ended=None):
        self.asked += programs
        return [Verdict(program.id, self.status, "" if self.status == "passed" else "at 0x7f3a1b2c3d4e", 0.1)
                for program in programs]


@pytest.fixture(scope="module")
def sandbox():
    with open_sandbox(P) as opened:
        yield opened


def sample(code: str, name: str = "i0", index: int = 0) -> dict:
    return {"instruction_id": name, "sample_index": index, "prompt": "p", "completion": code, "code": code}


def judge(rows, sandbox, folder, p=P, suites=None):
    return list(judge_samples(p, iter(rows), suites or {"i0": SUITE}, sandbox, folder))


# --- opening a stage ----------------------------------------------------------------------------------------------

def test_a_stage_takes_what_the_pipeline_passes(tmp_path):
    p, run = open_stage(P.model_dump(mode="json"), str(tmp_path), "01_testgen")
    assert p == settled(P) and run.path == tmp_path


@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_a_notebook_opened_by_hand_finds_the_root(tmp_path, monkeypatch, folder):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "x.yaml").write_text("name: x\n")
    monkeypatch.chdir(tmp_path / folder)
    p, run = open_stage("x.yaml", "outputs/x", "02_sampling")
    assert p.name == "x" and run.path == tmp_path / "outputs/x"
    assert Path.cwd() == tmp_path, "a relative path in the parameters would mean something else than in a run"


def test_a_wrong_parameter_is_told_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("name: x\nsampling: {kk: 1}\n")
    with pytest.raises(ParamsError, match="sampling.kk: unknown parameter"):
        open_stage("x.yaml", "outputs/x", "02_sampling")


def test_small_runs_are_stamped():
    assert "not evidence" in caption(P.model_copy(update={"name": "smoke"}), "Finding.").data
    assert "not evidence" not in caption(P, "Finding.").data


def test_the_prompt_holds_system_instruction_and_how_to_answer():
    assert policy_prompt(P, Words(), "Add.") == ("<system>Be brief.<user>Add.\n\nAnswer with one python code block."
                                                 "<assistant>")


def test_an_adapters_digest_follows_its_weights(tmp_path):
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    first = adapter_digest(tmp_path)
    weights.write_bytes(b"two")
    assert adapter_digest(None) == "none" and adapter_digest(tmp_path) != first != "none"


# --- sampling -----------------------------------------------------------------------------------------------------

def test_k_samples_of_each_instruction_in_order(tmp_path):
    backend = Memory()
    rows = sample_policy(P, backend, Words(), INSTRUCTIONS, tmp_path)
    assert [(row["instruction_id"], row["sample_index"]) for row in rows] == \
        [(item.instruction_id, index) for item in INSTRUCTIONS for index in range(3)]
    assert set(rows[0]) == {"instruction_id", "sample_index", "prompt", "completion", "code", "finish_reason",
                            "n_tokens", "seed"}
    assert rows[0]["code"] == rows[0]["completion"].split("\n")[1]
    assert [len(call["prompts"]) for call in backend.calls] == [2, 2, 1]
    assert {(call["n"], call["temperature"], call["top_p"], call["max_tokens"]) for call in backend.calls} == {
        (3, 1.0, 1.0, 9)}


@pytest.mark.parametrize(("changes", "kind"), [
    ({}, "one"), ({"ray": "auto"}, "several"), ({"replicas": 3}, "several"), ({"ray": "auto", "replicas": 3}, "several")])
def test_the_policys_engines_are_opened_where_the_parameters_say(monkeypatch, changes, kind):
    p = Params(name="x", policy={"dtype": "float32"}, sampling={"backend": "vllm", "adapters": "merge", **changes})
    settings = {"dtype": "float32", "lora_rank": 8, "adapters": "merge"}
    monkeypatch.setattr(lesson, "open_backend", lambda *which, **how: ("one", which, how))
    monkeypatch.setattr(ray_engines, "RayBackend", lambda *which, **how: ("several", which, how))
    where = (changes.get("replicas", 1), changes.get("ray")) if kind == "several" else ()
    assert open_policy_backend(p, "model", 8) == (kind, ("vllm", "model", *where), settings)


def test_as_many_shards_are_sampled_at_a_time_as_the_backend_has_replicas(tmp_path):
    both = threading.Barrier(2)

    class Two(Memory):
        replicas = 2

        def generate(self, prompts, **how):
            both.wait(10)  # passed only by two calls together
            return super().generate(prompts, **how)

    rows = sample_policy(P, Two(), Words(), INSTRUCTIONS[:4], tmp_path / "two")
    assert rows == sample_policy(P, Memory(), Words(), INSTRUCTIONS[:4], tmp_path / "one")


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


def test_each_shard_and_run_seed_has_its_own_seed(tmp_path):
    seeds = [{row["seed"] for row in sample_policy(P.model_copy(update={"seed": seed}), Memory(), Words(),
                                                   INSTRUCTIONS, tmp_path / str(seed))} for seed in (0, 1)]
    assert len(seeds[0]) == len(seeds[1]) == 3 and not seeds[0] & seeds[1]


def test_sampling_goes_on_after_the_last_finished_shard(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sample_policy(P, Memory(fail_at_call=2), Words(), INSTRUCTIONS, tmp_path / "a")
    again = Memory()
    resumed = sample_policy(P, again, Words(), INSTRUCTIONS, tmp_path / "a")
    assert [len(call["prompts"]) for call in again.calls] == [1]
    assert resumed == sample_policy(P, Memory(), Words(), INSTRUCTIONS, tmp_path / "b")


@pytest.mark.parametrize("change", [
    lambda p: (p.model_copy(update={"seed": 1}), INSTRUCTIONS),
    lambda p: (p.model_copy(update={"sampling": p.sampling.model_copy(update={"temperature": 0.5})}), INSTRUCTIONS),
    lambda p: (p.model_copy(update={"policy": p.policy.model_copy(update={"system": None})}), INSTRUCTIONS),
    lambda p: (p, [replace(INSTRUCTIONS[0], instruction="Write g."), *INSTRUCTIONS[1:]]),
], ids=["seed", "temperature", "prompt", "instruction"])
def test_samples_of_other_settings_are_not_taken_for_these(tmp_path, change):
    sample_policy(P, Memory(), Words(), INSTRUCTIONS, tmp_path)
    backend = Memory()
    p, instructions = change(P)
    sample_policy(p, backend, Words(), instructions, tmp_path)
    assert len(backend.calls) == 3


# --- judging ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("code", "status", "executed", "mypy"), [
    ("def f(x):\n    return x + 1\n", "passed", "passed", "ok"),
    ("def f(x):\n    return x + 2\n", "failed", "failed", "ok"),
    ("def f(x) return x", "syntax", None, "syntax"),
    ("def f(x):\n    return y + 1\n", "type_error", "failed", "type_error"),
    ("raise ValueError('at load')\ndef f(x):\n    return x + 1\n", "error", "error", "ok"),
    ("def f(x):\n    if x < 0:\n        return undefined\n    return x + 1\n", "passed", "passed", "type_error"),
    ("   \n", "no_code", None, None),
], ids=["passes", "fails", "syntax", "undefined-name", "raises-at-load", "undefined-but-never-reached", "no-code"])
def test_what_a_verdict_says(sandbox, tmp_path, code, status, executed, mypy):
    """mypy marks programs that cannot run; one that passes every test evidently can."""
    row, = judge([sample(code)], sandbox, tmp_path)
    assert (row["status"], row["executed"], row["mypy"]) == (status, executed, mypy)
    assert (row["instruction_id"], row["sample_index"], row["assurance"]) == ("i0", 0, executed and "split")
    assert (row["detail"] == "") == (status == "passed")


def test_without_mypy_execution_decides(sandbox, tmp_path):
    p = P.model_copy(update={"labels": P.labels.model_copy(update={"mypy": False})})
    row, = judge([sample("def f(x):\n    return y + 1\n")], sandbox, tmp_path, p)
    assert row["status"] == "failed" and row["mypy"] == "type_error" and "name-defined" in row["mypy_codes"]


def test_harmless_type_errors_are_kept_and_change_nothing(tmp_path):
    row, = judge([sample("def f(x):\n    n: int = 'one'\n    return x + 1\n")], StubSandbox(), tmp_path)
    assert row["status"] == "passed" and row["mypy"] == "ok" and row["mypy_codes"] == ["assignment"]


def test_every_suite_of_the_instruction_applies(sandbox, tmp_path):
    rows = judge([sample("def f(x):\n    return x + 1\n")], sandbox, tmp_path,
                 suites={"i0": SUITE + "assert f(0) == 5\n"})
    assert rows[0]["status"] == "failed"


def test_instructions_without_a_consistent_suite_are_left_out(tmp_path):
    rows = judge([sample("x = 1", "i0"), sample("x = 1", "i9")], StubSandbox(), tmp_path)
    assert [row["instruction_id"] for row in rows] == ["i0"]


def test_what_does_not_parse_is_not_executed(tmp_path):
    stub = StubSandbox()
    judge([sample("def f("), sample("x = 1", index=1), sample("", index=2)], stub, tmp_path)
    assert [program.id for program in stub.asked] == ["i0/1"]


def test_a_sandbox_failure_is_no_verdict_and_leaves_no_shard(tmp_path):
    with pytest.raises(RuntimeError, match="the sandbox failed on 1 programs, the first i0/0"):
        judge([sample("x = 1")], StubSandbox("infrastructure"), tmp_path)
    assert judge([sample("x = 1")], StubSandbox("passed"), tmp_path)[0]["status"] == "passed"


def test_judged_shards_are_read_not_judged_again(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "JUDGED", 2)
    rows = [sample(f"x = {number}", f"i{number}") for number in range(5)]
    suites = {f"i{number}": SUITE for number in range(5)}
    first = judge(rows, StubSandbox("failed"), tmp_path, suites=suites)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    (tmp_path / "shard_00001.jsonl").unlink()
    stub = StubSandbox("failed")
    assert judge(rows, stub, tmp_path, suites=suites) == first
    assert [program.id for program in stub.asked] == ["i2/0", "i3/0"]
    changed = StubSandbox("failed")
    judge(rows, changed, tmp_path, suites=suites | {"i0": SUITE * 2})
    assert [program.id for program in changed.asked] == ["i0/0", "i1/0"], "only what the change touches"


def test_only_one_shard_of_samples_is_read_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "JUDGED", 2)
    read, seen = [], []

    class Watching(StubSandbox):
        def run(self, programs, limits=None, ended=None):
            seen.append(len(read))
            return super().run(programs)

    stream = (read.append(number) or sample(f"x = {number}", index=number) for number in range(5))
    assert len(list(judge_samples(P, stream, {"i0": SUITE}, Watching("failed"), tmp_path, total=5))) == 5
    assert seen == [2, 4, 5]


def test_verdicts_hold_nothing_that_differs_from_run_to_run(tmp_path):
    judge([sample("x = 1")], StubSandbox("failed"), tmp_path)
    text = next(Path(tmp_path).glob("*.jsonl")).read_text()
    assert "0x7f3a" not in text and "seconds" not in json.loads(text.splitlines()[1])


# --- solutions for the evaluation ---------------------------------------------------------------------------------

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


ANSWER = "Here:\n```python\nimport re\n\ndef unused():\n    return 0\n\ndef f(x):\n    return x\n```"


class Answers(Memory):
    """A backend that always gives the same answer."""

    def generate(self, prompts, **how):
        super().generate(prompts, **how)
        return [[Completion(ANSWER, "stop", 7)] * how["n"] for _ in prompts]


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


def gold_params(tmp_path, *solutions: str) -> Params:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"id": f"i{place}", "instruction": f"Write f{place}."}
                                       | ({"solution": text} if text else {})) + "\n"
                            for place, text in enumerate(solutions)))
    return Params(name="x", policy={"prompt": "base"}, data={"train": str(path)})


def test_gold_rows_are_the_data_sets_own_solutions_under_the_policys_prompt(tmp_path):
    p = gold_params(tmp_path, "x = 1", "")
    (row,) = gold_rows(p)
    assert row["instruction_id"] == "i0" and row["completion"][0]["content"] == "x = 1<|im_end|>"
    assert row["prompt"][0]["content"] == ("### Instruction\nWrite f0.\n\nAnswer with one python code block.\n\n"
                                           "### Response\n")


def test_a_data_set_without_solutions_cannot_be_sft_gold(tmp_path):
    with pytest.raises(ValueError, match="training.sft_solutions: .*data.jsonl' brings no solutions of its own; use chosen"):
        gold_rows(gold_params(tmp_path, "", ""))
