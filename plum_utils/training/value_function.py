"""KTO's value function: its curves, where the samples of a batch lie on them, and a widget that moves both."""

from __future__ import annotations

import base64
import html
import io
import math
from dataclasses import dataclass, replace
from typing import Any, Iterator, Sequence

import ipywidgets
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imsave
from scipy.special import expit

from plum_utils.plots.style import BLUE, GREY, ORANGE, ShownFigure, finish, legend_below, new_axes

SIDES = ((True, "chosen", BLUE, "o"), (False, "rejected", ORANGE, "s"))


@dataclass(frozen=True)
class ValuedBatch:
    """What KTO's value function takes of a batch, beside beta.

    Args:
        ratios: log pi(y|x) / pi_ref(y|x) of each sample, in nats, shape (batch,).
        chosen: boolean, shape (batch,).
        z0: the reference point, in nats.
        w_d, w_u: weights of chosen and of rejected samples.
    """

    ratios: np.ndarray
    chosen: np.ndarray
    z0: float
    w_d: float
    w_u: float

    @property
    def gains(self) -> np.ndarray:
        """Distances to the reference point, in nats, shape (batch,)."""
        return np.asarray(self.ratios, dtype=float) - self.z0

    @property
    def weights(self) -> np.ndarray:
        """Weight of each sample, shape (batch,)."""
        return np.where(self.chosen, self.w_d, self.w_u)


def value(gain: Any, chosen: Any, beta: float, weight: Any) -> np.ndarray:
    """KTO's value of a sample, between 0 and its weight; the sample's loss is its weight minus this.

    Args:
        gain: r - z0, in nats; ``chosen`` and ``weight`` broadcast with it.

    Source: KTO paper (Ethayarajh et al. 2024), Eq. 8.
    """
    return weight * expit(np.where(chosen, beta, -beta) * np.asarray(gain, dtype=float))


def pull(gain: Any, chosen: Any, beta: float, weight: Any) -> np.ndarray:
    """How strongly the loss moves a sample's log-ratio: |d loss / d r|, per nat, at most ``weight * beta / 4``."""
    share = expit(np.where(chosen, beta, -beta) * np.asarray(gain, dtype=float))
    return weight * beta * share * (1 - share)


def mean_loss(batch: ValuedBatch, beta: float) -> float:
    """The KTO loss of the batch."""
    return float(np.mean(batch.weights - value(batch.gains, batch.chosen, beta, batch.weights)))


def fig_value(batch: ValuedBatch, betas: Sequence[float]) -> ShownFigure:
    """A row for each beta. Left: the value function of chosen and rejected samples over r - z0, the reference point and
    the batch's samples on it. Right: the function's slope, which is how strongly a sample is pulled."""
    figure, axes = new_axes(9.0, 0.7 + 2.9 * len(betas), 2, len(betas), squeeze=False)
    for row, beta in zip(axes, betas):
        _draw(row, batch, beta)
    legend_below(figure, axes[0][0], 5)
    return figure


def _draw(row: Any, batch: ValuedBatch, beta: float) -> None:
    """Both panels of one beta, into two empty axes, or into two that hold another beta's or batch's."""
    end = 2 * math.ceil(max(4.0, 1.15 * np.abs(batch.gains).max()) / 2)
    for axis, function in zip(row, (value, pull)):
        drawn = {line.get_label(): line for line in axis.lines}
        for label, x, y, look in _curves(function, batch, beta, end):
            if label in drawn:  # a new line costs a redraw twice the time
                drawn[label].set_data(x, y)
            else:
                axis.plot(x, y, label=label, **look)
        if not drawn:
            axis.axvline(0, color=GREY, linestyle="--", linewidth=1, label="reference point, r = z0", zorder=0)
        axis.relim()
        axis.set(xlim=(-end, end), ylim=(0, 1.1 * axis.dataLim.y1))
    finish(row[0], f"Value at β = {beta:.3g}, z0 = {batch.z0:.2f} nats", "r - z0 (nats)", "value = weight - loss")
    finish(row[1], "How strongly a sample is pulled", "r - z0 (nats)", "|d loss / d r| (per nat)")


def _curves(function: Any, batch: ValuedBatch, beta: float, end: float) -> Iterator[tuple]:
    """Label, x, y and look of each side's curve and of its samples on it."""
    line = np.linspace(-end, end, 401)
    for side, name, colour, mark in SIDES:
        weight, gains = (batch.w_d if side else batch.w_u), batch.gains[np.asarray(batch.chosen) == side]
        yield name, line, function(line, side, beta, weight), {"color": colour, "linewidth": 1.8}
        yield (f"{name}, in the batch", gains, function(gains, side, beta, weight),
               {"color": colour, "marker": mark, "linestyle": "", "markersize": 8, "markeredgecolor": "black"})


def describe(batch: ValuedBatch, beta: float) -> str:
    """The figure's content in words, for readers who do not see it."""
    values = value(batch.gains, batch.chosen, beta, batch.weights)
    pulls = pull(batch.gains, batch.chosen, beta, batch.weights)
    samples = "; ".join(f"{'chosen' if side else 'rejected'} at r - z0 = {gain:+.2f} nats has value {one:.3f}, "
                        f"pull {slope:.3f}" for side, gain, one, slope in zip(batch.chosen, batch.gains, values, pulls))
    return f"beta {beta:.3g}, z0 {batch.z0:.2f} nats, mean loss {mean_loss(batch, beta):.4f}: {samples}."


def picture(png: bytes, words: str) -> str:
    """A PNG as self-contained HTML, with ``words`` as its alternative text."""
    data = base64.b64encode(png).decode()
    return f'<img style="max-width:100%" alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


def static_value(batch: ValuedBatch, betas: Sequence[float]) -> str:
    """What the widget shows, for readers without one: the curves at some betas, and their numbers below."""
    words = [describe(batch, beta) for beta in betas]
    png = fig_value(batch, betas)._repr_png_()
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in words)
    return f"{picture(png, 'KTO value function. ' + ' '.join(words))}<ul>{lines}</ul>"


def value_widget(batch: ValuedBatch, beta: float) -> ipywidgets.Widget:
    """Sliders for beta, both weights and z0; the curves and the batch's samples follow."""
    sliders = _sliders(batch, beta)
    view = ipywidgets.HTML()
    figure = fig_value(batch, [0.01])  # the longest numbers on its axes: none collide at another beta
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once: the axes stay where they are
    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)

    def redraw(_: Any = None) -> None:
        now = replace(batch, z0=sliders["z0"].value, w_d=sliders["w_d"].value, w_u=sliders["w_u"].value)
        _draw(figure.axes, now, sliders["beta"].value)
        canvas.draw()
        png = io.BytesIO()
        imsave(png, canvas.buffer_rgba(), format="png")  # savefig would draw it twice
        words = describe(now, sliders["beta"].value)
        view.value = f"{picture(png.getvalue(), words)}<div>{html.escape(words)}</div>"

    for slider in sliders.values():
        slider.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*sliders.values(), view])


def _sliders(batch: ValuedBatch, beta: float) -> dict[str, ipywidgets.Widget]:
    """A slider for each number, at the run's own value."""
    look = {"style": {"description_width": "12em"}, "layout": {"width": "36em"}}
    weights = {"min": 0.0, "max": max(4.0, batch.w_d, batch.w_u), "step": 0.01}
    return {
        "beta": ipywidgets.FloatLogSlider(beta, description="β", min=min(-2.0, math.log10(beta)),
                                          max=max(1.0, math.log10(beta)), step=0.05, readout_format=".3g", **look),
        "z0": ipywidgets.FloatSlider(batch.z0, description="z0 (nats)", min=0.0, max=max(4.0, 2 * batch.z0), step=0.01,
                                     **look),
        "w_d": ipywidgets.FloatSlider(batch.w_d, description="weight of chosen", **weights, **look),
        "w_u": ipywidgets.FloatSlider(batch.w_u, description="weight of rejected", **weights, **look),
    }
