"""A run's report, on an HTML page and as Markdown, and what such pages are made of.

What a page shows is listed once, section by section, and written by a template. An HTML page is one file: no script, no
link to anywhere but the runs' own folders, figures inside. Whatever comes from a run (names, captions, parameters,
cells) is text: it is escaped, and the page's own policy forbids scripts.
"""

from __future__ import annotations

import base64
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from plum_utils.evaluation.tables import headline
from plum_utils.jsonl import write_text
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.stages import EVALUATION
from plum_utils.study.report import cost, markdown_table, results_frame, sharpness_frame

DPI = 150  # of figures, as ``Run.save_figure`` writes them
ROWS_SHOWN = 50  # of a run's table on an HTML page; all of them are in its CSV file
Item = dict[str, Any]  # what the templates show: a text, a link, a list, a table or a figure; empty: nothing
Section = tuple[str, list[Item]]


def write_html(run: Run) -> Path:
    """Write ``report.html`` into the run's folder; returns its path."""
    return write_page(run.path / "report.html", f"Report of {run.path.name}", _sections(run))


def write_report(run: Run) -> Path:
    """Write ``report.md`` into the run's folder, with links relative to it; returns its path."""
    return write_page(run.path / "report.md", f"Report of {run.path.name}", _sections(run))


def write_page(path: Path, title: str, sections: list[Section]) -> Path:
    """Write sections that have something to show, as the file's suffix says; returns its path."""
    shown = [{"id": f"s{number}", "title": name, "items": kept} for number, (name, items) in enumerate(sections)
             if (kept := [item for item in items if item])]
    environment = jinja2.Environment(autoescape=path.suffix == ".html", trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    environment.globals |= {"markdown_table": markdown_table, "rows_shown": ROWS_SHOWN}
    template = environment.from_string((files("plum_utils") / "data" / f"report{path.suffix}.j2").read_text())
    text = template.render(title=title, sections=shown)
    write_text(path, text.encode("utf-8", "replace").decode())  # models write lone surrogates
    return path


def title_of(name: str) -> str:
    """A file's name as a heading: ``table2`` is Table 2, ``label_flow`` Label flow."""
    words = re.sub(r"^(table|figure)(?=\d)", r"\1 ", name).replace("_", " ")
    return words[:1].upper() + words[1:]


def text_item(text: str) -> Item:
    return {"kind": "text", "text": text}


def list_item(lines: list[str]) -> Item:
    return {"kind": "list", "lines": lines} if lines else {}


def figure_item(path: Path, caption: str = "") -> Item:
    """A PNG file with its caption, within an HTML page and beside a Markdown one."""
    content = path.read_bytes()
    return {"kind": "figure", "file": f"{path.parent.name}/{path.name}", "name": path.stem.replace("_", " "),
            "data": f"data:image/png;base64,{base64.b64encode(content).decode()}",
            "caption": caption or f"Figure: {title_of(path.stem)}.", "wide": is_wide(content, DPI)}


def is_wide(image: bytes, dpi: int) -> bool:
    """Whether a PNG is wider than 9 inches, so that on a narrow screen it must scroll for its words to be read."""
    return image[1:4] == b"PNG" and int.from_bytes(image[16:20], "big") > 9 * dpi  # the header's first number


def table_item(frame: pd.DataFrame, caption: str, source: str = "", links: dict[str, str] | None = None) -> Item:
    """A table's cells as text.

    Args:
        source: the file that holds all rows; with it an HTML page shows the first ``ROWS_SHOWN``.
        links: text in the first column -> address.
    """
    return {"kind": "table", "cells": as_text(frame), "right": numeric_columns(frame), "caption": caption,
            "source": source, "links": links or {}}


def numeric_columns(frame: pd.DataFrame) -> list[bool]:
    """Which columns are numbers, to be set right."""
    return [dtype.kind in "iuf" for dtype in frame.dtypes]


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with each cell as it is shown; a column's numbers with the same decimals."""
    digits = [_digits(frame.iloc[:, place]) for place in range(frame.shape[1])]
    rows = [[_cell(value, places) for value, places in zip(row, digits)]
            for row in frame.itertuples(index=False, name=None)]
    return pd.DataFrame(rows, columns=[str(name) for name in frame.columns])


def _digits(column: pd.Series) -> int:
    """Decimals that a column's numbers are shown with: the fewer the larger they are, and no more than they need."""
    numbers = pd.to_numeric(column, errors="coerce").dropna().astype(float)
    most = 1 if numbers.abs().max() >= 1000 else 2 if numbers.abs().max() >= 10 else 4
    return next(digits for digits in range(most + 1) if (numbers.round(digits) == numbers.round(most)).all())


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:,.{digits}f}"
    return "" if value is None or value is pd.NA else str(value)


def _sections(run: Run) -> list[Section]:
    """First the results (where notebook 05 is done), then every table and figure by stage with its caption, then
    parameters that differ from the defaults, versions, time and memory."""
    manifest = run.manifest()
    stages = dict(sorted(manifest["stages"].items()))
    return [("Results", _results(run, stages)), ("Notes", [list_item(_notes(manifest.get("params", {}), stages))]),
            *((name.replace("_", " "), _stage(run, name, entry)) for name, entry in stages.items()),
            ("Parameters", _parameters(manifest.get("params"))), ("Versions", _versions(stages)),
            ("Wall time and memory", _times(stages))]


def _results(run: Run, stages: dict[str, Any]) -> list[Item]:
    done = stages.get(EVALUATION, {}).get("status") == "done"
    if not done or not (run.path / "tables" / "results.csv").exists():
        return [text_item("Notebook 05 is not done, so there are no results yet.")]
    shown = results_frame(headline(run.load_table("results")))
    shown["clear"] = shown["clear"].map({True: "yes", False: "no"})
    sharper = sharpness_frame(run.load_table("pass_at_k"))
    return [table_item(shown, "pass@1 in percent, with 95% bootstrap intervals over problems. Clear: the interval of "
                              "the difference excludes zero."),
            table_item(sharper, "pass@k at the largest k that was sampled.") if len(sharper) else {},
            text_item(cost(stages))]


def _notes(params: dict[str, Any], stages: dict[str, Any]) -> list[str]:
    """What a reader must know: a smoke run, stages that are not done, code that changed on the way."""
    notes = ["A smoke run: not evidence."] if str(params.get("name", "")).startswith("smoke") else []
    notes += [f"{name} is not done: {entry.get('cause') or entry['status']}" for name, entry in stages.items()
              if entry["status"] != "done"]
    commits = {str(entry["commit"]) for entry in stages.values() if entry.get("commit")}
    if len(commits) > 1:
        notes.append(f"The stages ran at {len(commits)} different states of the code (see the last table).")
    if any(commit.endswith("+changes") for commit in commits):
        notes.append("Some of the code was not committed when it ran.")
    for row in params.get("rows", []):
        named = ", ".join(str(row[key]) for key in ("data", "model", "row") if row.get(key))
        notes.append(f"Stands for a row of {'Table ' if str(row['table']).isdigit() else ''}{row['table']}: {named}.")
    return notes


def _stage(run: Run, name: str, entry: dict[str, Any]) -> list[Item]:
    notebook = f"notebooks/{name}.ipynb"
    items = [{"kind": "link", "text": "executed notebook", "href": notebook} if (run.path / notebook).exists() else {}]
    if entry["status"] != "done":
        items.append(text_item(f"This stage is not done: {entry.get('cause') or entry['status']}"))
    captions = captions_of(run.path / notebook)
    for output in map(Path, entry["outputs"]):
        path, caption = run.path / output, captions.get(output.with_suffix("").as_posix(), "")
        if output.suffix == ".png" and path.exists():
            items.append(figure_item(path, caption))
        elif output.suffix == ".csv" and output.parts[0] == "tables" and path.exists():
            items.append(table_item(read_table(path), caption or f"Table: {title_of(output.stem)}.", output.as_posix()))
    return items if any(items) else [text_item("No tables or figures.")]


def read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def captions_of(notebook: Path) -> dict[str, str]:
    """A saved figure or table (``figures/table1``) -> its caption, as ``lesson.save_and_show`` left it in an executed
    notebook; empty where there is no such file."""
    cells = json.loads(notebook.read_text()).get("cells", []) if notebook.exists() else []
    kept = [output.get("metadata", {}) for cell in cells for output in cell.get("outputs", [])]
    return {one["saved"]: one["caption"] for one in kept if "saved" in one}


def flat(params: dict[str, Any]) -> dict[str, str]:
    """Parameters by dotted name, each as text."""
    flat = pd.json_normalize(params).to_dict("records")
    return {key: value if isinstance(value, str) else json.dumps(value) for one in flat for key, value in one.items()}


def _parameters(params: dict[str, Any] | None) -> list[Item]:
    if not params:
        return [text_item("No parameters are recorded.")]
    ours, default = flat(params), flat(Params(name="x").model_dump(mode="json"))
    changed = [(key, value, default.get(key, "(no such parameter now)")) for key, value in sorted(ours.items())
               if value != default.get(key) and key != "name"]
    frame = pd.DataFrame(changed, columns=["parameter", "this run", "default"])
    return [table_item(frame, f"{params.get('name', '')}: {len(frame)} of {len(ours) - 1} parameters differ from the "
                              "defaults (plum_utils/params.py).")]


def _versions(stages: dict[str, Any]) -> list[Item]:
    versions = pd.DataFrame([entry.get("versions", {}) for entry in stages.values()], dtype=str)
    rows = [(name, ", ".join(sorted(set(versions[name].dropna())))) for name in sorted(versions)]
    frame = pd.DataFrame(rows, columns=["package", "version"])
    return [table_item(frame, "Packages that the stages ran with.")] if rows else []


def _times(stages: dict[str, Any]) -> list[Item]:
    rows = [{"stage": name, "status": entry["status"], "minutes": round(entry.get("seconds", 0) / 60, 1),
             "peak memory, MiB": entry.get("peak_memory_mb"), "device": entry.get("device", ""),
             "finished": entry.get("finished", ""), "commit": str(entry.get("commit") or "")[:12]}
            for name, entry in stages.items()]
    return [table_item(pd.DataFrame(rows), f"Together {minutes(stages):.1f} minutes.")]


def minutes(stages: dict[str, Any]) -> float:
    return sum(entry.get("seconds", 0) for entry in stages.values()) / 60
