"""What a training shows of itself: trackers, speed, validation on kept-out instructions, a falling chosen side."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from test_training import Killed, KillOnce
from tiny_llama import all_rows, params
from transformers import AutoConfig, TrainerControl, TrainerState

from plum_utils.params import Params, ParamsError, params_of
from plum_utils.training import phases, trainers, validation, watching
from plum_utils.training.flops import forward_flops, passes
from plum_utils.training.watching import MEASURED, MeasureSteps, Watch, WatchChosen

NO_TENSORBOARD = "tensorboard is not installed; make setup brings it"
KEPT_OUT = [{"instruction_id": f"k{n}", "prompt": f"ask {n}?\n", "tests": ["assert f() == 1"], "reference": "def f(): return 1"}
            for n in range(3)]


def watch(**sampling) -> Watch:
    return Watch(Params(name="exp", sampling={"max_tokens": 8} | sampling), KEPT_OUT)


def run(tiny: str, folder: Path, objective: str = "kto", watched: Watch | None = None, dtype: str = "float32", **changes):
    """Adapter, history without what is measured anew each time, and the adapter's bytes."""
    how = params(**{"objective": objective, "max_steps": 5} | changes)
    adapter, history = phases.train(objective, tiny, all_rows(), how, folder, 0, dtype, "the policy", watched)
    return adapter, history.drop(columns=list(MEASURED), errors="ignore"), (adapter / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def judged(monkeypatch):
    """Verdicts without a sandbox: pass@1 after each step is as given, and the programs are kept."""
    seen: list[list[str]] = []

    def passed(programs, _):
        seen.append(programs)
        return [10.0, 20.0, 60.0, 40.0, 60.0, 0.0][len(seen) % 6 - 1]

    monkeypatch.setattr(validation, "passed", passed)
    return seen


# --- speed and memory ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("objective", ["kto", "dpo"])
def test_each_step_says_its_speed_and_memory_and_no_utilisation_without_a_known_peak(tiny, tmp_path, objective):
    _, history = phases.train(objective, tiny, all_rows(), params(objective=objective, max_steps=2, accumulation=2), tmp_path, 0,
                              "float32")
    assert (history.tokens_per_second > history.samples_per_second).all() and (history.samples_per_second > 0).all()
    assert (history.peak_gib > 0.01).all() and history.peak_gib.is_monotonic_increasing
    assert torch.cuda.is_available() or "mfu" not in history


def test_a_step_counts_its_tokens_rows_and_operations(tiny, monkeypatch):
    """One second, two batches of 4 rows, 160 tokens, on a card that computes 1e9 operations a second."""
    config = AutoConfig.from_pretrained(tiny)
    clock = iter([10.0, 11.0])
    monkeypatch.setattr(watching.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(watching, "peak_flops", lambda dtype: {"bfloat16": 1e9}[dtype])

    class Trainer:
        model = type("Model", (), {"config": config, "dtype": torch.bfloat16})
        _total_train_tokens = 40
        _metrics = {"train": {name: [] for name in MEASURED}}

    trainer, how = Trainer(), type("How", (), {"per_device_train_batch_size": 4, "world_size": 1})
    measure = MeasureSteps(trainer, "kto", params())
    measure.on_step_begin(how, None, None)
    trainer._total_train_tokens = 200
    measure.on_substep_end(how, None, None)
    measure.on_step_end(how, None, None)
    found = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert found["tokens_per_second"] == 160 and found["samples_per_second"] == 8
    assert found["mfu"] == pytest.approx(100 * 5 * 8 * forward_flops(config, 0, 20) / 1e9)


def test_passes_of_each_way_to_train():
    assert [passes(phase, params()) for phase in ("kto", "dpo", "sft")] == [5, 3, 2]
    assert passes("kto", params(precompute_reference=True)) == 3 and passes("sft", params(lora_r=None)) == 3


def test_a_card_that_trl_does_not_know_has_the_peak_of_its_data_sheet(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, dtype, peak in (("NVIDIA GeForce RTX 4090", "bfloat16", 165e12), ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
                              ("NVIDIA H100 80GB HBM3", "float32", None), ("NVIDIA GeForce RTX 4090", "float32", None),
                              ("a new one", "bfloat16", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert watching.peak_flops(dtype) == peak


# --- trackers -----------------------------------------------------------------------------------------------------------

def test_a_tracker_that_is_not_installed_is_an_error_that_names_the_package(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="training.report_to: mlflow is not installed; pip install mlflow, or set"):
        phases.settle(params(report_to="mlflow"), tiny)


@pytest.mark.parametrize("tracker", ["wandb", "trackio", "mlflow"])
def test_each_tracker_is_transformers_own_and_a_run_of_its_own(tracker, monkeypatch):
    """A stand-in for the tracker's package, and one for the trainer: the run's name, and that wandb's run ends."""
    ended, added = [], []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None, finish=lambda: ended.append(True)))
    monkeypatch.setattr(watching.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(watching, "get_reporting_integration_callbacks", lambda name: [lambda: added.append(name) or name])
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "mine")  # a researcher's own stays
    trainer = SimpleNamespace(args=SimpleNamespace(), add_callback=added.append)
    watching.add_tracker(trainer, params(report_to=tracker), watch(), Path("stage"), "kto-seed0")
    assert added[:2] == [tracker, tracker] and trainer.args.run_name == "exp-kto-seed0" and os.environ["WANDB_PROJECT"] == "mine"
    for callback in added[2:]:
        callback.on_train_end(None, SimpleNamespace(is_world_process_zero=True), None)
    assert ended == [True] * (tracker == "wandb")


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason=NO_TENSORBOARD)
@pytest.mark.long("seconds")
def test_tensorboards_files_hold_the_history_and_the_validation_of_each_phase(tiny, tmp_path, judged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, history, _ = run(tiny, tmp_path / "a", "sft+kto", watch(), report_to="tensorboard", validate_steps=2)
    names = {"sft": "exp-sft-kto-seed0-sft", "kto": "exp-sft-kto-seed0-kto"}
    assert {path.name for path in (tmp_path / "a" / "tensorboard").iterdir()} == set(names.values())
    for phase, name in names.items():
        events = EventAccumulator(str(tmp_path / "a" / "tensorboard" / name)).Reload()
        losses = {event.step: event.value for event in events.Scalars("train/loss")}
        expected = history[history.objective == phase].set_index("step").loss
        assert losses == pytest.approx(expected.to_dict()) and len(losses) > 1
        assert {"train/tokens_per_second", "train/peak_gib"} <= set(events.Tags()["scalars"])
        asked = [event.step for event in events.Scalars("eval/pass@1")]
        assert asked == [step for step in range(len(losses) + 1) if step % 2 == 0 or step == len(losses)]


def test_without_a_watch_there_is_no_tracker_and_no_validation(tiny, tmp_path, judged):
    adapter, *_ = run(tiny, tmp_path, report_to="wandb", validate_steps=1)
    assert judged == [] and phases.outcome(adapter, "kto")["validation"] == []


# --- validation ---------------------------------------------------------------------------------------------------------

def test_the_policy_is_asked_greedily_and_its_programs_are_judged(tiny, tmp_path):
    """In the real sandbox; a random policy writes no program, and the reference is one."""
    adapter, *_ = run(tiny, tmp_path, watched=watch(), validate_steps=5)
    assert phases.outcome(adapter, "kto") == {"steps": 5, "planned": 5, "kept_step": 5, "chosen_fell": None, "validation": [
        {"step": 0, "pass@1": 0.0}, {"step": 5, "pass@1": 0.0}]}
    assert validation.passed(["def f(): return 1", "", "def f(): return 2"], watch()) == pytest.approx(100 / 3)


@pytest.mark.parametrize(("objective", "dtype", "changes"), [
    ("kto", "float32", {}),
    pytest.param("sft", "bfloat16", {"lora_dropout": 0.1}, marks=pytest.mark.long("seconds")),
    pytest.param("kto", "bfloat16", {"quantization": "nf4", "gradient_checkpointing": True}, marks=pytest.mark.long("seconds"))])
def test_validation_changes_no_byte_of_the_policy(tiny, tmp_path, judged, objective, dtype, changes):
    _, history, alone = run(tiny, tmp_path / "a", objective, dtype=dtype, **changes)
    _, validated, watched = run(tiny, tmp_path / "b", objective, watch(), dtype, validate_steps=1, **changes)
    assert watched == alone and validated.equals(history)
    assert len(judged) == 1 + history.step.max() and len({tuple(one) for one in judged}) > 1, "the policy was never another"


def test_the_answers_are_those_of_the_trained_adapter_loaded_by_itself(tiny, tmp_path, judged):
    from plum_utils.models.engines import open_backend

    adapter, *_ = run(tiny, tmp_path, watched=watch(max_tokens=24), validate_steps=5)
    backend = open_backend("transformers", tiny, "float32")
    found = backend.generate([row["prompt"] for row in KEPT_OUT], max_tokens=24, adapter=str(adapter))
    assert judged[-1] == [validation.extract_code(output.text, "chat") for (output,) in found]


@pytest.mark.long("seconds")
def test_the_best_steps_adapter_is_kept_also_after_a_kill(tiny, tmp_path, judged, monkeypatch):
    """10% before the first step, then 20, 60, 40, 60, 0: the first of the best is step 2's."""
    until_2 = run(tiny, tmp_path / "a", max_steps=2)[2]
    how = dict(watched=watch(), validate_steps=1, keep="best")
    adapter, history, best = run(tiny, tmp_path / "b", **how)
    ended = phases.outcome(adapter, "kto")
    assert ended["kept_step"] == 2 and ended["steps"] == 5
    assert best == until_2
    assert not list(tmp_path.rglob("best-*"))
    judged.clear()
    monkeypatch.setattr(trainers, "MarkComplete", KillOnce)
    with pytest.raises(Killed):
        run(tiny, tmp_path / "c", **how)
    del judged[3:]  # steps 0, 1 and 2: what came after the checkpoint is measured again
    adapter, resumed, weights = run(tiny, tmp_path / "c", **how)
    assert weights == best and resumed.equals(history) and phases.outcome(adapter, "kto") == ended


def test_a_step_that_trained_nothing_is_never_the_best(tiny, tmp_path, monkeypatch):
    measured = iter([10.0, 60.0, 20.0, 20.0])
    monkeypatch.setattr(validation, "passed", lambda programs, watch: next(measured))
    adapter, history, _ = run(tiny, tmp_path, max_steps=3, watched=watch(), validate_steps=1, keep="best")
    assert history.learning_rate.iloc[0] == 0 and phases.outcome(adapter, "kto")["kept_step"] == 2
    weights = load_file(adapter / "adapter_model.safetensors")
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)


def test_validation_without_instructions_is_an_error(tiny, tmp_path):
    with pytest.raises(ValueError, match="validation.jsonl has no instruction; raise data.validation_fraction"):
        run(tiny, tmp_path, watched=Watch(Params(name="x")), validate_steps=2)


@pytest.mark.parametrize(("values", "words"), [
    ({"training.validate_steps": 5}, "training.validate_steps: expected data.validation_fraction above 0"),
    ({"training.keep": "best"}, "validate_steps: expected above 0, so that keep: best knows which step is, got 0")])
def test_parameters_that_do_not_go_together_are_refused(values, words):
    with pytest.raises(ParamsError, match=words):
        params_of({"name": "x"} | values, "here")


# --- the chosen side ----------------------------------------------------------------------------------------------------

def fell(rewards: list[float], **changes) -> tuple[int | None, TrainerControl, WatchChosen]:
    state, control, callback = TrainerState(), TrainerControl(should_save=True), WatchChosen(params(**changes), "kto, seed 0")
    state.is_world_process_zero = True
    for step, value in enumerate(rewards, 1):
        state.global_step = step
        state.log_history.append({"rewards/chosen": value, "loss": 0.5})
        callback.on_log(None, state, control)
    return callback.fell, control, callback


def test_a_chosen_side_that_stays_below_its_start_is_said_once(capsys):
    assert fell([0, -1, -1, 0.1, -1, -1, -1, -1, -1], chosen_window=3)[0] == 7
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith("kto, seed 0: warning at step 7: rewards/chosen was below 0, where it")
    assert fell([-1, -1, 0.1] * 5, chosen_window=3)[0] is None and fell([-1] * 20, chosen_falls="ignore")[0] is None


def test_it_can_stop_the_training_and_saves_no_checkpoint_then():
    at, control, _ = fell([-1, -1, -1], chosen_window=3, chosen_falls="stop")
    assert at == 3 and control.should_training_stop and not control.should_save
    assert not fell([-1, -1, -1], chosen_window=3)[1].should_training_stop


def test_a_stopped_training_says_so_and_comes_to_the_same_end_after_a_kill(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(WatchChosen, "on_log", falling(WatchChosen.on_log))
    how = dict(chosen_falls="stop", chosen_window=4)
    adapter, history, stopped = run(tiny, tmp_path / "a", **how)
    ended = phases.outcome(adapter, "kto")
    assert ended["steps"] == ended["chosen_fell"] == ended["kept_step"] == 4 and ended["planned"] == 5 and len(history) == 4
    monkeypatch.setattr(trainers, "MarkComplete", KillOnce)
    with pytest.raises(Killed):
        run(tiny, tmp_path / "b", **how)
    adapter, resumed, weights = run(tiny, tmp_path / "b", **how)
    assert weights == stopped and resumed.equals(history) and phases.outcome(adapter, "kto") == ended


def falling(on_log):
    """Every step's reward of the chosen side is -1."""
    def changed(self, args, state, control, **_):
        for entry in state.log_history:
            entry["rewards/chosen"] = -1.0
        on_log(self, args, state, control)

    return changed
