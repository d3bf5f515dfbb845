"""Colours, axes and legends that all figures share."""

from __future__ import annotations

import io
import textwrap
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, RED, SKY, GREY, PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#8A8A8A", "#CC79A7"
STATUS_COLOURS = {"passed": GREEN, "failed": ORANGE, "timeout": RED, "memory": PINK, "error": GREY, "syntax": SKY,
                  "type_error": BLUE, "no_code": "#444444"}
# What becomes of a sample; other fates are pink.
FATES = {"kept": BLUE, "chosen": GREEN, "rejected": ORANGE, "un-runnable": "#444444", "duplicate": SKY, "dropped": GREY,
         "no chosen solution": GREY}
STYLE: dict[Any, Any] = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 12}
# A method keeps its colour and its marker in every figure; the marker tells it in grey print.
METHODS = {"Baseline": (GREY, "o"), "baseline": (GREY, "o"), "SFT": (ORANGE, "s"), "DPO": (GREEN, "^"), "PLUM": (BLUE, "D"),
           "KTO": (BLUE, "D"), "PLUM-KTO": (BLUE, "D"), "un-runnable negatives": (RED, "X")}
OTHERS = ((PINK, "P"), (SKY, "v"), ("#444444", "*"), (GREEN, "<"), (ORANGE, ">"), (RED, "p"), (BLUE, "h"))


class ShownFigure(Figure):
    """A figure that a notebook shows as a cell's last expression, without pyplot and its state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


def new_axes(width: float = 7.0, height: float = 3.4, columns: int = 1, rows: int = 1, **kwargs: Any
             ) -> tuple[ShownFigure, Any]:
    """A figure of this size in inches, and its axes as ``Figure.subplots`` gives them."""
    with matplotlib.rc_context(STYLE):
        figure = ShownFigure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **kwargs)
    return figure, axes


def new_panels(count: int, ylabel: str) -> tuple[ShownFigure, list[Axes]]:
    """A figure of so many panels in rows of two or three, with one y axis, which the first of a row names."""
    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    figure, axes = new_axes(3.5 * max(2, columns), 0.5 + 3.0 * rows, columns, rows, squeeze=False, sharey=True)
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def legend_below(figure: Figure | SubFigure, entries: Axes | dict[str, Any], columns: int = 4) -> None:
    """A legend below the picture, where it covers no data, in as many columns as fit.

    Args:
        entries: an axis, whose own it is, or name -> handle.
    """
    handles, names = entries.get_legend_handles_labels() if isinstance(entries, Axes) else (entries.values(), list(entries))
    for fewer in range(min(columns, len(names)), 0, -1):
        legend = figure.legend(handles, names, loc="outside lower center", ncols=fewer, fontsize=10, frameon=False)
        if fewer == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def finish(axis: Axes, title: str = "", xlabel: str = "", ylabel: str = "", whole: str = "", legend: int = 0) -> None:
    """Title and names of an axis; ``whole`` are its sides (``x``, ``y``, ``xy``) that count things, ``legend`` the
    columns of the figure's legend, which is this axis's."""
    axis.set_title(title, loc="left")
    axis.set_xlabel(xlabel)
    if ylabel:
        axis.set_ylabel(ylabel)
    for side in whole:
        getattr(axis, f"{side}axis").set_major_locator(MaxNLocator(integer=True))
    if legend:
        legend_below(axis.figure, axis, legend)


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
