"""The page of a run, and the results block of the README: written from tables, never typed."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib.figure import Figure

from plum_utils.evaluation.tables import pass_at_k_table, results_table
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.study.commands import main
from plum_utils.study.page import write_html, write_report
from plum_utils.study.report import END, START, NoResults, results_block, write_results
from plum_utils.study.sweep_page import write_sweep_html

STAGES = ("01_testgen", "05_evalplus_eval")


def scored(seeds=(0, 1)) -> pd.DataFrame:
    """Twelve problems; the baseline solves three of them, every trained policy nine, in 0.8 with half the samples."""
    rows = []
    for policy, seed, solved in [("baseline", None, 3), *((f"kto-seed{seed}", seed, 9) for seed in seeds)]:
        for decoding, temperature, n in (("greedy", 0.0, 1), ("T=0.8", 0.8, 4)):
            for task in range(12):
                rows += [{"suite": "heldout_basics", "policy": policy, "seed": seed, "decoding": decoding,
                          "temperature": temperature, "task_id": f"t/{task}", "sample_index": index,
                          "passed": task < solved and (n == 1 or index % 2 == 0)} for index in range(n)]
    return pd.DataFrame(rows)


def make_run(folder, name="mini", status="done", seeds=(0, 1)) -> Run:
    run = Run(folder)
    run.record_params(Params(name=name).model_dump(mode="json"))
    for number, stage in enumerate(STAGES):
        run.update_stage(stage, {"status": status if stage.startswith("05") else "done", "cause": "cell 7 raised",
                                 "seconds": 90.0 * (number + 1), "peak_memory_mb": 512 * (number + 1),
                                 "finished": f"2026-01-0{number + 1}T00:00:00", "device": f"CPU, {number + 1} cores",
                                 "outputs": {"tables/results.csv": "x", "tables/results.md": "x",
                                             "figures/table2.png": "x", "figures/table2.svg": "x"} if number else {}})
    run.save_table(results_table(scored(seeds), 200), "results")
    run.save_table(pass_at_k_table(scored(seeds), [1, 2, 4], 200), "pass_at_k")
    run.save_figure(Figure(), "table2")
    return run


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path / "run")


def test_the_page_shows_each_output_once_in_the_order_of_the_stages(run):
    text = write_report(run).read_text()
    assert text.index("## 01 testgen") < text.index("## 05 evalplus eval") < text.index("## Wall time")
    assert text.count("![table2](figures/table2.png)") == 1 and "table2.svg" not in text
    assert text.count("Table: Results. ([CSV](tables/results.csv))") == 1 and "heldout_basics" in text
    assert "| 01_testgen | done | 1.5 | 512 |" in text and "Together 4.5 minutes." in text


def test_every_link_of_the_page_leads_to_a_file(run):
    for stage in STAGES:
        (run.path / "notebooks").mkdir(exist_ok=True)
        (run.path / "notebooks" / f"{stage}.ipynb").write_text("{}")
    text = write_report(run).read_text()
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(links) == 4 and all((run.path / link).is_file() for link in links)


def test_the_page_says_which_stage_failed_and_why(tmp_path):
    assert "This stage is not done: cell 7 raised" in write_report(make_run(tmp_path, status="failed")).read_text()


def test_a_page_without_any_stage(tmp_path):
    assert "Together 0.0 minutes." in write_report(Run(tmp_path)).read_text()


def test_the_block_holds_what_the_tables_say(run):
    block = results_block(run)
    greedy, sampled = (line for line in block.splitlines() if line.startswith("| heldout_basics") and "PLUM" not in line
                       and ("greedy" in line or "T=0.8" in line))
    row = run.load_table("results").query("decoding == 'greedy' and seed == 'mean'").iloc[0]
    before = f"25.0 [{row.before_low:.1f}, {row.before_high:.1f}]"
    assert greedy.startswith(f"| heldout_basics | greedy | 12 | {before} | 75.0 [")
    assert "| **+50.0 [" in greedy and greedy.endswith("| +200% | 6, 0 |")
    assert "| 12.5 [" in sampled and "| 37.5 [" in sampled
    assert "2 training seeds, averaged problem by problem" in block
    assert "by notebook: 01 1.5, 05 3.0; together 4. Peak memory 1.0 GiB. Device: CPU, 2 cores." in block
    assert "not evidence" not in block


def test_the_block_shows_pass_at_the_largest_k(run):
    line, = (line for line in results_block(run).splitlines() if line.startswith("| heldout_basics | 0.8 |"))
    assert line.startswith("| heldout_basics | 0.8 | 4 | 25.0 [") and "| 75.0 [" in line


def test_an_unclear_difference_is_not_bold_and_no_baseline_has_no_gain(tmp_path):
    run = make_run(tmp_path, seeds=(0,))
    results = run.load_table("results").assign(difference_low=-1.0, relative_percent=float("nan"))
    run.save_table(results, "results")
    lines = [line for line in results_block(run).splitlines() if line.startswith("| heldout_basics | greedy")]
    assert "**" not in lines[0] and "|  | 6, 0 |" in lines[0]
    assert "1 training seed. Bold" in results_block(run)


def test_a_smoke_run_is_stamped(tmp_path):
    assert results_block(make_run(tmp_path, name="smoke")).startswith("**A smoke run: not evidence.**")


def test_only_the_text_between_the_markers_changes(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{START}\nstale\n{END}\n\nEnd.\n")
    write_results(run, readme)
    once = readme.read_text()
    assert once.startswith(f"# Title\n\n{START}\n") and once.endswith(f"{END}\n\nEnd.\n") and "stale" not in once
    write_results(run, readme)
    assert readme.read_text() == once


@pytest.mark.parametrize("text", ["nothing", START, f"{END}{START}", f"{START}{END}{START}{END}"])
def test_a_file_without_one_pair_of_markers_is_left_alone(run, tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(NoResults, match="expected one"):
        write_results(run, readme)
    assert readme.read_text() == text


def test_the_command_writes_the_block_or_says_why_not(run, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"{START}\n{END}\n")
    assert main(["report", str(run.path), "--readme", str(readme)]) == 0
    assert "heldout_basics" in readme.read_text()
    unfinished = make_run(tmp_path / "other", status="failed")
    assert main(["report", str(unfinished.path), "--readme", str(readme)]) == 2
    assert "notebook 05 is not done" in capsys.readouterr().err


VOID = {"meta", "img"}
HOSTILE = '<script>alert("x")</script>&amp; \'"><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """What a browser would make of a page: its elements in order, with attributes, and the text of each."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(path) -> Page:
    """A page, which must be whole, in one file, without a script, and with a text for each picture."""
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(image["src"].startswith("data:image/") and len(image["alt"]) > 8 for image in page.all("img"))
    assert not any(re.match(r"[a-z]+:|//", link["href"]) for link in page.all("a"))
    anchors = {attributes.get("id") for _, attributes in page.elements}
    assert {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")} <= anchors
    return page


def notebook(run: Run, stage: str, captions: dict[str, str]) -> None:
    """An executed notebook, of which each cell shows what it saved."""
    cells = [{"cell_type": "code", "source": "", "outputs": [{"metadata": {"saved": saved, "caption": caption}}]}
             for saved, caption in captions.items()]
    (run.path / "notebooks").mkdir(exist_ok=True)
    (run.path / "notebooks" / f"{stage}.ipynb").write_text(json.dumps({"cells": cells}))


def test_the_html_page_holds_results_figures_and_tables(run):
    page = page_of(write_html(run))
    image, = page.all("img")
    assert base64.b64decode(image["src"].split(",")[1]) == (run.path / "figures" / "table2.png").read_bytes()
    assert image["alt"] == "Figure: Table 2."
    headings = [text for text in page.texts if text in ("Results", "01 testgen", "05 evalplus eval", "Parameters")]
    assert headings == ["Results", "01 testgen", "05 evalplus eval", "Parameters"] * 2  # as contents and as headings
    row = run.load_table("results").query("decoding == 'greedy' and seed == 'mean'").iloc[0]
    assert f"25.0 [{row.before_low:.1f}, {row.before_high:.1f}]" in page.texts and "+200%" in page.texts
    assert len(page.all("thead")) == len(page.all("table")) >= 4


def test_the_html_page_takes_captions_from_the_executed_notebooks(run):
    notebook(run, "05_evalplus_eval", {
        "tables/results": "Table: a finding in <b>text</b>. Parameters: mini. Smoke run: not evidence.",
        "figures/table2": "Figure: two bars."})
    page = page_of(write_html(run))
    assert page.texts.count("Table: a finding in <b>text</b>. Parameters: mini. Smoke run: not evidence.") == 1
    assert "Figure: two bars." in page.texts and page.all("img")[0]["alt"] == "Figure: two bars."
    assert {"href": "notebooks/05_evalplus_eval.ipynb"} in page.all("a")


def test_the_html_page_shows_only_parameters_that_differ(run):
    run.record_params(Params(name="mini", seed=7, sampling={"k": 10}).model_dump(mode="json") | {"gone": {"key": 1}})
    page = page_of(write_html(run))
    at = page.texts.index("sampling.k")
    assert [text for text in page.texts[at:] if text][:3] == ["sampling.k", "10", "20"]
    assert "seed" in page.texts and "gone.key" in page.texts and "(no such parameter now)" in page.texts
    assert "sampling.top_p" not in page.texts


def test_the_html_page_tells_versions_times_and_what_to_beware_of(tmp_path):
    run = make_run(tmp_path / "run", name="smoke", status="failed")
    for stage, commit, numpy in zip(STAGES, ("abc", "def+changes"), ("2.1", "2.2")):
        run.update_stage(stage, run.manifest()["stages"][stage] | {"commit": commit, "versions": {"numpy": numpy}})
    page = page_of(write_html(run))
    for text in ("A smoke run: not evidence.", "05_evalplus_eval is not done: cell 7 raised", "2.1, 2.2",
                 "The stages ran at 2 different states of the code (see the last table).", "Together 4.5 minutes.",
                 "Some of the code was not committed when it ran.", "def+changes",
                 "Notebook 05 is not done, so there are no results yet."):
        assert text in page.texts


def test_the_html_page_says_which_row_a_run_stands_for(run):
    rows = [{"table": "5", "model": "SmolLM2", "row": "PLUM-KTO"}]
    run.record_params(Params(name="mini", rows=rows).model_dump(mode="json"))
    assert "Stands for a row of Table 5: SmolLM2, PLUM-KTO." in page_of(write_html(run)).texts


def test_an_html_page_without_any_stage(tmp_path):
    assert "No parameters are recorded." in page_of(write_html(Run(tmp_path))).texts


def test_the_same_run_gives_the_same_page(run):
    assert write_html(run).read_bytes() == write_html(run).read_bytes()


def test_a_long_table_is_cut_and_says_where_the_rest_is(run):
    run.save_table(pd.DataFrame({"number": range(60), "share": [0.5] * 60}), "results_by_task")
    entry = run.manifest()["stages"]["01_testgen"]
    run.update_stage("01_testgen", entry | {"outputs": {"tables/results_by_task.csv": "x"}})
    page = page_of(write_html(run))
    assert "Table: Results by task. The first 50 of 60 rows; all are in tables/results_by_task.csv." in page.texts
    assert page.texts.count("0.5") == 50


def test_what_comes_from_a_run_is_text(run):
    run.record_params(Params(name="mini", policy={"model": HOSTILE}).model_dump(mode="json") | {HOSTILE: HOSTILE})
    run.save_table(pd.DataFrame({HOSTILE: [HOSTILE, 1]}), "odd")
    run.save_figure(Figure(), "odd")
    run.update_stage("02_sampling", {"status": "failed", "cause": f"\udc80 {HOSTILE}", "device": HOSTILE,
                                     "versions": {HOSTILE: HOSTILE},
                                     "outputs": {"tables/odd.csv": "x", "figures/odd.png": "x"}})
    notebook(run, "02_sampling", {"figures/odd": HOSTILE})
    page = page_of(write_html(run))
    assert page.texts.count(HOSTILE) >= 6 and len(page.all("img")) == 2
    policy, = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_a_sweep_is_one_page_with_links_to_its_runs(run, tmp_path):
    other = make_run(tmp_path / "other & more")
    other.record_params(Params(name="other", seed=3).model_dump(mode="json"))
    table = pd.DataFrame({"group": [HOSTILE] * 300, "value": [12.5] * 300})
    shown = {"methods": table, "comparisons": table.head(1)}, {"methods": Figure()}
    path = write_sweep_html(Run(tmp_path / "sweeps" / "t5"), HOSTILE, shown, [HOSTILE], [run, other])
    page = page_of(path)
    assert path == tmp_path / "sweeps" / "t5" / "report.html" and page.texts.count(HOSTILE) == 3 + 301
    assert [image["src"][:22] for image in page.all("img")] == ["data:image/png;base64,"]
    headings = [text for text in page.texts if text in ("Notes", "Methods", "Comparisons", "Runs")]
    assert headings == ["Notes", "Methods", "Comparisons", "Runs"] * 2
    links = [link["href"] for link in page.all("a") if not link["href"].startswith("#")]
    assert links == ["../../run/report.html", "../../other%20%26%20more/report.html"]
    assert "seed" in page.texts and "sampling.k" not in page.texts


def test_a_sweep_without_anything(tmp_path):
    page = page_of(write_sweep_html(Run(tmp_path), "Nothing", ({}, {}), [], []))
    assert "Nothing" in page.texts and not page.all("table")
