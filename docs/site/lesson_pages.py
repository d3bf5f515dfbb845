"""An executed notebook as a page to read: every figure has a text alternative, widgets show their static form, progress
bars are folded away. Nothing is executed here."""

from __future__ import annotations

import ast
import base64
import copy
import html
import pprint
import re
from functools import lru_cache
from typing import Any, Iterator

from plum_utils.provenance import PACKAGE
from plum_utils.study.page import DRAWN, SAVED, caption_of, saved_pattern

WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = ("text/html", "text/markdown", "image/png", "image/jpeg", "text/latex", "text/plain")  # the first one there is
BAR = re.compile(r"\d+%\||: [\d,]+(/| of )[\d,]+ \w+s, ")  # tqdm's, and progress.Bar's plain lines
OWN_COLOURS = re.compile(r"""style\s*=\s*["'][^"']*(?:background|color)|<(?:style|svg)\b""", re.IGNORECASE)
PYGMENTS_STYLE = re.compile(r"<style>(?:(?!</style>).)*\.linenos(?:(?!</style>).)*</style>", re.DOTALL)
Cell = dict[str, Any]


def page(notebook: dict[str, Any], captions: dict[str, str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A notebook's page, and its figures by file name.

    Args:
        notebook: an executed notebook, as its JSON reads; it stays as it is.
        captions: by pattern of a saved figure (``figures/table1``), as ``page.captions_of`` reads them.
    """
    shown, images = copy.deepcopy(notebook), {}
    shown["metadata"] = {key: shown["metadata"][key] for key in ("kernelspec", "language_info")
                         if key in shown["metadata"]}  # no widgets' state: it would ask for scripts from elsewhere
    for place, cell in enumerate(shown["cells"]):
        tags = cell["metadata"].get("tags", [])
        cell["metadata"] = {"tags": tags}
        if cell["cell_type"] != "code":
            continue
        if "injected-parameters" in tags:
            cell["metadata"] = {"tags": [*tags, "hide-input"], "mystnb": {
                "code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}}
            cell["source"] = _unfolded(text_of(cell["source"]))
        alts = alternatives(shown["cells"], place, captions)
        cell["outputs"] = [kept for output in _merged(cell["outputs"])
                           if (kept := _output(output, f"{place}", alts, images))]
    return shown, images


def text_of(source: str | list[str]) -> str:
    """A notebook keeps a text whole or as a list of its lines."""
    return source if isinstance(source, str) else "".join(source)


def alternatives(cells: list[Cell], place: int, captions: dict[str, str]) -> Iterator[str]:
    """Text alternatives of one cell's figures, in order: what is drawn, and what its caption finds in it."""
    cell = cells[place]
    count = sum(_is_image(output) for output in cell.get("outputs", []))
    name = next((name for kind, name in SAVED.findall(text_of(cell["source"])) if kind == "figure"), "")
    found = name and (captions.get(saved_pattern("figure", name)) or caption_of(captions, f"figures/{name}"))
    found = found or _caption(cells, place)
    words = " ".join(filter(None, (_drawn(cells, place, name), re.sub(r" Parameters: \w+\.$", "", found))))
    for number in range(1, count + 1):
        yield words if count == 1 else f"{number} of {count} figures. {words}"


def _is_image(output: Cell) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def _caption(cells: list[Cell], place: int) -> str:
    """What ``caption`` says of a figure in this cell or a later one, before the next heading and the next figure."""
    for later, cell in enumerate(cells[place:]):
        source, outputs = text_of(cell["source"]), cell.get("outputs", [])
        if later and (source.lstrip().startswith("#") and cell["cell_type"] == "markdown"
                      or any(_is_image(output) for output in outputs)):
            return ""
        texts = [plain(text_of(output["data"]["text/markdown"])) for output in outputs
                 if "caption(" in source and "text/markdown" in output.get("data", {})]
        if texts and not texts[0].startswith("Table"):
            return " ".join(texts)
    return ""


def _drawn(cells: list[Cell], place: int, name: str) -> str:
    """What kind of figure it is: the report's words for it, the drawing function's, or at least the section's title."""
    if name in DRAWN:
        return DRAWN[name]
    for function in re.findall(r"\b(fig_\w+)\(", text_of(cells[place]["source"])):
        if function in drawing_functions():
            return drawing_functions()[function]
    headings = [line.lstrip("# ") for cell in cells[:place] if cell["cell_type"] == "markdown"
                for line in text_of(cell["source"]).splitlines() if re.match(r"#+ ", line)]
    return f"Figure of the section “{plain(headings[-1])}”." if headings else "Figure."


@lru_cache(maxsize=None)
def drawing_functions() -> dict[str, str]:
    """Name of each ``fig_`` function of the package -> the first line of its docstring."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("fig_"):
                found[node.name] = (ast.get_docstring(node) or "Figure.").splitlines()[0].replace("`", "")
    return found


def plain(markdown: str) -> str:
    """Markdown's text without its marks, on one line."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(re.sub(r"\*\*|`|(?<!\w)[*_]|[*_](?!\w)", "", text).split())


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def image(alternative: str, file: str, content: bytes, dpi: int) -> str:
    """An image as Markdown; a wide one keeps a width at which its words can be read, and scrolls on a phone."""
    inches = int.from_bytes(content[16:20], "big") / dpi if content[1:4] == b"PNG" else 0  # the header's first number
    return f"![{escaped(alternative)}]({file}){{{'.figure .wide' if inches > 9 else '.figure'}}}"


def _unfolded(source: str) -> str:
    """Parameters as papermill writes them, one long line each, spread over lines that can be read."""
    lines = []
    for node in ast.parse(source).body:
        value = pprint.pformat(ast.literal_eval(node.value), width=100, sort_dicts=False)
        lines.append(f"{node.targets[0].id} = {value}")
    return "\n".join(["# Parameters, as the pipeline passed them", *lines])


def _merged(outputs: list[Cell]) -> list[Cell]:
    """Outputs with all of stderr in one of them, where the first of it stood, and likewise neighbours on stdout."""
    merged: list[Cell] = []
    for output in outputs:
        like = [one for one in (merged if output.get("name") == "stderr" else merged[-1:])
                if output["output_type"] == "stream" and one.get("name") == output["name"]]
        if like:
            like[0]["text"] = text_of(like[0]["text"]) + text_of(output["text"])
        else:
            merged.append(output)
    return merged


def overwritten(text: str) -> str:
    """What a terminal shows in the end: after a carriage return a line starts anew."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))


def _output(output: Cell, name: str, alts: Iterator[str], images: dict[str, bytes]) -> Cell | None:
    """One output as the page shows it; ``None``: nothing of it."""
    if output["output_type"] == "stream":
        return _stream(output)
    if output["output_type"] == "error":
        return output
    data = output["data"]
    kind = next((kind for kind in SHOWN if kind in data), None)
    if kind is None or (WIDGET in data and kind == "text/plain"):
        return None
    if kind.startswith("image/"):
        file = f"{name}-{len(images)}.{kind.removeprefix('image/')}"
        images[file] = base64.b64decode(text_of(data[kind]))
        return _display("text/markdown", image(next(alts), f"IMAGES/{file}", images[file], dpi=100))
    content = text_of(data[kind])
    return _display(kind, _framed(content) if kind == "text/html" else content)


def _display(kind: str, content: str) -> Cell:
    return {"output_type": "display_data", "data": {kind: content}, "metadata": {}}


def _stream(output: Cell) -> Cell | None:
    text = overwritten(text_of(output["text"])).strip("\n")
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
    first = next(text_of(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    question = re.search(r"\*\*Question\.\*\*(.*?)(?:\n\s*\n|\Z)", first, re.DOTALL)
    return first.splitlines()[0].lstrip("# "), " ".join(question[1].split()) if question else ""
