"""The page of a sweep: its table beside the paper's, its figures, what differs beyond chance, and links to its runs."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from matplotlib.figure import Figure

from plum_utils.params import Params
from plum_utils.plots import comparisons, lessons
from plum_utils.runs import Run
from plum_utils.study import sweep_tables
from plum_utils.study.page import (
    Item,
    figure_item,
    flat,
    list_item,
    minutes,
    table_item,
    title_of,
    write_html,
    write_page,
    write_report,
)
from plum_utils.study.sweep_tables import rounds_table
from plum_utils.study.sweeps import Experiment, Sweep, find_sweeps, load_sweep

CAPTIONS = {
    "table1": "Bars: share of self-consistent responses by source, ours beside the paper's.",
    "methods": "Dumbbells: pass@1 of each method from its baseline, ours with intervals, beside the paper's.",
    "sharpness": "Lines: pass@1 against the entropy per token, marked with temperatures; above another's line is what was learned, "
                 "along it what was only sharpened.",
    "difficulties": "Dumbbells: pass@1 by difficulty, ours with intervals, beside the paper's.",
    "scaling": "Lines: gain in pass@1 against the number of instructions, one for each K, with intervals.",
    "rounds": "Lines: pass@1 by round, with intervals.",
}
Shown = tuple[dict[str, pd.DataFrame], dict[str, Figure]]
MULTIPLE = ("p_holm holds the chance of any false alarm among all rows of the comparison table at its level; "
            "p_permutation is that of a row alone.")


def write_sweep_report(sweep: Sweep, experiments: list[Experiment], outputs: Path, name: str,
                       failures: dict[str, str]) -> Path:
    """Write ``<outputs>/sweeps/<name>/``: tables, figures and ``report.html``; returns the page.

    Args:
        outputs: folder of the runs' folders.
        failures: experiment -> why it has no result; told on the page.
    """
    runs = [run for one in experiments if (run := Run(outputs / one.folder)).manifest_path.exists()]
    shown = _shown(sweep, experiments, outputs)
    notes = [*sweep.notes, *(f"{one}: no result. {cause}" for one, cause in failures.items())]
    notes += [MULTIPLE] if "comparisons" in shown[0] else []
    return write_sweep_html(Run(outputs / "sweeps" / name), sweep.title, shown, notes, runs)


def write_sweep_html(home: Run, title: str, shown: Shown, notes: list[str], runs: list[Run]) -> Path:
    """Write ``report.html`` of several runs and what it shows into ``home``, and each run's own page; returns the page.

    Args:
        shown: tables, whole, each below the figure of its name where there is one.
        notes: shown before everything else.
        runs: linked by paths relative to ``home``, with the parameters in which they differ.
    """
    sections = [("Notes", [list_item(notes)])]
    tables, figures = shown
    for name, table in tables.items():
        home.save_table(table.round(4), name)
        items = [table_item(table, f"Table: {title_of(name)}")]
        if name in figures:
            home.save_figure(figures[name], name)
            items.insert(0, figure_item(home.path / "figures" / f"{name}.png", CAPTIONS.get(name, "")))
        sections.append((title_of(name), items))
    for run in runs:
        write_report(run)
        write_html(run)
    return write_page(home.path / "report.html", title, [*sections, ("Runs", _runs(home.path, runs))])


def _runs(folder: Path, runs: list[Run]) -> list[Item]:
    """The runs with links to their pages, and the parameters in which they differ."""
    params = pd.DataFrame([flat(run.manifest().get("params", {})) for run in runs])
    differ = [key for key in sorted(params) if not key.startswith("rows") and key != "name"
              and params[key].nunique(dropna=False) > 1]
    rows, links = [], {}
    for run, own in zip(runs, params[differ].fillna("").to_dict("records")):
        stages, name = run.manifest()["stages"], os.path.relpath(run.path, folder)
        done = sum(entry["status"] == "done" for entry in stages.values())
        links[name] = quote(f"{Path(name).as_posix()}/report.html")
        rows.append({"run": name, "stages done": f"{done} of {len(stages)}",
                     "minutes": round(minutes(stages), 1)} | own)
    caption = "The runs, and the parameters in which they differ."
    return [table_item(pd.DataFrame(rows), caption, links=links)] if rows else []


def _shown(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    """Tables and figures by name: special ones for what is not a comparison of methods by pass@1."""
    special = {"1": _sources, "figure2": _ratios, "4": _difficulties, "scaling": _scaling}
    return special.get(sweep.table, _methods)(sweep, experiments, outputs)


def _methods(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    ours, theirs = sweep_tables.measured(experiments, outputs), sweep_tables.printed(sweep.table)
    tables = {"methods": pd.concat([ours, theirs], ignore_index=True) if len(theirs) else ours}
    versus = sweep_tables.comparisons(experiments, outputs)
    if len(versus):
        tables |= {"comparisons": versus, "training": sweep_tables.training(experiments, outputs)}
    draw = comparisons.fig_figure3 if sweep.table == "figure3" else comparisons.fig_sweep
    figures = {"methods": draw(pd.concat([sweep_tables.shared(ours, "metric", "method"), theirs]), sweep.title)} if len(ours) else {}
    if len(sharp := sweep_tables.sharpness(experiments, outputs)):
        tables |= {"sharpness": sharp, "equal_entropy": sweep_tables.equal_entropies(experiments, outputs)}
        figures["sharpness"] = comparisons.fig_sharpness(sweep_tables.shared(sharp, "suite", "policy"))
    return tables, figures


def _difficulties(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    table = pd.concat([sweep_tables.difficulties(experiments, outputs), sweep_tables.printed("4")], ignore_index=True)
    return {"difficulties": table}, {"difficulties": comparisons.fig_sweep(table, sweep.title)}


def _scaling(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    table, versus = sweep_tables.scaling(experiments, outputs), sweep_tables.comparisons(experiments, outputs)
    tables = {"scaling": table} | ({"comparisons": versus} if len(versus) else {})
    return tables, {"scaling": comparisons.fig_scaling(table)} if len(table) else {}


def _sources(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    table = sweep_tables.sources(experiments, outputs)
    return {"table1": table}, {"table1": lessons.fig_table1(table)} if len(table) else {}


def _ratios(sweep: Sweep, experiments: list[Experiment], outputs: Path) -> Shown:
    tables, figures = {}, {}
    for one in experiments:
        run = Run(outputs / one.folder)
        if (run.path / "tables" / "figure2.csv").exists():
            ratios = run.load_table("figure2").correctness_ratio
            name = one.folder.replace("/", "-")
            tables[name] = ratios.describe().to_frame().T.assign(K=one.params.sampling.k)
            figures[name] = lessons.fig_figure2(ratios, one.params.sampling.k)
    return tables, figures


def write_rounds_report(params: Params, home: Run, runs: list[Run]) -> Path:
    """The page of a run in rounds: pass@1 and the largest pass@k from the untrained policy to the last round's."""
    table = rounds_table(runs)
    shown = {"rounds": table}, {"rounds": comparisons.fig_rounds(table)}
    return write_sweep_html(home, f"{params.name}: {params.rounds} rounds", shown, [], runs)


def listing(folder: Path, outputs: Path) -> str:
    """The experiments of every sweep below ``folder``, by table: row, parameter file, and how far its run has come."""
    lines = []
    for path in find_sweeps(folder):
        sweep, experiments = load_sweep(path)
        name = f"Table {sweep.table}" if sweep.table.isdigit() else sweep.table
        lines += ["", f"{name}: {sweep.title} ({path.relative_to(folder)})"]
        for one in experiments:
            row = ", ".join(filter(None, (one.row.data, one.row.model, one.row.row)))
            lines.append(f"  {one.path.name:42}{_progress(Run(outputs / one.folder)):14}{row}")
    return "\n".join(lines[1:]) if lines else f"no sweep below {folder}"


def _progress(run: Run) -> str:
    done = [name[:2] for name, entry in run.manifest()["stages"].items() if entry["status"] == "done"]
    return f"done to {max(done)}" if done else "not run"
