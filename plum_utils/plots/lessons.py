"""One function for each table or figure of the study, from a saved table to a matplotlib ``Figure``.

Colours are Okabe and Ito's colour-blind safe set; nothing is shown or written here (``Run.save_figure`` does that).
"""

from __future__ import annotations

import html
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plum_utils.plots.style import (
    BLUE,
    FATES,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    STATUS_COLOURS,
    finish,
    legend_below,
    new_axes,
    new_panels,
    plain,
)


def fig_table1(table: pd.DataFrame) -> Figure:
    """Table 1: self-consistency pass rate by source, ours beside the paper's.

    Args:
        table: columns ``source``, ``ours`` and ``paper`` in percent.
    """
    figure, axis = new_axes(max(7, 1.0 + 1.5 * len(table)), 3.6)
    places = np.arange(len(table))
    for offset, column, colour, label, hatch in ((-0.2, "ours", BLUE, "recorded responses", None),
                                                 (0.2, "paper", GREY, "paper, GPT-4-1106", "//")):
        bars = axis.bar(places + offset, table[column].fillna(0), 0.38, color=colour, label=label, edgecolor="white",
                        hatch=hatch)
        texts = ["n/a" if pd.isna(value) else f"{value:.1f}" for value in table[column]]
        axis.bar_label(bars, texts, padding=2, fontsize=10)
    axis.set_xticks(places, [plain(source, 16) for source in table["source"]])
    axis.set_xlim(-0.6, max(2, len(table)) - 0.4)
    axis.set_ylim(0, 112)
    finish(axis, "Generated tests that agree with their own solution", "", "self-consistent (%)", legend=4)
    return figure


def fig_tests_per_instruction(counts: pd.Series) -> Figure:
    """Histogram of asserts per consistent suite, with the paper's range shaded."""
    figure, axis = new_axes()
    last = int(max([*counts, 5])) + 1
    values = counts.value_counts().reindex(range(1, last + 1), fill_value=0)
    axis.axvspan(2.5, 5.5, color=GREY, alpha=0.18, label="paper: 3 to 5")
    axis.bar(values.index, values, color=BLUE)
    if len(counts):
        axis.axvline(counts.mean(), color=RED, linestyle="--", label=f"mean {counts.mean():.1f}")
    axis.set_ylim(0, max(1, values.max()) * 1.05)
    axis.set_xlim(0, last + 0.5)
    axis.set_xticks(values.index)
    finish(axis, f"Tests in a suite (n = {len(counts)} suites)", "assert statements in one suite", "suites",
           whole="y", legend=4)
    return figure


def fig_lengths(samples: pd.DataFrame) -> Figure:
    """Histogram of completion lengths in tokens; completions cut off by the token limit are set apart."""
    figure, axis = new_axes()
    cut = samples.finish_reason == "length"
    bins = np.linspace(0, samples.n_tokens.max() + 1, 41)
    axis.hist([samples.n_tokens[~cut], samples.n_tokens[cut]], bins=bins, stacked=True, color=[BLUE, ORANGE],
              label=["ended at a stop", f"cut off at the limit ({cut.mean():.1%})"])
    axis.axvline(samples.n_tokens.median(), color=RED, linestyle="--",
                 label=f"median {samples.n_tokens.median():.0f} tokens")
    finish(axis, f"Length of {len(samples):,} sampled completions", "tokens", "completions", whole="y", legend=4)
    return figure


def fig_verdicts(counts: pd.Series) -> Figure:
    """Bar for each verdict: how many sampled programs ended that way."""
    figure, axis = new_axes(7, 0.9 + 0.42 * len(counts))
    counts = counts.sort_values()
    bars = axis.barh(counts.index, counts, color=[STATUS_COLOURS.get(name, GREY) for name in counts.index])
    axis.bar_label(bars, [f" {value:,} ({value / counts.sum():.1%})" for value in counts], fontsize=9)
    axis.set_xlim(0, counts.max() * 1.22)
    finish(axis, f"Verdicts on {counts.sum():,} sampled programs", "programs", whole="x")
    return figure


def fig_figure2(ratios: pd.Series, k: int) -> Figure:
    """Figure 2: histogram over instructions of the share of the policy's samples that pass every test.

    Args:
        ratios: one value in [0, 1] for each instruction.
        k: samples per instruction; one bar for each possible number of passes when it is at most 20.
    """
    figure, axis = new_axes(7, 3.6)
    bins = min(k, 20)
    axis.hist(ratios, bins=np.linspace(-0.5 / bins, 1 + 0.5 / bins, bins + 2), color=BLUE, edgecolor="white")
    axis.axvline(ratios.mean(), color=RED, linestyle="--", label=f"mean {ratios.mean():.2f}")
    axis.plot([], [], " ", label=f"{(ratios == 0).mean():.0%} of instructions at 0 are dropped")
    axis.set_xticks(np.linspace(0, 1, 6 if bins > 1 else 2))
    finish(axis, f"The policy's correctness ratio (n = {len(ratios)} instructions, K = {k})",
           "share of samples passing every test", "instructions", whole="y", legend=4)
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
    figure, axes = new_axes(3.2 * max(2, len(panels)), 3.4, len(panels), squeeze=False)
    for axis, (names, label) in zip(axes[0], panels):
        for name, colour in zip(names, (BLUE, ORANGE)):
            _seed_lines(axis, history, name, colour)
        if names[0].startswith("rewards"):
            axis.axhline(0, color=GREY, linewidth=0.6)
        axis.set_xlim(0, history.step.max() + 1)
        finish(axis, "", "optimizer step", label, whole="x", legend=4 if len(names) > 1 else 0)
    return figure


def _seed_lines(axis: Axes, history: pd.DataFrame, name: str, colour: str) -> None:
    """One column against the step: a thin line a seed, its centred mean over nine steps thick."""
    for number, (_, run) in enumerate(history.groupby("seed")):
        mark = "o" if len(run) < 3 else ""
        smooth = run[name].rolling(9, min_periods=1, center=True).mean()
        axis.plot(run.step, run[name], color=colour, alpha=0.3, linewidth=0.8, marker=mark)
        axis.plot(run.step, smooth, color=colour, linewidth=1.8, label=None if number else name.split("/")[-1])


def fig_validation(measured: pd.DataFrame, kept: dict[int, int]) -> Figure:
    """Greedy pass@1 on kept-out instructions by step, a line a seed; the step whose adapter is kept has a ring.

    Args:
        measured: columns ``seed``, ``step`` (0: before training), ``pass@1`` in percent.
        kept: step by seed.
    """
    figure, axis = new_axes(7, 3.4)
    for (seed, run), colour in zip(measured.groupby("seed"), cycle((BLUE, ORANGE, GREEN, PINK))):
        axis.plot(run.step, run["pass@1"], color=colour, marker="o", markersize=3, label=f"seed {seed}")
        taken = run[run.step == kept[seed]]
        axis.plot(taken.step, taken["pass@1"], "o", color=colour, markersize=11, fillstyle="none")
    axis.plot([], [], "o", color=GREY, markersize=11, fillstyle="none", label="kept")
    axis.set_ylim(max(-4, measured["pass@1"].min() - 10), min(104, measured["pass@1"].max() + 10))
    low, high = axis.get_ylim()
    axis.set_yticks([tick for tick in axis.get_yticks() if max(0, low) <= tick <= min(100, high)])
    finish(axis, "Greedy pass@1 on kept-out instructions", "optimizer step", "pass@1 (%)", whole="x", legend=5)
    return figure


def fig_pass_at_k(table: pd.DataFrame) -> Figure:
    """pass@k against k before and after training, one panel a suite: did the policy get better, or only sharper?

    Args:
        table: columns ``suite``, ``policy`` (``baseline`` or ``PLUM``), ``temperature``, ``k``, ``value`` in percent,
            and optionally ``low`` and ``high``, drawn as a band.
    """
    groups = table.groupby(["suite", "temperature"], sort=False)
    figure, axes = new_panels(len(groups), "pass@k (%)")
    for axis, ((suite, temperature), group) in zip(axes, groups):
        for policy, colour in (("baseline", GREY), ("PLUM", BLUE)):
            line = group[group.policy == policy].groupby("k").mean(numeric_only=True)
            axis.plot(line.index, line["value"], "o-", color=colour, label=policy, markersize=4)
            if "low" in line:
                axis.fill_between(line.index, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        axis.set_xticks(sorted(group.k.unique()))
        finish(axis, f"{suite}, T={temperature:g}", "k")
    axes[0].set_ylim(0, max(1, axes[0].get_ylim()[1]))
    legend_below(figure, axes[0])
    return figure


def fig_wins_losses(changes: pd.DataFrame, title: str) -> Figure:
    """Change of each problem's pass rate, sorted: wins above zero, losses below.

    Args:
        changes: column ``change`` in percentage points, one row a problem.
    """
    figure, axis = new_axes()
    values = np.sort(changes["change"].to_numpy())[::-1]
    axis.bar(np.arange(len(values)), values, width=1.0, color=np.where(values > 0, GREEN, RED))
    axis.set_ylim(min(axis.get_ylim()[0], -10), max(axis.get_ylim()[1], 10))
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    axis.axhline(0, color="black", linewidth=0.6)
    axis.text(0.98, 0.94, f"{wins} better, {losses} worse, {len(values) - wins - losses} equal",
              transform=axis.transAxes, ha="right", va="top", fontsize=10)
    finish(axis, title, "problems, sorted by change", "change of pass rate (points)", whole="x")
    return figure


def fig_label_flow(counts: pd.Series) -> Figure:
    """One bar from all judged samples to the KTO set: what each rule removes, and what is left on either side.

    Args:
        counts: samples by fate (``labels.flow_counts``), in the order in which the rules apply.
    """
    figure, axis = new_axes(9.0, 2.8)
    left = 0
    for name, value in counts.items():
        axis.barh(0, value, left=left, color=FATES.get(name, PINK), edgecolor="white", label=f"{name} ({value:,})")
        left += value
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_xlim(0, max(left, 1))
    finish(axis, f"What becomes of {left:,} judged samples", "samples", whole="x",
           legend=3)  # in one row large counts would not fit
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
    figure, axis = new_axes()
    values = distinct.value_counts().reindex(range(1, k + 1), fill_value=0)
    axis.bar(values.index, values, color=BLUE)
    axis.axvline(distinct.mean(), color=RED, linestyle="--", label=f"mean {distinct.mean():.1f} of {k}")
    finish(axis, "Diversity of the samples", "distinct completions of one instruction", "instructions",
           whole="xy", legend=4)
    return figure


def fig_mutation(scores: pd.DataFrame) -> Figure:
    """Histogram of the suites' mutation scores, one panel a source: the share of a reference's mutants that its tests
    notice.

    Args:
        scores: one row a suite: ``source``, ``score`` in [0, 1] (NaN without mutants) and ``mutants``, their number.
    """
    panels = list(scores.groupby("source", sort=False)) or [("no suites", scores)]
    figure, axes = new_axes(7, 0.8 + 1.9 * len(panels), 1, len(panels), squeeze=False, sharex=True)
    for axis, (source, group) in zip(axes[:, 0], panels):
        known, title = group.score.dropna(), f"{plain(source, 26, 1)}: "
        title += f"{len(known):,} suites, {int(group.mutants.sum()):,} mutants"
        axis.hist(known, bins=np.linspace(0, 1, 21), color=BLUE, edgecolor="white")
        if len(known):
            axis.axvline(known.mean(), color=RED, linestyle="--")
            title += f", mean {known.mean():.2f}"
        axis.set_xlim(0, 1)
        axis.set_ylim(0, max(1, axis.get_ylim()[1]))
        finish(axis, title, "", "suites", whole="y")
    axes[-1, 0].set_xlabel("mutation score (share of mutants that the tests notice; dashed: mean)")
    return figure
