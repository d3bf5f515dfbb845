"""Figures that compare methods, sweeps and rounds."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from plum_utils.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    STYLE,
    ShownFigure,
    finish,
    legend_below,
    method_styles,
    new_axes,
    plain,
)


def fig_before_after(table: pd.DataFrame, title: str) -> Figure:
    """Dumbbell for each row from baseline to trained policy, with 95% intervals (Tables 2 and 4).

    Args:
        table: columns ``label``, ``before``, ``after`` and optionally ``before_low``, ``before_high``, ``after_low``,
            ``after_high``; all in percent.
    """
    figure, axis = new_axes(7.6, 1.6 + 0.5 * len(table))
    places = np.arange(len(table))[::-1]
    for name, colour, mark, shift in (("before", GREY, "o", 0.12), ("after", BLUE, "D", -0.12)):
        if f"{name}_low" in table:
            axis.hlines(places + shift, table[f"{name}_low"], table[f"{name}_high"], color=colour, alpha=0.6, lw=2)
        axis.plot(table[name], places + shift, mark, color=colour, markersize=8, markeredgewidth=1.6,
                  markerfacecolor="white" if name == "before" else colour,
                  label={"before": "baseline", "after": "PLUM"}[name])
    changed = [(place, row) for place, row in zip(places, table.itertuples()) if row.after != row.before]
    for place, row in changed:
        up = row.after > row.before
        axis.annotate("", (row.after, place - 0.12), (row.before, place + 0.12), arrowprops={
            "arrowstyle": "->", "color": GREEN if up else RED, "lw": 1.4, "linestyle": "-" if up else "--"})
    axis.set_yticks(places, [plain(label, 44) for label in table["label"]])
    axis.set_ylim(-0.7, len(table) - 0.3)
    axis.set_xlim(min(0, axis.get_xlim()[0]), max(1, axis.get_xlim()[1]))
    legend_below(figure, axis)
    bars = "\nbar: 95% bootstrap interval over problems" if "before_low" in table else ""
    finish(axis, title, f"pass@1 (%){bars}")
    return figure


def fig_sweep(table: pd.DataFrame, title: str, note: str = "", xlabel: str = "pass@1 (%)") -> Figure:
    """Tables 2 to 6 and the Figure 3 ablation: from each group's baseline to its methods, one panel a metric; left this
    run's values with their intervals, right the paper's as printed (only one side where only one is given).

    Args:
        table: one row a value: ``group`` (a model or data set), ``method`` (``Baseline`` or another), ``metric``,
            ``value`` in percent, ``origin`` (``this run`` or ``paper``) and optionally ``low`` and ``high``.
        note: a second line of the title.

    Raises:
        ValueError: no rows, or a group that has two values of one method and metric.
    """
    table = _sweep_rows(table)
    sides = [part for origin in ("this run", "paper") if len(part := table[table.origin == origin])]
    grids = [_sweep_grid(part) for part in sides]
    height = max(grid["height"] for grid in grids) + (1.5 if note else 1.2)
    with matplotlib.rc_context(STYLE):
        figure = ShownFigure(figsize=(sum(grid["width"] for grid in grids), height), layout="constrained")
        parts = figure.subfigures(1, len(sides), width_ratios=[grid["width"] for grid in grids], squeeze=False)[0]
        styles, limits = method_styles(list(table.method)), _sweep_limits(sides)
        for part, side, grid, limit in zip(parts, sides, grids, limits):
            _sweep_side(part, side, grid, height, styles, limit, xlabel)
    figure.suptitle("\n".join(filter(None, (plain(title, 110), plain(note, 130)))), x=0.01, ha="left", fontsize=13)
    handles = {label: line for axis in figure.axes for line, label in zip(*axis.get_legend_handles_labels())}
    names = [name for name in styles if name in handles]
    figure.legend([handles[name] for name in names], [plain(name) for name in names], loc="outside lower center",
                  ncols=min(6, len(names)), fontsize=11, frameon=False)
    return figure


def _sweep_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a known origin, baselines first, numbers as numbers."""
    table = table.reindex(columns=["group", "method", "metric", "value", "low", "high", "origin"])
    table = table[table.origin.isin(["this run", "paper"])]
    if table.empty:
        raise ValueError("nothing to draw: no row with origin 'this run' or 'paper'")
    twice = table[table.duplicated(["origin", "group", "method", "metric"])]
    if len(twice):
        one = twice.iloc[0]
        raise ValueError(f"two values of {one.method!r}, {one.metric!r} for {one.group!r} ({one.origin}); expected one")
    numbers = table[["value", "low", "high"]].apply(pd.to_numeric)
    return table.assign(**numbers).sort_values("method", key=lambda names: names != "Baseline", kind="stable")


def _sweep_grid(side: pd.DataFrame) -> dict:
    """How a side's panels lie: two columns of them, three where there are many; sizes in inches."""
    groups, metrics = list(dict.fromkeys(side.sort_index().group)), list(dict.fromkeys(side.sort_index().metric))
    columns = 1 if len(metrics) == 1 else 2 if len(metrics) <= 4 else 3
    rows = -(-len(metrics) // columns)
    panel = 0.2 + len(groups) * (0.1 + 0.15 * side.method.nunique())
    return {"groups": groups, "metrics": metrics, "columns": columns, "rows": rows, "panel": panel,
            "width": max(5.2, 2.0 + 2.3 * columns), "height": 0.9 + rows * (panel + 0.45)}


def _sweep_limits(sides: list[pd.DataFrame]) -> list[tuple[float, float]]:
    """The x axis of each side: one for both where they show the same metrics."""
    if len(sides) == 2 and set(sides[0].metric) & set(sides[1].metric):
        return _sweep_limits([pd.concat(sides)]) * 2
    limits = []
    for side in sides:
        values = side[["value", "low", "high"]].to_numpy(dtype=float)
        values = values[~np.isnan(values)] if not np.isnan(values).all() else np.zeros(1)
        spare = max(2.0, 0.06 * (values.max() - values.min()))
        limits.append((values.min() - spare, values.max() + spare))
    return limits


def _sweep_side(part: SubFigure, side: pd.DataFrame, grid: dict, height: float, styles: dict,
                limit: tuple[float, float], xlabel: str) -> None:
    """The panels of one origin; the room that the other side needs more stays empty below them."""
    ours = side.origin.iloc[0] == "this run"
    heading = "this run" + (", 95% intervals" if side.low.notna().any() else "") if ours else "paper, as printed"
    shared = _shared_prefix(grid["groups"])
    part.suptitle(plain(f"{heading}: {shared}" if shared else heading, 60), fontsize=12, fontweight="bold")
    labels = [_group_label(str(group)[len(shared) + 2 if shared else 0:]) for group in grid["groups"]]
    spare = height - grid["height"]
    below = [spare] if spare > 1.6 else []
    cells = part.add_gridspec(grid["rows"] + len(below), grid["columns"],
                              height_ratios=[grid["panel"] + 0.45] * grid["rows"] + below)
    for place, metric in enumerate(grid["metrics"]):
        row, column = divmod(place, grid["columns"])
        axis = part.add_subplot(cells[row, column])
        _sweep_panel(axis, side[side.metric == metric], grid["groups"], styles)
        axis.set_yticks(range(len(labels)), labels if column == 0 else [""] * len(labels), fontsize=10)
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(*limit)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        last = place + grid["columns"] >= len(grid["metrics"])
        finish(axis, "", xlabel if last else "")
        axis.set_title(plain(metric, 30), loc="left", fontsize=11)


def _group_label(group: str) -> str:
    """A group's name on at most two lines, the data set on one of its own where both are named."""
    data, colon, model = group.partition(": ")
    return f"{plain(data, 29, 1)}:\n{plain(model, 30, 1)}" if colon and len(group) > 24 else plain(group)


def _shared_prefix(groups: list[str]) -> str:
    """What stands before ``: `` in the name of every group (the data set), where it is the same in all."""
    prefixes = {str(group).partition(": ")[0] if ": " in str(group) else "" for group in groups}
    return prefixes.pop() if len(prefixes) == 1 else ""


def _sweep_panel(axis: Axes, rows: pd.DataFrame, groups: list[str], styles: dict) -> None:
    """One metric: a line of markers for each group, each method joined to the baseline."""
    methods = list(dict.fromkeys(rows.method))
    shifts = dict(zip(methods, 0.62 * (np.linspace(-0.5, 0.5, len(methods)) if len(methods) > 1 else np.zeros(1))))
    places = {group: place for place, group in enumerate(groups)}
    before = rows[(rows.method == "Baseline") & rows.value.notna()].set_index("group").value
    for row in rows[rows.value.notna()].itertuples():
        colour, marker = styles[row.method]
        y = places[row.group] + shifts[row.method]
        if row.method != "Baseline" and row.group in before.index:
            axis.plot([before[row.group], row.value], [places[row.group] + shifts["Baseline"], y], color=colour,
                      linewidth=1.3, alpha=0.8, zorder=1)
        if not np.isnan(row.low) and not np.isnan(row.high):
            axis.errorbar(row.value, y, xerr=[[max(0, row.value - row.low)], [max(0, row.high - row.value)]],
                          color=colour, capsize=2.5, elinewidth=1.4, fmt="none", alpha=0.75, zorder=2)
        axis.plot([row.value], [y], marker, color=colour, markersize=7, linestyle="", label=row.method, zorder=3,
                  markerfacecolor="white" if row.method == "Baseline" else colour, markeredgewidth=1.6)
    for group in set(groups) - set(rows[rows.value.notna()].group):
        axis.text(0.02, places[group], "not measured" if (rows.origin == "this run").all() else "not printed",
                  transform=axis.get_yaxis_transform(), va="center", fontsize=9, color="#555555")
    axis.hlines(np.arange(len(groups) - 1) + 0.5, 0, 1, transform=axis.get_yaxis_transform(), color="#DDDDDD", lw=0.7)
    axis.set_ylim(len(groups) - 0.5, -0.5)


def fig_scaling(table: pd.DataFrame) -> Figure:
    """Gain in pass@1 against the number of instructions, one panel a metric and one line for each K.

    Args:
        table: ``instructions``, ``k``, ``metric``, and in points ``difference``, ``difference_low`` and
            ``difference_high`` (95% interval).
    """
    panels = list(table.groupby("metric", sort=False))
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = -(-len(panels) // columns)
    figure, axes = new_axes(max(6.0, 3.6 * columns), 0.5 + 3.1 * rows, columns, rows, squeeze=False, sharey=True)
    sizes, ks = sorted(table.instructions.unique()), sorted(table.k.unique())
    for axis, (metric, group) in zip(axes.flat, panels):
        axis.axhline(0, color="#444444", linewidth=0.8)
        for place, k in enumerate(ks):
            line = group[group.k == k].sort_values("instructions")
            shift = 2 ** (0.07 * (place - (len(ks) - 1) / 2))  # side by side, so that no interval hides another
            _interval_line(axis, line.instructions * shift, line.difference, line.difference_low, line.difference_high,
                           place, f"K = {k}")
        axis.set_xscale("log", base=2)
        axis.set_xlim(sizes[0] / 1.4, sizes[-1] * 1.4)
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        finish(axis, plain(metric, 30), "instructions with tests", "")
    for axis in axes[:, 0]:
        axis.set_ylim(min(-1, axis.get_ylim()[0]), max(1, axis.get_ylim()[1]))
        axis.set_ylabel("gain in pass@1 (points)")
    for axis in axes.flat[len(panels):]:
        axis.remove()
    legend_below(figure, axes.flat[0], columns=6)
    return figure


def _interval_line(axis: Axes, x: pd.Series, value: pd.Series, low: pd.Series, high: pd.Series, place: int,
                   label: str) -> None:
    """A line with markers and intervals (none where NaN), in the style of its place among its like."""
    colour, marker = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (RED, "D"), (PINK, "v"), (SKY, "P"), ("#444444", "X"))[
        place % 7]
    below, above = (value - low).clip(lower=0), (high - value).clip(lower=0)
    axis.errorbar(x, value, yerr=[below, above], color=colour, marker=marker, markersize=6, capsize=3, linewidth=1.6,
                  elinewidth=1.1, linestyle=("-", "--", "-.", ":")[place % 4], label=label)


def fig_rounds(table: pd.DataFrame) -> Figure:
    """Each metric by round of sampling, labelling and training; round 0 is the untrained policy.

    Args:
        table: ``round``, ``metric``, and in percent ``value``, ``low`` and ``high`` (95% interval).
    """
    figure, axis = new_axes(8, 4.6)
    metrics = list(dict.fromkeys(table.metric))
    for place, metric in enumerate(metrics):
        line = table[table.metric == metric].sort_values("round")
        shift = 0.03 * (place - (len(metrics) - 1) / 2)
        _interval_line(axis, line["round"] + shift, line.value, line.low, line.high, place, plain(metric, 40, 1))
    axis.set_xticks(sorted(table["round"].unique()))
    axis.set_xlim(table["round"].min() - 0.4, table["round"].max() + 0.4)
    axis.set_ylim(min(0, axis.get_ylim()[0]), max(1, axis.get_ylim()[1]))
    legend_below(figure, axis, columns=2)
    finish(axis, "From round to round", "round (0: before training)", "percent, with 95% interval")
    return figure


NOT_PRINTED = "The paper shows bars without numbers (its Figure 3), so ours stands alone."


def fig_figure3(table: pd.DataFrame, title: str = "Figure 3: un-runnable programs as negatives") -> Figure:
    """The Figure 3 ablation: baseline, PLUM, and PLUM with un-runnable programs as the rejected side (section 4.3).

    Args:
        table: as for ``comparisons.fig_sweep``, all rows from this run.
    """
    return fig_sweep(table, title, NOT_PRINTED)
