"""Training on a tiny random Llama: the rules of KTO, and that a killed training ends with the same bytes."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import torch
from safetensors.torch import load_file
from tiny_llama import END, all_rows, kto_rows, kto_trainer, params, row
from transformers import Starcoder2Config, Starcoder2ForCausalLM

from plum_utils.provenance import ROOT
from plum_utils.training import kl_order, phases, trainers
from plum_utils.training import policy as policy_module
from plum_utils.training.planner import is_settled
from plum_utils.training.watching import MEASURED

# --- what TRL gets ------------------------------------------------------------------------------------------------------

def test_batches_arrive_in_our_order_and_kl_completions_are_the_left_neighbours(tiny, tmp_path):
    trainer = kto_trainer(tiny, tmp_path, kto_rows(), params())
    tokenizer = trainer.processing_class
    expected = kl_order.repeat_epochs(kto_rows(), 1.0, 4, seed=3)
    seen = []
    for batch in trainer.get_train_dataloader():
        def text(prefix: str, place: int, learned: int, batch=batch) -> str:
            real = batch[f"{prefix}attention_mask"][place].bool()
            return tokenizer.decode(batch[f"{prefix}input_ids"][place][real & (batch[f"{prefix}completion_mask"][place]
                                                                              == learned)])
        for place in range(4):
            seen.append((text("", place, 0), text("", place, 1)))
            assert text("KL_", place, 0) == text("", place, 0)
            assert text("KL_", place, 1) == text("", place - 1, 1)
    assert seen == [(one["prompt"][0]["content"], one["completion"][0]["content"]) for one in expected]


@pytest.mark.parametrize("grouped", [True, False])
def test_weights_and_first_loss_are_those_of_the_rows_that_fill_batches(tiny, tmp_path, grouped):
    how = params(length_grouped=grouped, max_steps=1)
    rows = kto_rows()[:-3]  # 12 of one label, 9 of the other: the order decides which one fills no batch
    trainer = kto_trainer(tiny, tmp_path, rows, how)
    counts = Counter(one["label"] for one in kl_order.repeat_epochs(rows, how.epochs, how.batch_size, 3, grouped))
    weights = kl_order.kto_weights(counts[True], counts[False], how.desirable_ratio)
    assert (trainer.args.desirable_weight, trainer.args.undesirable_weight) == weights
    trainer.train()
    (loss,) = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert min(weights) / 2 - 1e-4 <= loss <= max(weights) / 2 + 1e-4  # the policy is still its reference


def test_a_training_of_a_single_step_trains(tiny, tmp_path):
    adapter, history = phases.train("kto", tiny, all_rows(), params(max_steps=1), tmp_path, 0, "float32")
    assert history.learning_rate.tolist() == [params().learning_rate]  # warm-up, which begins at 0, would be all of it
    assert any(value.any() for name, value in load_file(adapter / "adapter_model.safetensors").items() if "lora_B" in name)


def test_exactly_the_completion_is_trained_on_with_an_end_token_only_where_one_was_sampled(tiny, tmp_path):
    trainer = kto_trainer(tiny, tmp_path, kto_rows(), params())
    tokenizer, expected = trainer.processing_class, kl_order.repeat_epochs(kto_rows(), 1.0, 4, seed=3)
    for item, one in zip(trainer.train_dataset, expected):
        prompt, answer = one["prompt"][0]["content"], one["completion"][0]["content"]
        assert item["prompt_ids"] == tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert item["completion_ids"] == tokenizer(answer, add_special_tokens=False)["input_ids"]
        assert item["completion_ids"].count(tokenizer.eos_token_id) == answer.endswith(END)


def test_rows_that_cannot_train_as_sampled_are_left_out(tiny):
    long = row(0, "x", True) | {"prompt": [{"role": "user", "content": "y" * 128}]}
    merged, fine = row(1, "\nx", True), row(2, "x", False)  # "?\n" + "\n": the line breaks become one token
    tokenizer = policy_module.verbatim_tokenizer(tiny)
    kept, dropped = kl_order.trainable_rows(tokenizer, [long, merged, fine], 128)
    assert kept == [fine] and dropped == [long, merged]


@pytest.mark.parametrize("side", ["completion", "chosen", "rejected"])
def test_rows_that_would_lose_their_end_are_left_out(tiny, side):
    tokenizer = policy_module.verbatim_tokenizer(tiny)
    prompt = {"instruction_id": "i", "prompt": [{"role": "user", "content": "y" * 120}]}
    short, long = ([{"role": "assistant", "content": text}] for text in ("z", "z" * 500 + END))
    sides = ("completion",) if side == "completion" else ("chosen", "rejected")
    fits = prompt | dict.fromkeys(sides, short)
    cut = fits | {side: long}
    assert kl_order.trainable_rows(tokenizer, [fits, cut], 128) == ([fits], [cut])
    size = len(tokenizer("y" * 120 + "z" * 500 + END, add_special_tokens=False)["input_ids"])
    assert kl_order.trainable_rows(tokenizer, [cut], size) == ([cut], [])
    assert kl_order.trainable_rows(tokenizer, [cut], size - 1) == ([], [cut])


@pytest.mark.parametrize("objective", ["kto", "dpo", "sft"])
def test_nothing_that_fits_is_an_error_that_says_so(tiny, tmp_path, objective):
    answer = [{"role": "assistant", "content": "z" * 500}]
    row = {"instruction_id": "i", "prompt": [{"role": "user", "content": "y"}], "label": True}
    row |= dict.fromkeys(("chosen", "rejected") if objective == "dpo" else ("completion",), answer)
    with pytest.raises(ValueError, match=f"training.max_length: none of 3 rows of {objective} fits whole into 128 tokens"):
        phases.train(objective, tiny, {objective: [row] * 3}, params(max_length=128), tmp_path, 3, "float32")


def test_one_label_that_does_not_fit_is_an_error_that_says_so(tiny, tmp_path):
    rows = [one if one["label"] else one | {"completion": [{"role": "assistant", "content": "z" * 500}]} for one in kto_rows()]
    with pytest.raises(ValueError, match="training.max_length: none of 12 undesirable rows of kto fits whole into 128"):
        phases.train("kto", tiny, {"kto": rows}, params(max_length=128), tmp_path, 3, "float32")


def test_too_few_instructions_for_a_batch_is_an_error(tiny, tmp_path):
    with pytest.raises(ValueError, match="only 3 instructions"):
        kto_trainer(tiny, tmp_path, kto_rows(3), params())


def test_start_loss_is_half_the_mean_weight(tiny, tmp_path):
    rows = [one for one in kto_rows() if one["label"] or one["instruction_id"] in ("i0", "i1", "i2")]
    trainer = kto_trainer(tiny, tmp_path, rows, params())
    assert trainer.desirable_weight != trainer.undesirable_weight
    for batch in trainer.get_train_dataloader():
        weights = torch.where(batch["label"].bool(), trainer.desirable_weight, trainer.undesirable_weight)
        assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(weights.mean().item() / 2, abs=1e-5)


def test_the_loss_written_out_in_notebook_04_is_trls(tiny, tmp_path):
    """The lesson's own cell, executed: equal to TRL's value where neither the rewards nor the KL term are zero."""
    notebook = nbformat.read(ROOT / "notebooks" / "04_train_kto.ipynb", as_version=4)
    lesson = {"torch": torch}
    exec(next(cell.source for cell in notebook.cells if cell.id == "04-loss-code"), lesson)
    trainer = kto_trainer(tiny, tmp_path, kto_rows(), params())
    batch = next(iter(trainer.get_train_dataloader()))

    def logp(prefix: str) -> torch.Tensor:
        return lesson["completion_logp"](trainer.model, *(batch[f"{prefix}{name}"] for name in
                                                          ("input_ids", "attention_mask", "completion_mask")))
    logp("KL_").mean().backward()
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight += 0.5 * weight.grad
        policy, policy_kl = logp(""), logp("KL_")
        with trainer.model.disable_adapter():
            reference, reference_kl = logp(""), logp("KL_")
        theirs = trainer.compute_loss(trainer.model, batch).item()
    ours, z0 = lesson["kto_loss"](policy, reference, policy_kl, reference_kl, batch["label"].bool(), 0.1,
                                  torch.tensor(trainer.desirable_weight), torch.tensor(trainer.undesirable_weight))
    assert z0 > 0.1 and (policy - reference).abs().max() > 0.1
    assert ours.item() == pytest.approx(theirs, rel=1e-5)
    assert z0.item() == pytest.approx(trainer._metrics["train"]["kl"][-1], rel=1e-4)


def test_dpo_starts_at_ln_2(tiny, tmp_path):
    model, rows = policy_module.load_policy(tiny, params(), "float32"), all_rows()["dpo"]
    trainer = trainers.make_dpo_trainer(model, policy_module.verbatim_tokenizer(tiny), rows, params(), tmp_path, seed=0)
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_the_loss_of_pairs_is_the_formula(loss, tiny, tmp_path):
    """DPO's, and IPO's with log-ratios averaged by token, on a policy that has moved from its reference."""
    changed, rows = params(objective="dpo", dpo_loss=loss, beta=0.7), all_rows()["dpo"]
    model, tokenizer = policy_module.load_policy(tiny, changed, "float32"), policy_module.verbatim_tokenizer(tiny)
    trainer = trainers.make_dpo_trainer(model, tokenizer, rows, changed, tmp_path, seed=0)
    batch = next(iter(trainer.get_train_dataloader()))
    ids, attention, mask = (batch[name] for name in ("input_ids", "attention_mask", "completion_mask"))

    def logp() -> torch.Tensor:
        logits = trainer.model(input_ids=ids, attention_mask=attention).logits[:, :-1].float()
        return (logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1) * mask[:, 1:]).sum(-1)

    (logp() * torch.tensor([1.0, -1.0]).repeat_interleave(len(ids) // 2)).sum().backward()
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight += 0.05 * weight.grad
        policy = logp()
        with trainer.model.disable_adapter():
            ratio = policy - logp()
        theirs = trainer.compute_loss(trainer.model, batch).item()
    better, worse = ratio.chunk(2)
    if loss == "ipo":
        better, worse = (side / tokens.sum(1) for side, tokens in zip((better, worse), mask.chunk(2)))
        ours = ((better - worse - 1 / (2 * 0.7)) ** 2).mean()
    else:
        ours = -torch.nn.functional.logsigmoid(0.7 * (better - worse)).mean()
    assert (better - worse).abs().max() > 0.1 and theirs == pytest.approx(ours.item(), rel=1e-4)


def test_reference_computed_before_training_gives_the_same_losses(tiny, tmp_path):
    losses = []
    for ahead in (False, True):
        changed = params(precompute_reference=ahead, max_steps=4)
        _, history = phases.train("kto", tiny, all_rows(), changed, tmp_path / str(ahead), 0, "float32")
        losses.append(history.loss.tolist())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(set(losses[0])) > 1


# --- whole trainings ----------------------------------------------------------------------------------------------------

def run(tiny: str, folder: Path, objective: str, seed: int = 0, dtype: str = "float32", **changes):
    adapter, history = phases.train(objective, tiny, all_rows(), params(objective=objective, **changes), folder, seed,
                                      dtype, "the policy")
    history = history.drop(columns=list(MEASURED), errors="ignore")  # which no two runs share
    return adapter, history, (adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("objective", ["kto", "dpo", "sft", "sft+kto"])
def test_each_objective_trains_an_adapter_that_names_no_path(objective, tiny, tmp_path):
    adapter, history, first = run(tiny, tmp_path, objective)
    assert list(dict.fromkeys(history.objective)) == objective.split("+")
    assert history.loss.notna().all() and (history.groupby("objective").step.max() > 1).all()
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert all(tensor.abs().sum() > 0 for name, tensor in tensors.items() if "lora_B" in name)
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "the policy"
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert not list(tmp_path.rglob("checkpoint-*"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]

    again = run(tiny, tmp_path, objective)
    assert again[2] == first and again[1].equals(history), "a finished training was run again"


def test_kto_after_sft_goes_on_with_sfts_adapter_and_measures_from_it(tiny, tmp_path):
    adapter, history, _ = run(tiny, tmp_path, "sft+kto", max_steps=1)
    kto = history[history.objective == "kto"].iloc[0]
    assert kto["rewards/chosen"] == pytest.approx(0, abs=1e-5) and kto.kl == pytest.approx(0, abs=1e-4)
    sft = load_file(adapter.parents[1] / "sft" / "adapter" / "adapter_model.safetensors")
    both = load_file(adapter / "adapter_model.safetensors")
    assert sft.keys() == both.keys()
    assert all((both[name] - value).norm() < 0.5 * value.norm() for name, value in sft.items() if "lora_A" in name)


def test_a_training_shows_seconds_a_step_and_goes_on_counting_where_it_stopped(tiny, tmp_path, capsys, monkeypatch):
    run(tiny, tmp_path / "a", "kto", max_steps=3)
    said = capsys.readouterr()
    assert re.search(r"^kto, seed 0: 3/3 steps, .*(s a step|steps/s), \d+ s$", said.err, re.MULTILINE)
    assert "loss" not in said.out
    monkeypatch.setattr(trainers, "MarkComplete", KillOnce)
    monkeypatch.setenv("PLUM_PROGRESS", "0")
    monkeypatch.setattr("plum_utils.progress.BAR_SECONDS", 0.0)
    with pytest.raises(Killed):
        run(tiny, tmp_path / "b", "kto", max_steps=4)
    capsys.readouterr()
    run(tiny, tmp_path / "b", "kto", max_steps=4)
    assert "2/4 steps" in capsys.readouterr().err


class Killed(BaseException):
    pass


class KillOnce(trainers.MarkComplete):
    """Stops each phase once after step 3's update, when the last complete checkpoint is that of step 2."""

    killed: set[str] = set()

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 3 and args.output_dir not in self.killed:
            self.killed.add(args.output_dir)
            raise Killed


@pytest.mark.parametrize(("objective", "dtype", "changes"), [
    ("kto", "float32", {}),
    ("kto", "bfloat16", {"lora_dropout": 0.1, "scheduler": "cosine"}),
    ("kto", "float32", {"precompute_reference": True}),
    ("dpo", "float32", {"epochs": 3.0}),
    ("sft+kto", "float32", {}),
])
def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(objective, dtype, changes, tiny, tmp_path,
                                                                    monkeypatch):
    _, history, undisturbed = run(tiny, tmp_path / "a", objective, dtype=dtype, **changes)
    monkeypatch.setattr(trainers, "MarkComplete", KillOnce)
    for _ in objective.split("+"):
        with pytest.raises(Killed):
            run(tiny, tmp_path / "b", objective, dtype=dtype, **changes)
    left = list((tmp_path / "b").rglob("checkpoint-2"))
    assert len(left) == 1, "nothing was saved before the kill"
    half = left[0].with_name("checkpoint-3")
    half.mkdir()
    (half / "trainer_state.json").write_text("{")  # what a kill in the middle of saving leaves
    _, resumed, weights = run(tiny, tmp_path / "b", objective, dtype=dtype, **changes)
    assert weights == undisturbed
    assert resumed.equals(history)


@pytest.mark.parametrize("changes", [{"quantization": "auto"}, {"gradient_checkpointing": "auto"}, {"fit_to_card": True}])
def test_parameters_that_leave_a_choice_are_refused(changes, tiny, tmp_path):
    with pytest.raises(ValueError, match=r"something is left to choose; give train\(\) what settle\(\) returned"):
        run(tiny, tmp_path, "kto", **changes)
    assert is_settled(phases.settle(params(**changes), tiny)) and not list(tmp_path.iterdir())


def test_another_seed_gives_another_policy(tiny, tmp_path):
    assert run(tiny, tmp_path, "kto", 0, max_steps=2)[2] != run(tiny, tmp_path, "kto", 1, max_steps=2)[2]


def test_sft_does_not_depend_on_how_a_batch_is_cut(tiny, tmp_path):
    """8 x 1, 4 x 2 and 2 x 4 rows a step are one trajectory. (KTO's is not: its KL term is estimated in a batch.)"""
    ends = [run(tiny, tmp_path / str(size), "sft", batch_size=size, accumulation=8 // size, sft_epochs=2.0,
                sft_learning_rate=1e-3) for size in (8, 4, 2)]
    for _, history, _ in ends[1:]:
        assert history.loss.tolist() == pytest.approx(ends[0][1].loss.tolist(), rel=1e-4)
    tensors = [load_file(adapter / "adapter_model.safetensors") for adapter, *_ in ends]
    for other in tensors[1:]:
        for name, value in tensors[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-2, atol=1e-4)


def test_kto_separates_chosen_from_rejected(tiny, tmp_path):
    _, history, _ = run(tiny, tmp_path, "kto", epochs=6.0)
    assert history["rewards/margins"].tail(5).mean() > 0.05
    assert (history.kl >= 0).all()


def test_a_policy_whose_dropout_is_a_function_trains_without_it(tmp_path):
    """StarCoder2's config has dropout of 0.1, which TRL's switch for dropout modules does not reach."""
    config = Starcoder2Config(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                              num_attention_heads=4, num_key_value_heads=2, residual_dropout=0.1, attention_dropout=0.1,
                              embedding_dropout=0.1)
    Starcoder2ForCausalLM(config).save_pretrained(tmp_path)
    model = policy_module.load_policy(str(tmp_path), params(), "float32")
    ids = torch.arange(16)[None]
    assert model.training and torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_qlora_runs_on_the_cpu(tiny, tmp_path):
    """4-bit NormalFloat weights below, the adapter above them: the GPU's path, here on bitsandbytes' CPU kernels."""
    changed = params(quantization="nf4", max_steps=2)
    model = policy_module.load_policy(tiny, changed, "bfloat16")
    kinds = Counter(type(module).__name__ for module in model.modules())
    assert kinds["Linear4bit"] == 14 and model.model.layers[0].mlp.up_proj.weight.quant_type == "nf4"
    adapter, history, _ = run(tiny, tmp_path, "kto", dtype="bfloat16", quantization="nf4", max_steps=2)
    assert history.loss.notna().all()
    moved = [value for name, value in load_file(adapter / "adapter_model.safetensors").items() if "lora_B" in name]
    assert any(value.abs().sum() > 0 for value in moved)
