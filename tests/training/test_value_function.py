"""KTO's value function is the one of the loss, its figure shows the batch, and the widget redraws both."""

from __future__ import annotations

import base64
import re
import time

import numpy as np
import pytest
import torch

from plum_utils.training.value_function import (
    ValuedBatch,
    _draw,
    describe,
    fig_value,
    mean_loss,
    pull,
    static_value,
    value,
    value_widget,
)

BATCH = ValuedBatch(np.array([0.5, -1.5, 3.0]), np.array([True, False, False]), z0=1.0, w_d=1.333, w_u=1.0)


def reference_loss(ratios: torch.Tensor, batch: ValuedBatch, beta: float) -> torch.Tensor:
    """The loss of each sample, as the paper has it, one case after the other."""
    losses = [batch.w_d * (1 - torch.sigmoid(beta * (r - batch.z0))) if side
              else batch.w_u * (1 - torch.sigmoid(beta * (batch.z0 - r))) for r, side in zip(ratios, batch.chosen)]
    return torch.stack(losses)


@pytest.mark.parametrize("beta", [0.01, 1.0, 10.0])
def test_value_and_pull_are_the_losss_own(beta):
    ratios = torch.tensor(BATCH.ratios, requires_grad=True)
    losses = reference_loss(ratios, BATCH, beta)
    losses.sum().backward()
    expected = BATCH.weights - losses.detach().numpy()
    assert value(BATCH.gains, BATCH.chosen, beta, BATCH.weights) == pytest.approx(expected)
    assert pull(BATCH.gains, BATCH.chosen, beta, BATCH.weights) == pytest.approx(ratios.grad.abs().numpy())
    assert mean_loss(BATCH, beta) == pytest.approx(losses.mean().item())


def test_at_the_reference_point_the_value_is_half_the_weight_and_the_pull_at_its_most():
    assert value(0.0, True, 3.0, 1.5) == pytest.approx(0.75)
    assert pull(0.0, False, 3.0, 1.5) == pytest.approx(1.5 * 3.0 / 4)


def test_the_figure_has_the_batchs_samples_on_its_curves_and_units_on_its_axes():
    figure = fig_value(BATCH, [0.1, 1.0])
    assert len(figure.axes) == 4
    left = figure.axes[2]
    points = {line.get_label(): line for line in left.lines}
    assert points["rejected, in the batch"].get_xdata() == pytest.approx([-2.5, 2.0])
    assert points["rejected, in the batch"].get_ydata() == pytest.approx(value(np.array([-2.5, 2.0]), False, 1.0, 1.0))
    assert points["chosen, in the batch"].get_xdata() == pytest.approx([-0.5])
    assert points["chosen"].get_ydata().max() <= BATCH.w_d
    assert points["reference point, r = z0"].get_xdata() == [0, 0]
    assert all("(nats)" in axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
    assert "β = 1," in left.get_title(loc="left")


def test_far_samples_stay_in_the_picture():
    far = ValuedBatch(np.array([-30.0]), np.array([False]), 0.0, 1.0, 1.0)
    low, high = fig_value(far, [1.0]).axes[0].get_xlim()
    assert low < -30 and high == -low


def test_words_name_each_sample_and_the_loss():
    words = describe(BATCH, 1.0)
    assert f"mean loss {mean_loss(BATCH, 1.0):.4f}" in words
    assert words.count("rejected at") == 2 and "chosen at r - z0 = -0.50 nats" in words


def test_the_static_form_is_one_picture_that_needs_no_other_file():
    text = static_value(BATCH, [0.1, 1.0])
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert re.search(r'alt="[^"]*beta 0.1[^"]*beta 1,', text)
    assert text.count("<li>") == 2


def test_the_widget_follows_each_slider():
    widget = value_widget(BATCH, 1.0)
    *sliders, view = widget.children
    assert [slider.value for slider in sliders] == [1.0, 1.0, 1.333, 1.0]
    assert describe(BATCH, 1.0) in view.value
    for slider, moved in zip(sliders, (0.1, 0.5, 2.0, 3.0)):
        before = view.value
        slider.value = moved
        assert view.value != before, slider.description
    assert describe(ValuedBatch(BATCH.ratios, BATCH.chosen, 0.5, 2.0, 3.0), 0.1) in view.value
    assert view.value.count("<img") == 1


def test_drawing_again_leaves_what_a_new_figure_has():
    moved = ValuedBatch(BATCH.ratios, BATCH.chosen, 2.5, 3.0, 0.5)
    old, new = fig_value(BATCH, [1.0]), fig_value(moved, [10.0])
    _draw(old.axes, moved, 10.0)
    for before, after in zip(old.axes, new.axes):
        assert (before.get_xlim(), before.get_ylim(), before.get_title(loc="left")) == (
            after.get_xlim(), after.get_ylim(), after.get_title(loc="left"))
        assert len(before.lines) == len(after.lines)
        assert all(one.get_label() == two.get_label() and np.array_equal(one.get_xydata(), two.get_xydata())
                   for one, two in zip(before.lines, after.lines))


def test_beta_spans_three_decades_and_the_runs_own():
    assert (value_widget(BATCH, 1.0).children[0].min, value_widget(BATCH, 1.0).children[0].max) == (-2.0, 1.0)
    assert value_widget(BATCH, 0.001).children[0].value == pytest.approx(0.001)


def test_a_redraw_is_quick():
    beta, *_ = value_widget(BATCH, 1.0).children
    best = min(_seconds(beta, number) for number in (0.2, 0.5, 2.0, 5.0))
    assert best < 0.3  # 0.1 s of processor time on a busy machine; a hand on the slider sees no delay below 0.15 s


def _seconds(slider, number: float) -> float:
    started = time.process_time()
    slider.value = number
    return time.process_time() - started
