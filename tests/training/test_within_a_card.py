"""Training on a box with several GPUs, and what is left of a policy when it is trained: told to the libraries, without one."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from tiny_llama import all_rows, kto_rows, params
from transformers import TrainingArguments

from plum_utils import training
from plum_utils.models import weights
from plum_utils.provenance import ROOT
from plum_utils.training import launch, phases, planner, policy, trainers
from plum_utils.training.memory import GIB

CONFIGS = sorted((ROOT / "params" / "accelerate").glob("*.yaml"))


@pytest.fixture
def eight_gpus(monkeypatch):
    """Training arguments that have seen eight GPUs."""
    settle = TrainingArguments.__post_init__

    def see_eight(self):
        settle(self)
        self._n_gpu = 8

    monkeypatch.setattr(TrainingArguments, "__post_init__", see_eight)


# --- several GPUs -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("objective", trainers.TRAINERS)
def test_one_process_trains_on_one_of_eight_gpus(objective, tiny, tmp_path, eight_gpus):
    model, tokenizer = policy.load_policy(tiny, params(), "float32"), policy.load_tokenizer(tiny)
    trainer = trainers.TRAINERS[objective](model, tokenizer, all_rows()[objective], params(), tmp_path, 3)
    assert trainer.args.n_gpu == 1 and trainer.args.train_batch_size == 4


@pytest.mark.parametrize("config", [None, *CONFIGS], ids=lambda config: config.stem if config else "none")
def test_accelerate_takes_the_command_for_eight_gpus(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    path = str(config.relative_to(ROOT)) if config else None
    command = launch.launch_command(params(processes=8, accumulation=8, accelerate_config=path), Path("job.json"))
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(command[3:]))
    assert arguments.num_processes == 8 and not arguments.use_cpu and not arguments.cpu
    assert arguments.multi_gpu or arguments.use_fsdp
    assert arguments.training_script == "plum_utils.training.launch" and arguments.module


# --- where weights go -------------------------------------------------------------------------------------------------

def test_weights_are_read_straight_onto_this_processs_gpu(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda path, **how: seen.append(how))
    weights.load_model("somewhere", "bfloat16")
    weights.load_model("somewhere", "float32", "cpu", attn_implementation="eager")
    assert seen == [{"dtype": torch.bfloat16, "device_map": {"": "cuda:3"}},
                    {"dtype": torch.float32, "device_map": None, "attn_implementation": "eager"}]


def test_a_policy_that_fsdp_shares_out_is_read_into_host_memory(monkeypatch, tiny):
    seen = []
    monkeypatch.setattr(policy, "load_model", lambda path, dtype, device, **how: seen.append(device) or torch.nn.Linear(1, 1))
    monkeypatch.setattr(torch.nn.Linear, "config", SimpleNamespace(), raising=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    policy.load_policy(tiny, params())
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    policy.load_policy(tiny, params())
    assert seen == ["cpu", None]


def test_the_gpus_allocator_grows_its_segments_unless_told_otherwise():
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"]


@pytest.mark.parametrize(("free", "kept", "gb"), [
    (79.4, 0.0, 80 / planner.USABLE), (70.0, 9.5, 80 / planner.USABLE), (70.0, 0.0, 75), (21.3, 0.0, 23), (0.0, 0.0, 0)])
def test_a_card_that_others_use_too_is_as_large_as_what_is_free(free, kept, gb, monkeypatch):
    """Of 80 GiB; what this process keeps for reuse is free, and its context (up to 0.75 GiB) is in the plan."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (round(free * GIB), 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: round((kept + 1) * GIB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)
    assert planner.card_memory() == pytest.approx(gb)


# --- what is left -----------------------------------------------------------------------------------------------------

@pytest.fixture
def loaded(monkeypatch):
    """Weak references to every policy that was loaded, none beside another one; collections are left to the code."""
    found: list[weakref.ref] = []
    load = policy.load_policy

    def remembered(*which, **how):
        assert [one() for one in found if one() is not None] == []
        model = load(*which, **how)
        found.append(weakref.ref(model))
        return model

    monkeypatch.setattr(trainers, "load_policy", remembered)
    monkeypatch.setattr(policy, "load_policy", remembered)
    gc.collect()
    gc.disable()
    yield found
    gc.enable()


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_no_policy_is_left_when_the_next_one_is_loaded_or_the_training_returns(quantization, tiny, tmp_path, loaded):
    how = params(max_steps=1, quantization=quantization)
    phases.train("sft+kto", tiny, all_rows(), how, tmp_path, 0, "float32")
    assert [one() for one in loaded] == [None, None]
    phases.train("dpo", tiny, all_rows(), how, tmp_path, 1, "float32")
    assert [one() for one in loaded] == [None] * 3


@pytest.mark.parametrize("changes", [{}, {"quantization": "nf4", "gradient_checkpointing": True}], ids=str)
def test_nothing_of_the_lessons_demonstration_is_left_beside_the_training(changes, tiny, tmp_path, loaded):
    """The lesson's own cells. A graph of bitsandbytes' keeps packed weights, which are then alive without their policy."""
    notebook = nbformat.read(ROOT / "notebooks" / "04_train_kto.ipynb", as_version=4)
    names = [f"04-{name}" for name in ("loss-code", "loss-rows", "loss-trainer", "loss-kl-check", "loss-hand", "loss-identity",
                                       "loss-drift", "loss-equal", "work", "work-check", "loss-forget")]
    cells = {cell.id: cell.source for cell in notebook.cells}
    assert set(names) <= set(cells)
    how, said = params(batch_size=4, **changes), []
    tools = {name: getattr(training, name) for name in ("prepare_process", "by_hand_type", "card_memory", "make_kto_trainer")}
    lesson = {"torch": torch, "pd": pd, "tempfile": __import__("tempfile"), "kept": kto_rows(), "tuned": how, "model_path": tiny,
              "training": SimpleNamespace(**tools, load_policy=lambda *which: policy.load_policy(*which)),
              "tokenizer": policy.load_tokenizer(tiny), "print": lambda *text: said.append(text),
              "p": SimpleNamespace(training=how, seed=0, policy=SimpleNamespace(dtype="bfloat16")), "check": holds}
    packed = []
    for name in names:
        exec(cells[name], lesson)
        if name == "04-loss-trainer":
            packed = [weakref.ref(weight) for weight in loaded[0]().parameters() if weight.dtype == torch.uint8]
    assert bool(packed) == bool(changes) and said
    assert [one() for one in loaded] == [None]
    assert [one() for one in packed if one() is not None] == []


def holds(condition, message):
    assert condition, message
