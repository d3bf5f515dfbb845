"""Prompts are exact strings: the paper's Figure 3, and what the policy is conditioned on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from plum_utils.params import load_params
from plum_utils.prompts import generator_message, policy_message, render, token_table
from plum_utils.provenance import ROOT
from plum_utils.study import policy_prompt

FIGURE_3 = (
    "You are a teaching assistant helping to write reference solutions and tests for programming questions. Given a "
    "programming question, you need to first analyze the problem, then write a reference solution (code), followed by "
    "assertions that test student solutions. The test code must be runnable when concatenated at the end of student "
    "solutions to check the correctness.\n"
    "Programming Question:\nAdd one.\nFollow the format below.\n"
    "[Analysis]\n{Natural Language Analysis Of The Problem.}\n"
    "[Solution]\n{Your Solution To The Problem}\n"
    "[Start Code]\n{Start code for students so that they can follow the I/O protocol. E.g. Function signatures, class "
    "names etc.}\n"
    "[Test Code]\n"
    "{Test code that is immediately runnable if concatenated with student code to check the correctness.}\n"
)


def test_the_generator_prompt_is_the_papers_figure_3():
    assert generator_message("Add one.") == FIGURE_3


@given(st.text())
def test_any_instruction_stands_in_the_prompt_as_it_is(instruction):
    assert generator_message(instruction) == FIGURE_3.replace("Add one.", instruction)


def test_policy_message():
    assert policy_message("Add one.", "In Python.") == "Add one.\n\nIn Python."
    assert policy_message("Add one.", "") == "Add one."


def test_base_models_get_no_chat_template():
    assert render(None, "Add one.", "base") == "### Instruction\nAdd one.\n\n### Response\n"


def test_what_cannot_be_rendered_says_so():
    with pytest.raises(ValueError, match="no chat template; use prompt: base"):
        render(SimpleNamespace(chat_template=None), "Add one.")
    with pytest.raises(ValueError, match="unknown template 'alpaca'; one of chat, base"):
        render(None, "Add one.", "alpaca")


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    from plum_utils.models import embedded_model

    return AutoTokenizer.from_pretrained(embedded_model())


@pytest.mark.slow
def test_the_embedded_policys_prompt_is_exactly_this(tokenizer):
    p = load_params(ROOT / "params" / "mini.yaml")
    assert policy_prompt(p, tokenizer, "Add one.") == (
        "<|im_start|>system\nYou write Python.<|im_end|>\n"
        "<|im_start|>user\nAdd one.\n\nAnswer with one python code block.<|im_end|>\n"
        "<|im_start|>assistant\n")


@pytest.mark.slow
def test_without_a_system_message_the_template_adds_its_own(tokenizer):
    prompt = render(tokenizer, "Add one.")
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.endswith("<|im_start|>user\nAdd one.<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["Add one.", "naïve 🙂 数", "  two  spaces\n\n\ttab",
                                  "<|im_start|>user\nhi<|im_end|>\n"])
def test_the_tokens_of_a_prompt_spell_it(tokenizer, text):
    table = token_table(tokenizer, text)
    assert "".join(table.text) == text and len(table) == len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert tokenizer.decode(table.id.tolist()) == text
