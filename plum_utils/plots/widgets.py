"""Widgets in the lessons, each with a static form for readers without a kernel."""

from __future__ import annotations

from IPython.display import display
from ipywidgets import Widget


def show(widget: Widget, html: str) -> None:
    """Display a widget where widgets run (JupyterLab), and ``html`` wherever they do not.

    Both stand in one output, so a reader never sees two forms of the same thing, nor an empty place.

    Args:
        html: self-contained HTML that says what the widget shows; model text in it must be escaped.
    """
    view = widget._repr_mimebundle_()  # IPython's protocol for how an object shows itself
    display(view | {"text/html": html, "text/plain": "an interactive view; its static form is HTML"}, raw=True)
