"""How contest problems are asked and answered (``livecodebench.protocol``): our own way, or that of LiveCodeBench's runner
in June 2024, with which Table 4's baselines were measured.

The texts are those of ``lcb_runner/prompts/code_generation.py`` in LiveCodeBench/LiveCodeBench at 45015dd, to the letter;
which model is asked in which style stands in ``lcb_runner/lm_styles.py`` there. The end of the text decides too: an answer is
cut off where the stop string begins (``###``), and the program is what stands between two lines with fences.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import plum_utils.data
from plum_utils.data.livecodebench import LcbProblem
from plum_utils.evaluation.solutions import take_program
from plum_utils.models.completions import before_stop
from plum_utils.models.prompts import continued, policy_prompt, render
from plum_utils.params import Params

ASKED = ("You will be given a question (problem specification) and will generate a correct Python program that matches the "
         "specification and passes all tests. You will NOT return anything except for the program.")
EXPERT = f"You are an expert Python programmer. {ASKED}"
STARTER = ("You will use the following starter code to write the solution to the problem and enclose your code within "
           "delimiters.")
STDIN = ("Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
         "inputs). Enclose your code within delimiters as follows.")


@dataclass(frozen=True)
class Style:
    """A prompt: ``head``, the question, ``lead`` and what is wanted, a block with the code to begin from, ``tail``."""

    head: str
    lead: str
    tail: str
    gap: str = "\n"  # below what is said of standard input

    def prompt(self, question: str, starter: str) -> str:
        wanted = f"{STARTER}\n```python\n{starter}" if starter else f"{STDIN}{self.gap}```python\n# YOUR CODE HERE"
        return f"{self.head}{question}\n\n{self.lead}{wanted}\n```\n\n{self.tail}"


GENERIC = Style("### Question:\n", "### Format: ", "### Answer: (use the provided format with backticks)\n\n")
OPEN_CODE_INTERPRETER = Style(f"{EXPERT}\n\n{GENERIC.head}", GENERIC.lead, GENERIC.tail)
# By policy.prompt, with the style's name there. ``chat`` is OpenAIChat's system and user message in the model's own template,
# ``base`` is GenericBase (``_base``). OpenCodeInterpreter-CL is not among their models; it is asked as its sisters are.
STYLES = {
    "magicoder": Style(  # MagiCoder
        "You are an exceptionally intelligent coding assistant that consistently delivers accurate and reliable responses to "
        f"user instructions.\n\n@@ Instruction\n\n{ASKED}\n\nQuestion:\n", "Format: ", "@@ Response\n"),
    "deepseek-coder": Style(  # DeepSeekCodeInstruct
        "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek Company, and you "
        f"answer questions related to computer science.\n\n### Instruction: {ASKED}\n\nQuestion:\n", "### Instruction: ",
        "### Response:\n\n"),
    "opencodeinterpreter-ds": OPEN_CODE_INTERPRETER,  # OC
    "opencodeinterpreter-cl": OPEN_CODE_INTERPRETER,
    "wizardcoder": Style(  # WizardCoder
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        f"### Instruction: {ASKED} Put your fixed program within code delimiters, for example:\n"
        "```python \n# YOUR CODE HERE\n```\n", "", "### Response:\n\n", gap="\n\n"),
    "codeqwen-chat": Style(  # CodeQwenInstruct
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n\n{ASKED}\n\nQuestion: ", "",
        "<|im_end|>\n<|im_start|>assistant\n"),
}


class Fences(NamedTuple):
    """Between which two lines with a fence the program stands, counted as lists are."""

    opening: int
    closing: int


FENCES = {"v2024": Fences(0, 1), "current": Fences(-2, -1)}  # the first two, the last two


def contest_prompt(p: Params, tokenizer: Any, problem: LcbProblem) -> str:
    """The exact string with which the policy is asked for a program, by ``livecodebench.protocol``.

    Raises:
        ValueError: of ``lcb_2024``, a template without a style there.
    """
    template = p.policy.prompt
    if p.livecodebench.protocol == "study":
        return policy_prompt(p, tokenizer, problem.instruction)
    if template == "chat":
        return render(tokenizer, GENERIC.prompt(problem.content, problem.starter_code), "chat", EXPERT)
    if template == "base":
        return continued(tokenizer, _base(problem), template)
    if template not in STYLES:
        raise ValueError(f"livecodebench.protocol: lcb_2024 has no style for policy.prompt {template!r}")
    return continued(tokenizer, STYLES[template].prompt(problem.content, problem.starter_code), template)


def _base(problem: LcbProblem) -> str:
    """One solved example, then the problem in the same form, which a base model continues."""
    example = _examples()["functional" if problem.starter_code else "stdin"]
    return (_question(example["question"], example.get("sample_code", "")) + example["answer"] + "\n\n"
            + _question(problem.content, problem.starter_code))


def _question(question: str, starter: str) -> str:
    return f"### Question\n{question}\n\n" + (f"### Starter Code\n{starter}\n\n" if starter else "") + "### Answer\n\n"


@cache
def _examples() -> dict[str, dict[str, str]]:
    return json.loads((Path(plum_utils.data.__file__).parent / "livecodebench_examples.json").read_text("utf-8"))


def contest_program(p: Params, problem: LcbProblem, completion: str) -> str:
    """The program in a completion, by ``livecodebench.protocol``: of ``study`` by our rule (``take_program``), of
    ``lcb_2024`` by that of ``livecodebench.grader``."""
    how = p.livecodebench
    if how.protocol == "study":
        return take_program(problem, completion, template=p.policy.prompt)
    stops = p.sampling.stop if how.stop is None else how.stop
    return between_fences(before_stop(completion, stops), FENCES[how.grader], p.policy.prompt)


def between_fences(text: str, fences: Fences, template: str) -> str:
    """What stands between two of the lines with a fence, as it stands; nothing where there are no two. Of a base model the
    whole text, without blanks around it."""
    if template == "base":
        return text.strip()
    lines = text.split("\n")
    places = [place for place, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[places[fences.opening] + 1:places[fences.closing]]) if len(places) > 1 else ""
