"""The six notebooks, run headlessly with the real model and few instructions: they finish, and their results hold."""

from __future__ import annotations

import json

import nbformat
import pandas as pd
import pytest
from smoke_command import SMOKE, call

from plum_utils.jsonl import read_jsonl
from plum_utils.params import load_params
from plum_utils.preferences.labels import LABEL_OF_STATUS
from plum_utils.runs import Run
from plum_utils.stages import STAGES

ARTIFACTS = {
    "01_testgen": ["testgen.jsonl", "table1_testgen.jsonl"],
    "02_sampling": ["samples.jsonl"],
    "03_preferences": ["verdicts.jsonl", "kto.jsonl", "dpo.jsonl", "sft.jsonl", "unrunnable.jsonl",
                       "defining.jsonl", "undefined.jsonl", "validation_ids.json", "validation.jsonl"],
    "04_train_kto": ["policies.json"],
    "05_evalplus_eval": [],  # one file a suite
    "06_livecodebench_eval": ["results.jsonl"],
}
TABLES = ["table1", "tests_per_instruction", "dropped_reasons", "sampling_summary", "verdicts", "label_flow",
          "mypy_disagreement", "figure2", "training_history", "training_summary", "results", "table2", "pass_at_k",
          "best_temperature", "sharpness", "equal_entropy", "wins_losses", "power", "power_claims", "table4"]
FIGURES = ["table1", "tests_per_instruction", "lengths", "verdicts", "figure2", "label_flow", "training", "table2",
           "power", "pass_at_k", "sharpness", "table4"]


@pytest.fixture(scope="module")
def p():
    return load_params(SMOKE)


@pytest.fixture(scope="module")
def run(smoke) -> Run:
    return Run(smoke.path)


def rows(run: Run, name: str) -> list[dict]:
    return read_jsonl(run.path / name)


def test_every_notebook_was_executed_without_an_error(run):
    for stage in STAGES:
        notebook = nbformat.read(run.path / "notebooks" / f"{stage.name}.ipynb", as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code), stage.name
        assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not [path.name for path in (run.path / "notebooks").iterdir() if "failed" in path.name]


@pytest.mark.parametrize("stage", ARTIFACTS)
def test_artifacts_are_there_and_recorded(run, stage):
    outputs = run.manifest()["stages"][stage]["outputs"]
    assert run.manifest()["stages"][stage]["status"] == "done"
    assert {f"{stage}/{name}" for name in ARTIFACTS[stage]} <= set(outputs)
    assert f"notebooks/{stage}.ipynb" in outputs


def test_each_table_has_both_forms_and_each_figure_too(run, p):
    tables = {path.name for path in (run.path / "tables").iterdir()}
    figures = {path.name for path in (run.path / "figures").iterdir()}
    assert {f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md")} <= tables
    drawn = FIGURES + [f"wins_losses_{suite.name}" for suite in p.evaluation.suites]
    assert {f"{name}.{suffix}" for name in drawn for suffix in ("png", "svg")} <= figures


def test_the_report_shows_all_tables_and_figures(run):
    text = (run.path / "report.md").read_text()
    for path in [*(run.path / "tables").glob("*.csv"), *(run.path / "figures").glob("*.png")]:
        assert path.relative_to(run.path).as_posix() in text, path.name


def test_artifacts_and_manifest_name_no_folder_of_this_machine(run):
    texts = [run.manifest_path] + [path for stage in STAGES for path in (run.path / stage.name).rglob("*.json*")]
    assert [path.name for path in texts if str(run.path) in path.read_text()] == []


def test_every_response_is_consistent_or_has_a_reason(run, p):
    suites = rows(run, "01_testgen/testgen.jsonl")
    assert len({row["instruction_id"] for row in suites}) == p.data.train_limit
    assert all(row["consistent"] == (row["reason"] == "") for row in suites)
    assert all(row["n_tests"] > 0 for row in suites if row["consistent"])
    assert {row["source"] for row in rows(run, "01_testgen/table1_testgen.jsonl")}


def test_k_samples_for_each_instruction_none_longer_than_allowed(run, p):
    samples = rows(run, "02_sampling/samples.jsonl")
    keys = [(row["instruction_id"], row["sample_index"]) for row in samples]
    assert len(keys) == len(set(keys)) == p.data.train_limit * p.sampling.k
    assert all(0 < row["n_tokens"] <= p.sampling.max_tokens for row in samples)
    assert {row["finish_reason"] for row in samples} <= {"end_token", "stop_string", "length"}


def test_labels_add_up(run, p):
    verdicts = rows(run, "03_preferences/verdicts.jsonl")
    consistent = {row["instruction_id"] for row in rows(run, "01_testgen/testgen.jsonl") if row["consistent"]}
    assert len(verdicts) == len(consistent) * p.sampling.k
    assert {row["status"] for row in verdicts} <= set(LABEL_OF_STATUS) - {"infrastructure"}
    passed = {(row["instruction_id"], row["sample_index"]) for row in verdicts if row["status"] == "passed"}
    kto, sft = rows(run, "03_preferences/kto.jsonl"), rows(run, "03_preferences/sft.jsonl")
    chosen = [row for row in kto if row["label"]]
    assert 0 < len(chosen) <= len(passed) and len(chosen) == len(sft)
    assert {row["instruction_id"] for row in kto} == {row["instruction_id"] for row in chosen}
    negatives = [row for row in rows(run, "03_preferences/unrunnable.jsonl") if not row["label"]]
    assert len(kto) + len(negatives) <= len(verdicts)


def test_dpo_pairs_are_as_many_as_the_smaller_side(run):
    kto, pairs = rows(run, "03_preferences/kto.jsonl"), rows(run, "03_preferences/dpo.jsonl")
    for name in {row["instruction_id"] for row in kto}:
        sides = [sum(row["instruction_id"] == name and row["label"] is label for row in kto) for label in (True, False)]
        assert sum(row["instruction_id"] == name for row in pairs) == min(sides)


def test_the_adapter_is_there_and_the_history_is_finite(run, p):
    policies = json.loads((run.path / "04_train_kto/policies.json").read_text())
    assert [(one["objective"], one["seed"]) for one in policies] == [(p.training.objective, s) for s in p.training.seeds]
    assert all((run.path / one["adapter"] / "adapter_model.safetensors").is_file() for one in policies)
    history = run.load_table("training_history")
    assert history.step.max() == p.training.max_steps and history.loss.notna().all() and (history.loss > 0).all()


def test_every_problem_was_scored_under_both_policies(run, p):
    for suite in p.evaluation.suites:
        frame = pd.DataFrame(rows(run, f"05_evalplus_eval/{suite.name}.jsonl"))
        expected = {"baseline"} | {f"{p.training.objective}-seed{seed}" for seed in p.training.seeds}
        assert set(frame.policy) == expected
        for (_, temperature), group in frame.groupby(["policy", "temperature"]):
            assert len(group) == suite.limit * (suite.n if temperature else 1)
            assert set(group.base_passed) <= {True, False}


def test_rates_are_percentages(run, p):
    """Every number of a pass@ column lies in [0, 100], and pass@k grows with k."""
    assert run.load_table("pass_at_k")["value"].between(0, 100).all()
    results = run.load_table("results")
    for column in {"before", "after"} & set(results):
        assert results[column].between(0, 100).all()
    assert {suite.name for suite in p.evaluation.suites} <= set(results["suite"])
    groups = run.load_table("pass_at_k").groupby(["suite", "policy", "temperature"])
    assert all(group.sort_values("k")["value"].is_monotonic_increasing for _, group in groups)


def test_livecodebench_was_scored(run, p):
    results = pd.DataFrame(rows(run, "06_livecodebench_eval/results.jsonl"))
    assert results.groupby("policy")["task_id"].nunique().eq(p.livecodebench.limit).all()


def test_a_second_call_skips_all_six_within_seconds(smoke):
    again = call(smoke.path)
    assert again.status == 0 and again.output.count("up to date, skipped") == len(STAGES)
    assert again.seconds < 30
