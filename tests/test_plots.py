"""Each figure from a small table and from degenerate ones: it draws, it says what the table says, nothing overlaps."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

from plum_utils import plots

NAN = float("nan")


def history(seeds=(0,), steps=12, columns=("loss", "kl", "rewards/chosen", "rewards/rejected")) -> pd.DataFrame:
    rows = [{"seed": seed, "step": step, "loss": 0.5 - 0.01 * step, "kl": 0.1 * step, "rewards/chosen": 0.02 * step,
             "rewards/rejected": -0.03 * step + 0.01 * seed} for seed in seeds for step in range(1, steps + 1)]
    return pd.DataFrame(rows)[["seed", "step", *columns]]


def before_after(rows: int = 3, intervals: bool = True) -> pd.DataFrame:
    frame = pd.DataFrame({"label": [f"heldout_intermediate, T=0.{row}" for row in range(rows)],
                          "before": np.linspace(5, 30, rows), "after": np.linspace(9, 24, rows)})
    if intervals:
        for name in ("before", "after"):
            frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 5, frame[name] + 5
    return frame


def pass_at_k(suites=("heldout_basics",), temperatures=(0.8,), ks=(1, 2, 5, 10)) -> pd.DataFrame:
    return pd.DataFrame([{"suite": suite, "policy": policy, "temperature": temperature, "k": k,
                          "value": shift + 15 * np.log2(k + 1)}
                         for suite in suites for temperature in temperatures for k in ks
                         for policy, shift in (("baseline", 0), ("PLUM", 6))])


STATUSES = pd.Series({"passed": 840, "failed": 2800, "type_error": 300, "error": 90, "syntax": 410, "timeout": 12,
                      "no_code": 7})
FLOW = pd.Series({"un-runnable": 800, "duplicate": 450, "no chosen solution": 1500, "chosen": 700, "rejected": 1170})
FIGURES = {
    "table1": lambda: plots.fig_table1(pd.DataFrame({"source": ["OSS-Instruct-like", "Evol-Instruct-like",
                                                                "ShareGPT-like"], "ours": [98.2, 91.7, 100.0],
                                                     "paper": [63.76, 42.38, 45.69]})),
    "table1-no-data": lambda: plots.fig_table1(pd.DataFrame({"source": ["live", "evol"], "ours": [NAN, 0.0],
                                                             "paper": [NAN, 42.38]})),
    "tests": lambda: plots.fig_tests_per_instruction(pd.Series([3, 4, 4, 5, 5, 5, 6, 9])),
    "tests-one": lambda: plots.fig_tests_per_instruction(pd.Series([4])),
    "tests-none": lambda: plots.fig_tests_per_instruction(pd.Series([], dtype=int)),
    "lengths": lambda: plots.fig_lengths(pd.DataFrame({"n_tokens": [*range(20, 90), 256, 256], "finish_reason":
                                                       ["stop"] * 70 + ["length"] * 2})),
    "lengths-all-cut": lambda: plots.fig_lengths(pd.DataFrame({"n_tokens": [64] * 9, "finish_reason": ["length"] * 9})),
    "verdicts": lambda: plots.fig_verdicts(STATUSES),
    "verdicts-one": lambda: plots.fig_verdicts(pd.Series({"failed": 60})),
    "figure2": lambda: plots.fig_figure2(pd.Series([0] * 90 + [0.05, 0.1, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95, 1, 1]), 20),
    "figure2-all-zero": lambda: plots.fig_figure2(pd.Series([0.0] * 10), 6),
    "figure2-k1": lambda: plots.fig_figure2(pd.Series([0.0, 1.0, 1.0]), 1),
    "figure2-k50": lambda: plots.fig_figure2(pd.Series(np.linspace(0, 1, 51)), 50),
    "training": lambda: plots.fig_training(history(seeds=(0, 1, 2), steps=60)),
    "training-sft": lambda: plots.fig_training(history(columns=("loss",))),
    "training-one-step": lambda: plots.fig_training(history(steps=1)),
    "training-nan": lambda: plots.fig_training(history().assign(kl=NAN)),
    "before_after": lambda: plots.fig_before_after(before_after(8), "pass@1 before and after PLUM"),
    "before_after-one": lambda: plots.fig_before_after(before_after(1, intervals=False), "One row"),
    "before_after-zero": lambda: plots.fig_before_after(before_after(3).assign(before=0.0, after=0.0, before_low=0.0,
                                                        before_high=0.0, after_low=0.0, after_high=0.0), "All zero"),
    "pass_at_k": lambda: plots.fig_pass_at_k(pass_at_k(("heldout_basics", "humaneval"), (0.8, 1.0))),
    "pass_at_k-one-k": lambda: plots.fig_pass_at_k(pass_at_k(ks=(1,))),
    "wins_losses": lambda: plots.fig_wins_losses(pd.DataFrame({"change": [90, 60, 50, 20, 10, 0, 0, 0, -10, -30]}),
                                                 "heldout_basics, T=0.8"),
    "wins_losses-none": lambda: plots.fig_wins_losses(pd.DataFrame({"change": [0.0] * 4}), "heldout_public, greedy"),
    "label_flow": lambda: plots.fig_label_flow(FLOW),
    "label_flow-nothing-kept": lambda: plots.fig_label_flow(FLOW * [1, 0, 1, 0, 0]),
    "diversity": lambda: plots.fig_diversity(pd.Series([20, 20, 19, 17, 12, 3, 1]), 20),
    "diversity-k1": lambda: plots.fig_diversity(pd.Series([1, 1]), 1),
}


def drawn(name: str) -> tuple[Figure, RendererAgg]:
    """A figure, laid out and drawn."""
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, canvas.get_renderer()


def texts(figure: Figure) -> list[str]:
    """All text that can be read in the figure, empty ones left out."""
    found = [text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))]
    return [text for text in found if text]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_draw_inside_their_frame(name, recwarn):
    """Drawn without a warning (a layout that collapses, an empty legend), and every text within the picture."""
    figure, renderer = drawn(name)
    figure.savefig(io.BytesIO(), format="svg")
    assert [str(warning.message) for warning in recwarn] == []
    frame = figure.bbox
    for axis in figure.axes:
        box = axis.get_tightbbox(renderer)
        assert box.x0 >= frame.x0 - 2 and box.x1 <= frame.x1 + 2 and box.y0 >= frame.y0 - 2 and box.y1 <= frame.y1 + 2


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_named(name):
    for axis in FIGURES[name]().axes:
        assert axis.get_xlabel() or axis.get_ylabel()


@pytest.mark.parametrize("name", FIGURES)
def test_bar_labels_and_titles_do_not_overlap(name):
    figure, renderer = drawn(name)
    for axis in figure.axes:
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in [*axis.texts, axis.title,
                 *axis.get_xticklabels()] if text.get_text() and text.get_visible()]
        legend = axis.get_legend()
        if legend is not None:
            boxes.append(("legend", legend.get_window_extent(renderer)))
        for place, (one, box) in enumerate(boxes):
            for two, other in boxes[place + 1:]:
                assert not box.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9)), (one, two)


def test_a_notebook_can_show_a_figure():
    assert FIGURES["verdicts"]()._repr_png_().startswith(b"\x89PNG")


def test_table1_says_both_numbers_and_admits_a_missing_one():
    assert {"98.2", "63.8", "91.7", "42.4", "100.0", "45.7"} <= set(texts(FIGURES["table1"]()))
    assert texts(FIGURES["table1-no-data"]()).count("n/a") == 2


def test_verdicts_say_counts_and_shares():
    assert any("840" in text and "18.8%" in text for text in texts(FIGURES["verdicts"]()))


def test_each_verdict_has_its_own_colour():
    assert len(set(plots.STATUS_COLOURS.values())) == len(plots.STATUS_COLOURS)


@pytest.mark.parametrize("k", [1, 4, 20])
def test_figure2_has_one_bar_for_each_number_of_passes(k):
    ratios = pd.Series([passes / k for passes in range(k + 1) for _ in range(passes + 1)])
    bars = [patch.get_height() for patch in plots.fig_figure2(ratios, k).axes[0].patches]
    assert bars == [passes + 1 for passes in range(k + 1)]


def test_figure2_says_how_many_instructions_are_dropped():
    assert any("90%" in text for text in texts(FIGURES["figure2"]()))


def test_training_has_a_panel_for_what_was_logged():
    assert len(FIGURES["training"]().axes) == 3 and len(FIGURES["training-sft"]().axes) == 1


def test_before_after_puts_each_policy_at_its_value():
    axis = plots.fig_before_after(before_after(3), "t").axes[0]
    points = {line.get_label(): list(line.get_xdata()) for line in axis.lines}
    assert points["baseline"] == [5, 17.5, 30] and points["PLUM"] == [9, 16.5, 24]


def test_pass_at_k_averages_seeds():
    two = pd.concat([pass_at_k(), pass_at_k().assign(value=lambda frame: frame.value + 10)])
    one, both = plots.fig_pass_at_k(pass_at_k()), plots.fig_pass_at_k(two)
    assert both.axes[0].lines[0].get_ydata() == pytest.approx(one.axes[0].lines[0].get_ydata() + 5)


def test_wins_and_losses_are_counted_and_sorted():
    figure = FIGURES["wins_losses"]()
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights == sorted(heights, reverse=True)
    assert "5 better, 2 worse, 3 equal" in texts(figure)


def test_side_by_side_escapes_what_the_model_wrote():
    shown = plots.side_by_side({"sample 0": "<script>alert(1)</script>", "sample 1": "x < 1 and y"})
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "x &lt; 1" in shown
