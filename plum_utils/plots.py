"""One function for each table or figure of the study, from a saved table to a matplotlib ``Figure``.

Colours are Okabe and Ito's colour-blind safe set; nothing is shown or written here (``Run.save_figure`` does that).
"""

from __future__ import annotations

import html
import io
import textwrap
from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, RED, SKY, GREY, PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#8A8A8A", "#CC79A7"
STATUS_COLOURS = {"passed": GREEN, "failed": ORANGE, "timeout": RED, "memory": PINK, "error": GREY, "syntax": SKY,
                  "type_error": BLUE, "no_code": "#444444", "forbidden": "#000000"}
STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 12,
         "axes.titlelocation": "left", "svg.fonttype": "none", "svg.hashsalt": "plum"}


# A method keeps its colour and its marker in every figure; the marker tells it in grey print.
METHODS = {"Baseline": (GREY, "o"), "SFT": (ORANGE, "s"), "DPO": (GREEN, "^"), "PLUM": (BLUE, "D"), "KTO": (BLUE, "D"),
           "PLUM-KTO": (BLUE, "D"), "un-runnable negatives": (RED, "X")}
OTHERS = ((PINK, "P"), (SKY, "v"), ("#444444", "*"), (GREEN, "<"), (ORANGE, ">"), (RED, "p"), (BLUE, "h"))


class ShownFigure(Figure):
    """A figure that a notebook shows as a cell's last expression, without pyplot and its state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


def _axes(width: float = 7.0, height: float = 4.0, columns: int = 1, rows: int = 1, **kwargs):
    with matplotlib.rc_context(STYLE):
        figure = ShownFigure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **kwargs)
    return figure, axes


def _legend(figure: Figure, axis, columns: int = 4) -> None:
    """The axis's legend below the picture, where it covers no data."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), fontsize=10,
                  frameon=False)


def _whole_numbers(*axes) -> None:
    """Ticks of an ``axis.xaxis`` or ``.yaxis`` that counts things."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True))


def _finish(axis, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    axis.set_title(title, loc="left", fontsize=12)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.spines[["top", "right"]].set_visible(False)


def plain(text: object, width: int = 24, lines: int = 2) -> str:
    """A name as it may stand in a figure: no mathematics in it, broken after ``width`` characters, cut after ``lines``
    lines. Names of models and data come from files and may hold anything."""
    folded = textwrap.wrap(" ".join(str(text).split()), width) or [""]
    if len(folded) > lines:
        folded = [*folded[:lines - 1], folded[lines - 1][:width - 1] + "…"]
    return "\n".join(folded).replace("$", r"\$")


def method_styles(methods: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method; those that have none of their own get what is left, in their order."""
    free = cycle(OTHERS)
    return {name: METHODS[name] if name in METHODS else next(free) for name in dict.fromkeys(methods)}


def fig_table1(table: pd.DataFrame, ours: str = "recorded responses") -> Figure:
    """Table 1: self-consistency pass rate by source, ours beside the paper's.

    Args:
        table: columns ``source``, ``ours`` and ``paper`` in percent.
        ours: what our responses are, for the legend.
    """
    figure, axis = _axes(max(7, 1.0 + 1.5 * len(table)), 3.6)
    places = np.arange(len(table))
    for offset, column, colour, label in ((-0.2, "ours", BLUE, plain(ours, 40, 1)),
                                          (0.2, "paper", GREY, "paper, GPT-4-1106")):
        bars = axis.bar(places + offset, table[column].fillna(0), 0.38, color=colour, label=label, edgecolor="white",
                        hatch="//" if column == "paper" else None)
        texts = ["n/a" if pd.isna(value) else f"{value:.1f}" for value in table[column]]
        axis.bar_label(bars, texts, padding=2, fontsize=10)
    axis.set_xticks(places, [plain(source, 16) for source in table["source"]])
    axis.set_xlim(-0.6, max(2, len(table)) - 0.4)
    axis.set_ylim(0, 112)
    _legend(figure, axis)
    _finish(axis, "Generated tests that agree with their own solution", "", "self-consistent (%)")
    return figure


def fig_tests_per_instruction(counts: pd.Series, paper_range: tuple[int, int] = (3, 5)) -> Figure:
    """Histogram of asserts per consistent suite, with the paper's range shaded."""
    figure, axis = _axes(7, 3.4)
    values = counts.value_counts().sort_index()
    axis.axvspan(paper_range[0] - 0.5, paper_range[1] + 0.5, color=GREY, alpha=0.18, label="paper: 3 to 5")
    axis.bar(values.index, values.values, color=BLUE, width=0.8)
    if len(counts):
        axis.axvline(counts.mean(), color=RED, linestyle="--", label=f"mean {counts.mean():.1f}")
    axis.set_ylim(0, max(values, default=1) * 1.05)
    last = int(max([*counts, paper_range[1]])) + 1
    axis.set_xlim(0, last + 0.5)
    axis.set_xticks(range(1, last + 1))
    _whole_numbers(axis.yaxis)
    _legend(figure, axis)
    _finish(axis, f"Tests in a suite (n = {len(counts)} suites)", "assert statements in one suite", "suites")
    return figure


def fig_lengths(samples: pd.DataFrame) -> Figure:
    """Histogram of completion lengths in tokens; completions cut off by the token limit are set apart."""
    figure, axis = _axes(7, 3.4)
    cut = samples.finish_reason == "length"
    bins = np.linspace(0, samples.n_tokens.max() + 1, 41)
    axis.hist([samples.n_tokens[~cut], samples.n_tokens[cut]], bins=bins, stacked=True, color=[BLUE, ORANGE],
              label=["ended at a stop", f"cut off at the limit ({cut.mean():.1%})"])
    axis.axvline(samples.n_tokens.median(), color=RED, linestyle="--",
                 label=f"median {samples.n_tokens.median():.0f} tokens")
    _whole_numbers(axis.yaxis)
    _legend(figure, axis)
    _finish(axis, f"Length of {len(samples):,} sampled completions", "tokens", "completions")
    return figure


def fig_verdicts(counts: pd.Series) -> Figure:
    """Bar for each verdict: how many sampled programs ended that way."""
    figure, axis = _axes(7, 0.9 + 0.42 * len(counts))
    counts = counts.sort_values()
    bars = axis.barh(counts.index, counts.values, color=[STATUS_COLOURS.get(name, GREY) for name in counts.index])
    axis.bar_label(bars, [f" {value:,} ({value / counts.sum():.1%})" for value in counts.values], fontsize=9)
    axis.set_xlim(0, counts.max() * 1.22)
    _whole_numbers(axis.xaxis)
    _finish(axis, f"Verdicts on {counts.sum():,} sampled programs", "programs")
    return figure


def fig_figure2(ratios: pd.Series, k: int) -> Figure:
    """Figure 2: histogram over instructions of the share of the policy's samples that pass every test.

    Args:
        ratios: one value in [0, 1] for each instruction.
        k: samples per instruction; one bar for each possible number of passes when it is at most 20.
    """
    figure, axis = _axes(7, 3.6)
    bins = min(k, 20)
    axis.hist(ratios, bins=np.linspace(-0.5 / bins, 1 + 0.5 / bins, bins + 2), color=BLUE, edgecolor="white")
    dropped = (ratios == 0).mean()
    axis.axvline(ratios.mean(), color=RED, linestyle="--", label=f"mean {ratios.mean():.2f}")
    axis.plot([], [], " ", label=f"{dropped:.0%} of instructions at 0 are dropped")
    axis.set_xticks(np.linspace(0, 1, 6 if bins > 1 else 2))
    _whole_numbers(axis.yaxis)
    _legend(figure, axis)
    _finish(axis, f"The policy's correctness ratio (n = {len(ratios)} instructions, K = {k})",
            "share of samples passing every test", "instructions")
    return figure


def fig_training(history: pd.DataFrame) -> Figure:
    """Training curves: loss, KL, rewards of chosen and rejected and their margin by step, each seed thin and smoothed
    thick; a panel whose column is not there is left out.

    Args:
        history: columns ``seed``, ``step``, ``loss`` and, where the objective has them, ``kl``, ``rewards/chosen``,
            ``rewards/rejected``, ``rewards/margins``.
    """
    panels = [(["loss"], "loss"), (["kl"], "KL estimate (nats)"),
              (["rewards/chosen", "rewards/rejected"], "reward = β · log-ratio sum"),
              (["rewards/margins"], "margin: chosen - rejected")]
    panels = [(names, label) for names, label in panels
              if set(names) <= set(history) and history[names].notna().any(axis=None)]
    figure, axes = _axes(3.2 * max(2, len(panels)), 3.4, len(panels), squeeze=False)
    for axis, (names, label) in zip(axes[0], panels):
        for name, colour in zip(names, (BLUE, ORANGE)):
            _seed_lines(axis, history, name, colour)
        if names[0].startswith("rewards"):
            axis.axhline(0, color=GREY, linewidth=0.6)
        if len(names) > 1:
            _legend(figure, axis)
        axis.set_xlim(0, history.step.max() + 1)
        _whole_numbers(axis.xaxis)
        _finish(axis, "", "optimizer step", label)
    return figure


def _seed_lines(axis, history: pd.DataFrame, name: str, colour: str) -> None:
    """One column against the step: a thin line a seed, its centred mean over nine steps thick."""
    for number, (_, run) in enumerate(history.groupby("seed")):
        mark = "o" if len(run) < 3 else ""
        smooth = run[name].rolling(9, min_periods=1, center=True).mean()
        axis.plot(run.step, run[name], color=colour, alpha=0.3, linewidth=0.8, marker=mark)
        axis.plot(run.step, smooth, color=colour, linewidth=1.8, label=None if number else name.split("/")[-1])


def fig_before_after(table: pd.DataFrame, title: str) -> Figure:
    """Dumbbell for each row from baseline to trained policy, with 95% intervals (Tables 2 and 4).

    Args:
        table: columns ``label``, ``before``, ``after`` and optionally ``before_low``, ``before_high``, ``after_low``,
            ``after_high``; all in percent.
    """
    figure, axis = _axes(7.6, 1.6 + 0.5 * len(table))
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
    _legend(figure, axis)
    bars = "\nbar: 95% bootstrap interval over problems" if "before_low" in table else ""
    _finish(axis, title, f"pass@1 (%){bars}")
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


def _sweep_side(part, side: pd.DataFrame, grid: dict, height: float, styles: dict, limit: tuple[float, float],
                xlabel: str) -> None:
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
        _finish(axis, "", xlabel if last else "")
        axis.set_title(plain(metric, 30), loc="left", fontsize=11)


def _group_label(group: str) -> str:
    """A group's name on at most two lines, the data set on one of its own where both are named."""
    data, colon, model = group.partition(": ")
    return f"{plain(data, 29, 1)}:\n{plain(model, 30, 1)}" if colon and len(group) > 24 else plain(group)


def _shared_prefix(groups: list[str]) -> str:
    """What stands before ``: `` in the name of every group (the data set), where it is the same in all."""
    prefixes = {str(group).partition(": ")[0] if ": " in str(group) else "" for group in groups}
    return prefixes.pop() if len(prefixes) == 1 else ""


def _sweep_panel(axis, rows: pd.DataFrame, groups: list[str], styles: dict) -> None:
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


def fig_pass_at_k(table: pd.DataFrame) -> Figure:
    """pass@k against k before and after training, one panel a suite: did the policy get better, or only sharper?

    Args:
        table: columns ``suite``, ``policy`` (``baseline`` or ``PLUM``), ``temperature``, ``k``, ``value`` in percent,
            and optionally ``low`` and ``high``, drawn as a band.
    """
    panels = list(table.groupby(["suite", "temperature"], sort=False))
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = -(-len(panels) // columns)
    figure, axes = _axes(3.4 * max(2, columns), 0.4 + 3.0 * rows, columns, rows, squeeze=False, sharey=True)
    for axis, ((suite, temperature), group) in zip(axes.flat, panels):
        for policy, colour in (("baseline", GREY), ("PLUM", BLUE)):
            line = group[group.policy == policy].groupby("k").mean(numeric_only=True)
            axis.plot(line.index, line["value"], "o-", color=colour, label=policy, markersize=4)
            if "low" in line:
                axis.fill_between(line.index, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        axis.set_xticks(sorted(group.k.unique()))
        _finish(axis, f"{suite}, T={temperature:g}", "k", "pass@k (%)" if axis in axes[:, 0] else "")
    axes.flat[0].set_ylim(0, max(1, axes.flat[0].get_ylim()[1]))
    for axis in axes.flat[len(panels):]:
        axis.remove()
    _legend(figure, axes.flat[0])
    return figure


def fig_wins_losses(changes: pd.DataFrame, title: str) -> Figure:
    """Change of each problem's pass rate, sorted: wins above zero, losses below.

    Args:
        changes: column ``change`` in percentage points, one row a problem.
    """
    figure, axis = _axes(7, 3.4)
    values = np.sort(changes["change"].to_numpy())[::-1]
    axis.bar(np.arange(len(values)), values, width=1.0,
             color=[GREEN if value > 0 else RED for value in values])
    axis.set_ylim(min(axis.get_ylim()[0], -10), max(axis.get_ylim()[1], 10))
    _whole_numbers(axis.xaxis)
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    axis.axhline(0, color="black", linewidth=0.6)
    axis.text(0.98, 0.94, f"{wins} better, {losses} worse, {len(values) - wins - losses} equal",
              transform=axis.transAxes, ha="right", va="top", fontsize=10)
    _finish(axis, title, "problems, sorted by change", "change of pass rate (points)")
    return figure


def fig_label_flow(counts: pd.Series) -> Figure:
    """One bar from all judged samples to the KTO set: what each rule removes, and what is left on either side.

    Args:
        counts: samples by fate (``preferences.flow_counts``), in the order in which the rules apply.
    """
    figure, axis = _axes(9.0, 2.8)
    colours = {"chosen": GREEN, "rejected": ORANGE, "un-runnable": "#444444", "duplicate": SKY,
               "no chosen solution": GREY}
    left = 0
    for name, value in counts.items():
        axis.barh(0, value, left=left, color=colours.get(name, PINK), edgecolor="white", label=f"{name} ({value:,})")
        left += value
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_xlim(0, max(left, 1))
    _whole_numbers(axis.xaxis)
    _legend(figure, axis, columns=3)  # in one row large counts would not fit
    _finish(axis, f"What becomes of {left:,} judged samples", "samples")
    return figure


def side_by_side(texts: dict[str, str]) -> str:
    """Model texts next to each other, as HTML; they are escaped, for nothing in them may become markup.

    Args:
        texts: title -> text.
    """
    frame = "white-space:pre-wrap;border:1px solid #ccc;padding:4px"
    cells = "".join(f'<div style="flex:1 1 16em;min-width:0"><b>{html.escape(title)}</b>'
                    f'<pre style="{frame}">{html.escape(text)}</pre></div>'
                    for title, text in texts.items())
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px;font-size:85%">{cells}</div>'


def fig_diversity(distinct: pd.Series, k: int) -> Figure:
    """How many of an instruction's K completions are distinct: one bar for each number from 1 to K.

    Args:
        distinct: number of distinct completions, one value an instruction.
    """
    figure, axis = _axes(7, 3.4)
    values = distinct.value_counts().reindex(range(1, k + 1), fill_value=0)
    axis.bar(values.index, values.values, color=BLUE, width=0.8)
    axis.axvline(distinct.mean(), color=RED, linestyle="--", label=f"mean {distinct.mean():.1f} of {k}")
    _whole_numbers(axis.xaxis, axis.yaxis)
    _legend(figure, axis)
    _finish(axis, "Diversity of the samples", "distinct completions of one instruction", "instructions")
    return figure


def fig_mutation(scores: pd.DataFrame) -> Figure:
    """Histogram of the suites' mutation scores, one panel a source: the share of a reference's mutants that its tests
    notice.

    Args:
        scores: one row a suite: ``source``, ``score`` in [0, 1] (NaN without mutants) and ``mutants``, their number.
    """
    panels = list(scores.groupby("source", sort=False)) or [("no suites", scores)]
    figure, axes = _axes(7, 0.8 + 1.9 * len(panels), 1, len(panels), squeeze=False, sharex=True)
    for axis, (source, group) in zip(axes[:, 0], panels):
        known = group.score.dropna()
        axis.hist(known, bins=np.linspace(0, 1, 21), color=BLUE, edgecolor="white")
        if len(known):
            axis.axvline(known.mean(), color=RED, linestyle="--", linewidth=1.6)
        mean = f", mean {known.mean():.2f}" if len(known) else ""
        _whole_numbers(axis.yaxis)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, max(1, axis.get_ylim()[1]))
        counts = f"{len(known):,} suites, {int(group.mutants.sum()):,} mutants{mean}"
        _finish(axis, f"{plain(source, 26, 1)}: {counts}", "", "suites")
    axes[-1, 0].set_xlabel("mutation score (share of mutants that the tests notice; dashed: mean)")
    return figure


def fig_scaling(table: pd.DataFrame) -> Figure:
    """Gain in pass@1 against the number of instructions, one panel a metric and one line for each K.

    Args:
        table: ``instructions``, ``k``, ``metric``, and in points ``difference``, ``difference_low`` and
            ``difference_high`` (95% interval).
    """
    panels = list(table.groupby("metric", sort=False))
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = -(-len(panels) // columns)
    figure, axes = _axes(max(6.0, 3.6 * columns), 0.5 + 3.1 * rows, columns, rows, squeeze=False, sharey=True)
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
        _finish(axis, plain(metric, 30), "instructions with tests", "")
    for axis in axes[:, 0]:
        axis.set_ylim(min(-1, axis.get_ylim()[0]), max(1, axis.get_ylim()[1]))
        axis.set_ylabel("gain in pass@1 (points)")
    for axis in axes.flat[len(panels):]:
        axis.remove()
    _legend(figure, axes.flat[0], columns=6)
    return figure


def _interval_line(axis, x, value, low, high, place: int, label: str) -> None:
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
    figure, axis = _axes(8, 4.6)
    metrics = list(dict.fromkeys(table.metric))
    for place, metric in enumerate(metrics):
        line = table[table.metric == metric].sort_values("round")
        shift = 0.03 * (place - (len(metrics) - 1) / 2)
        _interval_line(axis, line["round"] + shift, line.value, line.low, line.high, place, plain(metric, 40, 1))
    axis.set_xticks(sorted(table["round"].unique()))
    axis.set_xlim(table["round"].min() - 0.4, table["round"].max() + 0.4)
    axis.set_ylim(min(0, axis.get_ylim()[0]), max(1, axis.get_ylim()[1]))
    _legend(figure, axis, columns=2)
    _finish(axis, "From round to round", "round (0: before training)", "percent, with 95% interval")
    return figure
