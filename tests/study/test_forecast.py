"""How long a run will take: what makes it longer, what is not done again, and what is said when nothing is known."""

from __future__ import annotations

import json
import re
import time

import pytest

from plum_utils.params import Params, load_params
from plum_utils.progress import FIRST_CALL
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.stages import STAGES
from plum_utils.study import forecast as forecast_module
from plum_utils.study.forecast import Speed, announce, foresee, known_shape, told_again
from plum_utils.study.pipeline import Pipeline
from plum_utils.study.probe import look
from plum_utils.training import flops

NUMBERS = [stage.number for stage in STAGES]
NEW = dict.fromkeys(NUMBERS)
MINI = load_params(ROOT / "params" / "mini.yaml")
PROBE = forecast_module.probe
BASE = {"sampling.backend": "vllm", "data.train_limit": 200, "training.max_steps": -1}  # as many steps as there are rows


@pytest.fixture(autouse=True)
def avx2(monkeypatch):
    """The two cores that the constants were measured on."""
    monkeypatch.setattr(forecast_module, "probe", lambda *_: (158e9, "cpu", "2 threads, float32"))


def changed(**changes) -> Params:
    names = {key.replace("__", "."): value for key, value in changes.items()}
    return load_params(ROOT / "params" / "mini.yaml", BASE | names)


def lesson(number: str, **changes) -> float:
    return sum(foresee(changed(**changes), NEW).lessons[number])


@pytest.mark.parametrize(("number", "key", "values"), [
    ("02", "sampling__k", (2, 10, 20, 50)),
    ("03", "sampling__k", (2, 10, 20, 50)),
    ("04", "training__max_steps", (2, 10, 20)),
    ("04", "training__max_per_side", (1, 2)),
    ("04", "training__epochs", (1.0, 1.5, 3.0)),
    ("04", "training__seeds", ([0], [0, 1], [0, 1, 2])),
    ("05", "training__seeds", ([0], [0, 1])),
    ("06", "livecodebench__limit", (2, 8, 16)),
    ("01", "generator__live_instructions", (0, 6, 12)),
    *[(number, "data__train_limit", (20, 100, 200)) for number in ("01", "02", "03", "04")],
])
def test_more_work_takes_longer(number, key, values):
    times = [lesson(number, **{key: value}) for value in values]
    assert times == sorted(times) and len(set(times)) == len(times)


def test_more_samples_never_train_shorter():
    times = [lesson("04", sampling__k=k) for k in (2, 5, 10, 50)]
    assert times == sorted(times) and times[0] < times[-1]


@pytest.mark.parametrize("reached, tokens, step", [(152e9, 242, 19.4), (1640e9, 641, 7.9)], ids=["avx2", "amx"])
def test_what_was_measured_is_foretold(reached, tokens, step):
    shape = known_shape(MINI)
    assert 0.95 < 2 * (shape.linear_weights + shape.vocabulary * shape.hidden) / 269e6 < 1.05
    speed = Speed(reached, "cpu", shape)
    shard = speed.generate(114, 4, 56, 160, 60)
    assert 456 * 56 / shard == pytest.approx(tokens, rel=0.1)
    assert speed.train(16, 60, 40, 5) == pytest.approx(step, rel=0.1)


def test_without_vllm_it_takes_longer():
    assert lesson("02", sampling__backend="transformers") > 1.1 * lesson("02")


def test_a_slower_machine_takes_longer(monkeypatch):
    fast = foresee(MINI, NEW).seconds
    monkeypatch.setattr(forecast_module, "probe", lambda *_: (17e9, "cpu", "2 threads, bfloat16"))
    assert foresee(MINI, NEW).seconds > 5 * fast


FILES = [*sorted((ROOT / "params").glob("*.yaml")), *sorted((ROOT / "params" / "paper").glob("*kto.yaml"))]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_every_parameter_file_is_foretold_at_once(file):
    began = time.process_time()
    found = foresee(load_params(file), NEW)
    assert 60 < found.seconds and all(min(one) >= 0 for one in found.lessons.values())
    assert time.process_time() - began < 10


# --- what ran before --------------------------------------------------------------------------------------------------

class Stages:
    """A pipeline whose stages are in the given states."""

    def __init__(self, folder, states, params=MINI):
        self.params, self.run, self.states = params, Run(folder), states

    def state(self, stage):
        return self.states[stage.number], ""


def test_stages_that_are_up_to_date_take_no_time(tmp_path, capsys):
    assert announce(Stages(tmp_path, dict.fromkeys(NUMBERS, "up to date")), list(STAGES)) is None
    assert capsys.readouterr().out == "", "nothing is left to wait for"
    found = announce(Stages(tmp_path, dict.fromkeys(NUMBERS, "up to date") | {"06": "missing"}), list(STAGES))
    assert [sum(one) > 0 for one in found.lessons.values()] == [False] * 5 + [True]
    assert "01 is done" in capsys.readouterr().out


def test_what_rests_on_a_stage_that_runs_again_is_counted_too(tmp_path):
    states = dict.fromkeys(NUMBERS, "up to date") | {"02": "stale"}
    found = announce(Stages(tmp_path, states), list(STAGES)).lessons
    assert sum(found["01"]) == 0 and all(sum(found[number]) > 0 for number in NUMBERS[1:])


def test_a_stage_that_ran_with_these_parameters_takes_what_it_took(tmp_path):
    pipeline = Stages(tmp_path, dict.fromkeys(NUMBERS, "stale"))
    stage = STAGES[3]
    pipeline.run.update_stage(stage.name, {"status": "done", "seconds": 444.5, "params": stage.parameters(MINI)})
    assert announce(pipeline, list(STAGES)).lessons["04"] == (0.0, 444.5)
    pipeline.params = MINI.model_copy(update={"seed": 7})
    assert announce(pipeline, list(STAGES)).lessons["04"] != (0.0, 444.5)


def test_forced_stages_are_counted_although_they_are_up_to_date(tmp_path):
    assert announce(Stages(tmp_path, dict.fromkeys(NUMBERS, "up to date")), [STAGES[1]], force=True).seconds > 60


def test_shards_that_are_there_are_not_sampled_again(tmp_path):
    whole = foresee(MINI, NEW, tmp_path).lessons["02"][0]
    (tmp_path / "shard_0000.jsonl").touch()
    assert foresee(MINI, NEW, tmp_path).lessons["02"][0] < whole


# --- what is said -----------------------------------------------------------------------------------------------------

def test_a_long_run_says_so_and_names_three_ways_out(tmp_path, capsys):
    pipeline = Stages(tmp_path, dict.fromkeys(NUMBERS, "missing"), changed(sampling__k=200))
    assert announce(pipeline, list(STAGES)).seconds > 90 * 60
    said = capsys.readouterr().out
    assert "More than 90 minutes" in said
    assert all(remedy in said for remedy in ("params/smoke.yaml", "a GPU", "fewer samples"))
    announce(Stages(tmp_path, dict.fromkeys(NUMBERS, "missing"), changed(sampling__k=2)), list(STAGES))
    assert "90 minutes" not in capsys.readouterr().out


def test_times_are_said_by_lesson_and_without_false_precision(tmp_path, capsys):
    announce(Stages(tmp_path, dict.fromkeys(NUMBERS, "missing")), list(STAGES))
    said = capsys.readouterr().out
    assert said.startswith("about ") and "(2 threads, float32: 158 GFLOP/s)" in said
    assert re.search(r"about \d+ min for", said)
    assert all(f" {number} " in said for number in NUMBERS)


@pytest.mark.parametrize(("params", "reason"), [
    ({"policy": {"model": "org/unheard-of"}}, "the shape of org/unheard-of is not known"),
    ({"data": {"train": "oss_instruct"}}, "how many instructions oss_instruct has, only the hub knows"),
    ({"data": {"train": "nowhere.jsonl"}}, "data: unknown instruction set 'nowhere.jsonl'"),
])
def test_what_is_not_known_is_said_and_stops_nothing(params, reason, tmp_path, capsys):
    pipeline = Stages(tmp_path, dict.fromkeys(NUMBERS, "missing"), Params(name="x", **params))
    assert announce(pipeline, list(STAGES)) is None
    assert f"cannot be told beforehand: {reason}" in capsys.readouterr().out
    with told_again(None, tmp_path / FIRST_CALL):
        pass


def test_an_architecture_that_is_not_known_stops_nothing(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "num_attention_heads": 1}))
    pipeline = Stages(tmp_path, dict.fromkeys(NUMBERS, "missing"), Params(name="x", policy={"model": str(tmp_path)}))
    assert announce(pipeline, list(STAGES)) is None and "mamba" in capsys.readouterr().out


def test_a_probe_that_fails_stops_nothing(tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise OSError("no such program")
    monkeypatch.setattr(forecast_module, "probe", fails)
    assert announce(Stages(tmp_path, dict.fromkeys(NUMBERS, "missing")), list(STAGES)) is None
    assert "no such program" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "patience", "reason"), [
    (("float32", 8, 8), 0.01, "too busy to say in 0.01 seconds"), (("float99", 8, 8), 60, "a matrix product failed here")])
def test_a_probe_that_does_not_answer_says_why(arguments, patience, reason, monkeypatch):
    monkeypatch.setattr(forecast_module, "PATIENCE", patience)
    with pytest.raises(RuntimeError, match=reason):
        PROBE(*arguments)


# --- after the first shard --------------------------------------------------------------------------------------------

def test_half_the_rate_doubles_what_is_generated_and_nothing_else():
    before = foresee(MINI, NEW)
    tokens = 320 * before.length
    after = before.after(320, tokens, 2 * tokens / before.rate)
    for number, (made, rest) in before.lessons.items():
        assert after.lessons[number] == pytest.approx((2 * made, rest))


def test_longer_answers_lengthen_lesson_02_alone():
    before = foresee(MINI, NEW)
    tokens = 320 * 2 * before.length
    after = before.after(320, tokens, tokens / before.rate)
    assert after.lessons["02"][0] == pytest.approx(2 * before.lessons["02"][0])
    assert after.lessons["05"] == pytest.approx(before.lessons["05"])


@pytest.mark.parametrize("appears", [True, False])
def test_the_forecast_is_said_again_once_when_the_first_shard_was_measured(appears, tmp_path, capsys):
    file, before = tmp_path / FIRST_CALL, foresee(MINI, NEW)
    file.write_text("left by an earlier session")
    with told_again(before, file):
        assert not file.exists()
        if appears:
            file.write_text(json.dumps({"completions": 320, "tokens": 16000, "seconds": 160.0}))
        time.sleep(2.5)
    assert not file.exists(), "what a stage leaves holds no times"
    said = capsys.readouterr().out
    assert said.count("first shard: 100 tokens/s") == appears and said.count("By lesson") == appears


def test_the_study_says_it_before_its_first_lesson_and_other_notebooks_do_not(tmp_path, tiny_notebooks, monkeypatch,
                                                                              capsys):
    monkeypatch.setattr(Pipeline, "_execute_one", lambda self, stage, forecast: 1.0)
    for notebooks in (tiny_notebooks, ROOT / "notebooks"):
        Pipeline(MINI, Run(tmp_path), notebooks).execute([STAGES[0]])
        said = capsys.readouterr().out
        assert ("for the whole on this machine" in said) == (notebooks == ROOT / "notebooks")
    assert said.index("for the whole on this machine") < said.index("[1/1] 01_testgen")


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_the_probe_measures_a_product(dtype):
    flops, device, what = look(dtype, 576, 1536)
    assert 1e8 < flops < 1e16 and device in ("cpu", "cuda") and what


def test_a_row_of_training_costs_what_its_tokens_cost():
    sequences = {"kto": 1, "dpo": 2, "sft": 1}
    assert forecast_module.ROW_PASSES == {phase: flops.PASSES[phase] * n for phase, n in sequences.items()}
