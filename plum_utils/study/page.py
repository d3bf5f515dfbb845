"""A run, or a sweep, on one HTML page: its tables and figures, then parameters, versions, time and memory.

A page is one file: no script, no link to anywhere but the runs' own folders, figures inside. Whatever comes from a run
(names, captions, parameters, cells) is text: it is escaped, and the page's own policy forbids scripts.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Mapping
from urllib.parse import quote

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from plum_utils.evaluation.tables import headline
from plum_utils.jsonl import write_text
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.stages import EVALUATION
from plum_utils.study.report import cost, results_frame, sharpness_frame

DPI = 150  # of figures, as ``Run.save_figure`` writes them
ROWS_SHOWN = 50  # of a run's table; all of them are in its CSV file
Item = dict[str, Any]  # what the page's template shows: a text, a link, a list, a table or a figure; empty: nothing
DRAWN = {
    "table1": "Bars: share of self-consistent responses by source, ours beside the paper's.",
    "table2": "Dumbbells: pass@1 of the baseline and of PLUM by suite, with intervals, and the paper's.",
    "table4": "Dumbbells: pass@1 of the baseline and of PLUM by difficulty, with intervals, and the paper's.",
    "figure1": "Flow from instructions over responses, suites, samples and verdicts to rows and training steps.",
    "figure2": "Histogram: share of an instruction's samples that pass all of its tests.",
    "methods": "Dumbbells: pass@1 of each method from its baseline, ours with intervals, beside the paper's.",
    "difficulties": "Dumbbells: pass@1 by difficulty, ours with intervals, beside the paper's.",
    "scaling": "Lines: gain in pass@1 against the number of instructions, one for each K, with intervals.",
    "rounds": "Lines: pass@1 by round, with intervals.",
    "mutation": "Histograms: share of mutants that a suite's tests notice, by source.",
    "lengths": "Histogram: lengths of the sampled completions in tokens.",
    "diversity": "Bars: number of distinct completions of an instruction.",
    "verdicts": "Bars: number of sampled programs by verdict.",
    "label_flow": "One bar: what becomes of the judged samples.",
    "tests_per_instruction": "Histogram: number of tests in a suite.",
    "kto_value": "Two panels over r - z0: the KTO value of chosen and rejected, and its slope, with a batch's samples.",
    "training": "Curves: loss, KL and rewards by training step.",
    "pass_at_k": "Curves: pass@k of the baseline and of PLUM against k, with bands.",
}


def write_html(run: Run) -> Path:
    """Write ``report.html`` into the run's folder; returns its path.

    First the results (where notebook 05 is done), then every table and figure by stage with the captions of the
    executed notebooks, then parameters that differ from the defaults, versions, time and memory.
    """
    manifest = run.manifest()
    stages = sorted(manifest["stages"].items())
    sections = [("Results", _results(run, manifest)), ("Notes", [_list(_notes(manifest))])]
    sections += [(name.replace("_", " "), _stage(run, name, entry)) for name, entry in stages]
    sections += [("Parameters", _parameters(manifest.get("params"))), ("Versions", _versions(manifest["stages"])),
                 ("Wall time and memory", _times(manifest["stages"]))]
    return _write_page(run.path / "report.html", f"Report of {run.path.name}", sections)


def write_sweep_html(folder: Path, title: str, tables: dict[str, pd.DataFrame], figures: Mapping[str, Path | Figure],
                     notes: list[str], runs: list[Run]) -> Path:
    """Write ``report.html`` of a sweep into ``folder``; returns its path.

    Args:
        tables: shown whole; one that has a figure of the same name stands below it.
        figures: drawn ones, or PNG or SVG files.
        notes: shown before everything else.
        runs: linked by paths relative to ``folder``, with the parameters in which they differ.
    """
    names = [*figures, *(name for name in tables if name not in figures)]
    sections = [("Notes", [_list(notes)])]
    for name in names:
        items = [_figure(figures[name], name)] if name in figures else []
        items += [_table(tables[name], f"Table: {title_of(name)}")] if name in tables else []
        sections.append((title_of(name), items))
    return _write_page(folder / "report.html", title, [*sections, ("Runs", _runs(folder, runs))])


def _write_page(path: Path, title: str, sections: list[tuple[str, list[Item]]]) -> Path:
    shown = [{"id": f"s{number}", "title": name, "items": kept} for number, (name, items) in enumerate(sections)
             if (kept := [item for item in items if item])]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    template = environment.from_string((files("plum_utils") / "data" / "report.html.j2").read_text())
    text = template.render(title=title, sections=shown)
    write_text(path, text.encode("utf-8", "replace").decode())  # models write lone surrogates
    return path


def title_of(name: str) -> str:
    """A file's name as a heading: ``table2`` is Table 2, ``label_flow`` Label flow."""
    words = re.sub(r"^(table|figure)(?=\d)", r"\1 ", name).replace("_", " ")
    return words[:1].upper() + words[1:]


def _text(text: str) -> Item:
    return {"kind": "text", "text": text}


def _list(lines: list[str]) -> Item:
    return {"kind": "list", "lines": lines} if lines else {}


def _figure(figure: Path | Figure, name: str, caption: str = "") -> Item:
    """A figure within the page, as a ``data:`` address; SVG goes in as an image too, where no script in it can run."""
    if isinstance(figure, Figure):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        kind, content = "png", buffer.getvalue()
    else:
        kind, content = "svg+xml" if figure.suffix == ".svg" else "png", figure.read_bytes()
    inches = int.from_bytes(content[16:20], "big") / DPI if kind == "png" else 0  # the header's first number: its width
    return {"kind": "figure", "data": f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
            "alt": (drawn := DRAWN.get(name, f"Figure: {title_of(name)}.")), "caption": caption or drawn,
            "wide": inches > 9}


def _table(frame: pd.DataFrame, caption: str, source: str = "", links: dict[str, str] | None = None) -> Item:
    """A table's cells as text; numbers are set right.

    Args:
        source: the file that holds all rows; with it the table is cut after ``ROWS_SHOWN``.
        links: text in the first column -> address.
    """
    numeric = [pd.api.types.is_numeric_dtype(dtype) and dtype != bool for dtype in frame.dtypes]
    shown = frame.head(ROWS_SHOWN) if source else frame
    digits = [digits_of(frame.iloc[:, place]) for place in range(frame.shape[1])]
    rows = [[{"text": (text := cell_text(value, digits[place])),
              "class": "n" if right else "s" if len(text) <= 26 else "",
              "href": (links or {}).get(text, "") if place == 0 else ""}
             for place, (value, right) in enumerate(zip(row, numeric))]
            for row in shown.itertuples(index=False, name=None)]
    cut = f" The first {len(shown)} of {len(frame):,} rows; all are in {source}."
    heads = [{"text": str(name), "class": "n" if right else ""} for name, right in zip(frame.columns, numeric)]
    return {"kind": "table", "heads": heads, "rows": rows,
            "caption": caption + (cut if len(frame) > len(shown) else "")}


def digits_of(column: pd.Series) -> int:
    """Decimals that a column's numbers are shown with: the fewer the larger they are, and no more than they need."""
    numbers = pd.to_numeric(column, errors="coerce").dropna().astype(float)
    most = 1 if numbers.abs().max() >= 1000 else 2 if numbers.abs().max() >= 10 else 4
    return next(digits for digits in range(most + 1) if (numbers.round(digits) == numbers.round(most)).all())


def cell_text(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:,.{digits}f}"
    return "" if value is None or value is pd.NA else str(value)


def _results(run: Run, manifest: dict[str, Any]) -> list[Item]:
    done = manifest["stages"].get(EVALUATION, {}).get("status") == "done"
    if not done or not (run.path / "tables" / "results.csv").exists():
        return [_text("Notebook 05 is not done, so there are no results yet.")]
    shown = results_frame(headline(run.load_table("results")))
    shown["clear"] = shown["clear"].map({True: "yes", False: "no"})
    sharper = sharpness_frame(run.load_table("pass_at_k"))
    return [_table(shown, "pass@1 in percent, with 95% bootstrap intervals over problems. Clear: the interval of the "
                   "difference excludes zero."),
            _table(sharper, "pass@k at the largest k that was sampled.") if len(sharper) else {},
            _text(cost(manifest["stages"]))]


def _notes(manifest: dict[str, Any]) -> list[str]:
    """What a reader must know: a smoke run, stages that are not done, code that changed on the way."""
    params, stages = manifest.get("params", {}), manifest["stages"]
    notes = ["A smoke run: not evidence."] if str(params.get("name", "")).startswith("smoke") else []
    notes += [f"{name} is not done: {entry.get('cause') or entry['status']}" for name, entry in sorted(stages.items())
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
        items.append(_text(f"This stage is not done: {entry.get('cause') or entry['status']}"))
    captions = captions_of(run.path / notebook)
    for output in map(Path, entry["outputs"]):
        path = run.path / output
        found = caption_of(captions, output.with_suffix("").as_posix())
        if output.suffix == ".png" and path.exists():
            items.append(_figure(path, output.stem, found))
        elif output.suffix == ".csv" and output.parts[0] == "tables" and path.exists():
            items.append(_table(read_table(path), found or f"Table: {title_of(output.stem)}.", output.as_posix()))
    return items if any(items) else [_text("No tables or figures.")]


def read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


SAVED = re.compile(r"""save_(figure|table)\(.*,\s*f?["']([\w{}.]+)["']\)\s*$""", re.MULTILINE)


def saved_pattern(kind: str, name: str) -> str:
    """Pattern of what a cell saves; ``kind`` and ``name`` as ``SAVED`` finds them, ``{...}`` in a name being any text."""
    return f"{kind}s/" + re.sub(r"\\{.*?\\}", ".+", re.escape(name))


def caption_of(captions: dict[str, str], saved: str) -> str:
    """The caption of a saved figure or table (``figures/table1``), empty where it has none."""
    return next((text for pattern, text in captions.items() if re.fullmatch(pattern, saved)), "")


def captions_of(notebook: Path) -> dict[str, str]:
    """Pattern of a saved figure or table (``figures/table1``) -> its caption: what the next ``caption`` cell shows."""
    if not notebook.exists():
        return {}
    found, last = {}, None
    for cell in json.loads(notebook.read_text()).get("cells", []):
        source = "".join(cell["source"])
        for kind, name in SAVED.findall(source):
            last = saved_pattern(kind, name)
        texts = ["".join(data["text/markdown"]) for output in cell.get("outputs", [])
                 if "text/markdown" in (data := output.get("data", {}))]
        if last and texts and "caption(" in source:
            found[last], last = texts[-1].replace("**", "").replace("`", "").strip("*").replace(".* ", ". "), None
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _parameters(params: dict[str, Any] | None) -> list[Item]:
    if not params:
        return [_text("No parameters are recorded.")]
    ours, default = _flat(params), _flat(Params(name="x").model_dump(mode="json"))
    changed = [(key, value, default.get(key, "(no such parameter now)")) for key, value in sorted(ours.items())
               if value != default.get(key) and key != "name"]
    frame = pd.DataFrame(changed, columns=["parameter", "this run", "default"])
    return [_table(frame, f"{params.get('name', '')}: {len(frame)} of {len(ours) - 1} parameters differ from the "
                          "defaults (plum_utils/params.py).")]


def _versions(stages: dict[str, Any]) -> list[Item]:
    packages = sorted({name for entry in stages.values() for name in entry.get("versions", {})})
    rows = [(name, ", ".join(sorted({str(entry["versions"][name]) for entry in stages.values()
                                     if name in entry.get("versions", {})}))) for name in packages]
    frame = pd.DataFrame(rows, columns=["package", "version"])
    return [_table(frame, "Packages that the stages ran with.")] if rows else []


def _times(stages: dict[str, Any]) -> list[Item]:
    rows = [{"stage": name, "status": entry["status"], "minutes": round(entry.get("seconds", 0) / 60, 1),
             "peak memory, MiB": entry.get("peak_memory_mb"), "device": entry.get("device", ""),
             "finished": entry.get("finished", ""), "commit": str(entry.get("commit") or "")[:12]}
            for name, entry in sorted(stages.items())]
    total = sum(entry.get("seconds", 0) for entry in stages.values()) / 60
    return [_table(pd.DataFrame(rows), f"Together {total:.1f} minutes.")] if rows else []


def _runs(folder: Path, runs: list[Run]) -> list[Item]:
    """The sweep's runs with links to their pages, and the parameters in which they differ."""
    flat = [_flat(run.manifest().get("params", {})) for run in runs]
    keys = sorted({key for one in flat for key in one if not key.startswith("rows") and key != "name"})
    differ = [key for key in keys if len({one.get(key) for one in flat}) > 1]
    rows, links = [], {}
    for run, params in zip(runs, flat):
        stages = run.manifest()["stages"]
        done = sum(entry["status"] == "done" for entry in stages.values())
        name = os.path.relpath(run.path, folder)
        if (run.path / "report.html").exists():
            links[name] = quote(f"{Path(name).as_posix()}/report.html")
        rows.append({"run": name, "stages done": f"{done} of {len(stages)}",
                     "minutes": round(sum(entry.get("seconds", 0) for entry in stages.values()) / 60, 1)}
                    | {key: params.get(key, "") for key in differ})
    caption = "The runs, and the parameters in which they differ."
    return [_table(pd.DataFrame(rows), caption, links=links)] if rows else []
