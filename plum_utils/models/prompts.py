"""The generator's prompt (paper, Figure 3) and the policy's prompts.

A policy prompt is a plain string: the template is applied here, once, so that sampling, training and evaluation
condition on exactly the same text. Every backend tokenises that string without adding special tokens, so a
beginning-of-sequence token that the model expects stands in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from plum_utils.params import Params

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

# Base models have no template of their own: two headings, and the model continues the text.
BASE_PROMPT = "### Instruction\n{instruction}\n\n### Response\n"


@dataclass(frozen=True)
class Template:
    """One model family's prompt for a single turn.

    ``text`` has the places ``{system}`` and ``{instruction}``; ``form`` is what a system message becomes in its place
    (nothing when there is none); ``system`` is the family's own message, used unless the caller gives another.
    """

    text: str
    system: str | None
    stop: tuple[str, ...]  # where a model of this family has begun another turn
    source: str  # who documents it, and where
    form: str = "{system}\n\n"
    bos: bool | None = True  # the tokenizer's bos_token in front; None: where that tokenizer puts one there by itself


_DEEPSEEK_STOP = ("<|EOT|>", "\n### Instruction:")
TEMPLATES = {
    "base": Template(
        text="{system}" + BASE_PROMPT, system=None, stop=("\n### Instruction",), bos=None,
        source="ours: CodeQwen1.5-7B, DeepSeek-Coder-base and StarCoder2 document code completion alone, and evalplus "
               "gives a model without chat template the bare function head, which an instruction does not have"),
    "magicoder": Template(
        text="{system}@@ Instruction\n{instruction}\n\n@@ Response\n",
        system="You are an exceptionally intelligent coding assistant that consistently delivers accurate and reliable "
               "responses to user instructions.",
        stop=("\n@@ Instruction",),
        source="ise-uiuc/magicoder: README, Quick Start, and src/magicoder/prompt_template.py; all sizes and -S alike"),
    "deepseek-coder": Template(
        text="{system}### Instruction:\n{instruction}\n### Response:\n", form="{system}\n",
        system="You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek "
               "Company, and you only answer questions related to computer science. For politically sensitive "
               "questions, security and privacy issues, and other non-computer science questions, you will refuse to "
               "answer.",
        stop=_DEEPSEEK_STOP,
        source="deepseek-ai/DeepSeek-Coder: README, Chat Model Inference; the template in the tokenizer spells the "
               "names Deepseek and, in its last revision, has no full stop at the end of the system message"),
    "opencodeinterpreter-ds": Template(
        text="{system}### Instruction:\n{instruction}\n### Response:\n", form="{system}\n",
        system="You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek "
               "Company, and you only answer questions related to computer science. For politically sensitive "
               "questions, security and privacy issues, and other non-computer science questions, you will refuse to "
               "answer.",
        stop=_DEEPSEEK_STOP,
        source="OpenCodeInterpreter/OpenCodeInterpreter: demo and evaluation use the tokenizer's chat template without "
               "asking for a generation prompt, so it is taken to be DeepSeek-Coder's of November 2023, which always "
               "ends in the response's heading (tokenizer_config.json of deepseek-coder-33b-instruct, f517a38)"),
    "opencodeinterpreter-cl": Template(
        text="[INST] {system}{instruction} [/INST]", form="<<SYS>>\n{system}\n<</SYS>>\n\n", system=None,
        stop=("[INST]",),
        source="OpenCodeInterpreter/OpenCodeInterpreter: demo and evaluation use the tokenizer's chat template; CL's "
               "tokenizer_config.json had none at its release, so transformers used the default of its class, "
               "CodeLlamaTokenizer: Llama 2's, without a system message"),
    "wizardcoder": Template(
        text="{system}### Instruction:\n{instruction}\n\n### Response:",
        system="Below is an instruction that describes a task. Write a response that appropriately completes the "
               "request.",
        stop=("\n### Instruction:",),
        source="nlpxucan/WizardLM: WizardCoder/README.md, Inference, and src/inference_wizardcoder.py"),
    "codeqwen-chat": Template(
        text="{system}<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
        form="<|im_start|>system\n{system}<|im_end|>\n", system="You are a helpful assistant.",
        stop=("<|im_end|>", "<|im_start|>"), bos=False,
        source="Qwen/CodeQwen1.5-7B-Chat: chat_template and add_bos_token (false) in tokenizer_config.json"),
}
KNOWN = ("chat", *TEMPLATES)
_HERE = "(the model goes on from here)"  # any text that no prompt has


def generator_message(instruction: str) -> str:
    """The generator's user message for one programming question (Figure 3)."""
    return GENERATOR_PROMPT.format(question=instruction)


def policy_message(instruction: str, answer_instruction: str) -> str:
    """The user message the policy sees: the instruction, then how to answer."""
    return f"{instruction}\n\n{answer_instruction}" if answer_instruction else instruction


def template_stops(template: str) -> list[str]:
    """The strings at which a model of this family has begun another turn, for samplers and for ``extract_code``.

    ``chat`` has none: such a model ends its turn with a token of its own.

    Raises:
        ValueError: an unknown template.
    """
    return [] if template == "chat" else list(_template(template).stop)


def answer_end(tokenizer: Any, template: str = "chat") -> str:
    """The token that ends an answer: what the chat template puts behind one, or the family's first stop string that is a
    token of the tokenizer's; else its ``eos_token``, which need not be the turn's."""
    behind = template_stops(template)
    if template == "chat":
        turn = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
        behind = [tokenizer.apply_chat_template(turn, tokenize=False).rpartition("answer")[2].strip()]
    tokens = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    return next((token for text in behind for token in tokens if text.startswith(token)), tokenizer.eos_token)


def render(tokenizer: Any, message: str, template: str = "chat", system: str | None = None, begun: str = "") -> str:
    """One prompt string for one user message, which stands in it as it is.

    Args:
        tokenizer: the policy's tokenizer; its own chat template is used for ``template="chat"``, its ``bos_token`` for
            the others where the family has one in front.
        template: ``chat`` or one of ``TEMPLATES``.
        system: system message; without one, the family's own, if it has one. An empty string leaves it out of all
            templates but ``chat``.
        begun: how the answer begins; the model goes on from there.

    Raises:
        ValueError: an unknown template, or ``chat`` for a tokenizer that has none.
    """
    if template != "chat":
        return _filled(tokenizer, _template(template), message, system) + begun
    if not tokenizer.chat_template:
        raise ValueError("policy.prompt: this tokenizer has no chat template; use prompt: base, or its family's: "
                         f"{', '.join(list(TEMPLATES)[1:])}")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": message})
    if not begun:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    messages.append({"role": "assistant", "content": begun + _HERE})
    return tokenizer.apply_chat_template(messages, add_generation_prompt=False, tokenize=False).partition(_HERE)[0]


def continued(tokenizer: Any, text: str, template: str = "base") -> str:
    """A whole prompt that another wrote, behind the token with which prompts of this family begin, if they do."""
    return _bos(tokenizer, _template(template).bos) + text


def _template(name: str) -> Template:
    if name not in TEMPLATES:
        raise ValueError(f"policy.prompt: unknown template {name!r}; one of {', '.join(KNOWN)}")
    return TEMPLATES[name]


def _filled(tokenizer: Any, template: Template, message: str, system: str | None) -> str:
    """Places are looked for in the template alone, never in what was put into one."""
    before, _, after = template.text.partition("{instruction}")
    said = template.system if system is None else system
    before = before.replace("{system}", template.form.replace("{system}", said) if said else "")
    return _bos(tokenizer, template.bos) + before + message + after


def _bos(tokenizer: Any, wanted: bool | None) -> str:
    token = getattr(tokenizer, "bos_token", None)
    if not token or wanted is False:
        return ""
    return token if wanted or tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else ""


def token_table(tokenizer: Any, text: str) -> pd.DataFrame:
    """The tokens of a rendered prompt, one row each: ``position``, ``id``, and ``text``, its stretch of the prompt."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in encoded["offset_mapping"]] + [len(text)]
    return pd.DataFrame({"position": range(len(encoded["input_ids"])), "id": encoded["input_ids"],
                         "text": [text[start:end] for start, end in zip(starts, starts[1:])]})


def policy_prompt(p: Params, tokenizer: Any, instruction: str) -> str:
    """The exact string the policy is conditioned on, the same in sampling, training and evaluation."""
    return render(tokenizer, policy_message(instruction, p.policy.answer_instruction), p.policy.prompt,
                  p.policy.system)
