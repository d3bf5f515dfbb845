"""Sphinx's configuration of the site that ``python -m docs.site.build`` builds."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

project = html_title = "PLUM in six lessons"
language = "en"
extensions = ["myst_nb", "sphinx.ext.mathjax"]
exclude_patterns = ["copies"]
suppress_warnings = ["misc.highlighting_failure"]  # code that a lexer does not understand is shown as it is

nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_merge_streams = True
myst_enable_extensions = ["attrs_inline", "dollarmath", "amsmath"]
myst_dmath_allow_digits = False  # "$1 or $2" is money
myst_heading_anchors = 4

html_theme = "furo"
templates_path = ["templates"]
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["plum.css"]
html_copy_source = html_show_sourcelink = html_use_index = html_show_sphinx = html_show_copyright = False
mathjax_path = "tex-svg.js"  # one file, fonts included: no page asks for more


def copy_mathjax(app: Any, error: Exception | None) -> None:
    """Put the one file of MathJax beside the site's own scripts."""
    if error is None:
        spec = importlib.util.find_spec("sphinx-mathjax-offline")
        assert spec and spec.submodule_search_locations, "the package sphinx-mathjax-offline is missing"
        source = Path(spec.submodule_search_locations[0]) / "static" / "mathjax" / mathjax_path
        shutil.copyfile(source, Path(app.outdir) / "_static" / mathjax_path)


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("build-finished", copy_mathjax)
