"""A widget and its static form are one output: each reader sees one of them."""

from __future__ import annotations

import ipywidgets
import pytest

from plum_utils.plots import widgets


@pytest.fixture
def displayed(monkeypatch) -> list[dict]:
    bundles: list[dict] = []
    monkeypatch.setattr(widgets, "display", lambda bundle, raw: bundles.append(bundle) if raw else None)
    return bundles


def test_one_output_holds_the_live_and_the_static_form(displayed):
    slider = ipywidgets.FloatSlider(value=2.0)
    widgets.show(slider, "<p>beta = 2</p>")
    (bundle,) = displayed
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == slider.model_id
    assert bundle["text/html"] == "<p>beta = 2</p>"
    assert "FloatSlider" not in bundle["text/plain"]
