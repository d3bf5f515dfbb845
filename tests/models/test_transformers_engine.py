"""Our sampling loop: what ``generate`` of transformers decodes, each row stopped where it should, whatever the batch."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from tiny_llama import END
from transformers import AutoModelForCausalLM, AutoTokenizer, TopPLogitsWarper

from plum_utils.models import transformers_engine
from plum_utils.models.completions import Completion
from plum_utils.models.transformers_engine import TransformersBackend, choose_tokens, entropy

PROMPTS = ["ask 22?\n", "ask 1 and then another 2?\n", "x", "ask 333?\n", "ask 22?\n"]
DRAWN = {"n": 6, "temperature": 1.5, "max_tokens": 50, "seed": 3, "stop": ["a", "\n", "Z"]}


@pytest.fixture(scope="module")
def sharp(tiny, tmp_path_factory):
    """Folder of the tiny model with greater weights: its next token depends on those before, at T > 0 too."""
    folder = tmp_path_factory.mktemp("sharp")
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10 if weight.dim() > 1 else 1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def backend(sharp):
    return TransformersBackend(sharp, "float32")


@pytest.fixture
def scripted(monkeypatch, backend):
    """A function that makes every row of the next calls get these tokens, one after the other."""
    def script(*tokens: int) -> None:
        left = iter(tokens)
        monkeypatch.setattr(transformers_engine, "choose_tokens",
                            lambda logits, *_: torch.full((len(logits),), next(left)))
    return script


def ids(backend: TransformersBackend, text: str) -> list[int]:
    return backend._tokenizer(text, add_special_tokens=False)["input_ids"]


def test_greedy_is_what_transformers_decodes(backend, sharp):
    """Over 80 tokens the cache grows twice; the prompts differ in length, so that some are padded; some rows end."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(sharp, dtype=torch.float32), backend._tokenizer
    outputs = backend.generate(PROMPTS, max_tokens=80)
    assert {outs[0].finish_reason for outs in outputs} == {"end_token", "length"}
    for prompt, (ours,) in zip(PROMPTS, outputs):
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        new = model.generate(**inputs, do_sample=False, max_new_tokens=80)[0, inputs["input_ids"].shape[1]:]
        assert ours.text == tokenizer.decode(new, skip_special_tokens=True) and ours.n_tokens == len(new)


@pytest.mark.parametrize("size", [1, 4, 7, 64])
def test_a_row_does_not_depend_on_its_batch(monkeypatch, backend, size):
    """Rows end at different steps and leave the batch; alone, none of them ever had a neighbour."""
    whole = backend.generate(PROMPTS, **DRAWN)
    lengths = {out.n_tokens for outs in whole for out in outs}
    assert len(lengths) > 10 and max(lengths) == 50 > min(lengths)
    monkeypatch.setattr(backend, "_rows_that_fit", lambda tokens: size)
    assert backend.generate(PROMPTS, **DRAWN) == whole


def test_greedy_rows_are_those_of_a_prompt_alone(backend):
    free = backend.generate(PROMPTS, max_tokens=40)
    stop = [outs[0].text[5 + 3 * place:7 + 3 * place] for place, outs in enumerate(free)]
    together = backend.generate(PROMPTS, max_tokens=40, stop=stop)
    assert together == [backend.generate([prompt], max_tokens=40, stop=stop)[0] for prompt in PROMPTS]
    assert {out.finish_reason for outs in together for out in outs} == {"stop_string"}


def test_the_same_call_gives_the_same_and_another_seed_another(backend):
    first = backend.generate(PROMPTS, **DRAWN)
    assert [len(outs) for outs in first] == [6] * 5 and len({out.text for outs in first for out in outs}) > 20
    assert backend.generate(PROMPTS, **DRAWN) == first
    assert backend.generate(PROMPTS, **DRAWN | {"seed": 4}) != first
    assert first[0] != first[4], "the same prompt twice is two draws"


def test_no_two_rows_share_random_numbers(monkeypatch, backend):
    """Nor do those of a call with the next seed, or of the same prompts in another order with seeds of their own."""
    seen = []
    monkeypatch.setattr(transformers_engine, "choose_tokens",
                        lambda logits, noise, *_: seen.append(noise) or logits.argmax(-1))
    for seed in (0, 1, [5, 6, 7, 8, 9]):
        backend.generate(PROMPTS, n=4, temperature=1.0, max_tokens=1, seed=seed)
    numbers = torch.cat(seen)
    assert len(numbers) == len(set(numbers.tolist())) == 3 * 5 * 4 and 0 < numbers.min() and numbers.max() <= 1
    seen.clear()
    backend.generate(PROMPTS[::-1], n=4, temperature=1.0, max_tokens=1, seed=[9, 8, 7, 6, 5])
    assert sorted(seen[0].tolist()) == sorted(numbers[-20:].tolist())


def test_greedy_has_one_outcome_in_as_many_copies_as_asked_for(backend):
    assert backend.generate(PROMPTS, n=3, max_tokens=9, seed=8) == \
        [outs * 3 for outs in backend.generate(PROMPTS, max_tokens=9)]


def test_every_row_ends_with_its_first_stop_string(backend):
    for out in (out for outs in backend.generate(PROMPTS, **DRAWN) for out in outs):
        stops = [out.text.index(mark) for mark in DRAWN["stop"] if mark in out.text]
        assert stops in ([], [len(out.text) - 1])
        assert out.finish_reason == ("stop_string" if stops else "length" if out.n_tokens == 50 else "end_token")


@pytest.mark.parametrize(("written", "stop", "text"), [
    ("ab```\nc", ["```\n"], "ab```\n"),  # over four tokens
    ("abcabd", ["abd", "zz"], "abcabd"),  # begun once in vain
    ("ab\n\nc", ["\n"], "ab\n"),  # within the token of two line breaks, with text behind it
    ("ab\n\nc", ["b\n"], "ab\n"),
    ("a\u00e9\u00fcz", ["\u00e9\u00fc"], "a\u00e9\u00fc"),  # two bytes, so two tokens, each
    ("abcd", ["cd", "bc"], "abc"),  # the one that is complete first
])
def test_stop_strings_across_and_within_tokens(backend, scripted, written, stop, text):
    tokens = ids(backend, written)
    used = next(n for n in range(len(tokens) + 1) if any(mark in backend._tokenizer.decode(tokens[:n]) for mark in stop))
    scripted(*tokens)
    assert backend.generate(PROMPTS, n=2, temperature=1.0, max_tokens=len(tokens), stop=stop) == \
        [[Completion(text, "stop_string", used)] * 2] * 5


def test_a_stop_string_across_a_special_token_is_one_in_the_text(backend, scripted):
    scripted(*ids(backend, "ab"), backend._tokenizer.pad_token_id, *ids(backend, "cd"))
    assert backend.generate(["x"], max_tokens=9, stop=["bc"]) == [[Completion("abc", "stop_string", 4)]]


def test_the_end_token_ends_a_row_counts_and_is_not_in_the_text(backend, scripted):
    scripted(*ids(backend, "ab" + END))
    assert backend.generate(["x"], max_tokens=9) == [[Completion("ab", "end_token", 3, END)]]
    scripted(*ids(backend, "abc"))
    assert backend.generate(["x"], max_tokens=3) == [[Completion("abc", "length", 3)]]


def test_all_end_tokens_of_the_model_are_known():
    assert transformers_engine._end_tokens([3, 5], 7) == {3, 5, 7} and transformers_engine._end_tokens(None, 7) == {7}


def test_temperature_and_top_p_are_those_of_transformers():
    """With evenly spaced noise each token's share is its probability, to the width of a space."""
    count = 100_000
    logits = torch.tensor([2.0, -1.0, 0.5, 1.9, -30.0, 0.0])
    noise = (torch.arange(count, dtype=torch.float64) + 1) / count
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (0.8, 0.7), (1.0, 0.01)):
        scores = logits[None] / temperature
        expected = (TopPLogitsWarper(top_p)(None, scores) if top_p < 1 else scores).softmax(-1)[0]
        drawn = choose_tokens(logits.expand(count, -1), noise, temperature, top_p)
        shares = torch.bincount(drawn, minlength=6) / count
        assert torch.allclose(shares, expected, atol=3e-5) and not shares[expected == 0].any()


def test_tokens_without_probability_are_never_drawn():
    logits = torch.tensor([[-torch.inf, 1.0, 1.0, -torch.inf]] * 2)
    assert choose_tokens(logits, torch.tensor([2.0**-53, 1.0], dtype=torch.float64), 1.0, 1.0).tolist() == [1, 2]


def test_draws_of_the_first_token_follow_the_models_probabilities(backend, sharp):
    model = AutoModelForCausalLM.from_pretrained(sharp, dtype=torch.float32)
    prompt = torch.tensor([ids(backend, PROMPTS[0])])
    expected = (model(prompt).logits[0, -1] / 0.2).softmax(-1).detach()
    outputs, = backend.generate(PROMPTS[:1], n=8000, temperature=0.2, max_tokens=1)
    letters = {backend._tokenizer.decode([token]): token for token in range(ord("Z"))}  # one byte, one letter
    shares = torch.bincount(torch.tensor([letters[out.text] for out in outputs if out.text in letters]),
                            minlength=len(expected)) / 8000
    known = list(letters.values())
    assert (shares[known] - expected[known]).abs().sum() < 0.1


def test_a_watcher_hears_of_every_step(backend):
    heard: list[tuple[int, int]] = []
    small = backend.generate(PROMPTS, **DRAWN, watch=lambda *so_far: heard.append(so_far))
    outputs = [out for outs in small for out in outs]
    assert small == backend.generate(PROMPTS, **DRAWN)
    assert heard == sorted(heard) and heard[0][0] == len(outputs) and len(heard) == 50
    assert heard[-1] == (sum(out.n_tokens for out in outputs), len(outputs))


@pytest.mark.parametrize(("free", "rows"), [(1 << 40, 512), (0, 1), (4 * 1000 * 100, 1), (230 * 1000 * 100, 64)])
def test_a_batch_fits_the_free_memory(backend, monkeypatch, free, rows):
    monkeypatch.setattr(backend, "_token_bytes", lambda: 1000)
    monkeypatch.setattr(transformers_engine.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=free))
    assert backend._rows_that_fit(100) == rows


def test_a_token_takes_what_the_cache_holds_of_it(backend):
    layers, both, heads, width, size = 2, 2, 2, 8, 4
    assert backend._token_bytes() == layers * both * heads * width * size


def test_a_program_ends_a_row_and_an_opening_fence_does_not(backend, scripted):
    written = "so:\n```\ndef f(x):\n    return x\n```\nand more"
    scripted(*ids(backend, written))
    out, = backend.generate(["x"], max_tokens=90, stop_after_program=True)[0]
    assert (out.text, out.finish_reason) == (written.removesuffix("and more"), "stop_string")


@pytest.mark.parametrize(("shares", "temperature", "nats"), [
    ([0.5, 0.25, 0.25], 1.0, 1.5 * np.log(2)), ([0.5, 0.25, 0.25], 0.5, np.log(6) - 4 / 6 * np.log(4)),
    ([0.25] * 4, 0.3, np.log(4)), ([0, 1, 0], 1.0, 0.0), ([0, 0.5, 0.5], 2.0, np.log(2))])
def test_entropy_has_the_closed_form(shares, temperature, nats):
    assert entropy(torch.tensor([shares]).log(), temperature).item() == pytest.approx(nats, abs=1e-6)


def test_the_entropy_of_half_precision_is_computed_in_float32():
    assert entropy(torch.zeros(1, 100_000, dtype=torch.bfloat16), 1.0).item() == pytest.approx(np.log(100_000), abs=1e-4)


def test_an_answers_entropies_are_those_of_a_loop_over_its_tokens_whatever_stands_beside_it(sharp, backend, monkeypatch):
    """A byte each, an end token, and a line break that joins the prompt's."""
    monkeypatch.setattr(transformers_engine, "AT_ONCE", 5)  # answers of several parts
    answers = ["good 22!", "\nno" + END, "a longer answer" * 7]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(sharp, dtype=torch.float32), backend._tokenizer
    read = backend.entropies(PROMPTS[:3], answers, 0.1)
    assert [len(each) for each in read] == [8, 4, 105] and np.ptp(sum(read, [])) > 0.5
    for prompt, answer, ours in zip(PROMPTS, answers, read):
        whole = torch.tensor([ids(backend, prompt + answer)])
        start = whole.shape[1] - len(ours)
        assert tokenizer.decode(whole[0, start:]).endswith(answer)
        with torch.no_grad():
            alone = [model(whole[:, :place]).logits[0, -1] / 0.1 for place in range(start, whole.shape[1])]
        assert ours == pytest.approx([torch.distributions.Categorical(logits=one).entropy().item() for one in alone], abs=1e-5)
        assert backend.entropies([prompt], [answer], 0.1)[0] == ours
    assert backend.entropies(["x"], [""], 0.1) == [[]]
