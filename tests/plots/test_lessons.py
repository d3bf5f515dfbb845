"""Each figure from a small table and from degenerate ones: it draws, it says what the table says, nothing overlaps."""

from __future__ import annotations

import io
import warnings
from functools import cache
from itertools import cycle

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

from plum_utils.data import paper
from plum_utils.plots import comparisons, lessons, style

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


def sharpness(policies=("baseline", "PLUM"), temperatures=(0.4, 0.6, 0.8, 1.0)) -> pd.DataFrame:
    """Each policy sharper than the one before it, and a little better."""
    return pd.DataFrame([{"suite": "heldout_basics", "policy": policy, "temperature": temperature,
                          "entropy_per_token": temperature ** 2 / (1 + place),
                          "pass_at_1": 40 - 26 * temperature ** 2 / (1 + place) + 5 * place}
                         for place, policy in enumerate(policies) for temperature in temperatures])


def pass_at_k(suites=("heldout_basics",), temperatures=(0.8,), ks=(1, 2, 5, 10)) -> pd.DataFrame:
    return pd.DataFrame([{"suite": suite, "policy": policy, "temperature": temperature, "k": k,
                          "value": shift + 15 * np.log2(k + 1)}
                         for suite in suites for temperature in temperatures for k in ks
                         for policy, shift in (("baseline", 0), ("PLUM", 6))])


def sweep(groups=("SmolLM2",), methods=("Baseline", "PLUM"), metrics=("HE", "HE+"), origin="this run",
          spread=5.0) -> pd.DataFrame:
    rows = [{"group": group, "method": method, "metric": metric, "value": 30.0 + 7 * number + 3 * place + 2 * column,
             "origin": origin} for place, group in enumerate(groups) for number, method in enumerate(methods)
            for column, metric in enumerate(metrics)]
    return pd.DataFrame(rows).assign(low=lambda frame: frame.value - spread, high=lambda frame: frame.value + spread)


def printed(table: int) -> pd.DataFrame:
    frame = paper.table(table)
    frame = frame[frame.row != "Rel. +"].melt(["model", "row"], list(paper.BENCHMARKS), "metric", "value")
    return frame.rename(columns={"model": "group", "row": "method"}).assign(origin="paper")


def scaling(metrics=("HE",), sizes=(29, 58, 115, 231), ks=(1, 5, 10)) -> pd.DataFrame:
    return pd.DataFrame([{"instructions": size, "k": k, "metric": metric, "difference": 2.0 * np.log2(size) + k,
                          "difference_low": 2.0 * np.log2(size) + k - 4, "difference_high": 2.0 * np.log2(size) + k + 4}
                         for metric in metrics for size in sizes for k in ks])


def validated(seeds, points: int) -> pd.DataFrame:
    return pd.DataFrame([{"seed": seed, "step": min(50 * n, 375), "pass@1": 31 + 3 * seed + 4 * np.sin(n + seed)}
                         for seed in seeds for n in range(points)])


def rounds(n: int = 3, metrics=("HE", "heldout_basics, T=0.8")) -> pd.DataFrame:
    return pd.DataFrame([{"round": number, "metric": metric, "value": 20.0 + 6 * number, "low": 15.0 + 6 * number,
                          "high": 26.0 + 6 * number} for metric in metrics for number in range(n + 1)])


def power(suites=("heldout_basics", "humaneval"), sds=(0.4, 0.2)) -> Figure:
    curves = pd.DataFrame([{"suite": suite, "problems": n, "smallest": 280 * sd / np.sqrt(n)}
                           for suite, sd in zip(suites, cycle(sds)) for n in (10, 100, 1000, 100_000)])
    claims = pd.DataFrame({"claim": ["largest", "smallest", "close", "median"], "points": [18.3, 0.3, 3.95, 3.5]})
    return comparisons.fig_power(curves, curves[curves.problems == 100], claims)


TEN = tuple(f"model-{number}-of-a-family-7B" for number in range(10))
HOSTILE = "a$b_{1}$ \\frac{ " + "x" * 80
SCORES = pd.DataFrame({"source": ["basics"] * 6 + ["evol"] * 3, "score": [1, 1, 0.9, 0.85, 0.5, NAN, 0.2, 0.7, 0.72],
                       "mutants": [9, 8, 10, 20, 4, 0, 5, 10, 25]})
STATUSES = pd.Series({"passed": 840, "failed": 2800, "type_error": 300, "error": 90, "syntax": 410, "timeout": 12,
                      "no_code": 7})
FLOW = pd.Series({"un-runnable": 800, "duplicate": 450, "no chosen solution": 1500, "chosen": 700, "rejected": 1170})
SIX = ("Baseline", "un-runnable negatives", "un-runnable negatives, one pass", "defining negatives", "undefined negatives", "PLUM")
FIGURES = {
    "table1": lambda: lessons.fig_table1(pd.DataFrame({"source": ["OSS-Instruct-like", "Evol-Instruct-like",
                                                                "ShareGPT-like"], "ours": [98.2, 91.7, 100.0],
                                                     "paper": [63.76, 42.38, 45.69]})),
    "table1-no-data": lambda: lessons.fig_table1(pd.DataFrame({"source": ["live", "evol"], "ours": [NAN, 0.0],
                                                             "paper": [NAN, 42.38]})),
    "tests": lambda: lessons.fig_tests_per_instruction(pd.Series([3, 4, 4, 5, 5, 5, 6, 9])),
    "tests-one": lambda: lessons.fig_tests_per_instruction(pd.Series([4])),
    "tests-none": lambda: lessons.fig_tests_per_instruction(pd.Series([], dtype=int)),
    "lengths": lambda: lessons.fig_lengths(pd.DataFrame({"n_tokens": [*range(20, 90), 256, 256], "finish_reason":
                                                       ["end_token"] * 50 + ["stop_string"] * 20 + ["length"] * 2})),
    "lengths-all-cut": lambda: lessons.fig_lengths(pd.DataFrame({"n_tokens": [64] * 9, "finish_reason": ["length"] * 9})),
    "verdicts": lambda: lessons.fig_verdicts(STATUSES),
    "verdicts-one": lambda: lessons.fig_verdicts(pd.Series({"failed": 60})),
    "figure2": lambda: lessons.fig_figure2(pd.Series([0] * 90 + [0.05, 0.1, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95, 1, 1]), 20),
    "figure2-all-zero": lambda: lessons.fig_figure2(pd.Series([0.0] * 10), 6),
    "figure2-k1": lambda: lessons.fig_figure2(pd.Series([0.0, 1.0, 1.0]), 1),
    "figure2-k50": lambda: lessons.fig_figure2(pd.Series(np.linspace(0, 1, 51)), 50),
    "training": lambda: lessons.fig_training(history(seeds=(0, 1, 2), steps=60)),
    "training-sft": lambda: lessons.fig_training(history(columns=("loss",))),
    "training-one-step": lambda: lessons.fig_training(history(steps=1)),
    "training-nan": lambda: lessons.fig_training(history().assign(kl=NAN)),
    "validation": lambda: lessons.fig_validation(validated((0, 1, 2), 9), {0: 100, 1: 375, 2: 50}),
    "validation-one-point": lambda: lessons.fig_validation(validated((3,), 1), {3: 0}),
    "validation-all": lambda: lessons.fig_validation(validated((3,), 4).assign(**{"pass@1": 100.0}), {3: 0}),
    "before_after": lambda: comparisons.fig_before_after(before_after(8), "pass@1 before and after PLUM"),
    "before_after-one": lambda: comparisons.fig_before_after(before_after(1, intervals=False), "One row"),
    "before_after-zero": lambda: comparisons.fig_before_after(before_after(3).assign(before=0.0, after=0.0, before_low=0.0,
                                                        before_high=0.0, after_low=0.0, after_high=0.0), "All zero"),
    "pass_at_k": lambda: lessons.fig_pass_at_k(pass_at_k(("heldout_basics", "humaneval"), (0.8, 1.0))),
    "pass_at_k-one-k": lambda: lessons.fig_pass_at_k(pass_at_k(ks=(1,))),
    "wins_losses": lambda: lessons.fig_wins_losses(pd.DataFrame({"change": [90, 60, 50, 20, 10, 0, 0, 0, -10, -30]}),
                                                 "heldout_basics, T=0.8"),
    "wins_losses-none": lambda: lessons.fig_wins_losses(pd.DataFrame({"change": [0.0] * 4}), "heldout_public, greedy"),
    "label_flow": lambda: lessons.fig_label_flow(FLOW),
    "label_flow-nothing-kept": lambda: lessons.fig_label_flow(FLOW * [1, 0, 1, 0, 0]),
    "diversity": lambda: lessons.fig_diversity(pd.Series([20, 20, 19, 17, 12, 3, 1]), 20),
    "sweep": lambda: comparisons.fig_sweep(pd.concat([sweep(), printed(6)]), "Table 6: KTO against DPO"),
    "sweep-ten-models": lambda: comparisons.fig_sweep(pd.concat([sweep(TEN, metrics=paper.BENCHMARKS), printed(2)]), "Ten"),
    "sweep-three-methods": lambda: comparisons.fig_sweep(sweep(methods=("Baseline", "PLUM", "un-runnable negatives")), "One"),
    "sweep-six-methods": lambda: comparisons.fig_sweep(sweep(methods=SIX, metrics=("a", "b")), "Six methods with names as long as these"),
    "sweep-one-row": lambda: comparisons.fig_sweep(sweep(methods=("PLUM",), metrics=("HE",)), "One row"),
    "sweep-zeros": lambda: comparisons.fig_sweep(sweep().assign(value=0.0, low=0.0, high=0.0), "Zeros"),
    "sweep-no-values": lambda: comparisons.fig_sweep(sweep().assign(value=NAN, low=NAN, high=NAN), "Nothing measured"),
    "sweep-six-metrics": lambda: comparisons.fig_sweep(sweep(("a: m", "b: m"), metrics=list("uvwxyz")), "Six"),
    "sweep-hostile": lambda: comparisons.fig_sweep(sweep((HOSTILE, "b"), ("Baseline", HOSTILE), (HOSTILE,)), HOSTILE,
                                             HOSTILE),
    "mutation": lambda: lessons.fig_mutation(SCORES),
    "mutation-none": lambda: lessons.fig_mutation(SCORES.head(0)),
    "mutation-no-mutants": lambda: lessons.fig_mutation(SCORES[SCORES.score.isna()].assign(source=HOSTILE)),
    "scaling": lambda: comparisons.fig_scaling(scaling(("HE", "heldout_basics, greedy", "heldout_basics, T=0.8", "x"))),
    "scaling-one": lambda: comparisons.fig_scaling(scaling(sizes=(231,), ks=(5,)).assign(difference_low=NAN)),
    "scaling-zeros": lambda: comparisons.fig_scaling(scaling().assign(difference=0.0, difference_low=0.0,
                                                                      difference_high=0.0)),
    "sharpness": lambda: comparisons.fig_sharpness(sharpness()),
    "sharpness-one-temperature": lambda: comparisons.fig_sharpness(sharpness(temperatures=(0.8,))),
    "sharpness-methods": lambda: comparisons.fig_sharpness(pd.concat(
        sharpness(("Baseline", "SFT", "DPO", "PLUM-KTO"), (0.4, 0.8, 1.0)).assign(group=group)
        for group in ("OSS-Instruct: M", HOSTILE))),
    "sharpness-six-methods": lambda: comparisons.fig_sharpness(sharpness(SIX, (0.8, 1.0))),
    "rounds": lambda: comparisons.fig_rounds(rounds(4, ("HE", "HE+", "MBPP", "heldout_basics, T=0.8", HOSTILE))),
    "rounds-one": lambda: comparisons.fig_rounds(rounds(0, ("HE",)).assign(low=NAN, high=NAN)),
    "power": lambda: power(),
    "power-many": lambda: power(suites=("heldout_basics", *"abcdef", HOSTILE)),
    "power-nothing": lambda: power(sds=(NAN, np.inf)),
    "diversity-k1": lambda: lessons.fig_diversity(pd.Series([1, 1]), 1),
}


@cache
def drawn(name: str) -> tuple[Figure, RendererAgg, list[str]]:
    """A figure, laid out and drawn once for all tests, and the warnings that were given."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        figure = FIGURES[name]()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        figure.savefig(io.BytesIO(), format="svg")
    return figure, canvas.get_renderer(), [str(one.message) for one in given]


def texts(figure: Figure) -> list[str]:
    """All text that can be read in the figure, empty ones left out."""
    found = [text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))]
    return [text for text in found if text]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_draw_inside_their_frame(name):
    """Drawn without a warning (a layout that collapses, an empty legend), and every text within the picture."""
    figure, renderer, given = drawn(name)
    assert given == []
    frame = figure.bbox
    for part in (*figure.axes, *figure.legends, *figure.texts):
        box = part.get_tightbbox(renderer)
        assert box.x0 >= frame.x0 - 2 and box.x1 <= frame.x1 + 2 and box.y0 >= frame.y0 - 2 and box.y1 <= frame.y1 + 2


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_named(name):
    for axis in drawn(name)[0].axes:
        assert axis.get_xlabel() or axis.get_ylabel() or axis.get_title("left")  # small multiples share a label


@pytest.mark.parametrize("name", FIGURES)
def test_bar_labels_and_titles_do_not_overlap(name):
    figure, renderer, _ = drawn(name)
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
    assert len(set(style.STATUS_COLOURS.values())) == len(style.STATUS_COLOURS)


@pytest.mark.parametrize("k", [1, 4, 20])
def test_figure2_has_one_bar_for_each_number_of_passes(k):
    ratios = pd.Series([passes / k for passes in range(k + 1) for _ in range(passes + 1)])
    bars = [patch.get_height() for patch in lessons.fig_figure2(ratios, k).axes[0].patches]
    assert bars == [passes + 1 for passes in range(k + 1)]


def test_figure2_says_how_many_instructions_are_dropped():
    assert any("90%" in text for text in texts(FIGURES["figure2"]()))


def test_training_has_a_panel_for_what_was_logged():
    assert len(FIGURES["training"]().axes) == 3 and len(FIGURES["training-sft"]().axes) == 1


def test_before_after_puts_each_policy_at_its_value():
    axis = comparisons.fig_before_after(before_after(3), "t").axes[0]
    points = {line.get_label(): list(line.get_xdata()) for line in axis.lines}
    assert points["baseline"] == [5, 17.5, 30] and points["PLUM"] == [9, 16.5, 24]


def test_pass_at_k_averages_seeds():
    two = pd.concat([pass_at_k(), pass_at_k().assign(value=lambda frame: frame.value + 10)])
    one, both = lessons.fig_pass_at_k(pass_at_k()), lessons.fig_pass_at_k(two)
    assert both.axes[0].lines[0].get_ydata() == pytest.approx(one.axes[0].lines[0].get_ydata() + 5)


def test_wins_and_losses_are_counted_and_sorted():
    figure = FIGURES["wins_losses"]()
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights == sorted(heights, reverse=True)
    assert "5 better, 2 worse, 3 equal" in texts(figure)


def test_side_by_side_escapes_what_the_model_wrote():
    shown = lessons.side_by_side({"sample 0": "<script>alert(1)</script>", "sample 1": "x < 1 and y"})
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "x &lt; 1" in shown


def panel(figure: Figure, title: str, part: int = 0):
    return [axis for axis in figure.axes if axis.get_title("left") == title][part]


def markers(axis) -> dict[str, list[float]]:
    """Method -> the values its markers stand at, from the top group down."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in axis.lines:
        if not line.get_label().startswith("_"):
            found.setdefault(line.get_label(), []).append((line.get_ydata()[0], line.get_xdata()[0]))
    return {name: [x for _, x in sorted(points)] for name, points in found.items()}


def test_a_sweep_puts_each_method_at_its_value_ours_left_and_the_papers_right():
    figure = comparisons.fig_sweep(pd.concat([printed(6), sweep(methods=("KTO", "Baseline"), metrics=("HE",))]), "t")
    ours, theirs = panel(figure, "HE", 0), panel(figure, "HE", 1)
    assert markers(ours) == {"Baseline": [37.0], "KTO": [30.0]}
    table = paper.table(6)
    assert markers(theirs) == {name: table[table.row == name].HE.tolist() for name in ("Baseline", "DPO", "KTO")}
    assert {"this run, 95% intervals", "paper, as printed"} <= set(texts(figure))
    assert ours.bbox.x1 < theirs.bbox.x0 and ours.get_xlim() == theirs.get_xlim()


def test_a_sweep_joins_methods_to_the_baseline_and_draws_intervals_only_where_there_are_some():
    figure = comparisons.fig_sweep(pd.concat([sweep(metrics=("ours",)), printed(5)]), "t")
    ours, theirs = panel(figure, "ours"), panel(figure, "HE+")
    joined = [tuple(line.get_xdata()) for line in ours.lines if line.get_label().startswith("_") and
              len(line.get_xdata()) == 2]
    assert (30.0, 37.0) in joined
    spans = [segment[:, 0].tolist() for bars in ours.containers for bar in bars[2] for segment in bar.get_segments()]
    assert spans == [[25.0, 35.0], [32.0, 42.0]] and not theirs.containers


def test_a_sweeps_methods_differ_in_marker_not_only_in_colour():
    names = ["Baseline", "SFT", "DPO", "KTO", "un-runnable negatives", "another", "and another"]
    styles = style.method_styles(names)
    assert len({marker for _, marker in styles.values()}) == len(names)


def test_a_sweep_says_what_was_not_measured():
    table = sweep(("a", "b"), metrics=("HE",))
    table.loc[table.group == "b", "value"] = NAN
    assert texts(comparisons.fig_sweep(table, "t")).count("not measured") == 1


def test_a_sweep_names_the_data_once_where_it_is_the_same_for_all():
    figure = comparisons.fig_sweep(sweep(("OSS: m1", "OSS: m2")), "t")
    assert {"this run, 95% intervals: OSS", "m1", "m2"} <= set(texts(figure))


def test_a_sweep_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        comparisons.fig_sweep(sweep().head(0), "t")
    with pytest.raises(ValueError, match="two values of 'Baseline', 'HE' for 'SmolLM2'"):
        comparisons.fig_sweep(pd.concat([sweep(), sweep()]), "t")


def test_names_are_no_mathematics_and_fit():
    shown = style.plain(HOSTILE, 20, 2)
    assert len(shown.splitlines()) == 2 and shown.endswith("…") and "\\$b" in shown
    assert style.plain("") == "" and style.plain("m\n\tn") == "m n"


def test_mutation_counts_suites_mutants_and_their_mean():
    figure = FIGURES["mutation"]()
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles == ["basics: 5 suites, 51 mutants, mean 0.85", "evol: 3 suites, 40 mutants, mean 0.54"]
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 5


def test_scaling_has_a_line_for_each_k_on_a_doubling_axis():
    axis = comparisons.fig_scaling(scaling(ks=(1, 10))).axes[0]
    assert axis.get_xscale() == "log" and [text.get_text() for text in axis.get_xticklabels()] == ["29", "58", "115",
                                                                                                  "231"]
    lines = dict(zip(axis.get_legend_handles_labels()[1], axis.containers))
    assert lines["K = 10"][0].get_ydata() == pytest.approx(2 * np.log2([29, 58, 115, 231]) + 10)
    low, high = lines["K = 1"][2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((2 * np.log2(29) - 3, 2 * np.log2(29) + 5))


def test_power_has_the_suites_on_their_curves_and_a_line_for_each_claim():
    axis = FIGURES["power"]().axes[0]
    assert axis.get_legend_handles_labels()[1] == ["heldout_basics", "humaneval"]
    drawn_at = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert drawn_at["heldout_basics"] == [[100, pytest.approx(11.2)]]
    levels = sorted(line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1])
    assert levels == [0.3, 3.5, 3.95, 18.3]
    assert {"largest: 18.3", "median: 3.5", "smallest: 0.3"} <= {text.get_text() for text in axis.texts}


def test_power_says_what_cannot_be_told():
    labels = FIGURES["power-nothing"]().axes[0].get_legend_handles_labels()[1]
    assert labels == ["heldout_basics: cannot be told", "humaneval"]


def test_rounds_have_a_line_for_each_metric_from_round_0():
    axis = comparisons.fig_rounds(rounds(2)).axes[0]
    assert axis.get_legend_handles_labels()[1] == ["HE", "heldout_basics, T=0.8"]
    assert list(axis.containers[0][0].get_ydata()) == [20, 26, 32] and list(axis.get_xticks()) == [0, 1, 2]


def test_panels_of_sharpness_are_named_by_what_tells_them_apart_on_one_scale():
    table = pd.concat([sharpness().assign(group="OSS"), sharpness(temperatures=(0.4,)).assign(group="ShareGPT")])
    one, two = comparisons.fig_sharpness(table).axes
    assert (one.get_title(loc="left"), two.get_title(loc="left")) == ("OSS", "ShareGPT")
    assert one.get_ylabel() == "pass@1 of heldout_basics (%)" and one.get_xlim() == two.get_xlim()
    one, two = comparisons.fig_sharpness(pd.concat([table, table.assign(suite="mbpp")])).axes[2:]
    assert (one.get_title(loc="left"), two.get_title(loc="left")) == ("OSS, mbpp", "ShareGPT, mbpp")


def test_a_policys_line_goes_from_temperature_to_temperature_each_labelled():
    figure = comparisons.fig_sharpness(sharpness(temperatures=(1.0, 0.4)).iloc[::-1])
    baseline, trained = figure.axes[0].lines
    assert list(baseline.get_xdata()) == pytest.approx([0.16, 1]) and list(trained.get_xdata()) == pytest.approx([0.08, 0.5])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.4", "1"] * 2
    assert baseline.get_color() == style.GREY != trained.get_color()
