"""Figures of the paper with a drawing of their own: Figure 1 as a flow of a run's counts, and the Figure 3 ablation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from plum_utils.plots.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, new_axes, plain

GOES_ON = ("kept", "chosen", "rejected")
FATES = {"kept": BLUE, "chosen": GREEN, "rejected": ORANGE, "un-runnable": "#444444", "duplicate": SKY, "dropped": GREY}
SLOT, GAP, WIDTH, STEP = 0.56, 0.10, 0.20, 1.85  # inches: least height of a box's text, between boxes, box, columns
FULL = 3.2  # height of the first stage, inches
COUNTS = "Heights are shares of a stage; what goes on fills the next one, whatever its unit."


@dataclass
class _Box:
    label: str
    count: int
    fate: str
    share: float
    height: float = 0.0
    slot: float = 0.0  # top of the room that box and text have, inches below the title
    left: float = field(default=0.0, repr=False)  # height already linked on either side
    right: float = field(default=0.0, repr=False)

    @property
    def room(self) -> float:
        return max(self.height, SLOT)

    @property
    def top(self) -> float:
        return self.slot + (self.room - self.height) / 2


def fig_flow(counts: pd.DataFrame, title: str = "From instructions to training steps") -> Figure:
    """Figure 1 as a flow: one column a stage, its boxes as high as their shares; what is kept flows on to the next.

    Args:
        counts: rows in the order of the stages: ``stage`` (rows of one follow each other), ``label`` and ``count`` of a
            box, and ``fate``: ``kept``, ``chosen`` and ``rejected`` go on; any other (``un-runnable``,
            ``duplicate``, ``dropped``) ends there. A stage may count another thing than the one before (an instruction
            has several responses): its boxes share what was kept.

    Raises:
        ValueError: no rows, a count below zero, or a stage that comes twice.
    """
    names, columns = _columns(counts)
    for column in columns:
        _place(column)
    deep = max(box.slot + box.room for column in columns for box in column)
    wide = STEP * len(columns)
    figure, axis = new_axes(max(wide, 6.0) + 0.3, deep + 1.5)
    axis.set(xlim=(-0.1, max(wide, 6.0)), ylim=(deep + 0.1, -0.75))
    axis.axis("off")
    for number, (name, column) in enumerate(zip(names, columns)):
        if number + 1 < len(columns):
            _draw_bands(axis, number * STEP, column, columns[number + 1])
        _draw_column(axis, number * STEP, name, column)
    axis.set_title(plain(title, 100), loc="left", fontsize=13)
    axis.text(0, -0.02, plain(COUNTS, int(11 * max(wide, 6.0)), 3), transform=axis.transAxes, fontsize=10, va="top",
              color="#444444")
    return figure


def flow_rows(steps: dict[str, int]) -> pd.DataFrame:
    """The rows of ``fig_flow`` from the counts of notebook 03 (its table ``plum_flow``: step -> count)."""
    kept, lost = steps["consistent suites"], steps["responses"] - steps["consistent suites"]
    rows = [("instructions", "instructions", steps["instructions"], "kept"),
            ("responses", "consistent", kept, "kept"), ("responses", "inconsistent", lost, "dropped"),
            ("samples", "judged", steps["judged"], "kept"),
            ("samples", "not judged", steps["samples"] - steps["judged"], "dropped"),
            ("labels", "chosen", steps["chosen"], "chosen"), ("labels", "rejected", steps["rejected"], "rejected"),
            ("labels", "un-runnable", steps["un-runnable"], "un-runnable"),
            ("labels", "duplicates", steps["duplicates"], "duplicate"),
            ("labels", "nobody solved it", steps["dropped for want of a chosen solution"], "dropped"),
            ("training", "KTO rows", steps["kto rows"], "kept")]
    return pd.DataFrame(rows, columns=["stage", "label", "count", "fate"])


def _columns(counts: pd.DataFrame) -> tuple[list[str], list[list[_Box]]]:
    """The stages' names and boxes, with heights; those that go on come first in each."""
    if counts.empty:
        raise ValueError("nothing to draw: no stages")
    if (counts["count"] < 0).any():
        raise ValueError(f"a count is at least 0, got {counts['count'].min()}")
    runs = (counts.stage != counts.stage.shift()).cumsum()
    names = list(counts.groupby(runs).stage.first())
    if len(set(names)) < len(names):
        raise ValueError(f"the rows of a stage must follow each other; got {', '.join(names)}")
    full, columns = FULL, []
    for _, rows in counts.groupby(runs):
        total = max(1, int(rows["count"].sum()))
        boxes = [_Box(row.label, int(row.count_), row.fate, row.count_ / total, full * row.count_ / total)
                 for row in rows.rename(columns={"count": "count_"}).itertuples()]
        columns.append(sorted(boxes, key=lambda box: box.fate not in GOES_ON))
        full = sum(box.height for box in boxes if box.fate in GOES_ON)
    return names, columns


def _place(column: list[_Box]) -> None:
    """Stack the boxes so that no text meets another."""
    top = 0.0
    for box in column:
        box.slot = top
        top += box.room + GAP


def _draw_column(axis: Axes, x: float, name: str, column: list[_Box]) -> None:
    total = sum(box.count for box in column)
    for text, y in ((plain(name, 19, 1), -0.32), (f"{total:,}", -0.12)):
        axis.text(x, y, text, fontsize=11, fontweight="bold", va="baseline")
    for box in column:
        colour = FATES.get(box.fate, PINK)
        axis.add_patch(Rectangle((x, box.top), WIDTH, max(box.height, 0.03), color=colour, linewidth=0, zorder=3,
                                 label=box.label))
        share = f" ({_percent(box.share)})" if len(column) > 1 else ""
        axis.text(x + WIDTH + 0.07, box.slot + box.room / 2, f"{plain(box.label, 16)}\n{box.count:,}{share}",
                  fontsize=10.5, va="center", linespacing=1.1, zorder=4)


def _percent(share: float) -> str:
    """A share that is neither none nor all never looks like it."""
    if 0 < share < 0.001:
        return "<0.1%"
    return ">99.9%" if 0.999 < share < 1 else f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"


def _draw_bands(axis: Axes, x: float, column: list[_Box], following: list[_Box]) -> None:
    """A band for each pair of boxes that something flows between, as high at either end as its part of the box."""
    for one, two, out, into in _links([box for box in column if box.fate in GOES_ON], following):
        start, end = one.top + one.right, two.top + two.left
        one.right, two.left = one.right + out, two.left + into
        _band(axis, x + WIDTH, x + STEP, (start, start + out), (end, end + into), FATES.get(two.fate, PINK)
              if two.fate not in GOES_ON else FATES[one.fate])


def _links(sources: list[_Box], targets: list[_Box]) -> list[tuple[_Box, _Box, float, float]]:
    """(from, to, height there, height here). Chosen stays chosen and rejected rejected, where both stages tell them
    apart; where nothing ends in between, the whole box flows. The rest is taken in order."""
    give, take = {id(box): box.height for box in sources}, {id(box): box.height for box in targets}
    same = [(one, two) for one in sources for two in targets if one.fate == two.fate]
    if len(same) == len(sources) == len(targets):
        return [(one, two, one.height, two.height) for one, two in same if one.height and two.height]
    links = []
    for one, two in same + [(one, two) for one in sources for two in targets if one.fate != two.fate]:
        part = min(give[id(one)], take[id(two)])
        if part > 1e-9:
            links.append((one, two, part, part))
            give[id(one)], take[id(two)] = give[id(one)] - part, take[id(two)] - part
    order = {id(box): place for place, box in enumerate([*sources, *targets])}
    return sorted(links, key=lambda link: (order[id(link[0])], order[id(link[1])]))


def _band(axis: Axes, x0: float, x1: float, left: tuple[float, float], right: tuple[float, float],
          colour: str) -> None:
    bend = x0 + 0.72 * (x1 - x0), x0 + 0.86 * (x1 - x0)  # late, so that the text beside a box lies on an even ground
    points = [(x0, left[0]), (bend[0], left[0]), (bend[1], left[0]), *_curve(bend, x1, left[0], right[0]),
              (x1, right[1]), *_curve(bend, x1, left[1], right[1])[::-1], (bend[0], left[1]), (x0, left[1])]
    axis.add_patch(PathPatch(Path(points, closed=False), facecolor=colour, edgecolor=colour, alpha=0.25, zorder=1,
                             linewidth=0.8 if left[1] - left[0] < 0.02 else 0))  # a hairline is still seen


def _curve(bend: tuple[float, float], x1: float, start: float, end: float) -> list[tuple[float, float]]:
    steps = np.linspace(0, 1, 25)
    smooth = steps ** 2 * (3 - 2 * steps)
    return list(zip(bend[0] + steps * (x1 - bend[0]), start + smooth * (end - start)))
