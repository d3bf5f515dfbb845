"""Tokenizers as their authors made them: the paper's four kinds of files, whatever class their labels lead to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoConfig, AutoTokenizer, LlamaTokenizer, TokenizersBackend

from plum_utils.models import prompts
from plum_utils.models.tokenizer import TokenizerError, load_tokenizer, read_by_class, saved_tokenizer, spelled
from plum_utils.study.tiny_tokenizers import KINDS, write_tokenizer

ARCHITECTURE = {"deepseek-coder": "llama", "codellama": "llama", "codeqwen": "qwen2", "starcoder2": "starcoder2"}
BEGINS_WITH_BOS = {"deepseek-coder", "codellama"}
CODE = ["def answer(x):\n    return x + 1\n", "if x:\n\tpass\n\n\n    # naïve 日本\n", "print( 'a  1 , 12345' )\n", "  1\n"]
FAMILIES = {"deepseek-coder": ["base", "magicoder", "deepseek-coder", "opencodeinterpreter-ds"], "starcoder2": ["base"],
            "codellama": ["magicoder", "opencodeinterpreter-cl", "wizardcoder"], "codeqwen": ["base", "codeqwen-chat", "chat"]}


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(kind)
    write_tokenizer(kind, [*CODE, "Below is an instruction. You are"], path)
    AutoConfig.for_model(ARCHITECTURE[kind]).save_pretrained(path)
    return path


def test_every_text_is_encoded_as_the_file_says_and_comes_back(folder):
    tokenizer, raw = load_tokenizer(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in CODE:
        assert ids(tokenizer, text) == raw.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids(tokenizer, text)) == text
    said = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "chat_template"):
        assert getattr(tokenizer, name) == said.get(name)


def test_auto_tokenizer_reads_two_of_the_kinds_wrongly(kind, folder):
    """Where this fails, transformers has mended it: look whether ``load_tokenizer`` is still needed."""
    assert read_by_class(folder) == (kind not in ("deepseek-coder", "codeqwen"))


def test_a_prompt_begins_with_one_beginning_of_sequence_token_at_most(kind, folder):
    tokenizer = load_tokenizer(folder)
    for template in FAMILIES[kind]:
        prompt = prompts.render(tokenizer, "Below is an instruction.", template)
        encoded = ids(tokenizer, prompt)
        assert spelled(tokenizer, encoded) == prompt
        if kind in BEGINS_WITH_BOS:  # as the model was trained: the token, then what the tokenizer makes of the rest
            assert encoded == tokenizer(prompt.removeprefix(tokenizer.bos_token))["input_ids"]
            assert encoded.count(tokenizer.bos_token_id) == 1 and encoded[0] == tokenizer.bos_token_id
        else:
            assert tokenizer.bos_token_id not in encoded


def test_what_is_saved_is_read_again_and_alone_by_others_too(kind, folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    AutoConfig.for_model(ARCHITECTURE[kind]).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)  # as merge_adapter does
    assert read_by_class(tmp_path) == (kind != "codeqwen")  # transformers gives each qwen2 config its own class
    with saved_tokenizer(tmp_path) as alone:
        readers = [load_tokenizer(tmp_path), load_tokenizer(alone), AutoTokenizer.from_pretrained(alone)]
    for other in readers:
        assert [other(text)["input_ids"] for text in CODE] == [tokenizer(text)["input_ids"] for text in CODE]
        assert other.special_tokens_map == tokenizer.special_tokens_map and other.chat_template == tokenizer.chat_template


@pytest.mark.long("upgrade")
def test_vllm_reads_the_saved_folder_as_we_do(folder):
    registry = pytest.importorskip("vllm.tokenizers.registry")
    tokenizer = load_tokenizer(folder)
    with saved_tokenizer(folder) as alone:
        theirs = registry.get_tokenizer(alone)
    assert [theirs(text)["input_ids"] for text in CODE] == [tokenizer(text)["input_ids"] for text in CODE]
    assert [theirs.decode(ids(theirs, text)) for text in CODE] == CODE


@pytest.mark.parametrize("kind", ["deepseek-coder"], scope="module")
def test_a_class_that_makes_its_own_tokenizer_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(TokenizersBackend, "from_pretrained", LlamaTokenizer.from_pretrained)
    with pytest.raises(TokenizerError, match=f"{folder.name}.*: transformers does not encode as tokenizer.json says"):
        load_tokenizer(folder)


@pytest.mark.parametrize("kind", ["starcoder2"], scope="module")
def test_a_tokenizer_that_loses_spaces_is_refused_with_what_it_makes_of_a_program(folder, tmp_path):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Strip()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r'program back: .*pass\\n" becomes .*pass"\. .*take another model'):
        load_tokenizer(tmp_path)


def test_a_folder_without_tokenizer_json_is_refused_with_the_mend(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(TokenizerError, match="no tokenizer.json.*add it to a local copy of the model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["codellama"], scope="module")
def test_a_completions_first_space_is_kept_by_the_transformers_engine(folder):
    from plum_utils.models.transformers_engine import TransformersBackend, _Row

    backend = object.__new__(TransformersBackend)
    backend._tokenizer, backend._ends = load_tokenizer(folder), set()
    asked = ids(backend._tokenizer, "<s>Below is")
    row = _Row(0, tuple(asked), finish="length")
    for token in ids(backend._tokenizer, "an 1"):
        row.ids.append(token)
        row.text += backend._decoded(row, token)
    assert row.text == backend._completion(row, lambda text: None).text == " an 1"


@pytest.mark.parametrize("kind", ["codellama"], scope="module")
def test_bytes_that_are_no_text_do_not_end_the_transformers_engine(folder):
    from plum_utils.models.transformers_engine import TransformersBackend, _Row

    backend = object.__new__(TransformersBackend)
    backend._tokenizer, backend._ends = load_tokenizer(folder), set()
    first, second, letter = backend._tokenizer.convert_tokens_to_ids(["<0xC3>", "<0xE6>", "n"])
    row = _Row(0, tuple(ids(backend._tokenizer, "<s>Below is")), finish="length")
    assert "".join(backend._decoded(row, token) for token in [letter, first, letter, first, second, letter]).endswith("n")
