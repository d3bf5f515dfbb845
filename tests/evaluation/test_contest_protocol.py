"""LiveCodeBench's protocol of 2024: exact prompts, what is taken out of an answer, and how it is decoded."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import pandas as pd
import pytest
from stand_ins import Memory, P, Words

from plum_utils.data.livecodebench import LcbProblem
from plum_utils.evaluation.contests import FENCES, STYLES, between_fences, contest_program, contest_prompt
from plum_utils.evaluation.solutions import generate_solutions, score_solutions
from plum_utils.evaluation.tables import difficulty_table
from plum_utils.models.completions import Completion
from plum_utils.models.prompts import KNOWN, policy_prompt
from plum_utils.params import load_params
from plum_utils.provenance import ROOT

STDIN = LcbProblem("s", "", "Add {two} numbers.\n", "atcoder", date(2023, 9, 1), "easy", "", None, (), ())
METHOD = LcbProblem("m", "", "Largest?", "leetcode", date(2023, 9, 1), "easy",
                    "class Solution:\n    def f(self, x):\n        ", "f", (), ())


def params(template="base", **livecodebench):
    return P.model_copy(update={
        "policy": P.policy.model_copy(update={"prompt": template}),
        "livecodebench": P.livecodebench.model_copy(update={"protocol": "lcb_2024", "stop": ["###"]} | livecodebench)})


ASKED = ("You will be given a question (problem specification) and will generate a correct Python program that matches the "
         "specification and passes all tests. You will NOT return anything except for the program.")
READ = ("Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample inputs). "
        "Enclose your code within delimiters as follows.")
COMPLETE = ("You will use the following starter code to write the solution to the problem and enclose your code within "
            "delimiters.")
HERE = "```python\n# YOUR CODE HERE\n```\n\n"
STARTER = "```python\nclass Solution:\n    def f(self, x):\n        \n```\n\n"
# (before the question, before what is wanted, between what is said of stdin and the block, after the block)
MAGICODER = ("You are an exceptionally intelligent coding assistant that consistently delivers accurate and reliable responses to "
             f"user instructions.\n\n@@ Instruction\n\n{ASKED}\n\nQuestion:\n", "Format: ", "\n", "@@ Response\n")
DEEPSEEK = ("You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek Company, and you "
            f"answer questions related to computer science.\n\n### Instruction: {ASKED}\n\nQuestion:\n", "### Instruction: ",
            "\n", "### Response:\n\n")
OC = (f"You are an expert Python programmer. {ASKED}\n\n### Question:\n", "### Format: ", "\n",
      "### Answer: (use the provided format with backticks)\n\n")
WIZARD = ("Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### "
          f"Instruction: {ASKED} Put your fixed program within code delimiters, for example:\n```python \n# YOUR CODE HERE\n```\n",
          "", "\n\n", "### Response:\n\n")
CODEQWEN = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n\n" + ASKED + "\n\nQuestion: ", "", "\n",
            "<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("template, parts", [
    ("magicoder", MAGICODER), ("deepseek-coder", DEEPSEEK), ("opencodeinterpreter-ds", OC), ("opencodeinterpreter-cl", OC),
    ("wizardcoder", WIZARD), ("codeqwen-chat", CODEQWEN)])
def test_a_prompt_of_2024_is_exactly_this(template, parts):
    head, lead, gap, tail = parts
    tokenizer = SimpleNamespace(bos_token=None)
    assert contest_prompt(params(template), tokenizer, STDIN) == f"{head}{STDIN.content}\n\n{lead}{READ}{gap}{HERE}{tail}"
    assert contest_prompt(params(template), tokenizer, METHOD) == f"{head}Largest?\n\n{lead}{COMPLETE}\n{STARTER}{tail}"


def test_a_model_with_a_chat_template_is_asked_in_it_with_their_system_message():
    class Tokenizer:
        chat_template = "yes"

        def apply_chat_template(self, messages, add_generation_prompt, tokenize):
            return messages
    system, user = contest_prompt(params("chat"), Tokenizer(), STDIN)
    assert system == {"role": "system", "content": f"You are an expert Python programmer. {ASKED}"}
    assert user == {"role": "user", "content": f"### Question:\n{STDIN.content}\n\n### Format: {READ}\n{HERE}{OC[-1]}"}
    assert contest_prompt(params("chat"), Tokenizer(), METHOD)[1]["content"] == (
        f"### Question:\nLargest?\n\n### Format: {COMPLETE}\n{STARTER}{OC[-1]}")


def test_a_base_model_continues_a_text_that_begins_with_one_solved_example():
    tokenizer = SimpleNamespace(bos_token=None)
    stdin, method = (contest_prompt(params("base"), tokenizer, one) for one in (STDIN, METHOD))
    assert stdin.startswith("### Question\nYou have $n$ gifts and you want to give all of them to children. Of course, you")
    assert stdin.endswith("\n\n\nmain()\n\n\n### Question\nAdd {two} numbers.\n\n\n### Answer\n\n")
    assert "$a_3 = [3, 3, 3]" not in stdin and "### Starter" not in stdin and stdin.count("### Answer\n\n") == 2
    assert method.startswith("### Question\nYou are given a 0-indexed array of positive integers nums. Find the number of triplets")
    assert ("\n\n### Starter Code\nclass Solution:\n    def unequalTriplets(self, nums: List[int]) -> int:\n        \n\n### Answer\n\n"
            "class Solution:\n    def unequalTriplets(self, a: List[int]) -> int:\n        ans = 0\n") in method
    assert method.endswith("                    ans += len({a[i], a[j], a[k]}) == 3\n        return ans\n\n### Question\nLargest?\n\n"
                           "### Starter Code\nclass Solution:\n    def f(self, x):\n        \n\n### Answer\n\n")


def test_the_prompt_begins_with_the_token_of_the_family():
    tokenizer = SimpleNamespace(bos_token="<s>")
    assert contest_prompt(params("magicoder"), tokenizer, STDIN).startswith("<s>You are an exceptionally")
    assert contest_prompt(params("codeqwen-chat"), tokenizer, STDIN).startswith("<|im_start|>system")


def test_every_template_has_a_style_and_the_study_keeps_its_own_prompt():
    assert {"chat", "base", *STYLES} == set(KNOWN)
    assert contest_prompt(P, Words(), STDIN) == policy_prompt(P, Words(), STDIN.instruction)
    with pytest.raises(ValueError, match="lcb_2024 has no style for policy.prompt 'other'"):
        contest_prompt(params("other"), SimpleNamespace(bos_token=None), STDIN)


@pytest.mark.parametrize("text, of_2024, of_today", [
    ("```python\nx = 1\n```", "x = 1", "x = 1"),
    ("Text.\n\n```python\nx = 1\ny = 2\n```\nMore.", "x = 1\ny = 2", "x = 1\ny = 2"),
    ("```python\nx = 1\n```\nFor example:\n```\n1 2\n```", "x = 1", "1 2"),
    ("```\n3\n```\n```python\nx = 1\n```", "3", "x = 1"),
    ("```python\nx = 1\n```\n```python\ny = 2", "x = 1", ""),
    ("```python\nx = 1", "", ""), ("x = 1", "", ""), ("", "", ""),
    ("   ```py\n  x = 1\n   ``` done", "  x = 1", "  x = 1"), ("``````\nx\n```", "x", "x"), ("a ``` b ```\nx = 1", "", ""),
    ("```python\n\nx = 1\n\n```", "\nx = 1\n", "\nx = 1\n")])
def test_the_program_stands_between_the_first_or_the_last_two_fences(text, of_2024, of_today):
    assert between_fences(text, FENCES["v2024"], "magicoder") == of_2024
    assert between_fences(text, FENCES["current"], "magicoder") == of_today
    assert between_fences(text, FENCES["v2024"], "base") == between_fences(text, FENCES["current"], "base") == text.strip()


def test_an_answer_ends_where_its_stop_string_begins():
    def taken(text, template="magicoder", **how):
        return contest_program(params(template, **how), STDIN, text)
    assert taken("```python\nx = 1\n```\n###") == "x = 1"
    assert taken("```python\nx = 1\n### so far\ny = 2\n```") == "" and taken("### Solution\n```python\nx = 1\n```") == ""
    assert taken(" x = 1\n\n### Question\nNext?", "base") == "x = 1"
    assert taken("```\n1\n```\n```\n2\n```", grader="v2024") == "1" and taken("```\n1\n```\n```\n2\n```") == "2"
    assert taken("x = 1", protocol="study") == "x = 1", "our own rule takes a program without fences"


class Answers(Memory):
    """The right program in three of ten answers."""

    def generate(self, prompts, n=1, **how):
        super().generate(prompts, n, **how)
        right, wrong = (f"```python\n{code}\n```\n###" for code in ("print(sum(map(int, input().split())))", "print()"))
        return [[Completion(right if place < 3 else wrong, "stop_string", 7) for place in range(n)] for _ in prompts]


def test_ten_samples_are_asked_for_as_in_the_paper_and_pass_at_1_is_their_mean(tmp_path):
    from plum_utils.data.livecodebench import load_livecodebench
    from plum_utils.sandbox import Limits, Sandbox

    p = load_params(ROOT / "params" / "paper" / "oss_magicoder_s_ds_kto.yaml")
    how = p.livecodebench
    assert (how.release, how.protocol, how.grader, how.n, how.temperature, how.top_p, how.max_tokens, how.stop) == (
        "release_v1", "lcb_2024", "v2024", 10, 0.2, 0.95, 2000, ["###"])
    problem, = load_livecodebench(limit=1, grader=how.grader)
    backend = Answers()
    rows = generate_solutions(
        p, backend, SimpleNamespace(bos_token=None), [problem], tmp_path, n=how.n, temperature=how.temperature,
        max_tokens=how.max_tokens, top_p=how.top_p, stop=how.stop, prompt=contest_prompt, program=contest_program, adapter=None,
        label="baseline")
    asked = backend.calls[0]
    assert asked["prompts"] == [contest_prompt(p, SimpleNamespace(bos_token=None), problem)]
    assert {key: asked[key] for key in ("n", "temperature", "top_p", "max_tokens", "stop")} == {
        "n": 10, "temperature": 0.2, "top_p": 0.95, "max_tokens": 2000, "stop": ["###"]}
    with Sandbox(2, Limits(seconds=10)) as sandbox:
        graded = score_solutions(p, [problem], rows, sandbox, tmp_path / "graded", "baseline")
    scored = pd.DataFrame([row | {"policy": policy, "seed": 0} for policy in ("baseline", "kto") for row in graded])
    table = difficulty_table(scored, 100).set_index("label")
    assert table.loc["Overall", "before"] == pytest.approx(30) and table.loc["Easy", "after"] == pytest.approx(30)


def test_verdicts_of_another_grader_are_not_taken_for_this_ones(tmp_path):
    from plum_utils.data.livecodebench import load_livecodebench
    from plum_utils.sandbox import Limits, Sandbox

    rows = [{"task_id": "plum-e1", "sample_index": 0, "solution": "print(sum(map(int, input().split())))\nexit()",
             "prompt_digest": "", "finish_reason": "end_token", "n_tokens": 1}]
    found = {}
    with Sandbox(2, Limits(seconds=10)) as sandbox:
        for grader in ("current", "v2024"):
            problem, = load_livecodebench(limit=1, grader=grader)
            found[grader], = score_solutions(P, [problem], rows, sandbox, tmp_path, "baseline")
    assert found["current"]["passed"] and not found["v2024"]["passed"]
