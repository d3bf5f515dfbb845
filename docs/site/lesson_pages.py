"""An executed notebook as a page to read: every figure has a text alternative, widgets show their static form, progress
bars are folded away. Nothing is executed here."""

from __future__ import annotations

import ast
import base64
import copy
import html
import pprint
import re
from typing import Any

from plum_utils.study.page import is_wide

WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = ("text/html", "text/markdown", "image/png", "image/jpeg", "text/latex", "text/plain")  # the first one there is
BAR = re.compile(r"\d+%\||: [\d,]+(/| of )[\d,]+ \w+s, ")  # tqdm's, and progress.Bar's plain lines
OWN_COLOURS = re.compile(r"""style\s*=\s*["'][^"']*(?:background|color)|<(?:style|svg)\b""", re.IGNORECASE)
PYGMENTS_STYLE = re.compile(r"<style>(?:(?!</style>).)*\.linenos(?:(?!</style>).)*</style>", re.DOTALL)
Cell = dict[str, Any]


def page(notebook: dict[str, Any]) -> dict[str, Any]:
    """The page of an executed notebook (as ``nbformat`` reads it; it stays as it is), a notebook with figures inside."""
    shown = copy.deepcopy(notebook)
    shown["metadata"] = {key: shown["metadata"][key] for key in ("kernelspec", "language_info")
                         if key in shown["metadata"]}  # no widgets' state: it would ask for scripts from elsewhere
    for cell in shown["cells"]:
        tags = cell["metadata"].get("tags", [])
        cell["metadata"] = {"tags": tags}
        if cell["cell_type"] != "code":
            continue
        if "injected-parameters" in tags:
            cell["metadata"] = {"tags": [*tags, "hide-input"], "mystnb": {
                "code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}}
            cell["source"] = _unfolded(cell["source"])
        cell["outputs"] = [kept for output in cell["outputs"] if (kept := _output(output))]
    return shown


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def image(alternative: str, file: str, content: bytes, dpi: int) -> str:
    """An image as Markdown; a wide one keeps a width at which its words can be read, and scrolls on a phone."""
    return f"![{escaped(alternative)}]({file}){{{'.figure .wide' if is_wide(content, dpi) else '.figure'}}}"


def _unfolded(source: str) -> str:
    """Parameters as papermill writes them, one long line each, spread over lines that can be read."""
    lines = []
    for node in ast.parse(source).body:
        value = pprint.pformat(ast.literal_eval(node.value), width=100, sort_dicts=False)
        lines.append(f"{node.targets[0].id} = {value}")
    return "\n".join(["# Parameters, as the pipeline passed them", *lines])


def _output(output: Cell) -> Cell | None:
    """One output as the page shows it; ``None``: nothing of it. A figure's text alternative is its caption."""
    if output["output_type"] == "stream":
        return _stream(output)
    if output["output_type"] == "error":
        return output
    data = output["data"]
    kind = next((kind for kind in SHOWN if kind in data), None)
    if kind is None or (WIDGET in data and kind == "text/plain"):
        return None
    if kind.startswith("image/"):
        told = output["metadata"].get("caption", "A figure of this section.")
        encoded = "".join(data[kind].split())
        shown = image(told, f"data:{kind};base64,{encoded}", base64.b64decode(encoded), dpi=100)
        return _display("text/markdown", shown)
    return _display(kind, _framed(data[kind]) if kind == "text/html" else data[kind])


def _display(kind: str, content: str) -> Cell:
    return {"output_type": "display_data", "data": {kind: content}, "metadata": {}}


def _stream(output: Cell) -> Cell | None:
    text = output["text"].strip("\n")
    if output["name"] == "stdout":
        return output | {"text": text + "\n"} if text else None
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    kind = "Progress" if all(BAR.search(line) for line in lines) else "Progress and messages"
    label = f"{kind}, {len(lines)} line{'s' if len(lines) > 1 else ''}"
    body = html.escape(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines)))
    return _display("text/html", f'<details class="progress"><summary>{label}</summary><pre>{body}</pre></details>')


def _framed(content: str) -> str:
    """HTML that brings colours of its own stands on white, so that it can be read in the dark theme too."""
    content = PYGMENTS_STYLE.sub("", content)  # highlighted code takes the site's style, which follows the theme
    content = re.sub(r"<script\b.*?</script>", "", content, flags=re.DOTALL | re.IGNORECASE)
    content = re.sub(r"<style scoped>.*?</style>", "", content, flags=re.DOTALL)  # pandas' own; the site has its
    return f'<div class="{"paper" if OWN_COLOURS.search(content) else "frame"}">{content}</div>'


def title_and_question(notebook: dict[str, Any]) -> tuple[str, str]:
    """A lesson's title and the question that its first cell asks (empty where it asks none)."""
    first = next(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    question = re.search(r"\*\*Question\.\*\*(.*?)(?:\n\s*\n|\Z)", first, re.DOTALL)
    return first.splitlines()[0].lstrip("# "), " ".join(question[1].split()) if question else ""
