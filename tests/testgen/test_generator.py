"""Where responses come from, what they will cost and did cost; an in-process generator's shards."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
from chat_server import USAGE, completion, serving, wrong
from stand_ins import Memory, Words

from plum_utils import provenance
from plum_utils.data.instructions import Instruction
from plum_utils.models.prompts import generator_message
from plum_utils.params import Params
from plum_utils.testgen import generator
from plum_utils.testgen.generator import Draw, estimate, generate_responses, ledger, responses
from plum_utils.testgen.server import GeneratorError, ResponseStore

ITEMS = [Instruction(f"i{number}", "test", f"Write f{number}.") for number in range(3)]
BYTES = sum(len(generator_message(item.instruction)) for item in ITEMS)


def params(tmp_path, **more) -> Params:
    how = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "PLUM_NO_KEY",
           "responses": 2, "max_tokens": 100, "store": str(tmp_path / "store"), "retries": 0}
    return Params(name="x", generator=how | more)


def numbered(body, nth):
    """The same prompt gets another answer each time."""
    return 200, {}, completion(f"{body['messages'][0]['content'][-40:]} {nth}", **USAGE)


def served(tmp_path, instructions=ITEMS, answer=numbered, **more):
    """Parameters, estimate before, and what came of asking a server on this machine."""
    with serving(answer) as server:
        p = params(tmp_path, base_url=f"http://127.0.0.1:{server.port}/v1", **more)
        before = estimate(p, instructions)
        return p, before, responses(p, instructions, tmp_path), server


# --- recorded -----------------------------------------------------------------------------------------------------

def test_recorded_responses_are_taken_as_they_are(tmp_path):
    items = [replace(item, responses=("a", "b", "c")) for item in ITEMS]
    p = params(tmp_path, backend="recorded")
    before = estimate(p, items)
    assert responses(p, items, tmp_path) == items
    assert (before.stored, before.calls, before.cost_at_most) == (9, 0, None)
    row, = ledger(p, items, before).to_dict("records")
    assert (row["server"], row["responses"], row["from_store"], row["asked"]) == ("recorded", 9, 9, 0)


def test_what_is_not_recorded_is_told(tmp_path):
    items = [replace(ITEMS[0], responses=("a",)), *ITEMS[1:]]
    with pytest.raises(GeneratorError, match=r"generator.backend is 'recorded', and 2 of 3 .*first: i1"):
        responses(params(tmp_path, backend="recorded"), items, tmp_path)


# --- a server -----------------------------------------------------------------------------------------------------

def test_a_server_gives_each_instruction_its_responses(tmp_path):
    p, _, items, server = served(tmp_path)
    assert [item.instruction_id for item in items] == ["i0", "i1", "i2"]
    assert all(len(set(item.responses)) == 2 for item in items)
    assert {body["messages"][0]["content"] for body in server.bodies} == \
        {generator_message(item.instruction) for item in ITEMS}
    assert responses(p, ITEMS, tmp_path) == items  # the server has gone


def test_more_of_the_same_costs_only_what_is_new(tmp_path):
    _, _, first, _ = served(tmp_path, ITEMS[:2])
    with serving(numbered) as server:
        p = params(tmp_path, base_url=f"http://127.0.0.1:{server.port}/v1", responses=3)
        before = estimate(p, ITEMS)
        more = responses(p, ITEMS, tmp_path)
    assert (before.stored, before.calls, len(server.bodies)) == (4, 5, 5)
    assert [item.responses[:2] for item in more[:2]] == [item.responses for item in first]


# --- what it costs ------------------------------------------------------------------------------------------------

def test_the_estimate_before_anything_was_asked(tmp_path):
    before = estimate(params(tmp_path, max_tokens=1000, price_prompt=10, price_completion=30), ITEMS)
    assert (before.stored, before.calls) == (0, 6)
    assert (before.prompt_tokens, before.prompt_tokens_at_most) == (2 * BYTES // 4, 2 * BYTES)
    assert (before.completion_tokens, before.completion_tokens_at_most) == (6 * 500, 6000)
    assert before.cost == pytest.approx((2 * BYTES // 4 * 10 + 3000 * 30) / 1e6)
    assert before.cost_at_most == pytest.approx((2 * BYTES * 10 + 6000 * 30) / 1e6)
    expected, most = before.table().to_dict("records")
    assert expected == {"estimate": "expected", "backend": "openai", "model": "m", "stored": 0, "calls": 6,
                        "prompt_tokens": before.prompt_tokens, "completion_tokens": 3000, "cost": before.cost}
    assert (most["completion_tokens"], most["cost"]) == (6000, before.cost_at_most)


def test_the_estimate_learns_from_what_was_answered(tmp_path):
    served(tmp_path, ITEMS[:1])
    assert estimate(params(tmp_path), ITEMS).completion_tokens == 4 * USAGE["usage"]["completion_tokens"]


def test_an_estimate_never_expects_more_than_the_limit(tmp_path):
    assert estimate(params(tmp_path, max_tokens=100), ITEMS).completion_tokens == 600


@pytest.mark.parametrize("backend", ["openai", "vllm"])
def test_without_prices_and_in_process_there_is_no_cost(tmp_path, backend):
    prices = {} if backend == "openai" else {"price_prompt": 1, "price_completion": 1}
    before = estimate(params(tmp_path, backend=backend, **prices), ITEMS)
    assert (before.cost, before.cost_at_most, before.calls) == (None, None, 6)


def test_above_max_cost_nothing_is_asked(tmp_path):
    how = {"price_prompt": 10, "price_completion": 30}
    most = estimate(params(tmp_path, **how), ITEMS).cost_at_most
    with serving(numbered) as server:
        p = params(tmp_path, base_url=f"http://127.0.0.1:{server.port}/v1", max_cost=most * 0.99, **how)
        with pytest.raises(GeneratorError, match=r"6 calls to m may cost up to \$0.0.*max_cost.*nothing was asked"):
            responses(p, ITEMS, tmp_path)
        assert not server.bodies
        assert len(responses(p.model_copy(update={"generator": p.generator.model_copy(update={"max_cost": most})}),
                             ITEMS, tmp_path)) == 3


def test_max_cost_without_prices_is_no_guard_and_says_so(tmp_path):
    with pytest.raises(GeneratorError, match="max_cost needs the prices"):
        responses(params(tmp_path, max_cost=1, price_prompt=1), ITEMS, tmp_path)


def test_what_is_stored_does_not_count_against_max_cost(tmp_path):
    how = {"price_prompt": 10, "price_completion": 30}
    p, *_ = served(tmp_path, **how)
    free = p.model_copy(update={"generator": p.generator.model_copy(update={"max_cost": 0.0})})
    assert len(responses(free, ITEMS, tmp_path)) == 3


def test_the_ledger_tells_paid_now_from_paid_before(tmp_path):
    how = {"price_prompt": 10, "price_completion": 30}
    served(tmp_path, ITEMS[:1], **how)
    p, before, _, _ = served(tmp_path, **how)
    table = ledger(p, ITEMS, before)  # two servers, for two ports answered
    total = table.sum(numeric_only=True)
    one = (7 * 10 + 3 * 30) / 1e6
    assert (total.responses, total.from_store, total.asked, total.tries, total.missing) == (6, 2, 4, 4, 0)
    assert (total.prompt_tokens, total.completion_tokens) == (42, 18)
    assert total.cost == pytest.approx(6 * one) and total.cost_asked == pytest.approx(4 * one)
    assert list(table.from_store) in ([2, 0], [0, 2])


def test_the_ledger_after_failures(tmp_path):
    def answer(body, nth):
        return wrong(500)(body, nth) if "f1" in body["messages"][0]["content"] else numbered(body, nth)

    with serving(answer) as server:
        p = params(tmp_path, base_url=f"http://127.0.0.1:{server.port}/v1")
        before = estimate(p, ITEMS)
        with pytest.raises(GeneratorError, match="2 of 6 requests failed"):
            responses(p, ITEMS, tmp_path)
    row, = ledger(p, ITEMS, before).to_dict("records")
    assert (row["responses"], row["asked"], row["missing"]) == (4, 4, 2)


def test_the_ledger_says_where_tokens_were_not_counted(tmp_path):
    p, before, _, _ = served(tmp_path, answer=lambda body, nth: (200, {}, completion("x")))
    row, = ledger(p, ITEMS, before).to_dict("records")
    assert (row["without_usage"], row["prompt_tokens"], row["cost"]) == (6, 0, None)
    assert estimate(p, ITEMS).calls == 0


def test_the_ledger_before_anything(tmp_path):
    p = params(tmp_path)
    assert ledger(p, ITEMS, estimate(p, ITEMS)).empty


def test_a_refused_prompt_becomes_an_empty_response(tmp_path):
    def answer(body, nth):
        return wrong(400, "no", "content_filter")(body, nth) if "f1" in body["messages"][0]["content"] else \
            numbered(body, nth)

    p, before, items, _ = served(tmp_path, answer=answer)
    assert [item.responses for item in items][1] == ("", "") and all(items[0].responses)
    assert ledger(p, ITEMS, before).loc[0, "refused"] == 2


def test_a_store_is_found_from_the_root(tmp_path):
    store = generator._store(params(tmp_path, store="outputs/generator"))
    assert store.path.parent == provenance.ROOT / "outputs" / "generator"
    assert isinstance(store, ResponseStore)


# --- a model in this process --------------------------------------------------------------------------------------

P = Params(name="x", sampling={"shard_size": 2})
FIVE = [Instruction(f"i{number}", "test", f"Write f{number}.") for number in range(5)]
DRAW = Draw(2, 0.7, 9)


def drawn(folder, backend, instructions=FIVE, p=P, draw=DRAW, model="m"):
    return generate_responses(p, backend, Words(), instructions, folder, model, draw, "live")


def test_a_model_in_this_process_is_asked_figure_3(tmp_path):
    backend = Memory()
    answered = drawn(tmp_path, backend)
    assert "[Test Code]" in backend.calls[0]["prompts"][0] and "Write f0." in backend.calls[0]["prompts"][0]
    assert [len(call["prompts"]) for call in backend.calls] == [2, 2, 1]
    assert {(call["n"], call["temperature"], call["max_tokens"]) for call in backend.calls} == {(2, 0.7, 9)}
    seeds = [seed for call in backend.calls for seed in call["seed"]]
    assert len(set(seeds)) == len(seeds) == 5
    assert all(len(set(item.responses)) == 2 for item in answered)
    assert [item.instruction_id for item in answered] == [item.instruction_id for item in FIVE]


def test_finished_shards_are_not_generated_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path, Memory(fail_at_call=2))
    again = Memory()
    answered = drawn(tmp_path, again)
    assert [len(call["prompts"]) for call in again.calls] == [1]
    assert answered == drawn(tmp_path / "other", Memory())
    assert drawn(tmp_path, (idle := Memory())) == answered and not idle.calls
    drawn(tmp_path, (more := Memory()), [*FIVE, ITEMS[0]])
    assert [len(call["prompts"]) for call in more.calls] == [2], "only the shard that grew"


@pytest.mark.parametrize("change", [{"draw": Draw(2, 0.8, 9)}, {"draw": Draw(3, 0.7, 9)}, {"model": "n"},
                                    {"p": P.model_copy(update={"seed": 1})}], ids=["T", "n", "model", "seed"])
def test_responses_of_other_settings_are_not_taken_for_these(tmp_path, change):
    drawn(tmp_path, Memory())
    drawn(tmp_path, (backend := Memory()), **change)
    assert len(backend.calls) == 3


def test_vllm_that_is_not_installed_says_what_to_do(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else found(name))
    with pytest.raises(GeneratorError, match="not installed.*extra cpu or gpu.*backend openai"):
        responses(params(tmp_path, backend="vllm"), ITEMS, tmp_path)


def test_a_model_that_is_nowhere_is_told_by_its_parameter(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed, which is told first")
    with pytest.raises(GeneratorError, match="generator.model .*no-such-folder.*neither a local folder nor"):
        responses(params(tmp_path, backend="vllm", model="no-such-folder"), ITEMS, tmp_path)


@pytest.mark.long("upgrade")
def test_vllm_in_this_process(tmp_path):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    p = params(tmp_path, backend="vllm", model="embedded:smollm2", max_tokens=8, temperature=1.0)
    before = estimate(p, ITEMS)
    items = responses(p, ITEMS, tmp_path)
    assert all(len(item.responses) == 2 and all(item.responses) for item in items)
    assert len({text for item in items for text in item.responses}) > 1
    row, = ledger(p, ITEMS, before).to_dict("records")
    assert (row["server"], row["responses"], row["asked"]) == ("vllm", 6, 6)
    assert list(tmp_path.glob("generator_*.jsonl"))
