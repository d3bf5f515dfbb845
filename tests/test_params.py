"""Parameters: bounds, composition, and errors that name file, line and key."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.data.problems import load_suite
from plum_utils.params import Params, ParamsError, SuiteParams, load_params
from plum_utils.provenance import ROOT
from plum_utils.study.sweeps import is_sweep

FILES = [path for path in sorted((ROOT / "params").rglob("*.yaml"))
         if path.parent.name not in ("parts", "accelerate") and not is_sweep(path)]


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "params").as_posix())
def test_every_parameter_file_loads_and_round_trips_as_plain_json(path):
    params = load_params(path)
    assert Params.model_validate(json.loads(json.dumps(params.model_dump(mode="json")))) == params


def test_names_are_unique_so_that_runs_do_not_share_a_folder():
    names = [load_params(path).name for path in FILES]
    assert len(set(names)) == len(names)


def test_mini_stays_offline_and_keeps_its_rules():
    params = load_params(ROOT / "params/mini.yaml")
    assert params.policy.model == "embedded:smollm2" and params.livecodebench.source == "bundled"
    assert params.sampling.temperature == 0.8 and params.sampling.stop_after_program
    assert params.training.batch_size >= 4 and params.training.quantization == "none"
    first = params.evaluation.suites[0]
    assert (first.name, first.n, first.temperatures, first.limit) == ("heldout_basics", 5, [0.8], None)
    assert len(load_suite("heldout_basics")) == 200


def test_the_references_file_is_mini_with_more_measured():
    mini, full = (load_params(ROOT / f"params/{name}.yaml") for name in ("mini", "reference"))
    one_seed = full.training.model_copy(update={"seeds": mini.training.seeds})
    assert full.model_copy(update={"name": mini.name, "evaluation": mini.evaluation, "training": one_seed}) == mini
    first = full.evaluation.suites[0]
    assert first.name == "heldout_basics" and first.n >= 10 and first.temperatures == [0.8, 1.0]
    assert len(full.training.seeds) == 3 and {suite.name for suite in mini.evaluation.suites} < {suite.name for suite in full.evaluation.suites}


def test_smoke_inherits_from_mini_and_starts_no_vllm():
    mini, smoke = load_params(ROOT / "params/mini.yaml"), load_params(ROOT / "params/smoke.yaml")
    assert smoke.sampling.backend == "transformers" and smoke.training.max_steps == 2
    assert smoke.policy == mini.policy and smoke.training.lora_r == mini.training.lora_r
    assert all(suite.limit for suite in smoke.evaluation.suites) and smoke.livecodebench.limit


def test_defaults_are_the_papers():
    params = Params(name="x")
    assert (params.sampling.k, params.sampling.temperature) == (20, 1.0)
    assert params.training.objective == "kto" and params.training.negatives == "failing"


def test_extends_merges_deeply_and_lists_replace(tmp_path):
    write(tmp_path, "base.yaml", "name: base\nsampling: {k: 5, top_p: 0.9}\ndata: {table1: [oss, evol]}\n")
    (tmp_path / "sub").mkdir()
    child = write(tmp_path / "sub", "child.yaml",
                  "extends: ../base.yaml\nname: child\nsampling: {k: 7}\ndata: {table1: [oss]}\n")
    params = load_params(child)
    assert (params.name, params.sampling.k, params.sampling.top_p) == ("child", 7, 0.9)
    assert params.data.table1 == ["oss"]


def test_several_parents_merge_in_order(tmp_path):
    write(tmp_path, "model.yaml", "policy: {model: a/b}\nsampling: {k: 5, stop: [x]}\n")
    write(tmp_path, "data.yaml", "sampling: {k: 50}\n")
    params = load_params(write(tmp_path, "both.yaml", "extends: [model.yaml, data.yaml]\nname: both\n"))
    assert (params.policy.model, params.sampling.k, params.sampling.stop) == ("a/b", 50, ["x"])
    write(tmp_path, "data.yaml", "sampling:\n  k: 0\n")
    with pytest.raises(ParamsError, match=r"data\.yaml:2 sampling\.k: expected to be greater than 0, got 0"):
        load_params(tmp_path / "both.yaml")


def test_overrides_win_and_reach_new_sections(tmp_path):
    path = write(tmp_path, "a.yaml", "name: a\n")
    params = load_params(path, {"training.learning_rate": "1e-4", "training.seeds": [1, 2], "seed": 3})
    assert params.training.learning_rate == 1e-4 and params.training.seeds == [1, 2] and params.seed == 3


@pytest.mark.parametrize(("text", "message"), [
    ("name: a\nsampling:\n  kk: 3\n", "a.yaml:3 sampling.kk: unknown parameter"),
    ("name: a\nsampling:\n  k: -1\n", "a.yaml:3 sampling.k: expected to be greater than 0, got -1"),
    ("name: a\nsampling:\n  top_p: .nan\n", "a.yaml:3 sampling.top_p: expected to be a finite number, got nan"),
    ("name: a\ntraining:\n  epochs: .inf\n", "a.yaml:3 training.epochs: expected to be a finite number, got inf"),
    ("name: a\ntraining:\n  beta: big\n", "a.yaml:3 training.beta: expected to be a valid number"),
    ("name: a\ntraining:\n  batch_size: 2\n", "a.yaml:3 training.batch_size: expected at least 4 for KTO"),
    ("name: a\ntraining:\n  accumulation: 3\n  processes: 2\n",
     "a.yaml:3 training.accumulation: expected a multiple of training.processes (2), got 3"),
    ("name: a\ntraining:\n  sft_instructions: unseen\n", "a.yaml:2 training.preference_fraction: expected below 1"),
    ("name: a\ntraining:\n  objective: dpo\n  dpo_loss: hinge\n", "a.yaml:4 training.dpo_loss: expected"),
    ("name: a\ntraining: {dpo_loss: ipo}\n", "a.yaml:2 training.dpo_loss: expected sigmoid with objective kto"),
    ("name: a\ntraining: {objective: dpo, negatives: defining}\n", "a.yaml:2 training.negatives: expected failing with objective dpo"),
    ("name: a\nrows: [{table: '9', model: m, row: r}]\n", "a.yaml:2 rows.0.table: "),
    ("name: a\nevaluation:\n  suites:\n  - {name: x, n: 1}\n  - {name: y, limit: 0}\n",
     "a.yaml:5 evaluation.suites.1.limit: expected to be greater than 0"),
    ("name: a\nseed: 1\nseed: 2\n", "a.yaml:3 seed: given twice, first in line 2"),
    ("seed: 1\n", "a.yaml name: missing"),
    ("- 1\n", "a.yaml:1: expected keys and values, got list"),
    ("name: [a\n", "a.yaml: cannot be read as YAML"),
    ("name: ../up\n", "a.yaml:1 name: "),
    ("extends: none.yaml\nname: a\n", "none.yaml: no such parameter file"),
    ("extends: a.yaml\nname: a\n", "a.yaml: extends itself"),
    ("sampling: 3\nname: a\n", "a.yaml:1 sampling: "),
])
def test_errors_name_file_line_and_key(tmp_path, text, message):
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert str(tmp_path) in str(caught.value) and message in str(caught.value)


def test_an_error_points_at_the_file_that_holds_the_value(tmp_path):
    write(tmp_path, "base.yaml", "name: base\nsampling:\n  k: 0\n")
    child = write(tmp_path, "child.yaml", "extends: base.yaml\nname: child\n")
    with pytest.raises(ParamsError, match=r"base\.yaml:3 sampling\.k"):
        load_params(child)
    with pytest.raises(ParamsError, match=r"^-p sampling\.k: .*got -4"):
        load_params(child, {"sampling.k": -4})


def test_all_errors_are_told_at_once(tmp_path):
    path = write(tmp_path, "a.yaml", "name: a\nsampling: {k: 0, top_p: 2}\n")
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert len(str(caught.value).splitlines()) == 2


def test_an_override_inside_a_value_is_refused(tmp_path):
    path = write(tmp_path, "a.yaml", "name: a\nseed: 1\n")
    with pytest.raises(ParamsError, match="-p seed.x: 'seed' is a value, not a section"):
        load_params(path, {"seed.x": 1})


def test_parameters_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Params(name="x").seed = 1


@given(ratio=st.floats(allow_nan=True))
def test_class_weights_stay_within_the_kto_papers_range(ratio):
    inside = not math.isnan(ratio) and 1 <= ratio <= 4 / 3
    try:
        Params(name="x", training={"desirable_ratio": ratio})
    except ValueError:
        assert not inside
    else:
        assert inside


@given(text=st.text(max_size=40))
def test_any_text_is_parameters_or_a_params_error(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError):  # `name` is required, and 40 characters of anything seldom hold it
        load_params(path)


def test_decodings():
    assert [one.label for one in SuiteParams(name="s", n=4, temperatures=[0.8, 1.0]).decodings()] == [
        "greedy", "T=0.8", "T=1"]
    assert [one.n for one in SuiteParams(name="s", temperatures=[0.8]).decodings()] == [1]
