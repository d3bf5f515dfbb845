"""Figures that compare methods, sweeps and rounds."""

from __future__ import annotations

from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
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
    new_panels,
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
    for name, label, colour, fill, mark, shift in (("before", "baseline", GREY, "white", "o", 0.12),
                                                   ("after", "PLUM", BLUE, BLUE, "D", -0.12)):
        if f"{name}_low" in table:
            axis.hlines(places + shift, table[f"{name}_low"], table[f"{name}_high"], color=colour, alpha=0.6, lw=2)
        axis.plot(table[name], places + shift, mark, color=colour, markersize=8, markeredgewidth=1.6,
                  markerfacecolor=fill, label=label)
    for place, row in zip(places, table.itertuples()):
        colour, line = (GREEN, "-") if row.after > row.before else (RED, "--")
        if row.after != row.before:
            axis.annotate("", (row.after, place - 0.12), (row.before, place + 0.12),
                          arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4, "linestyle": line})
    axis.set_yticks(places, [plain(label, 44) for label in table["label"]])
    axis.set_ylim(-0.7, len(table) - 0.3)
    axis.set_xlim(min(0, axis.get_xlim()[0]), max(1, axis.get_xlim()[1]))
    bars = "\nbar: 95% bootstrap interval over problems" if "before_low" in table else ""
    finish(axis, title, f"pass@1 (%){bars}", legend=4)
    return figure


def fig_sweep(table: pd.DataFrame, title: str, note: str = "") -> Figure:
    """Tables 2 to 6 and the Figure 3 ablation: from each group's baseline to its methods, one panel a metric; left this
    run's values with their intervals, right the paper's as printed (only one side where only one is given).

    Args:
        table: one row a value: ``group`` (a model or data set), ``method`` (``Baseline`` or another), ``metric``,
            ``value`` in percent, ``origin`` (``this run`` or ``paper``) and optionally ``low`` and ``high``.
        note: under the title.

    Raises:
        ValueError: no rows, or a group that has two values of one method and metric.
    """
    table = _sweep_rows(table)
    sides = [part for origin in ("this run", "paper") if len(part := table[table.origin == origin])]
    grids = [_sweep_grid(side) for side in sides]
    widths = [max(5.2, 2.0 + 2.3 * columns) for _, columns, _ in grids]
    high = max(rows * height for rows, _, height in grids)
    comparable = len(sides) == 2 and set(sides[0].metric) & set(sides[1].metric)
    styles = method_styles(sorted(table.method.unique(), key=lambda name: name != "Baseline"))
    letters = round(8.5 * sum(widths))  # of the title in the figure's width
    heading = "\n".join(plain(text, letters) for text in (title, note) if text)
    with matplotlib.rc_context(STYLE):
        figure = ShownFigure(figsize=(sum(widths), high + 2.1 + 0.3 * heading.count("\n")), layout="constrained")
        parts = figure.subfigures(1, len(sides), width_ratios=widths, squeeze=False)[0]
        for part, side, (rows, columns, height) in zip(parts, sides, grids):
            part.suptitle(_sweep_heading(side), fontsize=12, fontweight="bold")
            spare = high - rows * height  # what the other side needs more stays empty
            heights = [height] * rows + [spare] * (spare > 0.5)
            cells = part.add_gridspec(len(heights), columns, height_ratios=heights)
            axes = [part.add_subplot(cells[divmod(place, columns)]) for place in range(side.metric.nunique())]
            _sweep_side(side, axes, columns, styles, _sweep_limits(table if comparable else side))
    figure.suptitle(heading, x=0.01, ha="left", fontsize=13)
    handles = {label: line for axis in figure.axes for line, label in zip(*axis.get_legend_handles_labels())}
    legend_below(figure, {plain(name): handles[name] for name in styles if name in handles}, columns=6)
    return figure


def _sweep_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a known origin, numbers as numbers."""
    table = table.reindex(columns=["group", "method", "metric", "value", "low", "high", "origin"])
    table = table[table.origin.isin(["this run", "paper"])]
    if table.empty:
        raise ValueError("nothing to draw: no row with origin 'this run' or 'paper'")
    twice = table[table.duplicated(["origin", "group", "method", "metric"])]
    if len(twice):
        one = twice.iloc[0]
        raise ValueError(f"two values of {one.method!r}, {one.metric!r} for {one.group!r} ({one.origin}); expected one")
    return table.assign(**table[["value", "low", "high"]].apply(pd.to_numeric))


def _sweep_grid(side: pd.DataFrame) -> tuple[int, int, float]:
    """Rows and columns of a side's panels, and a row's height in inches."""
    panels = side.metric.nunique()
    columns = 1 if panels == 1 else 2 if panels <= 4 else 3
    return -(-panels // columns), columns, 0.65 + side.group.nunique() * (0.1 + 0.15 * side.method.nunique())


def _sweep_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """The x axis, in percent."""
    numbers = rows[["value", "low", "high"]]
    low, high = np.nan_to_num([numbers.min(axis=None), numbers.max(axis=None)])
    spare = max(2.0, 0.06 * (high - low))
    return low - spare, high + spare


def _sweep_heading(side: pd.DataFrame) -> str:
    heading = "paper, as printed" if side.origin.iloc[0] == "paper" else "this run"
    if side.low.notna().any():
        heading += ", 95% intervals"
    return plain(": ".join(filter(None, (heading, _shared_data(side)))), 60)


def _shared_data(side: pd.DataFrame) -> str:
    """The data set that every group's name begins with, ``data: model``; empty where they differ."""
    names = {data if colon else "" for data, colon, _ in (str(group).partition(": ") for group in side.group)}
    return names.pop() if len(names) == 1 else ""


def _group_label(group: str) -> str:
    """A group's name on at most two lines, the data set on one of its own where both are named."""
    data, colon, model = group.partition(": ")
    return f"{plain(data, 29, 1)}:\n{plain(model, 30, 1)}" if colon and len(group) > 24 else plain(group)


def _sweep_side(side: pd.DataFrame, axes: list[Axes], columns: int, styles: dict, limits: tuple[float, float]) -> None:
    """The panels of one origin."""
    groups, shared = list(side.group.unique()), _shared_data(side)
    labels = [_group_label(str(group).removeprefix(f"{shared}: ")) for group in groups]
    for place, (axis, metric) in enumerate(zip(axes, side.metric.unique())):
        _sweep_panel(axis, side[side.metric == metric], groups, styles)
        axis.set_yticks(range(len(labels)), [""] * len(labels) if place % columns else labels, fontsize=10)
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(*limits)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        finish(axis, plain(metric, 22), "pass@1 (%)" if place + columns >= len(axes) else "")


def _sweep_panel(axis: Axes, rows: pd.DataFrame, groups: list[str], styles: dict) -> None:
    """One metric: a line of markers for each group, each method joined to the baseline."""
    methods = [name for name in styles if name in set(rows.method)]
    shifts = dict(zip(methods, np.linspace(-0.31, 0.31, len(methods)) if len(methods) > 1 else [0.0]))
    values = rows[rows.value.notna()]
    before = values[values.method == "Baseline"].set_index("group").value
    for row in values.itertuples():
        colour, marker = styles[row.method]
        place = groups.index(row.group)
        y = place + shifts[row.method]
        if row.method != "Baseline" and row.group in before:
            axis.plot([before[row.group], row.value], [place + shifts["Baseline"], y], color=colour,
                      linewidth=1.3, alpha=0.8, zorder=1)
        if not np.isnan(row.low) and not np.isnan(row.high):
            axis.errorbar(row.value, y, xerr=[[max(0, row.value - row.low)], [max(0, row.high - row.value)]],
                          color=colour, capsize=2.5, elinewidth=1.4, fmt="none", alpha=0.75, zorder=2)
        axis.plot([row.value], [y], marker, color=colour, markersize=7, linestyle="", label=row.method, zorder=3,
                  markerfacecolor="white" if row.method == "Baseline" else colour, markeredgewidth=1.6)
    for group in set(groups) - set(values.group):
        axis.text(0.02, groups.index(group), "not measured" if (rows.origin == "this run").all() else "not printed",
                  transform=axis.get_yaxis_transform(), va="center", fontsize=9, color="#555555")
    axis.hlines(np.arange(len(groups) - 1) + 0.5, 0, 1, transform=axis.get_yaxis_transform(), color="#DDDDDD", lw=0.7)
    axis.set_ylim(len(groups) - 0.5, -0.5)


def fig_sharpness(table: pd.DataFrame) -> Figure:
    """pass@1 against the entropy per token, a line a policy from temperature to temperature (the numbers in its marks), one
    panel a suite: above the baseline's line is what was learned, along it what was only sharpened. By token, for that
    separates policies better than the entropy of an answer, which a few long ones decide: at T=0.8 the embedded policy's
    answers to 20 problems had a standard deviation of 0.48 of the mean by token, and 1.05 of it by answer.

    Args:
        table: ``suite``, ``policy``, ``temperature``, ``entropy_per_token`` (nats), ``pass_at_1`` (percent); and ``group``,
            where several models or data sets have panels of their own.
    """
    columns = [name for name in ("group", "suite") if name in table]
    several = [name for name in columns if table[name].nunique() > 1] or columns
    groups = list(table.groupby(columns, sort=False))
    figure, axes = new_panels(len(groups), "pass@1 (%)" if "suite" in several else f"pass@1 of {plain(table.suite.iloc[0])} (%)")
    styles = method_styles(sorted(table.policy.unique(), key=lambda name: name.lower() != "baseline"))
    for axis, (_, group) in zip(axes, groups):
        for policy, (colour, marker) in styles.items():
            line = group[group.policy == policy].sort_values("temperature")
            axis.plot(line.entropy_per_token, line.pass_at_1, color=colour, marker=marker, markersize=14,
                      label=plain(policy))
            for row in line.itertuples():
                axis.text(row.entropy_per_token, row.pass_at_1, f"{row.temperature:g}", fontsize=7, fontweight="bold",
                          color="white", ha="center", va="center_baseline",
                          path_effects=[withStroke(linewidth=2, foreground=colour)])
        axis.sharex(axes[0])
        axis.margins(0.1)
        finish(axis, plain(", ".join(group[several].iloc[0]), 30), "entropy per token (nats)")
    most = max(1, table.pass_at_1.max())
    axes[0].set_ylim(-0.08 * most, 1.15 * most)  # no mark is cut
    legend_below(figure, axes[0], columns=6)
    return figure


def fig_scaling(table: pd.DataFrame) -> Figure:
    """Gain in pass@1 against the number of instructions, one panel a metric and one line for each K.

    Args:
        table: ``instructions``, ``k``, ``metric``, and in points ``difference``, ``difference_low`` and
            ``difference_high`` (95% interval).
    """
    groups = table.groupby("metric", sort=False)
    figure, axes = new_panels(len(groups), "gain in pass@1 (points)")
    sizes, ks = sorted(table.instructions.unique()), sorted(table.k.unique())
    for axis, (metric, group) in zip(axes, groups):
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
        finish(axis, plain(metric, 30), "instructions with tests")
    axes[0].set_ylim(min(-1, axes[0].get_ylim()[0]), max(1, axes[0].get_ylim()[1]))
    legend_below(figure, axes[0], columns=6)
    return figure


LINES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."), (RED, "D", ":"), (PINK, "v", "-"), (SKY, "P", "--"),
         ("#444444", "X", "-."))


def _interval_line(axis: Axes, x: pd.Series, value: pd.Series, low: pd.Series, high: pd.Series, place: int,
                   label: str) -> None:
    """A line with markers and intervals (none where NaN), in the style of its place among its like."""
    colour, marker, line = LINES[place % len(LINES)]
    below, above = (value - low).clip(lower=0), (high - value).clip(lower=0)
    axis.errorbar(x, value, yerr=[below, above], color=colour, marker=marker, linestyle=line, markersize=6, capsize=3,
                  linewidth=1.6, elinewidth=1.1, label=label)


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
    finish(axis, "From round to round", "round (0: before training)", "percent, with 95% interval", legend=2)
    return figure


def fig_power(curves: pd.DataFrame, suites: pd.DataFrame, claims: pd.DataFrame) -> Figure:
    """The smallest difference that is shown against the number of problems: a curve a suite, the suite itself as a
    point, and the paper's claims as horizontal lines.

    Args:
        curves: columns ``suite``, ``problems``, ``smallest`` (points; NaN: cannot be told).
        suites: the same, of the suites as they are.
        claims: columns ``claim``, ``points``.
    """
    figure, axis = new_axes(8.6, 5)
    for (suite, line), (colour, marker, dashes) in zip(curves.groupby("suite", sort=False), cycle(LINES)):
        told = plain(suite, 30, 1) + ("" if line.smallest.notna().any() else ": cannot be told")
        axis.plot(line.problems, line.smallest, dashes, color=colour, linewidth=1.4)
        here = suites[suites.suite == suite]
        axis.plot(here.problems, here.smallest, dashes, marker=marker, color=colour, markersize=8, label=told, zorder=3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(curves.problems.min(), curves.problems.max())
    axis.set_ylim(0.1, 100)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter("{x:,g}")
    _claim_lines(axis, claims.sort_values("points"))
    finish(axis, "How small a difference can be shown", "problems in the suite",
           "smallest difference in pass@1 (points)", legend=3)
    return figure


def _claim_lines(axis: Axes, claims: pd.DataFrame) -> None:
    """A dashed line a claim, named at the right; of two that are close, one above its line and one below."""
    points = claims.points.to_numpy()
    close = np.append(points[1:] / points[:-1] < 1.3, False)
    for place, row in enumerate(claims.itertuples()):
        side = "top" if close[place] else "bottom" if place and close[place - 1] else "center"
        axis.axhline(row.points, color="#555555", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axis.text(1.01, row.points, f"{plain(row.claim, 40, 1)}: {row.points:.1f}", fontsize=9, va=side,
                  color="#333333", transform=axis.get_yaxis_transform())


NOT_PRINTED = "The paper shows bars without numbers (its Figure 3), so ours stands alone."


def fig_figure3(table: pd.DataFrame, title: str) -> Figure:
    """The Figure 3 ablation: baseline, PLUM, and PLUM with un-runnable programs as the rejected side (section 4.3).

    Args:
        table: as for ``fig_sweep``, all rows from this run.
    """
    return fig_sweep(table, title, NOT_PRINTED)
