"""Figure 1 as a flow, and the Figure 3 ablation: what is drawn is what was counted, and no text meets another."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle

from plum_utils.plots.comparisons import NOT_PRINTED, fig_figure3
from plum_utils.plots.flow import FULL, STEP, WIDTH, fig_flow

ROWS = [("instructions", "instructions", 231, "kept"),
        ("responses", "well-formed", 690, "kept"), ("responses", "malformed", 3, "dropped"),
        ("suites", "consistent", 660, "kept"), ("suites", "inconsistent", 30, "dropped"),
        ("with tests", "with a suite", 230, "kept"), ("with tests", "without", 1, "dropped"),
        ("samples", "samples", 2300, "kept"),
        ("judged", "un-runnable", 550, "un-runnable"), ("judged", "chosen", 263, "chosen"),
        ("judged", "rejected", 539, "rejected"), ("judged", "duplicate", 258, "duplicate"),
        ("judged", "no chosen solution", 690, "dropped"),
        ("KTO rows", "chosen", 240, "chosen"), ("KTO rows", "rejected", 330, "rejected"),
        ("KTO rows", "over the cap", 232, "dropped"), ("training", "steps", 35, "kept")]
HOSTILE = "a$b_{1}$ " + "x" * 90


def flow(rows=ROWS) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["stage", "label", "count", "fate"])


FLOWS = {
    "real": flow(), "one": flow(ROWS[:1]), "zeros": flow().assign(count=0),
    "nothing-kept": flow([("samples", "samples", 10, "kept"), ("judged", "un-runnable", 10, "un-runnable"),
                          ("KTO rows", "rows", 0, "kept")]),
    "tiny": flow([("samples", "samples", 100_000, "kept"), ("judged", "chosen", 3, "chosen"),
                  ("judged", "rejected", 1, "rejected"), ("judged", "un-runnable", 99_996, "un-runnable"),
                  ("KTO rows", "chosen", 3, "chosen"), ("KTO rows", "rejected", 1, "rejected")]),
    "hostile": flow([(HOSTILE, HOSTILE, 10, "kept"), ("b", HOSTILE, 4, HOSTILE), ("b", "c", 6, "kept")]),
}


def boxes(figure) -> dict[str, list[float]]:
    """Label -> heights of its boxes in inches, in the order of the stages."""
    found: dict[str, list[float]] = {}
    for patch in figure.axes[0].patches:
        if isinstance(patch, Rectangle):
            found.setdefault(patch.get_label(), []).append(patch.get_height())
    return found


def bands(figure) -> list[tuple[float, float]]:
    """Heights of each band at its left and its right end."""
    found = []
    for patch in figure.axes[0].patches:
        if isinstance(patch, PathPatch):
            points = patch.get_path().vertices
            left, right = points[points[:, 0] == points[:, 0].min()], points[points[:, 0] == points[:, 0].max()]
            found.append((float(left[:, 1].max() - left[:, 1].min()), float(right[:, 1].max() - right[:, 1].min())))
    return found


@cache
def drawn(name: str) -> tuple[Figure, RendererAgg]:
    """A figure, laid out and drawn once for all tests; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = fig_flow(FLOWS[name])
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return figure, canvas.get_renderer()


@pytest.mark.parametrize("name", FLOWS)
def test_no_text_meets_another_or_leaves_the_picture(name):
    figure, renderer = drawn(name)
    axis = figure.axes[0]
    found = [*axis.texts, axis._left_title]
    shown = [(text.get_text(), text.get_window_extent(renderer)) for text in found]
    assert len(shown) == len(FLOWS[name]) + 2 * FLOWS[name].stage.nunique() + 2
    for place, (one, box) in enumerate(shown):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, one
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, one
        for two, other in shown[place + 1:]:
            assert not box.shrunk(0.96, 0.96).overlaps(other.shrunk(0.96, 0.96)), (one, two)


@pytest.mark.parametrize("name", FLOWS)
def test_no_text_lies_on_a_box(name):
    figure, renderer = drawn(name)
    solid = [patch.get_window_extent(renderer) for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    for text in figure.axes[0].texts:
        assert not any(text.get_window_extent(renderer).overlaps(box) for box in solid), text.get_text()


def test_every_count_is_said_with_its_share():
    said = [text.get_text().replace("\n", " ") for text in fig_flow(flow()).axes[0].texts]
    assert {"chosen 263 (11.4%)", "un-runnable 550 (23.9%)", "no chosen solution 690 (30.0%)", "samples 2,300",
            "steps 35", "well-formed 690 (99.6%)"} <= set(said)
    assert "judged" in said and "2,300" in said and "802" in said


def test_a_share_that_is_not_all_or_nothing_never_looks_like_it():
    said = " ".join(text.get_text() for text in fig_flow(FLOWS["tiny"]).axes[0].texts)
    assert "(<0.1%)" in said and "(>99.9%)" in said and "(0%)" not in said and "(100%)" not in said


def test_boxes_are_as_high_as_their_shares_of_what_was_kept():
    heights = boxes(fig_flow(flow()))
    assert heights["instructions"] == [FULL]
    assert heights["well-formed"] == pytest.approx([FULL * 690 / 693])
    kept = FULL * 690 / 693 * 660 / 690 * 230 / 231
    assert heights["samples"] == pytest.approx([kept])
    assert heights["chosen"] == pytest.approx([kept * 263 / 2300, kept * 802 / 2300 * 240 / 802])
    assert heights["steps"] == pytest.approx([kept * 802 / 2300 * 570 / 802])


def test_bands_carry_what_flows():
    """Between two stages the bands' heights add up to what went on, at either end."""
    rows = [("samples", "samples", 100, "kept"), ("judged", "chosen", 30, "chosen"),
            ("judged", "rejected", 50, "rejected"), ("judged", "un-runnable", 20, "un-runnable"),
            ("KTO rows", "chosen", 30, "chosen"),
            ("KTO rows", "rejected", 40, "rejected"), ("KTO rows", "over the cap", 10, "dropped")]
    ends = bands(fig_flow(flow(rows)))
    unit = FULL / 100
    assert np.array(sorted(ends[:3])) == pytest.approx(unit * np.array([(20, 20), (30, 30), (50, 50)]))
    assert np.array(sorted(ends[3:])) == pytest.approx(unit * np.array([(10, 10), (30, 30), (40, 40)]))


def test_chosen_never_becomes_rejected():
    """Where a stage tells both sides apart and nothing ends in between, each flows to its own, whatever the shares."""
    rows = [("judged", "chosen", 90, "chosen"), ("judged", "rejected", 10, "rejected"),
            ("pairs", "chosen", 10, "chosen"), ("pairs", "rejected", 10, "rejected")]
    assert np.array(bands(fig_flow(flow(rows)))) == pytest.approx(FULL * np.array([(0.9, 0.5), (0.1, 0.5)]))


def test_the_next_stage_starts_right_of_the_box():
    lefts = {round(float(patch.get_path().vertices[:, 0].min()), 6) for patch in fig_flow(flow()).axes[0].patches
             if isinstance(patch, PathPatch)}
    assert sorted(lefts) == pytest.approx([WIDTH + number * STEP for number in range(7)])


def test_figure_3_stands_alone_and_says_so():
    table = pd.DataFrame([{"group": "m", "method": method, "metric": "HE", "value": value, "low": value - 2,
                           "high": value + 2, "origin": "this run"}
                          for method, value in (("Baseline", 20), ("PLUM", 26), ("un-runnable negatives", 19))])
    figure = fig_figure3(table, "Figure 3")
    axis, = figure.axes
    labels = axis.get_legend_handles_labels()[1]
    assert labels == ["Baseline", "PLUM", "un-runnable negatives"]
    assert NOT_PRINTED in figure.get_suptitle().replace("\n", " ")
