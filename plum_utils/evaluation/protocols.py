"""How a problem of HumanEval or MBPP is asked, and what of a completion is judged: the study's way, EvalPlus', and
those of models' authors, whose printed scores are the paper's baselines.

The texts and the rules are the authors' to the letter, with these exceptions. A beginning-of-sequence token stands in
front once (``models.prompts``), also where EvalPlus would put a second one before a chat template's own. Magicoder's
completions are stopped where its authors cut them. HumanEval's prompts are EvalPlus', one of which differs from those
that WizardCoder's authors asked (HumanEval/115: a place of an import). MBPP's questions are made from EvalPlus'
prompts; the texts in WizardCoder's own file (data/mbppplus.json) are the same on 360 of 378 problems, and with a web
link in them, which EvalPlus has dropped, on the other 18.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Callable

from plum_utils.data.evalplus import SuiteUnavailable, evalplus_path, how_to_bring
from plum_utils.data.problems import Problem, load_suite, self_contained
from plum_utils.evaluation.solutions import sanitised, take_program
from plum_utils.models.completions import before_stop
from plum_utils.models.prompts import TEMPLATES, continued, policy_prompt, render
from plum_utils.params import BENCHMARKS, EvaluationParams, Params, SuiteParams

END = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")
NEXT = {"humaneval": ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "), "mbpp": ('\n"""', "\nassert")}
INSTRUCTION = ("Please provide a self-contained Python script that solves the following problem in a markdown code "
               "block:")
RESPONSE = ("Below is a Python script with a self-contained function that solves the problem and passes corresponding "
            "tests:\n```python\n")
CODEQWEN_SYSTEM = "You are an intelligent programming assistant to produce Python algorithmic solutions"
# OpenCodeInterpreter's message holds Magicoder's whole prompt, up to its response's heading.
OCI_MESSAGE = f"{TEMPLATES['magicoder'].system}\n\n" + """@@ Instruction
{question}

Please return all completed codes in one code block. 
This code block should be in the following format:
```python
# Your codes here
```

@@ Response"""
OCI_HUMANEVAL = """Here is the given code to do completion:
```python
{prompt}
```
Please continue to complete the function with python programming language. You are not allowed to modify the given \
code and do the completion only. """
OCI_MBPP = """Here is the given problem and test examples:
{prompt}

Please use the python programming language to solve this problem.
Please make sure that your code includes the functions from the test samples and that the input and output formats of \
these functions match the test samples."""


@dataclass(frozen=True)
class Protocol:
    """One way to measure a policy on a problem.

    ``prompt`` (of parameters, tokenizer, problem) is the exact string that the policy is given; ``stops`` (of
    parameters, suite) are the strings that end a completion (None: it ends as samples do); ``solution`` (of
    parameters, problem, completion) is the program that is judged. It is judged as it stands where it is ``alone``,
    else after the prompt's imports and helper functions. What asks to complete a prompt keeps these, or its
    ``solution`` has the prompt in it; only CodeQwen's (chat) and OpenCodeInterpreter's authors do neither.
    """

    measures: str
    source: str
    prompt: Callable[[Params, Any, Any], str]
    stops: Callable[[Params, str], list[str] | None]
    solution: Callable[[Params, Any, str], str]
    max_tokens: int | None  # None: ``evaluation.max_tokens``
    alone: bool = True

    def asking(self, p: Params, suite: str) -> dict[str, Any]:
        """What ``generate_solutions`` is told, by argument."""
        return {"prompt": self.prompt, "stop": self.stops(p, suite), "program": self.solution,
                "max_tokens": self.max_tokens or p.evaluation.max_tokens}


def load_problems(suite: SuiteParams, how: EvaluationParams) -> list[Problem]:
    """A suite's problems, as its protocol has them judged; raises what ``load_suite`` does."""
    problems = load_suite(suite.name, suite.limit, how.clock)
    return list(map(self_contained, problems)) if PROTOCOLS[how.protocol_of(suite)].alone else problems


def load_suites(how: EvaluationParams) -> tuple[dict[str, list[Problem]], list[str]]:
    """Problems by the suite's label (``EvaluationParams.label``), and a line for each suite that is missing, as a whole
    or in its plus tests: what, and how to get it.

    Raises:
        SuiteUnavailable: evalplus' data is not here, and ``postprocess: evalplus`` asks for evalplus' own figures.
    """
    suites: dict[str, list[Problem]] = {}
    missing: dict[str, str] = {}
    for suite in how.suites:
        try:
            if suite.name in BENCHMARKS and evalplus_path(suite.name) is None:
                missing[suite.name] = how_to_bring(suite.name)
            suites[how.label(suite)] = load_problems(suite, how)
        except SuiteUnavailable as error:
            missing[suite.name] = str(error)
    if missing and how.postprocess == "evalplus":
        raise SuiteUnavailable("evaluation.postprocess: evalplus, but " + "; ".join(missing.values()))
    return suites, list(missing.values())


# --- EvalPlus ---------------------------------------------------------------------------------------------------------

def _evalplus_chat_prompt(p: Params, tokenizer: Any, problem: Problem) -> str:
    return render(tokenizer, f"{INSTRUCTION}\n```\n{problem.prompt.strip()}\n```\n", p.policy.prompt, begun=RESPONSE)


def _evalplus_chat_stops(p: Params, suite: str) -> list[str]:
    return [*END, "\n```\n"]


def _evalplus_chat_solution(p: Params, problem: Problem, completion: str) -> str:
    return sanitised(before_stop(completion, _evalplus_chat_stops(p, problem.suite)), problem.entry_point)


def _evalplus_base_prompt(p: Params, tokenizer: Any, problem: Problem) -> str:
    return continued(tokenizer, problem.prompt.strip() + "\n")


def _evalplus_base_stops(p: Params, suite: str) -> list[str]:
    return [*END, *NEXT[suite]]


def _evalplus_base_solution(p: Params, problem: Problem, completion: str) -> str:
    written = before_stop(completion, _evalplus_base_stops(p, problem.suite))
    return sanitised(f"{problem.prompt.strip()}\n{written}", problem.entry_point)


# --- the authors' own -------------------------------------------------------------------------------------------------

def mbpp_question(prompt: str) -> str:
    """Magicoder's form of an MBPP problem, from EvalPlus' prompt: a docstring with a sentence and an assertion."""
    words, mark, assertion = prompt.partition('"""')[2].rpartition('"""')[0].partition("assert")
    words = words.strip()
    return (f"{words}{'' if words.endswith('.') else '.'} Your code should satisfy the following assertion:\n"
            f"```python\n{(mark + assertion).strip()}\n```")


def _magicoder_prompt(p: Params, tokenizer: Any, problem: Problem) -> str:
    if problem.suite == "mbpp":
        message, begun = mbpp_question(problem.prompt), "```python"
    else:
        begun = f"```python\n{problem.prompt.strip()}"
        message = f"Write a solution to the following problem:\n{begun}\n```"
    return render(tokenizer, message, "magicoder", begun=begun)


def _magicoder_solution(p: Params, problem: Problem, completion: str) -> str:
    return problem.prompt + before_stop(completion, ["```"])


def _codeqwen_chat_prompt(p: Params, tokenizer: Any, problem: Problem) -> str:
    message = f"Can you complete the following Python function?\n```python\n{problem.prompt.strip()}\n```\n"
    return render(tokenizer, message, "codeqwen-chat", CODEQWEN_SYSTEM, "```python\n")


def _codeqwen_chat_stops(p: Params, suite: str) -> list[str]:
    return [*END, "\n```"]


def _codeqwen_chat_solution(p: Params, problem: Problem, completion: str) -> str:
    return _codeqwen_written(completion, _codeqwen_chat_stops(p, problem.suite))


def _codeqwen_base_prompt(p: Params, tokenizer: Any, problem: Problem) -> str:
    return continued(tokenizer, problem.prompt.strip())


def _codeqwen_base_stops(p: Params, suite: str) -> list[str]:
    return [stop.rstrip() if stop == "\ndef " else stop for stop in _evalplus_base_stops(p, suite)]


def _codeqwen_base_solution(p: Params, problem: Problem, completion: str) -> str:
    return problem.prompt + _codeqwen_written(completion, _codeqwen_base_stops(p, problem.suite))


def _codeqwen_written(completion: str, stops: list[str]) -> str:
    return before_stop(completion, [*stops, "```"]).replace("\t", "    ")


def _oci_prompt(p: Params, tokenizer: Any, problem: Problem) -> str:
    if problem.suite == "mbpp":
        question = OCI_MBPP.format(prompt=problem.prompt)
    else:
        question = OCI_HUMANEVAL.format(prompt=problem.prompt.strip())
    return render(tokenizer, OCI_MESSAGE.format(question=question), p.policy.prompt)


def _oci_solution(p: Params, problem: Problem, completion: str) -> str:
    """By evalplus' older sanitizer, its own ``lecacy_sanitize`` (0.3.1). It works on strings and only parses; what it
    cannot take is an empty program."""
    from evalplus.lecacy_sanitize import sanitize

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the completion's own syntax
            return sanitize(completion.strip(), problem.entry_point).strip()
    except (ValueError, RecursionError):
        return ""


def _wizardcoder_prompt(p: Params, tokenizer: Any, problem: Problem) -> str:
    question = (mbpp_question(problem.prompt) if problem.suite == "mbpp"
                else f"Create a Python script for this problem:\n{problem.prompt}")
    system = f"{TEMPLATES['wizardcoder'].system}\n"  # one more empty line than in their README
    return render(tokenizer, question.replace("    ", "\t"), "wizardcoder", system)


def _wizardcoder_solution(p: Params, problem: Problem, completion: str) -> str:
    mbpp = problem.suite == "mbpp"
    text = completion.rpartition("### Response:")[2].replace("\t", "    ").replace("\r", "")
    if "```python" in text:
        text = text[text.index("```python"):].strip().replace("```python", "")
        text = _cut(text, "\n```" if mbpp else "```")
    for mark in ('if __name__ == "__main__":', "# Example usage", *(["assert"] if mbpp else [])):
        text = _cut(text, mark)
    return problem.prompt + text


def _cut(text: str, mark: str) -> str:
    return text[:text.index(mark)].strip() if mark in text else text


FORMAT_TOO = "A model that was never tuned to answer gains by learning the form alone."
PROTOCOLS = {
    "study": Protocol(
        measures="What training changed, in the form that it trained: instruction, code block, stop strings are those of "
                 f"sampling. Format and ability. {FORMAT_TOO}",
        source="ours: models.prompts.policy_prompt",
        prompt=lambda p, tokenizer, problem: policy_prompt(p, tokenizer, problem.instruction),
        stops=lambda p, suite: None,
        solution=lambda p, problem, completion: take_program(problem, completion, p.evaluation.postprocess,
                                                             p.policy.prompt),
        max_tokens=None, alone=False),
    "evalplus_chat": Protocol(
        measures="Ability of a chat model: the answer is begun for it, inside the code block, so that the form is given. "
                 "The way of EvalPlus' leaderboard.",
        source="evalplus/evalplus v0.3.1: evalplus/codegen.py, provider/utility.py, provider/vllm.py",
        prompt=_evalplus_chat_prompt, stops=_evalplus_chat_stops, solution=_evalplus_chat_solution, max_tokens=768),
    "evalplus_base": Protocol(
        measures="Ability of a base model: it goes on with the file, as in pre-training; no instruction, no form to learn. "
                 "A tuned policy is asked in another form than it was tuned on.",
        source="evalplus/evalplus v0.3.1: evalplus/codegen.py, provider/utility.py, provider/vllm.py",
        prompt=_evalplus_base_prompt, stops=_evalplus_base_stops, solution=_evalplus_base_solution, max_tokens=768),
    "magicoder": Protocol(
        measures="Ability, in Magicoder's training form: the answer begins with the function's head, and the benchmark's "
                 "prompt stands before what is judged.",
        source="ise-uiuc/magicoder 3ef43f0: experiments/text2code.py, experiments/README.md",
        prompt=_magicoder_prompt, stops=lambda p, suite: ["```"], solution=_magicoder_solution, max_tokens=512),
    "codeqwen_chat": Protocol(
        measures="Ability, and whether imports are repeated: asked to complete, with the code block begun, judged alone.",
        source="QwenLM/CodeQwen1.5 b082fc3: evaluation/eval_plus/generate.py, model.py",
        prompt=_codeqwen_chat_prompt, stops=_codeqwen_chat_stops, solution=_codeqwen_chat_solution, max_tokens=2048),
    "codeqwen_base": Protocol(
        measures="Ability of a base model, as evalplus_base; without the sanitiser, and without a line's end after the "
                 "prompt.",
        source="QwenLM/CodeQwen1.5 b082fc3: evaluation/eval_plus/generate.py, model.py",
        prompt=_codeqwen_base_prompt, stops=_codeqwen_base_stops, solution=_codeqwen_base_solution, max_tokens=512),
    "opencodeinterpreter": Protocol(
        measures="Ability and format: a whole answer in the chat template, to complete the code in one block; judged alone.",
        source="OpenCodeInterpreter/OpenCodeInterpreter 9674d8a: evaluation/evaluate/single_turn/"
               "gen_plus_solution_singleround.py; sanitised as until f9bb4d0 (May 2024), which is evalplus' legacy way",
        prompt=_oci_prompt, stops=lambda p, suite: [], solution=_oci_solution, max_tokens=1024),
    "wizardcoder": Protocol(
        measures="Ability and format: a whole answer, of which the first Python block is taken; the benchmark's prompt "
                 "stands before what is judged.",
        source="nlpxucan/WizardLM cd4b4cc: WizardCoder/src/humaneval_gen_vllm.py, process_humaneval.py, "
               "mbppplus_gen_vllm.py, mbppplus_process_preds.py, README.md",
        prompt=_wizardcoder_prompt, stops=lambda p, suite: [], solution=_wizardcoder_solution, max_tokens=2048),
}
