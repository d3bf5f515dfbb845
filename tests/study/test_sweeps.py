"""Sweep files: what they name, how their experiments run, and the tables made of what the runs measured."""

from __future__ import annotations

import json
from collections import Counter

import pandas as pd
import pytest

from plum_utils.data import paper
from plum_utils.evaluation.sharpness import SHARPNESS
from plum_utils.evaluation.tables import long_form, pass_at_k_table, results_table
from plum_utils.jsonl import write_jsonl
from plum_utils.params import ParamsError, RowParams, TrainingParams, load_params
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.study import batches, sweep_page, sweep_tables, sweeps
from plum_utils.study import pipeline as pipeline_module
from plum_utils.study.commands import main
from plum_utils.yaml_files import load_yaml

PAPER = ROOT / "params" / "paper"
SWEEPS = sweeps.find_sweeps(ROOT / "params")


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def files(tmp_path):
    """A sweep of two runs: one whose file names its row, one named here."""
    write(tmp_path, "a.yaml", 'name: a\nrows: [{table: "5", model: M, row: SFT}]\n')
    return write(tmp_path, "table5.yaml", 'title: T\ntable: "5"\nuntil: "03"\nruns:\n  - a.yaml\n'
                 '  - {params: a.yaml, name: b, row: KTO, set: {labels.first_k: 3}}\n')


def test_runs_take_labels_from_their_file_or_the_sweep(files):
    sweep, (one, two) = sweeps.load_sweep(files)
    assert (one.row.row, two.row.row, two.row.model) == ("SFT", "KTO", "M")
    assert (one.params.name, two.params.name, two.params.labels.first_k) == ("a", "b", 3)


@pytest.mark.parametrize(("text", "message"), [
    ("title: T\ntable: '6'\nruns: [a.yaml]\n", "a.yaml: stands for no row of table 6"),
    ("title: T\ntable: '5'\nruns: [a.yaml, a.yaml]\n", "two runs are called 'a'"),
    ("title: T\ntable: '5'\nuntil: '07'\nruns: [a.yaml]\n", "bad.yaml:3 until: "),
    ("title: T\ntable: '5'\nruns: []\n", "bad.yaml:3 runs: "),
    ("title: T\ntable: '5'\nruns: [none.yaml]\n", "none.yaml: no such parameter file"),
    ("title: T\ntable: '5'\nruns: [{params: a.yaml, sets: {}}]\n", "bad.yaml:3 runs.0.sets: unknown parameter"),
    ("title: T\ntable: '5'\nruns: [{params: a.yaml, set: {sampling.kk: 1}}]\n", "-p sampling.kk: unknown parameter"),
])
def test_broken_sweeps_say_where(files, text, message):
    with pytest.raises(ParamsError) as caught:
        sweeps.load_sweep(write(files.parent, "bad.yaml", text))
    assert message in str(caught.value)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.relative_to(ROOT / "params").as_posix())
def test_every_sweep_loads(path):
    sweep, experiments = sweeps.load_sweep(path)
    assert experiments and all(one.row.table == sweep.table for one in experiments)


MINI = [path for path in SWEEPS if path.parent.name == "mini" and load_yaml(sweeps.Sweep, path).until >= "05"]
OTHER_STEPS = ("one pass", "half the steps", "round 1", "round 2", "48 steps")  # what such a row is called


@pytest.mark.parametrize("path", MINI, ids=lambda path: path.stem)
def test_methods_that_are_compared_make_as_many_steps_of_as_many_rows(path):
    """All phases and rounds together, but for rows whose names say that they make others; these three seeds each, or one for a curve."""
    _, experiments = sweeps.load_sweep(path)
    whole = [one for one in experiments if not one.row.row.endswith(OTHER_STEPS)]
    trainings = [one.params.training for one in whole]
    assert len({(how.max_steps * len(how.objective.split("+")) * max(1, one.round), how.batch_size * how.accumulation)
                for one, how in zip(whole, trainings)}) == 1
    assert {len(how.seeds) for how in trainings} == {1 if path.stem in ("scaling", "rounds_controlled") else 3}
    for how in trainings:
        assert len(trainings) == 1 or how.max_steps > 0 and min(how.epochs, how.sft_epochs) >= 8, "too few passes for max_steps"


def test_what_several_of_our_sweeps_ask_for_is_one_run():
    """A run's name is its folder: two sweeps that use it must ask for the same, or each would make it again."""
    found: dict[str, list] = {}
    for path in SWEEPS:
        for one in sweeps.load_sweep(path)[1]:
            found.setdefault(one.params.name, []).append(one.params)
    assert len(found["reference_run"]) == 7 and all(params == same[0] for same in found.values() for params in same)


def test_the_data_styles_are_sampled_alike_but_for_evol_instruct():
    """Two and a half times as many samples an instruction, as in the paper."""
    oss, evol, sharegpt = (load_params(ROOT / f"params/mini/{name}.yaml").sampling for name in ("oss", "evol", "sharegpt"))
    assert sharegpt == oss and evol == oss.model_copy(update={"k": oss.k * 50 // 20})


def test_the_candidates_of_the_search_make_as_many_steps_but_for_the_one_with_more():
    p = load_params(ROOT / "params" / "mini_search.yaml")
    each = [TrainingParams.model_validate(p.training.model_dump() | one) for one in p.search.candidates]
    assert Counter(how.max_steps * len(how.objective.split("+")) for how in each) == {24: len(each) - 1, 48: 1}


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6])
def test_the_papers_sweeps_hold_every_row_of_the_paper_and_no_other(number):
    printed = paper.table(number)
    printed = printed[~printed.row.isin(["Baseline", "Rel. +"])]
    data = printed["data"] if "data" in printed else pd.Series("", index=printed.index)
    _, experiments = sweeps.load_sweep(sweeps.sweep_of_table(str(number)))
    assert sorted((one.row.data, one.row.model, one.row.row) for one in experiments) == \
        sorted(zip(data, printed.model, printed.row))


def test_every_experiment_of_the_paper_is_in_a_sweep_and_names_model_template_and_data():
    used = {one.path for path in sweeps.find_sweeps(PAPER) for one in sweeps.load_sweep(path)[1]}
    files = {path for path in PAPER.glob("*.yaml") if not sweeps.is_sweep(path)}
    assert {path.name for path in files - used} == {"rounds_codeqwen_chat.yaml"}
    for path in files:
        p = load_params(path)
        assert "/" in p.policy.model and p.policy.revision and p.policy.prompt != "chat", path.name
        assert p.data.train_limit == (400 if p.data.train == "evol_instruct" else 1000), path.name
        assert p.sampling.k == (50 if p.data.train == "evol_instruct" else 20) and p.sampling.temperature == 1.0
        assert p.generator.responses == (6 if p.data.train == "evol_instruct" else 3), path.name


def test_an_unknown_table_names_the_known_ones():
    with pytest.raises(ParamsError, match="--table 9: no sweep for it in paper/; one of 1, 2, 3, 4, 5, 6, figure2"):
        sweeps.sweep_of_table("9")


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    names: list[str] = []

    def stand_in(source, folder, parameters, environment):
        run = Run(parameters["run_dir"])
        names.append(f"{run.path.name}/{source.stem[:2]}")
        if parameters["params"]["seed"] == 13:
            return f"{source.name}: seed 13 brings bad luck"
        (run.stage_dir(source.stem) / "rows.json").write_text("[]")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / source.name).write_text('{"cells": []}')
        return ""

    monkeypatch.setattr(pipeline_module, "run_notebook", stand_in)
    return names


def test_a_sweep_shares_stages_and_is_up_to_date_when_run_again(files, tmp_path, tiny_notebooks, executed):
    sweep, experiments = sweeps.load_sweep(files)
    assert batches.execute(sweep, experiments, tmp_path / "out", tiny_notebooks) == {}
    assert executed == ["a/01", "a/02", "a/03", "b/03"]
    batches.execute(sweep, experiments, tmp_path / "out", tiny_notebooks)
    assert len(executed) == 4


def test_a_failing_run_does_not_stop_the_others_and_the_status_tells(files, tmp_path, tiny_notebooks, executed, capsys):
    text = files.read_text().replace("runs:\n", "runs:\n  - {params: a.yaml, name: bad, set: {seed: 13}}\n")
    path = write(tmp_path, "with_bad.yaml", text)
    out = tmp_path / "out"
    assert main(["run", str(path), "--run-dir", str(out), "--notebooks", str(tiny_notebooks)]) == 1
    assert executed[0] == "bad/01" and executed[-1] == "b/03"
    assert "failed: 01_testgen.ipynb: seed 13 brings bad luck" in capsys.readouterr().out
    assert "seed 13 brings bad luck" in (out / "sweeps/with_bad/report.html").read_text()


def test_one_row_of_a_sweep_is_run_alone_and_the_page_has_what_there_is(files, tmp_path, tiny_notebooks, executed):
    command = ["run", str(files), "--run-dir", str(tmp_path / "out"), "--notebooks", str(tiny_notebooks)]
    assert main([*command, "--row", "2"]) == 0
    assert executed == ["b/01", "b/02", "b/03"] and (tmp_path / "out/sweeps/table5/report.html").exists()
    assert main([*command, "--row", "1"]) == 0
    assert executed[3:] == ["a/03"]  # the rest is what row 2 has made


def test_several_files_are_run_one_after_another_and_share_what_they_have_in_common(files, tmp_path, tiny_notebooks, executed,
                                                                                     capsys):
    """A sweep, a sweep of the same runs, a run with its own folder and a sweep that fails; then again, as after a kill."""
    again = write(files.parent, "again.yaml", files.read_text())
    one = write(files.parent, "one.yaml", "name: one\nlabels: {first_k: 2}\n")
    bad = write(files.parent, "bad.yaml", 'title: T\ntable: "5"\nuntil: "01"\nruns: [{params: a.yaml, name: c, set: {seed: 13}}]\n')
    command = ["run", *map(str, (bad, files, again, one)), "--run-dir", str(tmp_path / "out"), "--notebooks", str(tiny_notebooks)]
    assert main([*command, "--no-check"]) == 1
    assert executed[:5] == ["c/01", "a/01", "a/02", "a/03", "b/03"] and set(executed[5:]) == {f"one/0{n}" for n in range(1, 7)}
    assert "3 of 4 files ran to their end; not " in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out/sweeps").iterdir()} == {"bad", "table5", "again"}
    main([*command, "--no-check"])
    assert executed[11:] == ["c/01"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["run", "params/mini.yaml", "--row", "1"], "params/mini.yaml is no sweep, so it has no rows"),
    (["run", "--table", "5", "--row", "0"], "--row 0: the sweep has rows 1 to"),
    (["run", "--table", "5", "--row", "99", "--dry"], "--row 99: the sweep has rows 1 to"),
    (["run"], "give parameter files, sweep files, or --table N"),
    (["run", "params/mini/table5.yaml", "params/mini/table6.yaml", "--row", "1"], "--row: give one sweep file"),
    (["run", "params/mini/table5.yaml", "params/mini.yaml", "--until", "03"], "several files decide themselves"),
    (["run", "params/mini/table5.yaml", "none.yaml"], "none.yaml: no such parameter file"),
    (["run", "a.yaml", "--table", "2"], "only one of them"),
    (["run", "--table", "2", "--only", "03"], "a sweep decides itself"),
    (["list", "nowhere"], "list takes a folder"),
])
def test_bad_command_lines_are_one_clear_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_list_shows_every_experiment_by_table(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "Table 5: SFT against PLUM-KTO (paper/table5.yaml)" in text
    assert any(line.split()[:3] == ["oss_starcoder2_base_sft.yaml", "not", "run"] for line in text.splitlines())


# --- tables of a sweep ----------------------------------------------------------------------------------------------

TASKS = [f"t{number}" for number in range(10)]


def finished(path, passed: int, seeds: int = 1) -> Run:
    """A run whose trained policy passes the first ``passed`` of ten problems, its baseline the first three."""
    run = Run(path)
    rows = [{"suite": "humaneval", "decoding": "greedy", "temperature": 0.0, "policy": policy, "seed": seed,
             "task_id": task, "base_passed": place < many, "plus_passed": None}
            for policy, seed, many in [("baseline", None, 3), *((f"kto-seed{one}", one, passed) for one in range(seeds))]
            for place, task in enumerate(TASKS)]
    write_jsonl(run.stage_dir("05_evalplus_eval") / "humaneval.jsonl", rows)
    scored = long_form(rows)
    run.save_table(results_table(scored, 100), "results")
    run.save_table(pass_at_k_table(scored, [1], 100), "pass_at_k")
    run.save_table(pd.DataFrame({"objective": "kto", "seed": range(seeds), "steps": 24, "tokens_per_second": 9.0,
                                 "last loss": [0.1 * (one + 1) for one in range(seeds)]}), "training_summary")
    run.update_stage("05_evalplus_eval", {"status": "done", "outputs": {}, "device": "CPU"})
    return run


def experiment(name: str, row: str, model: str = "M", data: str = "") -> sweeps.Experiment:
    params = load_params(ROOT / "params/mini.yaml", {"name": name})
    return sweeps.Experiment(params, ROOT / "params/mini.yaml", RowParams(table="5", model=model, row=row, data=data))


@pytest.fixture
def two(tmp_path):
    finished(tmp_path / "one", 5)
    finished(tmp_path / "two", 10, seeds=3)
    return [experiment("one", "SFT"), experiment("two", "KTO"), experiment("never_ran", "DPO")], tmp_path


def test_the_baseline_of_a_model_is_there_once(two):
    table = sweep_tables.measured(*two)
    assert list(zip(table.method, table.value)) == [("Baseline", 30.0), ("SFT", 50.0), ("KTO", 100.0)]
    assert set(table.metric) == {"HE"} and list(table.seeds) == [0, 1, 3]
    assert table.gain.isna().tolist() == [True, False, False] and table.gain.tolist()[1:] == [20, 70]
    assert (table.gain_low < table.gain).tolist() == [False, True, True]


def test_methods_are_compared_problem_by_problem_within_a_group_only(two):
    experiments, outputs = two
    table = sweep_tables.comparisons(experiments, outputs)
    assert len(table) == 1 and table.loc[0, ["first", "second", "wins", "losses"]].tolist() == ["SFT", "KTO", 5, 0]
    assert table.loc[0, "difference"] == 50 and table.loc[0, "p_holm"] == table.loc[0, "p_permutation"]
    apart = [experiments[0], experiment("two", "KTO", model="other")]
    assert sweep_tables.comparisons(apart, outputs).empty


def test_how_each_row_was_trained_stands_beside_it(two):
    table = sweep_tables.training(*two).round(6)
    assert table.to_dict("list") == {"group": ["M", "M"], "method": ["SFT", "KTO"], "objective": ["kto", "kto"], "seeds": [1, 3],
                                     "steps": [24, 24], "rows": [384, 384], "last loss": [0.1, 0.2]}


def test_the_runs_of_a_scaling_sweep_are_compared_with_each_other(two):
    experiments, outputs = two
    for name in ("one", "two"):
        run = Run(outputs / name)
        run.save_table(pd.DataFrame({"fate": ["chosen", "rejected"], "samples": [3, 4]}), "label_flow")
        run.save_table(pd.DataFrame({"correctness_ratio": [0.5]}), "figure2")
    sweep = sweeps.Sweep(title="t", table="scaling", runs=["one.yaml"])
    tables, _ = sweep_page._shown(sweep, experiments, outputs)
    assert tables["scaling"].difference.tolist() == [20, 70] and tables["comparisons"].difference.tolist() == [50]
    assert list(sweep_page._shown(sweep, experiments[:1], outputs)[0]) == ["scaling"]


def test_a_run_that_solved_nothing_is_in_figure_2_with_its_samples(two):
    experiments, outputs = two
    Run(outputs / "one").save_table(pd.DataFrame({"correctness_ratio": [0.0, 0.0]}), "figure2")
    Run(outputs / "one").update_stage("03_preferences", {"status": "failed"})
    tables, figures = sweep_page._shown(sweeps.Sweep(title="t", table="figure2", runs=["one.yaml"]), experiments, outputs)
    assert list(tables) == list(figures) == ["one"]
    assert tables["one"][["count", "mean", "K"]].values.tolist() == [[2, 0, experiments[0].params.sampling.k]]


def test_the_papers_rows_stand_in_the_same_form():
    table = sweep_tables.printed("5")
    row = table[(table.group == "SC2-7B-Base") & (table.method == "PLUM-KTO") & (table.metric == "HE+")]
    assert row.value.tolist() == [39.6] and set(table.origin) == {"paper"}
    assert set(sweep_tables.printed("3").group) >= {"Evol-Instruct: WizardCoder-CL-7B"}
    assert sweep_tables.printed("figure3").empty


def sampled(path, passed: dict[float, int], nats: dict[float, float]) -> None:
    """Adds a sampled suite to a finished run: its policy passes so many of ten problems by temperature, the baseline 6 at 0.4
    and 2 at 0.8; and the entropies of either."""
    run, baseline = Run(path), {0.4: 6, 0.8: 2}
    rows = [{"suite": "basics", "decoding": f"T={temperature:g}", "temperature": temperature, "policy": policy, "seed": seed,
             "task_id": task, "base_passed": place < many, "plus_passed": None}
            for policy, seed, by in (("baseline", None, baseline), ("kto-seed0", 0, passed))
            for temperature, many in by.items() for place, task in enumerate(TASKS)]
    write_jsonl(run.stage_dir("05_evalplus_eval") / "basics.jsonl", rows)
    run.save_table(pd.DataFrame([{"suite": "basics", "temperature": temperature, "policy": policy,
                                  "entropy_per_token": value / 10, "entropy_per_answer": value, "pass_at_1": 10 * by[temperature]}
                                 for policy, by, known in (("baseline", baseline, {0.4: 10, 0.8: 20}), ("PLUM", passed, nats))
                                 for temperature, value in known.items()]).reindex(columns=SHARPNESS), "sharpness")


def test_methods_are_compared_at_equal_entropy_where_it_was_measured(two):
    """SFT at its temperatures moves along the baseline's line; KTO lies above it."""
    experiments, outputs = two
    assert sweep_tables.sharpness(*two).empty and sweep_tables.equal_entropies(*two).empty
    sampled(outputs / "one", {0.4: 8, 0.8: 4}, {0.4: 5, 0.8: 15})
    sampled(outputs / "two", {0.4: 9, 0.8: 7}, {0.4: 10, 0.8: 20})
    table = sweep_tables.sharpness(*two)
    assert list(zip(table.policy, table.temperature)) == [(name, temperature) for name in ("Baseline", "SFT", "KTO")
                                                          for temperature in (0.4, 0.8)]
    assert set(table.samples) == {1}
    equal = sweep_tables.equal_entropies(*two).query("measure == 'entropy_per_answer'")
    assert list(zip(equal["first"], equal["second"], equal.entropy, equal.difference.round(6))) == [
        ("Baseline", "SFT", 12.5, 0), ("Baseline", "KTO", 15, 40), ("SFT", "KTO", 12.5, 35)]
    assert (equal.p_holm >= equal.p_permutation).all() and set(equal.suite) == {"basics"}
    shown = sweep_page._methods(sweeps.Sweep(title="T", table="5", runs=["one.yaml"]), experiments, outputs)
    assert {"sharpness", "equal_entropy"} <= set(shown[0]) and set(shown[1]) == {"methods", "sharpness"}


def test_figures_leave_out_suites_that_one_row_alone_was_measured_on():
    rows = pd.DataFrame([("g", "Baseline", "a"), ("g", "SFT", "a"), ("g", "KTO", "a"), ("g", "Baseline", "b"), ("g", "KTO", "b"),
                         ("h", "KTO", "c"), ("g", "KTO", "c")], columns=["group", "method", "metric"])
    assert set(sweep_tables.shared(rows, "metric", "method").metric) == {"a", "c"}
    alone = rows[rows.metric == "b"]
    assert sweep_tables.shared(alone, "metric", "method").equals(alone)


@pytest.mark.parametrize(("suite", "decoding", "name"), [
    ("humaneval+", "greedy", "HE+"), ("humaneval", "T=0.8", "HE, T=0.8"),
    ("heldout_basics", "greedy", "heldout_basics, greedy")])
def test_metrics_have_the_papers_names(suite, decoding, name):
    assert sweep_tables.metric(suite, decoding) == name


def test_a_sweep_report_can_be_written_again_without_running(two, monkeypatch):
    experiments, outputs = two
    write(outputs, "one.yaml", 'extends: []\nname: one\nrows: [{table: "5", model: M, row: SFT}]\n')
    path = write(outputs, "again.yaml", 'title: Again\ntable: "5"\nruns: [one.yaml]\n')
    assert main(["report", str(path), "--run-dir", str(outputs)]) == 0
    table = pd.read_csv(outputs / "sweeps/again/tables/methods.csv")
    assert json.dumps(sorted(set(table.origin))) == '["paper", "this run"]'
