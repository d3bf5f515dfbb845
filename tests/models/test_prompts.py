"""Prompts are exact strings: the paper's Figure 3, and what the policy is conditioned on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from plum_utils.models.prompts import (
    TEMPLATES,
    answer_end,
    generator_message,
    policy_message,
    policy_prompt,
    render,
    template_stops,
    token_table,
)
from plum_utils.params import load_params
from plum_utils.provenance import ROOT

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


CHATML = "{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
LLAMA2 = "{% for one in messages %}{% if one.role == 'user' %}[INST] {{ one.content }} [/INST]{% else %} {{ one.content }} </s>" \
         "{% endif %}{% endfor %}"
OPEN = "{% for one in messages %}{{ one.content }}\n{% endfor %}"


@pytest.mark.parametrize(("template", "chat_template", "end"), [
    ("chat", CHATML, "<|im_end|>"), ("chat", LLAMA2, "</s>"), ("chat", OPEN, "</s>"), ("base", CHATML, "</s>"),
    ("codeqwen-chat", CHATML, "<|im_end|>"), ("deepseek-coder", None, "</s>"), ("magicoder", None, "</s>")])
def test_an_answer_ends_with_the_turns_own_token(template, chat_template, end):
    tokens = {token: number for number, token in enumerate(("</s>", "<|im", "<|im_start|>", "<|im_end|>"))}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(tokens)), eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.chat_template = chat_template
    assert answer_end(tokenizer, template) == end


def test_the_generator_prompt_is_the_papers_figure_3():
    assert generator_message("Add one.") == FIGURE_3


@given(st.text())
def test_any_instruction_stands_in_the_prompt_as_it_is(instruction):
    assert generator_message(instruction) == FIGURE_3.replace("Add one.", instruction)


def test_policy_message():
    assert policy_message("Add one.", "In Python.") == "Add one.\n\nIn Python."
    assert policy_message("Add one.", "") == "Add one."


class Stub:
    """A tokenizer that puts its first token in front of a text, or does not."""

    bos_token, bos_token_id = "<s>", 1

    def __init__(self, adds_bos: bool):
        self._adds_bos = adds_bos

    def __call__(self, text):
        return {"input_ids": [1, 7] if self._adds_bos else [7]}


LLAMA, GPT = Stub(adds_bos=True), Stub(adds_bos=False)


def test_base_models_get_no_chat_template():
    assert render(None, "Add one.", "base") == "### Instruction\nAdd one.\n\n### Response\n"


def test_magicoder():
    assert render(LLAMA, "Add one.", "magicoder") == (
        "<s>You are an exceptionally intelligent coding assistant that consistently delivers accurate and reliable "
        "responses to user instructions.\n\n@@ Instruction\nAdd one.\n\n@@ Response\n")


def test_deepseek_coder_instruct():
    assert render(LLAMA, "Add one.", "deepseek-coder") == (
        "<s>You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek Company, "
        "and you only answer questions related to computer science. For politically sensitive questions, security and "
        "privacy issues, and other non-computer science questions, you will refuse to answer.\n"
        "### Instruction:\nAdd one.\n### Response:\n")


def test_open_code_interpreter_ds():
    assert render(LLAMA, "Add one.", "opencodeinterpreter-ds") == (
        "<s>You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, "
        "and you only answer questions related to computer science. For politically sensitive questions, security and "
        "privacy issues, and other non-computer science questions, you will refuse to answer.\n"
        "### Instruction:\nAdd one.\n### Response:\n")


def test_open_code_interpreter_cl():
    assert render(LLAMA, "Add one.", "opencodeinterpreter-cl") == "<s>[INST] Add one. [/INST]"


def test_wizardcoder():
    assert render(LLAMA, "Add one.", "wizardcoder") == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd one.\n\n### Response:")


def test_codeqwen_chat():
    assert render(LLAMA, "Add one.", "codeqwen-chat") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nAdd one.<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(("template", "prompt"), [
    ("base", "Be brief.\n\n### Instruction\nAdd one.\n\n### Response\n"),
    ("magicoder", "Be brief.\n\n@@ Instruction\nAdd one.\n\n@@ Response\n"),
    ("deepseek-coder", "Be brief.\n### Instruction:\nAdd one.\n### Response:\n"),
    ("opencodeinterpreter-ds", "Be brief.\n### Instruction:\nAdd one.\n### Response:\n"),
    ("opencodeinterpreter-cl", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nAdd one. [/INST]"),
    ("wizardcoder", "Be brief.\n\n### Instruction:\nAdd one.\n\n### Response:"),
    ("codeqwen-chat", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nAdd one.<|im_end|>\n"
                      "<|im_start|>assistant\n"),
])
def test_a_system_message_takes_the_place_of_the_familys_own(template, prompt):
    assert render(None, "Add one.", template, "Be brief.") == prompt


def test_an_empty_system_message_leaves_it_out():
    assert render(None, "Add one.", "magicoder", "") == "@@ Instruction\nAdd one.\n\n@@ Response\n"


def test_the_first_token_is_the_tokenizers_own_where_the_family_has_one():
    in_front = {name: render(LLAMA, "Add one.", name).startswith("<s>") for name in TEMPLATES}
    assert in_front == {name: name != "codeqwen-chat" for name in TEMPLATES}
    assert render(SimpleNamespace(bos_token=None), "Add one.", "wizardcoder").startswith("Below")


def test_a_base_model_gets_the_first_token_that_its_tokenizer_would_put_there():
    plain = "### Instruction\nAdd one.\n\n### Response\n"
    assert render(LLAMA, "Add one.", "base") == "<s>" + plain and render(GPT, "Add one.", "base") == plain


ODD = st.text() | st.sampled_from(["{instruction}", "{system}", "{", "}}", "{0}", "%s", "\\1", "### Instruction:\nHi\n",
                                   "@@ Response\n", "[/INST]", "<|im_end|>\n<|im_start|>assistant\n", "<s>"])


@given(ODD, ODD.filter(bool), st.sampled_from(sorted(TEMPLATES)))
def test_any_message_stands_in_any_template_as_it_is(message, system, template):
    before, after = render(None, "\0", template, "\1").split("\0")
    assert render(None, message, template, system) == before.replace("\1", system) + message + after


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_each_template_has_its_places_and_its_source(template):
    found = TEMPLATES[template]
    assert found.text.count("{instruction}") == found.text.count("{system}") == found.form.count("{system}") == 1
    assert found.source and template_stops(template) == list(found.stop)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_another_turn_of_the_same_form_is_where_to_stop(template):
    """What a model would write if it went on with the prompt's own form."""
    again = "x = 1\n" + render(None, "Add two.", template)
    assert any(stop in again for stop in template_stops(template))


def test_a_model_with_its_own_template_stops_by_itself():
    assert template_stops("chat") == []


def test_what_cannot_be_rendered_says_so():
    with pytest.raises(ValueError, match="no chat template; use prompt: base, or its family's: magicoder, deepseek"):
        render(SimpleNamespace(chat_template=None), "Add one.")
    known = "policy.prompt: unknown template 'alpaca'; one of chat, base, magicoder, deepseek-coder, "
    with pytest.raises(ValueError, match=known):
        render(None, "Add one.", "alpaca")
    with pytest.raises(ValueError, match=known):
        template_stops("alpaca")


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    from plum_utils.models.weights import embedded_model

    return AutoTokenizer.from_pretrained(embedded_model())


def test_the_embedded_policys_prompt_is_exactly_this(tokenizer):
    p = load_params(ROOT / "params" / "mini.yaml")
    assert policy_prompt(p, tokenizer, "Add one.") == (
        "<|im_start|>system\nYou write Python.<|im_end|>\n"
        "<|im_start|>user\nAdd one.\n\nAnswer with one python code block.<|im_end|>\n"
        "<|im_start|>assistant\n")


def test_without_a_system_message_the_template_adds_its_own(tokenizer):
    prompt = render(tokenizer, "Add one.")
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.endswith("<|im_start|>user\nAdd one.<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("text", ["Add one.", "naïve 🙂 数", "  two  spaces\n\n\ttab",
                                  "<|im_start|>user\nhi<|im_end|>\n"])
def test_the_tokens_of_a_prompt_spell_it(tokenizer, text):
    table = token_table(tokenizer, text)
    assert "".join(table.text) == text and len(table) == len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert tokenizer.decode(table.id.tolist()) == text


def test_the_embedded_policys_tokenizer_puts_nothing_in_front_of_a_base_prompt(tokenizer):
    assert render(tokenizer, "Add one.", "base") == "### Instruction\nAdd one.\n\n### Response\n"
