"""The page of a sweep: its table beside the paper's, its figures, what differs beyond chance, and links to its runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from plum_utils.params import Params
from plum_utils.plots import comparisons, lessons
from plum_utils.runs import Run
from plum_utils.study import sweep_tables
from plum_utils.study.page import figure_item, write_html, write_report, write_sweep_html
from plum_utils.study.sweep_tables import rounds_table
from plum_utils.study.sweeps import Experiment, Sweep, find_sweeps, load_sweep

CAPTIONS = {
    "table1": "Bars: share of self-consistent responses by source, ours beside the paper's.",
    "methods": "Dumbbells: pass@1 of each method from its baseline, ours with intervals, beside the paper's.",
    "difficulties": "Dumbbells: pass@1 by difficulty, ours with intervals, beside the paper's.",
    "scaling": "Lines: gain in pass@1 against the number of instructions, one for each K, with intervals.",
    "rounds": "Lines: pass@1 by round, with intervals.",
}
Shown = tuple[dict[str, pd.DataFrame], dict[str, Figure]]
MULTIPLE = ("p_holm holds the chance of any false alarm among all rows of the comparison table at its level; p_permutation "
            "is that of a row alone.")


def write_sweep_report(sweep: Sweep, experiments: list[Experiment], outputs: Path, name: str,
                       failures: dict[str, str]) -> Path:
    """Write ``<outputs>/sweeps/<name>/``: tables, figures and ``report.html``; returns the page.

    Args:
        outputs: folder of the runs' folders.
        failures: experiment -> why it has no result; told on the page.
    """
    runs = [run for one in experiments if (run := Run(outputs / one.params.name)).manifest_path.exists()]
    shown = _shown(sweep, experiments, outputs)
    notes = [*sweep.notes, *(f"{one}: no result. {cause}" for one, cause in failures.items())]
    notes += [MULTIPLE] if "comparisons" in shown[0] else []
    return _write(Run(outputs / "sweeps" / name), sweep.title, shown, notes, runs)


def _write(home: Run, title: str, shown: Shown, notes: list[str], runs: list[Run]) -> Path:
    """Write the page of several runs, what it shows into its folder, and each run's own page."""
    for run in runs:
        write_report(run)
        write_html(run)
    tables, figures = shown
    for key, table in tables.items():
        home.save_table(table.round(4), key)
    for key, figure in figures.items():
        home.save_figure(figure, key)
    items = {key: figure_item(home.path / "figures" / f"{key}.png", CAPTIONS.get(key, "")) for key in figures}
    return write_sweep_html(home.path, title, tables, items, notes, runs)


def _shown(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    """Tables and figures by name: special ones for what is not a comparison of methods by pass@1."""
    special = {"1": _sources, "figure2": _ratios, "4": _difficulties, "scaling": _scaling}
    return special.get(sweep.table, _methods)(sweep, experiments, outputs)


def _methods(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    ours, theirs = sweep_tables.measured(experiments, outputs), sweep_tables.printed(sweep.table)
    tables = {"methods": pd.concat([ours, theirs], ignore_index=True) if len(theirs) else ours}
    versus = sweep_tables.comparisons(experiments, outputs)
    if len(versus):
        tables["comparisons"] = versus
    draw = comparisons.fig_figure3 if sweep.table == "figure3" else comparisons.fig_sweep
    return tables, {"methods": draw(tables["methods"], sweep.title)} if len(ours) else {}


def _difficulties(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    table = pd.concat([sweep_tables.difficulties(experiments, outputs), sweep_tables.printed("4")], ignore_index=True)
    return {"difficulties": table}, {"difficulties": comparisons.fig_sweep(table, sweep.title)}


def _scaling(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    table = sweep_tables.scaling(experiments, outputs)
    return {"scaling": table}, {"scaling": comparisons.fig_scaling(table)} if len(table) else {}


def _sources(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    table = sweep_tables.sources(experiments, outputs)
    return {"table1": table}, {"table1": lessons.fig_table1(table)} if len(table) else {}


def _ratios(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    tables, figures = {}, {}
    for one in experiments:
        run = Run(outputs / one.params.name)
        if (run.path / "tables" / "figure2.csv").exists():
            ratios = run.load_table("figure2").correctness_ratio
            tables[one.params.name] = ratios.describe().to_frame().T
            figures[one.params.name] = lessons.fig_figure2(ratios, one.params.sampling.k)
    return tables, figures


def write_rounds_report(params: Params, home: Run, runs: list[Run]) -> Path:
    """The page of a run in rounds: pass@1 and the largest pass@k from the untrained policy to the last round's."""
    table = rounds_table(runs)
    shown = {"rounds": table}, {"rounds": comparisons.fig_rounds(table)}
    return _write(home, f"{params.name}: {params.rounds} rounds", shown, [], runs)


def listing(folder: Path, outputs: Path) -> str:
    """The experiments of every sweep below ``folder``, by table: row, parameter file, and how far its run has come."""
    lines = []
    for path in find_sweeps(folder):
        sweep, experiments = load_sweep(path)
        name = f"Table {sweep.table}" if sweep.table.isdigit() else sweep.table
        lines += ["", f"{name}: {sweep.title} ({path.relative_to(folder)})"]
        for one in experiments:
            row = ", ".join(filter(None, (one.row.data, one.row.model, one.row.row)))
            lines.append(f"  {one.path.name:42}{_progress(Run(outputs / one.params.name)):14}{row}")
    return "\n".join(lines[1:]) if lines else f"no sweep below {folder}"


def _progress(run: Run) -> str:
    done = [name[:2] for name, entry in run.manifest()["stages"].items() if entry["status"] == "done"]
    return f"done to {max(done)}" if done else "not run"
