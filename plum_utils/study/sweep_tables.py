"""What a sweep's runs measured, side by side and beside the paper: from their files to one table in long form."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from plum_utils.data import paper
from plum_utils.evaluation.beside_paper import NAMES
from plum_utils.evaluation.sharpness import EQUAL, KEY, SHARPNESS, curves, equal_entropy
from plum_utils.evaluation.tables import headline, long_form
from plum_utils.jsonl import read_jsonl
from plum_utils.runs import Run
from plum_utils.stages import CONTESTS, EVALUATION, TESTGEN
from plum_utils.stats import compare, holm, paired_rates
from plum_utils.study.sweeps import Experiment

LONG = ["group", "method", "metric", "value", "low", "high", "gain", "gain_low", "gain_high", "problems", "seeds",
        "origin"]
BASELINE = "Baseline"


def measured(experiments: list[Experiment], outputs: Path) -> pd.DataFrame:
    """pass@1 in percent of every method of every finished run, with 95% intervals over problems.

    Returns:
        Columns ``LONG``: group (the data set, or the model where there is one data set), method (``Baseline`` or the
        row's name), metric, value, low, high, gain (over the baseline, or of a later round over the one before it, problem by
        problem, in points) and its interval, problems, seeds, origin; a group's baseline is there once, and has no gain.
    """
    rows: list[dict[str, Any]] = []
    for one, run in _finished(experiments, outputs):
        results = run.load_table("results")
        seeds = results[results.seed != "mean"].groupby(["suite", "decoding"]).seed.nunique()
        for row in headline(results).itertuples():
            rows += _both_sides(one, row, metric(row.suite, row.decoding), int(seeds[row.suite, row.decoding]))
    return _baselines_once(rows)


def _both_sides(one: Experiment, row: Any, name: str, seeds: int) -> list[dict[str, Any]]:
    """The baseline's row and the method's, from one row of ``stats.compare``."""
    return [{"group": group_of(one), "method": method, "metric": name, "problems": row.problems, "seeds": trained,
             "origin": "this run"} | _value(row, side)
            for method, side, trained in ((BASELINE, "before", 0), (one.row.row, "after", seeds))]


def _value(row: Any, side: str) -> dict[str, float]:
    """``before`` or ``after`` of a row of ``stats.compare``, with its interval; ``after`` with its gain too."""
    value = {"value": getattr(row, side), "low": getattr(row, f"{side}_low"), "high": getattr(row, f"{side}_high")}
    gain = {"gain": row.difference, "gain_low": row.difference_low, "gain_high": row.difference_high}
    return value | (gain if side == "after" else {})


def _baselines_once(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=LONG).drop_duplicates(["group", "method", "metric"], ignore_index=True)


def metric(suite: str, decoding: str) -> str:
    """A suite's name as the paper prints it where it has one, with the decoding where it is not greedy."""
    name = NAMES.get(suite, suite)
    return name if decoding == "greedy" and suite in NAMES else f"{name}, {decoding}"


def group_of(one: Experiment) -> str:
    """What a run's methods are compared within: the data and the model, as far as they are named."""
    return ": ".join(part for part in (one.row.data, one.row.model) if part)


def _finished(experiments: list[Experiment], outputs: Path, stage: str = EVALUATION
              ) -> list[tuple[Experiment, Run]]:
    runs = [(one, Run(outputs / one.folder)) for one in experiments]
    return [(one, run) for one, run in runs if run.manifest()["stages"].get(stage, {}).get("status") == "done"]


def shared(table: pd.DataFrame, suite: str, method: str) -> pd.DataFrame:
    """A table of ours without the suites that one row of the sweep was measured on alone, unless none has more: what sets rows
    side by side shows the others.

    Args:
        suite, method: the columns that name them (``metric`` and ``method`` of ``measured``, ``suite`` and ``policy`` of ``sharpness``).
    """
    trained = table[table[method] != BASELINE]
    rows = trained.drop_duplicates([suite, "group", method])[suite].value_counts()
    return table[table[suite].isin(rows.index[rows > 1])] if rows.max() > 1 else table


def printed(table: str) -> pd.DataFrame:
    """The paper's table in the same long form, as printed; empty for what has no printed numbers."""
    if table not in ("2", "3", "4", "5", "6"):
        return pd.DataFrame(columns=LONG)
    frame = paper.table(int(table))
    columns = paper.DIFFICULTIES if table == "4" else paper.BENCHMARKS
    groups = frame["data"] + ": " + frame["model"] if "data" in frame else frame["model"]
    long = frame.assign(group=groups)[frame.row != "Rel. +"].melt(["group", "row"], list(columns), "metric", "value")
    return long.rename(columns={"row": "method"}).assign(origin="paper").reindex(columns=LONG)


def difficulties(experiments: list[Experiment], outputs: Path) -> pd.DataFrame:
    """Table 4's form: pass@1 by LiveCodeBench's difficulty of every run that finished notebook 06."""
    rows = []
    for one, run in _finished(experiments, outputs, CONTESTS):
        for row in run.load_table("livecodebench_levels").itertuples():
            rows += _both_sides(one, row, row.label, len(one.params.training.seeds))
    return _baselines_once(rows)


def comparisons(experiments: list[Experiment], outputs: Path) -> pd.DataFrame:
    """Every two methods of a group, compared problem by problem (training seeds averaged): the claim of a table that
    sets one method against another.

    Returns:
        Columns group, metric, first, second, and of ``stats.compare`` (second minus first) problems, difference and its
        interval, p_permutation, wins, losses; p_holm is adjusted over all rows.
    """
    rates = {(group_of(one), one.row.row): _rates(run) for one, run in _finished(experiments, outputs)}
    rows = []
    for (group, first), (other, second) in combinations(rates, 2):
        if group == other:
            before, after = rates[group, first], rates[group, second]
            rows += [{"group": group, "metric": name, "first": first, "second": second}
                     | compare(before[name], after[name]) for name in before if name in after]
    kept = ["group", "metric", "first", "second", "problems", "difference", "difference_low", "difference_high", "wins",
            "losses", "p_permutation"]
    table = pd.DataFrame(rows, columns=kept)
    return table.assign(p_holm=holm(table.p_permutation))


def _rates(run: Run) -> dict[str, pd.Series]:
    """Metric -> each problem's pass rate, averaged over training seeds, of the trained policies."""
    return {metric(suite, decoding): paired_rates(group)[1].mean(axis=1)
            for (suite, decoding), group in _scored(run).groupby(["suite", "decoding"], sort=False)}


def _scored(run: Run) -> pd.DataFrame:
    paths = sorted((run.path / EVALUATION).glob("*.jsonl"))
    return long_form([row for path in paths for row in read_jsonl(path)])


def sharpness(experiments: list[Experiment], outputs: Path) -> pd.DataFrame:
    """Lesson 05's table ``sharpness`` of all runs that have one: group, its own columns, where ``policy`` is the method, and
    ``samples``, a problem's answers: of ten fewer are distinct than of five. A group's baseline is there once."""
    parts = [_sharpness(run).replace({"policy": {"baseline": BASELINE, "PLUM": one.row.row}}).assign(group=group_of(one))
             .join(_scored(run).groupby(KEY).size().groupby(level=["suite", "temperature"]).max().rename("samples"),
                   on=["suite", "temperature"])
             for one, run in _finished(experiments, outputs)]
    columns = ["group", *SHARPNESS]
    columns.insert(columns.index("distinct"), "samples")
    table = pd.concat([pd.DataFrame(columns=columns), *(part for part in parts if len(part))])
    return table.drop_duplicates(["group", "suite", "temperature", "policy"], ignore_index=True)


def _sharpness(run: Run) -> pd.DataFrame:
    """Empty where nothing was sampled, and for an older run."""
    there = (run.path / "tables" / "sharpness.csv").exists()
    return run.load_table("sharpness") if there else pd.DataFrame(columns=SHARPNESS)


def equal_entropies(experiments: list[Experiment], outputs: Path) -> pd.DataFrame:
    """Every two methods of a group, its baseline among them, at equal entropy: whether one's edge is more than sharpness.

    Returns:
        Columns group, suite, first, second, those of ``equal_entropy`` (``before`` is the first's), and p_holm over all rows.
    """
    found: dict[tuple[str, str, str], Any] = {}
    for one, run in _finished(experiments, outputs):
        for (suite, policy), curve in curves(_scored(run), _sharpness(run)).items():
            found.setdefault((group_of(one), suite, BASELINE if policy == "baseline" else one.row.row), curve)
    rows = [{"group": group, "suite": suite, "first": first, "second": second} | row
            for (group, suite, first), (*others, second) in combinations(found, 2) if [group, suite] == others
            for row in equal_entropy(found[group, suite, first], found[group, suite, second])]
    table = pd.DataFrame(rows, columns=["group", "suite", "first", "second", *EQUAL])
    return table.assign(p_holm=holm(table.p_permutation))


def training(experiments: list[Experiment], outputs: Path) -> pd.DataFrame:
    """How each row was trained, training seeds averaged: columns group, method, objective (of the phase), seeds, steps, rows
    (of a set, pairs for DPO), and what lesson 04's table ``training_summary`` has of the first and last fifth of the steps."""
    rows = []
    for one, run in _finished(experiments, outputs):
        summary, p = run.load_table("training_summary"), one.params.training
        for objective, phase in summary.groupby("objective", sort=False):
            means = phase.filter(regex="^(steps|first|last)").mean()
            rows.append({"group": group_of(one), "method": one.row.row, "objective": objective, "seeds": len(phase), "steps": means.steps,
                         "rows": means.steps * p.batch_size * p.accumulation} | means.to_dict())
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def scaling(experiments: list[Experiment], outputs: Path) -> pd.DataFrame:
    """The gain against the amount of data: columns instructions, k, metric, difference and its interval, rows."""
    rows = []
    for one, run in _finished(experiments, outputs):
        labelled = run.load_table("label_flow").set_index("fate").samples
        data = {"instructions": len(run.load_table("figure2")),
                "k": one.params.labels.first_k or one.params.sampling.k}
        for row in headline(run.load_table("results")).itertuples():
            rows.append(data | {"metric": metric(row.suite, row.decoding), "difference": row.difference,
                                "difference_low": row.difference_low, "difference_high": row.difference_high,
                                "chosen": int(labelled["chosen"]), "rejected": int(labelled["rejected"])})
    return pd.DataFrame(rows)


def sources(experiments: list[Experiment], outputs: Path) -> pd.DataFrame:
    """Table 1 of all runs: one row a source, ours beside the paper's rate."""
    tables = [run.load_table("table1") for _, run in _finished(experiments, outputs, TESTGEN)]
    return pd.concat(tables).drop_duplicates("source", ignore_index=True) if tables else pd.DataFrame()


def rounds_table(runs: list[Run]) -> pd.DataFrame:
    """pass@1 (percent, with its 95% interval over problems) of the policy before the first round (0) and after each.

    Returns:
        Columns round, metric, value, low, high, and of a round's pass@1 gain (over the policy before it, problem by
        problem, in points), its interval and problems.
    """
    rows = []
    for number, run in enumerate(runs, 1):
        sides = (("before", 0), ("after", 1)) if number == 1 else (("after", number),)
        for side, place in sides:
            rows += [{"round": place, "metric": metric(row.suite, row.decoding), "problems": row.problems}
                     | _value(row, side)
                     for row in headline(run.load_table("results")).itertuples()]
            rows += [{"round": place} | row for row in _reach(run, "baseline" if side == "before" else "PLUM")]
    return pd.DataFrame(rows)


def _reach(run: Run, policy: str) -> list[dict[str, Any]]:
    """pass@k at the largest k that was sampled: whether rounds widen the policy's reach or only sharpen it."""
    curves = run.load_table("pass_at_k")
    last = curves[(curves.k > 1) & (curves.policy == policy)
                  & (curves.k == curves.groupby(["suite", "temperature"]).k.transform("max"))]
    return [{"metric": f"{metric(row.suite, f'T={row.temperature:g}')}, pass@{row.k}", "value": row.value,
             "low": row.low, "high": row.high} for row in last.itertuples()]
