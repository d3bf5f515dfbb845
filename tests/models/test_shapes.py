"""Configurations: bundled shapes give the published numbers of parameters, and unknown models an error."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from plum_utils.models import shapes
from plum_utils.models.shapes import BUNDLED, bundled_shapes, model_config
from plum_utils.models.weights import ModelNotFound
from plum_utils.params import load_params
from plum_utils.provenance import ROOT
from plum_utils.study.sweeps import is_sweep
from plum_utils.training.memory import shape_of

PUBLISHED = {"Qwen/CodeQwen1.5-7B": 7.25, "deepseek-ai/deepseek-coder-6.7b-base": 6.74, "bigcode/starcoder2-7b": 7.17,
             "m-a-p/OpenCodeInterpreter-CL-7B": 6.74}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shape_has_as_many_parameters_as_the_model_and_as_published(name):
    config = model_config(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape_of(config).parameters == sum(weight.numel() for weight in model.parameters())
    assert round(shape_of(config).parameters / 1e9, 2) == PUBLISHED[name]


def test_every_entry_says_where_it_is_from_and_makes_a_config():
    assert all(entry["source"] for entry in json.loads(BUNDLED.read_text()).values())
    assert {name: model_config(name).model_type for name in bundled_shapes()} == {
        name: entry["model_type"] for name, entry in bundled_shapes().items()}


def test_every_model_of_the_papers_experiments_is_there():
    files = [path for path in (ROOT / "params" / "paper").glob("*.yaml") if not is_sweep(path)]
    assert {load_params(path).policy.model for path in files} <= set(bundled_shapes())


def test_a_folders_own_config_is_taken(tmp_path):
    config = model_config("bigcode/starcoder2-7b")
    config.num_hidden_layers = 3
    config.save_pretrained(tmp_path)
    assert model_config(str(tmp_path)).num_hidden_layers == 3


def test_a_model_that_nobody_has_is_said_to_be_missing():
    with pytest.raises(ModelNotFound, match="org/unknown.*not in model_shapes.json. Give a folder"):
        shapes.model_config("org/unknown")
