"""The paper's Figure 1 as a flow of a run's counts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from plum_utils.plots.style import FATES, PINK, new_axes, plain

GOES_ON = ("kept", "chosen", "rejected")
SLOT, GAP, WIDTH, STEP = 0.56, 0.10, 0.20, 1.85  # inches: least height of a box's text, between boxes, box, columns
FULL = 3.2  # height of the first stage, inches
COUNTS = "Heights are shares of a stage; what goes on fills the next one, whatever its unit."


@dataclass
class _Box:
    label: str
    count: int
    fate: str
    share: float
    height: float
    slot: float = 0.0  # top of the room that box and text have, inches below the title
    left: float = 0.0  # height already linked on either side
    right: float = 0.0

    @property
    def room(self) -> float:
        return max(self.height, SLOT)

    @property
    def top(self) -> float:
        return self.slot + (self.room - self.height) / 2


def fig_flow(counts: pd.DataFrame) -> Figure:
    """Figure 1 as a flow: one column a stage, its boxes as high as their shares; what is kept flows on to the next.

    Args:
        counts: a row a box, in the order of the stages: ``stage``, ``label``, ``count``, and ``fate``: ``kept``,
            ``chosen`` and ``rejected`` go on, any other (``un-runnable``, ``duplicate``, ``dropped``) ends there. A
            stage may count another thing than the one before (an instruction has several responses): its boxes share
            what was kept.
    """
    columns = _columns(counts)
    deep = max(column[-1].slot + column[-1].room for column in columns.values())
    wide = max(STEP * len(columns), 6.0)
    figure, axis = new_axes(wide + 0.3, deep + 1.5)
    axis.set(xlim=(-0.1, wide), ylim=(deep + 0.1, -0.75))
    axis.axis("off")
    for number, (name, column) in enumerate(columns.items()):
        _draw_column(axis, number * STEP, name, column)
    for number, (column, following) in enumerate(pairwise(columns.values())):
        _draw_bands(axis, number * STEP, column, following)
    axis.set_title("From instructions to training steps", loc="left", fontsize=13)
    axis.text(0, -0.02, plain(COUNTS, int(11 * wide), 3), transform=axis.transAxes, fontsize=10, va="top",
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


def _columns(counts: pd.DataFrame) -> dict[str, list[_Box]]:
    """The boxes of each stage, stacked so that no text meets another; those that go on come first."""
    full, columns = FULL, {}
    for name, rows in counts.groupby("stage", sort=False):
        total = max(1, rows["count"].sum())
        boxes = [_Box(label, count, fate, count / total, full * count / total)
                 for label, count, fate in zip(rows.label, rows["count"], rows.fate)]
        columns[str(name)] = sorted(boxes, key=lambda box: box.fate not in GOES_ON)
        for above, box in pairwise(columns[str(name)]):
            box.slot = above.slot + above.room + GAP
        full = sum(box.height for box in boxes if box.fate in GOES_ON)
    return columns


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
        fate = one.fate if two.fate in GOES_ON else two.fate
        _band(axis, x + WIDTH, x + STEP, (start, start + out), (end, end + into), FATES.get(fate, PINK))


def _links(sources: list[_Box], targets: list[_Box]) -> list[tuple[_Box, _Box, float, float]]:
    """(from, to, height there, height here). Chosen stays chosen and rejected rejected, where both stages tell them
    apart; where nothing ends in between, the whole box flows. The rest is taken in order."""
    same = [(one, two) for one in sources for two in targets if one.fate == two.fate]
    if len(same) == len(sources) == len(targets):
        return [(one, two, one.height, two.height) for one, two in same if one.height and two.height]
    give, take = [box.height for box in sources], [box.height for box in targets]
    links = {}
    pairs = [(i, j) for i in range(len(sources)) for j in range(len(targets))]
    for i, j in sorted(pairs, key=lambda pair: sources[pair[0]].fate != targets[pair[1]].fate):
        part = min(give[i], take[j])
        if part > 1e-9:
            links[i, j] = (sources[i], targets[j], part, part)
            give[i], take[j] = give[i] - part, take[j] - part
    return [links[pair] for pair in pairs if pair in links]


def _band(axis: Axes, x0: float, x1: float, left: tuple[float, float], right: tuple[float, float],
          colour: str) -> None:
    bend = x0 + 0.72 * (x1 - x0)  # late, so that the text beside a box lies on an even ground
    one, two = bend + (x1 - bend) / 3, bend + (x1 - bend) * 2 / 3
    points = [(x0, left[0]), (bend, left[0]), (one, left[0]), (two, right[0]), (x1, right[0]),
              (x1, right[1]), (two, right[1]), (one, left[1]), (bend, left[1]), (x0, left[1])]
    curve = [Path.CURVE4] * 3
    axis.add_patch(PathPatch(Path(points, [Path.MOVETO, Path.LINETO, *curve, Path.LINETO, *curve, Path.LINETO]),
                             facecolor=colour, edgecolor=colour, alpha=0.25, zorder=1,
                             linewidth=0.8 if left[1] - left[0] < 0.02 else 0))  # a hairline is still seen
