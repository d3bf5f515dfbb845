"""The figure of the training benchmark shows the curves and the ratios that it is given."""

from __future__ import annotations

import pytest

from benchmarks.speed_figures import fig_training_speed


def variant(speedup: float, losses: list[float]) -> dict:
    return {"speedup": speedup, "speedup_range": [speedup - 0.1, speedup + 0.2],
            "steps": [{"loss": loss} for loss in losses]}


def test_it_draws_each_curve_and_a_bar_for_each_named_variant():
    variants = {"trl": variant(1.0, [0.5, 0.4]), "ours": variant(2.5, [0.5, 0.41]), "compiled": variant(3.0, [0.5, 0.4])}
    figure = fig_training_speed(variants, {"trl": "TRL's defaults", "ours": "ours", "missing": "not measured"})
    curves, bars = figure.axes
    assert [line.get_ydata().tolist() for line in curves.lines] == [[0.5, 0.4], [0.5, 0.41]]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([1.0, 2.5])
    assert [text.get_text() for text in bars.get_yticklabels()] == ["TRL's defaults", "ours"]
    assert [text.get_text() for text in bars.texts] == ["1.00", "2.50"]
