"""Evaluation protocols are exact strings, and rules for what is judged."""

from __future__ import annotations

from typing import get_args

import pytest
from stand_ins import P, Words

from plum_utils.data import problems as problems_module
from plum_utils.data.problems import Problem
from plum_utils.evaluation.protocols import PROTOCOLS, load_problems
from plum_utils.evaluation.solutions import take_program
from plum_utils.models.completions import before_stop
from plum_utils.models.prompts import policy_prompt
from plum_utils.params import BENCHMARKS, EvaluationParams, Params, ParamsError, ProtocolName, SuiteParams, load_params
from plum_utils.provenance import ROOT

HEAD = '''from typing import List


def has_close_elements(numbers: List[float], threshold: float) -> bool:
    """ Check if in given list of numbers, are any two numbers closer to each other than
    given threshold.
    >>> has_close_elements([1.0, 2.0, 3.0], 0.5)
    False
    >>> has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3)
    True
    """'''
QUESTION = "Write a function to add two numbers"
DOCSTRING = f'"""\n{QUESTION}\nassert add(1, 2) == 3\n"""'
HUMANEVAL = Problem("HumanEval/0", "humaneval", f"Complete this Python function.\n\n```python\n{HEAD}\n```",
                    "has_close_elements", "", "", prompt=f"{HEAD}\n")
MBPP = Problem("Mbpp/1", "mbpp", f"{QUESTION}\nassert add(1, 2) == 3", "add", "", "", prompt=f"{DOCSTRING}\n")
MBPP_QUESTION = (f"{QUESTION}. Your code should satisfy the following assertion:\n```python\nassert add(1, 2) == 3\n```")

EVALPLUS = ("Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
            "```\n{}\n```\n")
EVALPLUS_ANSWER = ("Below is a Python script with a self-contained function that solves the problem and passes "
                   "corresponding tests:\n```python\n")
MAGICODER = ("<s>You are an exceptionally intelligent coding assistant that consistently delivers accurate and reliable "
             "responses to user instructions.\n\n@@ Instruction\n{}\n\n@@ Response\n{}")
CODEQWEN = ("<|im_start|>system\nYou are an intelligent programming assistant to produce Python algorithmic solutions"
            "<|im_end|>\n<|im_start|>user\nCan you complete the following Python function?\n```python\n{}\n```\n"
            "<|im_end|>\n<|im_start|>assistant\n```python\n")
ONE_BLOCK = ("\n\nPlease return all completed codes in one code block. \nThis code block should be in the following "
             "format:\n```python\n# Your codes here\n```\n\n@@ Response")
OCI = MAGICODER[len("<s>"):].partition("{}")[0]
WIZARDCODER = ("<s>Below is an instruction that describes a task. Write a response that appropriately completes the "
               "request.\n\n\n### Instruction:\n{}\n\n### Response:")
PROMPTS = {
    ("evalplus_chat", "humaneval"): f"<s>user: {EVALPLUS.format(HEAD)}|assistant: {EVALPLUS_ANSWER}",
    ("evalplus_chat", "mbpp"): f"<s>user: {EVALPLUS.format(DOCSTRING)}|assistant: {EVALPLUS_ANSWER}",
    ("evalplus_base", "humaneval"): f"<s>{HEAD}\n",
    ("evalplus_base", "mbpp"): f"<s>{DOCSTRING}\n",
    ("magicoder", "humaneval"): MAGICODER.format(
        f"Write a solution to the following problem:\n```python\n{HEAD}\n```", f"```python\n{HEAD}"),
    ("magicoder", "mbpp"): MAGICODER.format(MBPP_QUESTION, "```python"),
    ("codeqwen_chat", "humaneval"): CODEQWEN.format(HEAD),
    ("codeqwen_chat", "mbpp"): CODEQWEN.format(DOCSTRING),
    ("codeqwen_base", "humaneval"): f"<s>{HEAD}",
    ("codeqwen_base", "mbpp"): f"<s>{DOCSTRING}",
    ("opencodeinterpreter", "humaneval"): (
        f"<s>user: {OCI}Here is the given code to do completion:\n```python\n{HEAD}\n```\nPlease continue to complete the "
        "function with python programming language. You are not allowed to modify the given code and do the completion "
        f"only. {ONE_BLOCK}|assistant: "),
    ("opencodeinterpreter", "mbpp"): (
        f"<s>user: {OCI}Here is the given problem and test examples:\n{DOCSTRING}\n\n\nPlease use the python programming "
        "language to solve this problem.\nPlease make sure that your code includes the functions from the test samples "
        f"and that the input and output formats of these functions match the test samples.{ONE_BLOCK}|assistant: "),
    ("wizardcoder", "humaneval"): WIZARDCODER.format(
        f"Create a Python script for this problem:\n{HEAD}\n".replace("    ", "\t")),
    ("wizardcoder", "mbpp"): WIZARDCODER.format(MBPP_QUESTION),
}
END = ["<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint("]
STOPS = {
    "evalplus_chat": dict.fromkeys(BENCHMARKS, [*END, "\n```\n"]),
    "evalplus_base": {"humaneval": [*END, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "],
                      "mbpp": [*END, '\n"""', "\nassert"]},
    "magicoder": dict.fromkeys(BENCHMARKS, ["```"]),
    "codeqwen_chat": dict.fromkeys(BENCHMARKS, [*END, "\n```"]),
    "codeqwen_base": {"humaneval": [*END, "\ndef", "\nclass ", "\nimport ", "\nfrom ", "\nassert "],
                      "mbpp": [*END, '\n"""', "\nassert"]},
    "opencodeinterpreter": dict.fromkeys(BENCHMARKS, []), "wizardcoder": dict.fromkeys(BENCHMARKS, []),
}
TOKENS = {"evalplus_chat": 768, "evalplus_base": 768, "magicoder": 512, "codeqwen_chat": 2048, "codeqwen_base": 512,
          "opencodeinterpreter": 1024, "wizardcoder": 2048}


class Chat:
    """A tokenizer with a chat template that writes the beginning of a sequence, and that puts one before any text."""

    bos_token, bos_token_id, chat_template = "<s>", 1, "there is one"

    def __call__(self, text):
        return {"input_ids": [1, 7]}

    def apply_chat_template(self, messages, add_generation_prompt=False, tokenize=True):
        assert not tokenize
        turns = [f"{message['role']}: {message['content']}" for message in messages]
        return "<s>" + "|".join(turns + ["assistant: "] * add_generation_prompt)


@pytest.mark.parametrize("name, suite", PROMPTS)
def test_the_prompts_are_the_authors(name, suite):
    prompt = PROTOCOLS[name].prompt(P, Chat(), HUMANEVAL if suite == "humaneval" else MBPP)
    assert prompt == PROMPTS[name, suite]
    assert prompt.count("<s>") == (name != "codeqwen_chat")  # whose tokenizer puts none in front


@pytest.mark.parametrize("name", STOPS)
def test_stop_strings_and_budgets_are_the_authors(name):
    told = {suite: PROTOCOLS[name].asking(P, suite) for suite in BENCHMARKS}
    assert {suite: asking["stop"] for suite, asking in told.items()} == STOPS[name]
    assert {asking["max_tokens"] for asking in told.values()} == {TOKENS[name]}


def test_the_study_asks_and_judges_as_before():
    p, study, answer = P, PROTOCOLS["study"], "```python\nimport re\ndef f(): pass\n```\n"
    assert study.prompt(p, Words(), HUMANEVAL) == policy_prompt(p, Words(), HUMANEVAL.instruction) == (
        f"<system>Be brief.<user>Complete this Python function.\n\n```python\n{HEAD}\n```\n\nAnswer with one python code "
        "block.<assistant>")
    asking = study.asking(p, "humaneval")
    assert asking["stop"] is None and asking["max_tokens"] == p.evaluation.max_tokens  # as samples end
    assert study.solution(p, HUMANEVAL, answer) == take_program(HUMANEVAL, answer) == "import re\ndef f(): pass"


def test_every_protocol_is_a_parameters_value_and_tested_here():
    assert set(get_args(ProtocolName)) == set(PROTOCOLS) == {"study", *TOKENS}


def test_evalplus_prompts_and_stops_are_those_of_its_own_code():
    from evalplus.provider.utility import EOS, extra_eos_for_direct_completion, make_raw_chat_prompt

    for problem in (HUMANEVAL, MBPP):
        theirs = make_raw_chat_prompt(problem.prompt.strip() + "\n", EVALPLUS.partition("\n")[0],
                                      EVALPLUS_ANSWER.partition("\n")[0], Chat())
        assert PROTOCOLS["evalplus_chat"].prompt(P, Chat(), problem) == theirs
        assert PROTOCOLS["evalplus_base"].stops(P, problem.suite) == [*EOS, *extra_eos_for_direct_completion(problem.suite)]


def test_a_familys_template_is_followed_by_the_begun_answer():
    p = Params(name="x", policy={"prompt": "deepseek-coder"})
    prompt = PROTOCOLS["evalplus_chat"].prompt(p, Chat(), MBPP)
    assert prompt.startswith("<s>You are an AI") and prompt.endswith(f"```\n\n### Response:\n{EVALPLUS_ANSWER}")


BODY = "    return sorted(numbers) == threshold\n"
PROGRAM = f"from typing import List\ndef has_close_elements(numbers, threshold):\n{BODY}"
ADD = "def add(a, b):\n    return a + b\n"
ANSWER = f"Sure.\n```python\n{ADD}\nassert add(1, 2) == 3\n```\nIt adds."


@pytest.mark.parametrize("name, problem, completion, solution", [
    ("evalplus_chat", HUMANEVAL, f"{PROGRAM}\nunused = 1\n```\n", PROGRAM.rstrip()),
    ("evalplus_chat", MBPP, f"{ADD.replace('    ', chr(9))}\nprint(", ADD.rstrip()),
    ("evalplus_base", HUMANEVAL, f"{BODY}\n\ndef ", f"{HEAD.replace(chr(10) * 3, chr(10))}\n{BODY.rstrip()}"),
    ("evalplus_base", MBPP, f"{ADD}\nassert", ADD.rstrip()),
    ("magicoder", HUMANEVAL, f"\n{BODY}```", f"{HEAD}\n\n{BODY}"),
    ("magicoder", MBPP, f"\n{ADD}```", f"{DOCSTRING}\n\n{ADD}"),
    ("codeqwen_chat", HUMANEVAL, f"{PROGRAM}\n```", PROGRAM),
    ("codeqwen_chat", MBPP, "def add(a, b):\n\treturn a + b```python\nx", "def add(a, b):\n    return a + b"),
    ("codeqwen_base", HUMANEVAL, f"\n{BODY}\ndef", f"{HEAD}\n\n{BODY}"),
    ("codeqwen_base", MBPP, f"\n{ADD}\nassert", f"{DOCSTRING}\n\n{ADD}"),
    ("opencodeinterpreter", HUMANEVAL, f"```python\n{PROGRAM}\n```", PROGRAM.rstrip()),
    ("opencodeinterpreter", MBPP, ANSWER, ADD.rstrip()),
    ("wizardcoder", HUMANEVAL, f"Here:\n```python\n{PROGRAM}```\n```python\nx\n```", f"{HEAD}\n{PROGRAM.rstrip()}"),
    ("wizardcoder", HUMANEVAL, f"{ADD}\r# Example usage:\nadd(1, 2)", f"{HEAD}\n{ADD.rstrip()}"),
    ("wizardcoder", MBPP, f"x\n### Response:{ANSWER}", f"{DOCSTRING}\n{ADD.rstrip()}"),
    ("wizardcoder", MBPP, f'{ADD}\nif __name__ == "__main__":\n    add(1, 2)', f"{DOCSTRING}\n{ADD.rstrip()}"),
])
def test_the_solution_is_what_the_authors_make_of_a_completion(name, problem, completion, solution):
    assert PROTOCOLS[name].solution(P, problem, completion) == solution


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("completion", ["", "\n", "\ud800", "def add(:", "```", "```python", "'''\\", "\0", "def add(a):\n    return "
                                        + "(" * 3000 + "\n"], ids=range(9))
def test_any_text_becomes_a_program(name, completion):
    for problem in (HUMANEVAL, MBPP):
        assert isinstance(PROTOCOLS[name].solution(P, problem, completion), str)


def test_a_completion_ends_before_the_first_of_its_stop_strings():
    assert before_stop("a\ndef b\nclass ", ["\nclass ", "\ndef "]) == "a"
    assert before_stop("a", ["\ndef "]) == "a" and before_stop("a```", []) == "a```"


def test_what_asks_to_complete_keeps_the_prompts_preamble(monkeypatch):
    """``postprocess`` decides nothing about it; what is judged alone has its tests keep the helpers."""
    given = Problem("t/0", "humaneval", "Do it.", "f", "", "assert f()\n", preamble="import math\n")
    monkeypatch.setattr(problems_module, "_humaneval", lambda: [given])
    for postprocess in ("extract", "evalplus"):
        how = EvaluationParams(postprocess=postprocess)
        assert load_problems(SuiteParams(name="humaneval"), how)[0].programs("")["base"]["setup"] == "import math\n"
    (alone,) = load_problems(SuiteParams(name="humaneval", protocol="evalplus_chat"), how)
    judged = alone.programs("")["base"]
    assert judged["setup"] == "" and judged["tests"] == "import math\nassert f()\n"
    assert [name for name, way in PROTOCOLS.items() if not way.alone] == ["study"]


def test_a_second_protocol_has_a_name_of_its_own_in_the_tables():
    how = EvaluationParams(protocol="evalplus_base", suites=[
        {"name": "humaneval"}, {"name": "humaneval", "protocol": "study"}, {"name": "heldout_basics"}])
    assert [how.label(suite) for suite in how.suites] == ["humaneval", "humaneval-study", "heldout_basics"]
    assert [how.protocol_of(suite) for suite in how.suites] == ["evalplus_base", "study", "study"]


@pytest.mark.parametrize("suites, message", [
    ("[{name: heldout_basics, protocol: magicoder}]", r"a\.yaml:3 evaluation\.suites\.0\.protocol: expected study, for "
     "heldout_basics has no other"),
    ("[{name: mbpp}, {name: mbpp, protocol: study}]", r"a\.yaml:3 evaluation\.suites: expected each suite once a "
     "protocol, got mbpp twice"),
    ("[{name: mbpp, protocol: other}]", r"a\.yaml:3 evaluation\.suites\.0\.protocol: expected to be 'study', "),
])
def test_a_protocol_that_a_suite_cannot_have_is_refused(tmp_path, suites, message):
    (tmp_path / "a.yaml").write_text(f"name: a\nevaluation:\n  suites: {suites}\n")
    with pytest.raises(ParamsError, match=message):
        load_params(tmp_path / "a.yaml")


def test_the_papers_rows_are_asked_as_their_printed_baselines_were():
    found = {}
    for path in sorted((ROOT / "params/paper").glob("oss_*_kto.yaml")):
        p = load_params(path)
        beside = {suite.name for suite in p.evaluation.suites if suite.protocol == "study"}
        assert beside == (set(BENCHMARKS) if p.policy.prompt == "base" else set())
        found[p.policy.model.partition("/")[2]] = p.evaluation.protocol
    assert found == {
        "CodeQwen1.5-7B": "codeqwen_base", "deepseek-coder-6.7b-base": "evalplus_base", "starcoder2-7b": "evalplus_base",
        "CodeQwen1.5-7B-Chat": "codeqwen_chat", "deepseek-coder-6.7b-instruct": "evalplus_chat",
        "Magicoder-DS-6.7B": "magicoder", "Magicoder-S-CL-7B": "magicoder", "Magicoder-S-DS-6.7B": "magicoder",
        "OpenCodeInterpreter-CL-7B": "opencodeinterpreter", "OpenCodeInterpreter-DS-6.7B": "opencodeinterpreter"}
