"""The generator's prompt (paper, Figure 3) and the policy's prompts.

A policy prompt is a plain string: the chat template is applied here, once, so that sampling, training and evaluation
condition on exactly the same text.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

# Zhang et al. 2024, Figure 3 ("Prompt for Test Case Generation"), quoted.
GENERATOR_PROMPT = """\
You are a teaching assistant helping to write reference solutions and tests for programming questions. Given a \
programming question, you need to first analyze the problem, then write a reference solution (code), followed by \
assertions that test student solutions. The test code must be runnable when concatenated at the end of student \
solutions to check the correctness.
Programming Question:
{question}
Follow the format below.
[Analysis]
{{Natural Language Analysis Of The Problem.}}
[Solution]
{{Your Solution To The Problem}}
[Start Code]
{{Start code for students so that they can follow the I/O protocol. E.g. Function signatures, class names etc.}}
[Test Code]
{{Test code that is immediately runnable if concatenated with student code to check the correctness.}}
"""

# Base models have no chat template: the instruction stands as a comment before an open code fence.
BASE_PROMPT = "### Instruction\n{instruction}\n\n### Response\n"


def generator_message(instruction: str) -> str:
    """The generator's user message for one programming question (Figure 3)."""
    return GENERATOR_PROMPT.format(question=instruction)


def policy_message(instruction: str, answer_instruction: str) -> str:
    """The user message the policy sees: the instruction, then how to answer."""
    return f"{instruction}\n\n{answer_instruction}" if answer_instruction else instruction


def render(tokenizer: Any, message: str, template: str = "chat", system: str | None = None) -> str:
    """One prompt string for one user message.

    Args:
        tokenizer: the policy's tokenizer; its own chat template is used for ``template="chat"``.
        template: ``chat`` or ``base``.
        system: system message; without one, the model's template may add its own.

    Raises:
        ValueError: an unknown template, or ``chat`` for a tokenizer that has none.
    """
    if template == "base":
        return BASE_PROMPT.format(instruction=message)
    if template != "chat":
        raise ValueError(f"policy.prompt: unknown template {template!r}; one of chat, base")
    if not tokenizer.chat_template:
        raise ValueError("policy.prompt: this tokenizer has no chat template; use prompt: base")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": message})
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def token_table(tokenizer: Any, text: str) -> pd.DataFrame:
    """The tokens of a rendered prompt, one row each: ``position``, ``id``, and ``text``, its stretch of the prompt."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in encoded["offset_mapping"]] + [len(text)]
    return pd.DataFrame({"position": range(len(encoded["input_ids"])), "id": encoded["input_ids"],
                         "text": [text[start:end] for start, end in zip(starts, starts[1:])]})
