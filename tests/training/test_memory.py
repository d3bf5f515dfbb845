"""The memory plan: its peaks against traces of the real code at 7B and a real step on the CPU, and what it chooses."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from memory_trace import peak
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from plum_utils.models.shapes import model_config
from plum_utils.models.weights import resolve_model
from plum_utils.params import ParamsError, TrainingParams
from plum_utils.provenance import ROOT
from plum_utils.study.commands import main
from plum_utils.study.devices import why_none
from plum_utils.training import policy, trainers
from plum_utils.training.memory import GIB, Setting, shape_of, tensor_parts
from plum_utils.training.planner import SPARING, DoesNotFit, covers, is_settled, plan, settle_for, usable_bytes
from plum_utils.training.speed import prepare_process

MODELS = {"llama": "deepseek-ai/deepseek-coder-6.7b-base", "qwen2": "Qwen/CodeQwen1.5-7B",
          "starcoder2": "bigcode/starcoder2-7b"}
OTHERS = {  # widths of Llama-3-8B, Mistral-7B, Qwen3-8B and Gemma-7B
    "llama-3": {"model_type": "llama", "intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128256},
    "mistral": {"model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 32000},
    "qwen3": {"model_type": "qwen3", "intermediate_size": 12288, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    "gemma": {"model_type": "gemma", "hidden_size": 3072, "intermediate_size": 24576, "num_attention_heads": 16,
              "num_key_value_heads": 16, "head_dim": 256, "vocab_size": 256000}}
TOLERANCE = 0.05  # the promise is 0.1
PARAMS = ROOT / "params" / "paper" / "oss_magicoder_ds_kto.yaml"
FREE = TrainingParams(quantization="auto", fit_to_card=True)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def config_of(kind, layers=None):
    config = model_config(MODELS[kind])
    if layers:
        config.num_hidden_layers = layers
        config.layer_types = (getattr(config, "layer_types", None) or [])[:layers] or None
    return config


def one_step(sequences, length, dtype="bfloat16", **changes):
    """A step of one batch of so many sequences, unquantised and without checkpointing but for the changes."""
    plain = {"quantization": "none", "gradient_checkpointing": False, "accumulation": 1}
    return Setting(TrainingParams(**plain | {"batch_size": sequences, "max_length": length} | changes), dtype)


def against_the_trace(config, setting):
    """Predicted over measured bytes; what the two have in common (weights, optimizer) does not hide an error."""
    measured, phases = peak(config, setting)
    moment, parts = tensor_parts(shape_of(config), setting)
    stays = sum(parts.get(name, 0) for name in ("weights", "adapters", "optimizer"))
    total = sum(parts.values())
    changed = setting.training.model_dump(exclude_defaults=True)
    print(f"{config.model_type} {config.num_hidden_layers} layers {setting.dtype} {changed}: measured {measured / GIB:.2f} GiB, "
          f"predicted {total / GIB:.2f} ({total / measured:.3f}; beside what stays "
          f"{(total - stays) / (measured - stays):.3f}), at {moment}; {phases}")
    return total / measured, (total - stays) / (measured - stays)


# --- against traces of the real code, at the 7B models' widths --------------------------------------------------------

def every_setting():
    """All ways to put the switches for each family; one of them in each run of the tests, the others in the long ones."""
    for sequences, length in ((4, 512), (8, 1024)):
        for kind, nf4, checkpointing in product(MODELS, (False, True), (False, True)):
            name = f"{sequences}-{length}-{kind}-{'nf4' if nf4 else 'bf16'}-{'checkpointed' if checkpointing else 'kept'}"
            marks = () if nf4 and checkpointing and length == 512 else pytest.mark.long("upgrade")
            yield pytest.param(kind, nf4, checkpointing, sequences, length, id=name, marks=marks)


@pytest.mark.parametrize(("kind", "nf4", "checkpointing", "sequences", "length"), every_setting())
def test_the_peak_is_that_of_the_trace(kind, nf4, checkpointing, sequences, length):
    step = one_step(sequences, length, quantization="nf4" if nf4 else "none", gradient_checkpointing=checkpointing)
    whole, beside = against_the_trace(config_of(kind, layers=2), step)
    assert whole == pytest.approx(1, abs=TOLERANCE) and beside == pytest.approx(1, abs=2 * TOLERANCE)


@pytest.mark.parametrize(("name", "nf4", "checkpointing"), [
    pytest.param(*case, marks=() if case == ("qwen3", True, False) else pytest.mark.long("upgrade"))
    for case in product(OTHERS, (False, True), (False, True))])
def test_the_peak_of_architectures_beside_the_papers_is_that_of_the_trace(name, nf4, checkpointing):
    shape = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2} | OTHERS[name]
    config = AutoConfig.for_model(**shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape_of(config).parameters == sum(weight.numel() for weight in model.parameters())
    step = one_step(4, 512, quantization="nf4" if nf4 else "none", gradient_checkpointing=checkpointing)
    whole, beside = against_the_trace(config, step)
    assert whole == pytest.approx(1, abs=TOLERANCE) and beside == pytest.approx(1, abs=2 * TOLERANCE)


@pytest.mark.long("upgrade")
@pytest.mark.parametrize(("kind", "changes"), [
    ("qwen2", {"accumulation": 2, "gradient_checkpointing": True, "lora_r": 64}),
    ("qwen2", {"precompute_reference": True, "quantization": "nf4"}), ("qwen2", {"attention": "eager"}),
    ("llama", {"attention": "eager", "quantization": "nf4", "gradient_checkpointing": True}),
    ("llama", {"dtype": "float32"}),
], ids=str)
def test_the_peak_of_other_ways_to_train_is_that_of_the_trace(kind, changes):
    step = one_step(4, 768, **changes)
    assert against_the_trace(config_of(kind, layers=2), step)[0] == pytest.approx(1, abs=TOLERANCE)


@pytest.mark.long("upgrade")
@pytest.mark.parametrize(("kind", "step"), [
    ("llama", one_step(4, 2048, gradient_checkpointing=True)),
    ("qwen2", one_step(8, 1024, quantization="nf4")),
    ("starcoder2", one_step(4, 2048, quantization="nf4", gradient_checkpointing=True)),
], ids=lambda value: value if isinstance(value, str) else "")
def test_the_peak_of_a_whole_7b_model_is_that_of_the_trace(kind, step):
    whole, beside = against_the_trace(config_of(kind), step)
    assert whole == pytest.approx(1, abs=TOLERANCE) and beside == pytest.approx(1, abs=TOLERANCE)


# --- against a real step on the CPU -----------------------------------------------------------------------------------

class SecondStep(TrainerCallback):
    """The largest sum of tensor bytes in the second step: what stays, and the profiler's allocations on top."""

    def on_step_begin(self, args, state, control, model=None, optimizer=None, **_):
        if state.global_step == 1:
            tensors = [*model.parameters(), *model.buffers()]
            tensors += [state.absmax for state in map(quantisation, model.parameters()) if state is not None]
            tensors += [value for entry in optimizer.state.values() for value in entry.values()
                        if isinstance(value, torch.Tensor)]
            sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
            self.peak = sum(sizes.values())
            self.profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self.profile.__enter__()

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 2:
            self.profile.__exit__(None, None, None)
            events = [event for event in self.profile.profiler.kineto_results.events() if event.name() == "[memory]"]
            now = most = 0
            for event in sorted(events, key=lambda event: event.start_ns()):
                now += event.nbytes()
                most = max(most, now)
            self.peak += most


def quantisation(weight):
    return getattr(weight, "quant_state", None)


def kto_rows():
    """Eight instructions with prompts and completions of different lengths, so that batches are padded."""
    return [{"prompt": [{"role": "user", "content": f"def f(x):\n    return x + {index}\n" * (2 + index % 3)}],
             "completion": [{"role": "assistant", "content": f"x = {index}\n" * (8 + index)}],
             "label": index % 2 == 0, "instruction_id": str(index)} for index in range(8)]


@pytest.mark.long("upgrade")
@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"quantization": "nf4"}], ids=str)
def test_the_peak_is_that_of_a_real_step_on_the_cpu(changes, tmp_path):
    params = one_step(4, 2048, max_steps=2, **changes).training
    path, dtype = resolve_model("embedded:smollm2"), "bfloat16"  # the type that the plans are for
    prepare_process(params)
    model, tokenizer = policy.load_policy(path, params, dtype), policy.verbatim_tokenizer(path)
    trainer = trainers.make_kto_trainer(model, tokenizer, kto_rows(), params, tmp_path, 0)
    seen, batches = SecondStep(), list(trainer.get_train_dataloader())
    trainer.add_callback(seen)
    trainer.train()
    (sequences, length), scored = batches[1]["input_ids"].shape, int(batches[1]["completion_mask"][:, 1:].sum())
    assert sequences == params.batch_size
    setting = Setting(params.model_copy(update={"max_length": length}), dtype, on_gpu=False, scored=scored)
    predicted = sum(tensor_parts(shape_of(AutoConfig.from_pretrained(path)), setting)[1].values())
    print(f"SmolLM2-135M {changes}, {sequences} x {length}: measured {seen.peak / 2**20:.0f} MiB, predicted "
          f"{predicted / 2**20:.0f} ({predicted / seen.peak:.3f})")
    assert predicted == pytest.approx(seen.peak, rel=TOLERANCE)


# --- what is chosen ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("card", [24, 48, 80])
def test_the_plan_fits_the_card_and_keeps_the_rows_of_a_step(kind, card):
    chosen = plan(config_of(kind), FREE, card)
    new = chosen.training
    assert chosen.fits and chosen.total == sum(chosen.parts.values()) <= SPARING * usable_bytes(card)
    assert usable_bytes(card) == card * GIB * 15 / 16
    assert new.batch_size * new.accumulation == FREE.batch_size * FREE.accumulation and new.batch_size >= 4
    assert new.max_length == FREE.max_length
    assert is_settled(new) and not is_settled(FREE)
    assert TrainingParams.model_validate(new.model_dump()) == new


def test_a_larger_card_is_used_for_better_settings_in_the_stated_order():
    """Weights as they are before NF4, no checkpointing before checkpointing, then the largest batch."""
    ranks = []
    for card in (12, 16, 24, 48, 80, 160):
        new = plan(config_of("llama"), FREE, card).training
        ranks.append((new.max_length, new.quantization == "none", not new.gradient_checkpointing, new.batch_size))
    assert ranks == sorted(ranks) and ranks[0][1:3] == (False, False) and ranks[-1][1:3] == (True, True)


def test_what_the_user_fixed_is_kept():
    fixed = TrainingParams(quantization="nf4", gradient_checkpointing=True, batch_size=4, accumulation=4)
    chosen = plan(config_of("llama"), fixed, 80)
    assert chosen.training == fixed and len(chosen.reasons) == 1


def test_the_reason_for_a_choice_gives_the_numbers_that_ruled_out_the_other():
    chosen = plan(config_of("qwen2"), FREE, 16)
    assert any("quantization nf4: bfloat16 weights alone take 13.5 GiB" in reason and "of 15.0 GiB" in reason
               for reason in chosen.reasons)
    assert any("gradient_checkpointing true: without it a batch of 4 needs" in reason for reason in chosen.reasons)


def test_sequences_are_cut_only_as_a_last_resort_and_never_silently():
    short = plan(config_of("llama"), FREE, 8)
    new = short.training
    assert new.quantization == "nf4" and new.gradient_checkpointing and new.batch_size == 4
    assert new.max_length < 2048
    assert any(f"max_length {new.max_length} instead of 2048" in reason for reason in short.reasons)
    with pytest.raises(DoesNotFit):
        plan(config_of("llama"), FREE.model_copy(update={"fit_to_card": False}), 8)


def test_what_fits_nowhere_is_refused_with_the_smallest_need():
    with pytest.raises(DoesNotFit, match=r"a card of 4 GB has 3.8 GiB to use; the smallest need is [\d.]+ GiB \(nf4 "
                                         r"weights, checkpointing on, batch 4, 256 tokens\). Try a larger card"):
        plan(config_of("llama"), FREE, 4)
    fixed = TrainingParams(quantization="none", gradient_checkpointing=False)
    with pytest.raises(DoesNotFit, match="Try training.quantization: auto, training.gradient_checkpointing: auto, "
                                         "training.fit_to_card: true"):
        plan(config_of("llama"), fixed, 24)


def test_only_ktos_batches_have_a_least_size():
    chosen = plan(config_of("llama"), FREE.model_copy(update={"objective": "sft"}), 8)
    assert chosen.training.batch_size < 4 and chosen.training.max_length == 2048


def test_several_processes_share_the_batches_evenly():
    four = FREE.model_copy(update={"processes": 4, "batch_size": 4, "accumulation": 8})
    new = plan(config_of("llama"), four, 80).training
    assert new.accumulation % 4 == 0 and new.batch_size * new.accumulation == 32


def test_a_step_that_the_processes_cannot_share_out_is_named():
    three = FREE.model_copy(update={"processes": 3, "batch_size": 4, "accumulation": 1})
    with pytest.raises(ParamsError, match="3 processes cannot share out a step of 4 x 1 rows"):
        plan(config_of("llama"), three, 80)


def test_on_a_cpu_auto_means_no_and_nothing_is_fitted():
    new = settle_for(FREE, None, None)
    assert (new.quantization, new.gradient_checkpointing) == ("none", False)
    assert (new.batch_size, new.accumulation, new.max_length) == (FREE.batch_size, FREE.accumulation, FREE.max_length)
    kept = TrainingParams(quantization="nf4", gradient_checkpointing=True)
    assert settle_for(kept, None, None) == kept
    chosen = plan(config_of("llama"), FREE, None)
    assert chosen.training == new and not any("assumed" in part for part in chosen.parts)


def test_a_card_settles_as_its_plan_says_and_is_not_asked_when_all_is_fixed():
    config = config_of("llama")
    assert settle_for(FREE, config, 24) == plan(config, FREE, 24).training
    fixed = TrainingParams(quantization="none", gradient_checkpointing=True)
    assert settle_for(fixed, AutoConfig.for_model("gpt2"), 24) == fixed


def test_an_architecture_without_a_formula_is_refused():
    with pytest.raises(ParamsError, match="not of 'gpt2'; set training.quantization"):
        plan(AutoConfig.for_model("gpt2"), FREE, 24)
    assert not covers(AutoConfig.for_model("gpt2"), FREE)


@pytest.mark.parametrize(("key", "value", "text"), [
    ("autocast", True, "true"), ("adapters_in_model_dtype", False, "false"), ("lora_r", None, "null")])
def test_a_way_to_train_without_a_formula_is_refused_and_trains_where_all_is_fixed(key, value, text):
    config, other = config_of("llama"), FREE.model_copy(update={key: value})
    with pytest.raises(ParamsError, match=rf"training.{key}: the memory plan has no formula for {text}; to train so, set tr"):
        settle_for(other, config, 80)
    assert covers(config, FREE) and not covers(config, other)
    fixed = TrainingParams(quantization="nf4", gradient_checkpointing=True, **{key: value})
    assert settle_for(fixed, config, 80) == fixed
    assert is_settled(settle_for(other, config, None))


# --- the command ------------------------------------------------------------------------------------------------------

def test_the_command_prints_parts_total_and_reasons(capsys):
    assert main(["plan", str(PARAMS), "--gpu-gb", "24", "-p", "training.quantization=auto"]) == 0
    printed = capsys.readouterr().out
    assert "24 GB card, 22.5 GiB usable" in printed and "optimizer" in printed and "- quantization" in printed
    assert "CUDA context (assumed)" in printed and "of what is usable" in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card of its own")
def test_without_a_card_three_sizes_are_planned(capsys):
    assert main(["plan", str(PARAMS), "-p", "training.fit_to_card=true"]) == 0
    printed = capsys.readouterr().out
    assert [f"{card} GB card" in printed for card in (24, 48, 80)] == [True] * 3
    assert f"this machine has no GPU that can be used: {why_none()}\nso here are cards of 24, 48, 80 GB:\n" in printed


@pytest.mark.parametrize(("arguments", "message"), [
    (["--gpu-gb", "4"], "the smallest need is"), (["--gpu-gb", "-1"], "--gpu-gb: expected more than 0"),
    (["-p", "policy.model=org/unknown"], "org/unknown"),
])
def test_a_plan_that_cannot_be_made_ends_with_2(arguments, message, capsys):
    assert main(["plan", str(PARAMS), *arguments]) == 2
    assert message in capsys.readouterr().err
