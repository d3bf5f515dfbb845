"""Every model that a lesson or command loads, counted against the card for every file of ``params/paper``."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from plum_utils.models.shapes import model_config
from plum_utils.params import load_params
from plum_utils.provenance import ROOT
from plum_utils.study.loads import loads
from plum_utils.study.sweeps import is_sweep
from plum_utils.training.planner import by_hand_type, read_type

FILES = sorted(path for path in (ROOT / "params" / "paper").glob("*.yaml") if not is_sweep(path))


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("card", [24, 48, 80])
def test_every_model_of_every_row_of_the_paper_fits_the_card(card):
    assert len(FILES) > 20
    for path in FILES:
        params = load_params(path)
        found = loads(params, model_config(params.policy.model), card)
        assert [f"{path.stem}: {one}" for one in found if not one.fits] == []
        assert {one.stage[:2] for one in found} == {"02", "04", "05", "06", "ex"}


def test_float32_is_taken_where_it_fits_and_counted_where_it_does_not():
    params = load_params(ROOT / "params" / "paper" / "oss_codeqwen_base_kto.yaml")
    config = model_config(params.policy.model)
    for card, kind in ((24, "bfloat16"), (80, "float32")):
        by_use = {(one.stage, one.what): one for one in loads(params, config, card)}
        assert by_use["04_train_kto", "the batch by hand"].dtype == kind
        assert by_use["export", "the policy, and what was exported"].dtype == kind
    assert by_use["export", "the policy, and what was exported"].bytes > 4 * 7.2e9


def test_what_is_too_large_for_a_card_does_not_fit_and_a_generator_of_lesson_01_is_counted():
    params = load_params(ROOT / "params" / "paper" / "oss_codeqwen_base_kto.yaml", {"generator.live_instructions": 1,
                         "generator.live_model": "Qwen/CodeQwen1.5-7B"})
    found = loads(params, model_config(params.policy.model), 12)
    assert [one.what for one in found if not one.fits][:2] == ["generator Qwen/CodeQwen1.5-7B", "the policy, token by token"]
    assert all(one.fits for one in found if "training" in one.what)  # NF4


def test_a_policy_that_reads_its_sampled_answers_is_counted_by_the_longest_of_them():
    path = ROOT / "params" / "paper" / "oss_codeqwen_base_kto.yaml"

    def reading(suites: list[dict]) -> list[int]:
        params = load_params(path, {"evaluation.suites": suites})
        found = loads(params, model_config(params.policy.model), 80)
        return [one.bytes for one in found if one.what == "the policy, reading its answers"]

    greedy, drawn = {"name": "humaneval"}, {"n": 2, "temperatures": [0.8]}
    short, long = ([{"name": "humaneval", "protocol": name} | drawn] for name in ("codeqwen_base", "codeqwen_chat"))
    assert reading([greedy]) == [] and reading(short)[0] + 1e9 < reading(long)[0]  # 512 and 2,048 tokens' logits


def test_of_an_unknown_generator_the_engines_share_is_counted_and_of_transformers_no_engine():
    path = ROOT / "params" / "paper" / "oss_codeqwen_base_kto.yaml"
    params = load_params(path, {"generator.backend": "vllm", "generator.model": "somebody/unknown"})
    first = loads(params, model_config(params.policy.model), 80)[0]
    assert first.what == "generator somebody/unknown" and first.taken == first.room and first.fits
    params = load_params(path, {"sampling.backend": "transformers"})
    assert not [one for one in loads(params, model_config(params.policy.model), 80) if one.is_engine]


@pytest.mark.parametrize(("card", "kind"), [(None, "float32"), (24, "bfloat16"), (80, "float32")])
def test_a_model_is_read_in_float32_where_that_fits(card, kind):
    config, training = model_config("bigcode/starcoder2-7b"), load_params(FILES[0]).training
    few = training.model_copy(update={"quantization": "none", "batch_size": 4, "gradient_checkpointing": False})
    assert by_hand_type(config, few, card, "bfloat16", 300) == read_type(config, few, card, "bfloat16", 24) == kind


def test_of_another_architecture_nothing_is_known_so_its_own_type_is_kept():
    training = load_params(FILES[0]).training
    config = AutoConfig.for_model("gpt2")
    assert by_hand_type(config, training, 80, "float16", 300) == read_type(config, training, 80, "float16", 24) == "float16"
