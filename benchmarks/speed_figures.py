"""Figures of the speed benchmarks: loss curves side by side, and what each switch is worth."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from plum_utils.plots.style import BLUE, GREY, ORANGE, legend_below, new_axes

CURVES = {"trl": ("TRL's defaults", GREY, "-"), "ours": ("ours, the same batches", BLUE, "-"),
          "trl_bf16": ("TRL's defaults on bfloat16 weights", ORANGE, ":")}


def fig_training_speed(variants: dict[str, dict[str, Any]], names: dict[str, str]) -> Figure:
    """Left: loss by step. Right: speed against TRL's defaults, median and range over the rounds.

    Args:
        variants: as ``benchmarks/training_speed.py`` writes them.
        names: what each variant is called in the figure; the others are left out of the right side.
    """
    figure, (curves, bars) = new_axes(11.0, 4.6, columns=2, gridspec_kw={"width_ratios": [1, 1.25]})
    for name, (label, colour, line) in CURVES.items():
        if name in variants:
            losses = [step["loss"] for step in variants[name]["steps"]]
            curves.plot(range(1, len(losses) + 1), losses, line, color=colour, label=label, linewidth=2)
    curves.set(title="Loss, step by step", xlabel="optimizer step", ylabel="KTO loss")
    legend_below(figure, curves)
    shown = [name for name in names if name in variants]
    middle = [variants[name]["speedup"] for name in shown]
    ends = list(zip(*(variants[name]["speedup_range"] for name in shown)))
    errors = [[mid - low for mid, low in zip(middle, ends[0])], [high - mid for mid, high in zip(middle, ends[1])]]
    colours = [BLUE if name == "ours" else GREY for name in shown]
    bars.barh(range(len(shown)), middle, xerr=errors, color=colours, error_kw={"elinewidth": 1.2, "capsize": 3})
    for place, value in enumerate(middle):
        bars.text(0.03, place, f"{value:.2f}", va="center", color="white", fontweight="bold")
    bars.set_yticks(range(len(shown)), [names[name] for name in shown])
    bars.invert_yaxis()
    bars.axvline(1, color="black", linewidth=1, linestyle="--")
    bars.set(title="Speed against TRL's defaults", xlabel="times as fast (median and range of the rounds)")
    return figure
