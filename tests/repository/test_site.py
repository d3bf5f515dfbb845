"""The static site: notebooks made readable, links that lead somewhere, and the reference run's site as HTML."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest

from docs.site import build
from docs.site.build import SiteError, Source
from docs.site.lesson_pages import WIDGET, escaped, page, title_and_question
from plum_utils.provenance import ROOT

REFERENCE = ROOT / "outputs" / "reference"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (700).to_bytes(4, "big") + (300).to_bytes(4, "big")).decode()


def markdown(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, *outputs: dict, tags: tuple[str, ...] = ()) -> dict:
    return {"cell_type": "code", "metadata": {"tags": list(tags), "papermill": {"duration": 1}}, "source": source,
            "execution_count": 1, "outputs": list(outputs)}


def display(**data: str) -> dict:
    kinds = {"html": "text/html", "text": "text/plain", "png": "image/png", "md": "text/markdown", "widget": WIDGET}
    return {"output_type": "display_data", "metadata": {}, "data": {kinds[name]: value for name, value in data.items()}}


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def notebook(*cells: dict) -> dict:
    return {"cells": list(cells), "nbformat": 4, "nbformat_minor": 4,
            "metadata": {"widgets": {"state": {}}, "papermill": {}, "language_info": {"name": "python"}}}


def outputs_of(*cells: dict) -> list[dict]:
    return page(notebook(*cells))["cells"][-1]["outputs"]


def test_a_figure_is_told_by_its_caption():
    told = display(png=PNG, text="<Figure>") | {"metadata": {"caption": "Figure: 18.7% of 10 [x_y] pass."}}
    told, = outputs_of(code("save_and_show(figure)", told))
    alternative = escaped("Figure: 18.7% of 10 [x_y] pass.")
    assert told == display(md=f"![{alternative}](data:image/png;base64,{PNG}){{.figure}}")


def test_a_figure_without_a_caption_has_a_text_too():
    outputs = outputs_of(code("plot()", *[display(png=PNG)] * 2))
    assert ["A figure of this section" in output["data"]["text/markdown"] for output in outputs] == [True, True]


def test_a_wide_figure_is_marked():
    wide = base64.b64encode(base64.b64decode(PNG).replace((700).to_bytes(4, "big"), (1280).to_bytes(4, "big"))).decode()
    assert "{.figure .wide}" in outputs_of(code("x", display(png=wide)))[0]["data"]["text/markdown"]


def test_a_widget_shows_its_static_form_or_nothing():
    both, alone = display(widget="{}", html="<p>static</p>", text="x"), display(widget="{}", text="IntSlider()")
    shown = page(notebook(code("show()", both), code("slider", alone)))
    assert [list(output["data"]) for output in shown["cells"][0]["outputs"]] == [["text/html"]]
    assert shown["cells"][1]["outputs"] == [] and "widgets" not in shown["metadata"]


def test_progress_bars_are_folded():
    progress, = outputs_of(code("x", stream("sampling: 100%|████| 8/8 [08:50<00:00, 66.33s/shard]\n", "stderr")))
    assert "<summary>Progress, 1 line</summary>" in progress["data"]["text/html"]
    assert "8/8" in progress["data"]["text/html"]


def test_messages_on_stderr_are_kept_and_escaped():
    colour = stream("a <b>\x1b[31m!\x1b[0m\nb\n", "stderr")
    first, last = outputs_of(code("x", colour, stream("out")))
    assert "<pre>a &lt;b&gt;!\nb</pre>" in first["data"]["text/html"] and "Progress and messages, 2 lines" in str(first)
    assert last["text"] == "out\n"


def test_html_with_colours_of_its_own_stands_on_white():
    texts = ["<style scoped>.dataframe{}</style><table class='dataframe'></table>", "<p style='color:red'>x</p>",
             "<style>td.linenos{}</style><div class='highlight'></div>", "<script>alert(1)</script>y"]
    shown = [output["data"]["text/html"] for output in outputs_of(code("x", *(display(html=text) for text in texts)))]
    assert shown == ['<div class="frame"><table class=\'dataframe\'></table></div>',
                     '<div class="paper"><p style=\'color:red\'>x</p></div>',
                     '<div class="frame"><div class=\'highlight\'></div></div>', '<div class="frame">y</div>']


def test_injected_parameters_are_folded_and_can_be_read():
    data = ", ".join(f'"key{n}": {n}' for n in range(60))
    source = '# Parameters\nparams = {"name": "mini", "data": {' + data + "}}\nrun_dir = 'x'"
    cell = page(notebook(code(source, tags=("injected-parameters",))))["cells"][0]
    assert "hide-input" in cell["metadata"]["tags"] and max(map(len, cell["source"].splitlines())) <= 110
    values: dict = {}
    exec(cell["source"], values)  # our own text
    assert values["params"]["data"]["key59"] == 59 and values["run_dir"] == "x"


def test_the_notebook_itself_stays_as_it_is():
    cells = notebook(code("x", display(png=PNG), stream("a\rb", "stderr")))
    before = json.dumps(cells)
    page(cells)
    assert json.dumps(cells) == before


def test_title_and_question():
    cells = notebook(markdown("# 01 Tests\n\n**Question.** Why\nnot?\n\n**Paper.** x"))
    assert title_and_question(cells) == ("01 Tests", "Why not?")
    assert title_and_question(notebook(markdown("# 02 More"))) == ("02 More", "")


# --- links ------------------------------------------------------------------------------------------------------------

@pytest.fixture()
def tiny_run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    cells = [markdown("# 01 Tests\n\n**Question.** Why?\n\nSee [the notes](../docs/sandbox.md#speed)."),
             markdown("## 1 The figure"), code("save_and_show(figure)", display(png=PNG)
                  | {"metadata": {"saved": "figures/verdicts", "caption": "Finding. Parameters: t."}})]
    for name in ("notebooks", "tables", "figures"):
        (run / name).mkdir(parents=True)
    (run / "notebooks" / "01_testgen.ipynb").write_text(json.dumps(notebook(*cells)))
    (run / "manifest.json").write_text(json.dumps({"params": {"name": "t"}, "stages": {}}))
    (run / "tables" / "pass_at_k.csv").write_text("suite,value\na|b,0.5\n" + "c,1\n" * 60)
    (run / "tables" / "pass_at_k.md").write_text("x")
    (run / "figures" / "verdicts.png").write_bytes(base64.b64decode(PNG))
    return run


@pytest.fixture()
def source(tiny_run: Path, tmp_path: Path) -> Source:
    return Source(tiny_run, tmp_path / "source")


@pytest.mark.parametrize(("target", "address"), [
    ("docs/sandbox.md#speed", "notes/sandbox.md#speed"), ("notebooks/01_testgen.ipynb", "lessons/01_testgen.ipynb"),
    ("README.md", "repository.md"), ("params/mini.yaml", "files/params/mini_yaml.md"), ("LICENSE", "files/LICENSE.md"),
    ("docs/figures/training_speed.png", "copies/docs/figures/training_speed.png"), ("params/", "repository.md"),
    ("benchmarks/results/tables.md", None), ("nowhere.md", None)])
def test_where_links_lead(source, target, address):
    if address is None:
        if not (ROOT / target).exists():
            with pytest.raises(SiteError, match="index: the link to .* leads nowhere"):
                source.address(target, [ROOT], "index")
        return
    assert source.address(target, [ROOT], "index") == address
    if address.startswith("copies/"):
        assert (source.folder / address).exists()


def test_links_to_a_runs_tables_lead_to_their_headings(source, tiny_run):
    assert source.address("tables/pass_at_k.md", [tiny_run], "notes/x") == "../run/index.md#pass-at-k"
    assert source.address("tables/pass_at_k.csv", [tiny_run], "index") == "path:copies/tables/pass_at_k.csv"
    assert source.address("figures", [tiny_run], "index") == "run/index.md"


def test_code_is_no_link(source):
    text = 'A [`b`](README.md "t") `c[d](e)`.\n\n```python\nx[0](nowhere)\n```\n[web](https://a.b) [here](#x)'
    assert source.linked(text, [ROOT], "notes/x") == text.replace("README.md", "../repository.md")


def test_a_shown_file_is_a_page_of_its_own(source):
    source.address("params/mini.yaml", [ROOT], "index")
    text = source.writers["files/params/mini_yaml"]()
    assert text.startswith("---\norphan: true\n---\n# ") and (ROOT / "params" / "mini.yaml").read_text() in text


def test_long_tables_are_cut_and_say_so(source, tiny_run):
    text = source.writers["run/index"]()
    assert f"| {escaped('a|b')} | {escaped('0.5')} |" in text
    assert text.count("\n| c ") == 49 and "The first 50 of 61 rows." in text
    assert "### Pass at k\n" in text


def test_tables_that_have_a_figure_come_first(source, tiny_run):
    for name in ("verdicts", "audit"):
        (tiny_run / "tables" / f"{name}.csv").write_text("a\n1\n")
    headings = re.findall(r"^### (\w.*)$", source.writers["run/index"]().split("## Tables")[1], re.MULTILINE)
    assert headings == ["Verdicts", "Audit", "Pass at k"]


def test_a_folder_without_a_run_and_a_foreign_folder_are_refused(tiny_run, tmp_path, capsys):
    assert build.main([str(tmp_path / "nothing")]) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert build.main([str(tiny_run), "--to", str(tmp_path / "mine")]) == 1
    assert "no run's folder" in (said := capsys.readouterr().err) and "not a site of this command" in said
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_warning_stops_the_build_and_names_the_page(tiny_run, tmp_path, monkeypatch):
    pytest.importorskip("myst_nb", reason="the packages of `make docs` are not installed")
    path = tiny_run / "notebooks" / "01_testgen.ipynb"
    path.write_text(path.read_text().replace("#speed", "#no-such-heading"))
    with pytest.raises(SiteError, match=r"^lessons/01_testgen.ipynb:\d+: WARNING: .*no-such-heading"):
        build.build(tiny_run, tmp_path / "built")
    assert not (tmp_path / "built").exists()


# --- the reference run's site -----------------------------------------------------------------------------------------

class Page(HTMLParser):
    """What a page links to, loads and is named by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]

    def ids(self) -> set[str | None]:
        return {attributes.get("id") for _, attributes in self.tags}


@pytest.fixture(scope="session")
def reference(reference_site) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in sorted(reference_site.rglob("*.html"))}


@pytest.mark.long("seconds")
def test_every_lesson_and_note_is_a_page(reference):
    names = {path.stem for path in reference}
    assert {path.stem for path in [*(REFERENCE / "notebooks").glob("*.ipynb"), *(ROOT / "docs").glob("*.md")]} < names


@pytest.mark.long("seconds")
def test_links_and_anchors_resolve(reference):
    broken = []
    for path, shown in reference.items():
        for attributes in shown.all("a", "link", "img", "script"):
            address = attributes.get("href") or attributes.get("src") or ""
            if not address or re.match(r"[a-z]+:", address):
                continue
            file, anchor = urldefrag(unquote(address.split("?")[0] if "#" not in address else address))
            target = (path.parent / file.split("?")[0]).resolve() if file else path
            if not target.exists() or (anchor and target in reference and anchor not in reference[target].ids()):
                broken.append(f"{path.name}: {address}")
    assert broken == []


@pytest.mark.long("seconds")
def test_every_image_has_a_text_alternative(reference):
    images = [(path.name, one) for path, shown in reference.items() for one in shown.all("img")]
    assert len(images) > 20
    assert [image for image in images if len(image[1].get("alt") or "") < 15] == []


@pytest.mark.long("seconds")
def test_no_page_asks_another_host_for_anything(reference):
    loaded = [one.get("src") or one.get("href") for shown in reference.values()
              for one in shown.all("script", "img", "link", "iframe", "source", "video")]
    assert [address for address in loaded if address and re.match(r"(?:https?:)?//", address)] == []
    folder = next(path.parent for path in reference if path.parent.joinpath(".plum-site").exists())
    styles = {path.name: path.read_text() for path in folder.rglob("*.css")}
    foreign = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//")
    assert len(styles) > 2 and [name for name, style in styles.items() if foreign.search(style)] == []


@pytest.mark.long("seconds")
def test_pages_have_one_title_and_a_language(reference):
    assert [path.name for path, shown in reference.items() if len(shown.all("h1")) != 1] == []
    assert {shown.all("html")[0].get("lang") for shown in reference.values()} == {"en"}
    assert all(any(one.get("name") == "viewport" for one in shown.all("meta")) for shown in reference.values())


def test_figures_of_the_reference_run_are_told_by_their_captions():
    path = REFERENCE / "notebooks" / "03_preferences.ipynb"
    if not path.exists():
        pytest.skip("outputs/reference is not there")
    shown = page(nbformat.read(path, as_version=4))
    texts = re.findall(r"!\[(.*?)\]\(data:image", json.dumps(shown))
    images = [output for cell in shown["cells"] for output in cell.get("outputs", []) if "image/png" in str(output)]
    assert len(texts) == len(images) > 0 and min(map(len, texts)) > 40
