"""A run as ``report.md``: every table and figure in the order of the stages, then time and memory; and the results block
of README.md, written from a run's tables, so that no number in it is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from plum_utils.evaluation.tables import headline
from plum_utils.jsonl import write_text
from plum_utils.runs import Run
from plum_utils.stages import EVALUATION

START, END = "<!-- results:start -->", "<!-- results:end -->"


class NoResults(RuntimeError):
    """A run whose evaluation is not done, or a text without the two markers."""


def write_report(run: Run) -> Path:
    """Write ``report.md`` into the run's folder, with links relative to it; returns its path."""
    stages = sorted(run.manifest()["stages"].items())
    lines = [f"# Report of {run.path.name}", ""]
    for name, entry in stages:
        lines += [f"## {name.replace('_', ' ')}", "", f"[executed notebook](notebooks/{name}.ipynb)", ""]
        if entry["status"] != "done":
            lines += [f"This stage is not done: {entry.get('cause', entry['status'])}", ""]
        for output in entry["outputs"]:
            lines += _shown(run, Path(output))
    lines += ["## Wall time", "", "| stage | status | seconds | peak memory, MiB |", "|---|---|---:|---:|"]
    for name, entry in stages:
        lines.append(f"| {name} | {entry['status']} | {entry.get('seconds', '')} | {entry.get('peak_memory_mb', '')} |")
    total = sum(entry.get("seconds", 0) for _, entry in stages)
    lines.append(f"| all | | {total:.1f} | |")
    write_text(run.path / "report.md", "\n".join(lines) + "\n")
    return run.path / "report.md"


def _shown(run: Run, output: Path) -> list[str]:
    title = output.stem.replace("_", " ")
    if output.suffix == ".png":
        return [f"![{title}]({output.as_posix()})", ""]
    if output.suffix == ".md" and (run.path / output).exists():
        caption = f"Table: {title} ([CSV]({output.with_suffix('.csv').as_posix()}))"
        return [caption, "", (run.path / output).read_text(), ""]
    return []


def write_results(run: Run, readme: Path) -> None:
    """Put the run's results between the markers of a Markdown file; the rest of it stays as it is.

    Raises:
        NoResults: the file has not exactly one pair of markers, or the run has no results yet.
    """
    text = readme.read_text()
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise NoResults(f"{readme}: expected one {START} and after it one {END}")
    before, after = text.split(START)[0], text.split(END)[1]
    write_text(readme, f"{before}{START}\n{results_block(run)}{END}{after}")


def results_block(run: Run) -> str:
    """Pass@1 before and after by suite and decoding, pass@k at the largest k, and what the run cost, as Markdown.

    Raises:
        NoResults: notebook 05 of this run is not done.
    """
    manifest = run.manifest()
    if manifest["stages"].get(EVALUATION, {}).get("status") != "done":
        raise NoResults(f"{run.path}: notebook 05 is not done, so there are no results; run it first")
    results, curves = run.load_table("results"), run.load_table("pass_at_k")
    seeds = results[results.seed.astype(str) != "mean"].seed.nunique()
    plural = "s, averaged problem by problem" if seeds > 1 else ""
    parts = [_results_table(headline(results)), _sharpness_table(curves), cost(manifest["stages"])]
    note = (f"pass@1 in percent [95% bootstrap interval over problems]; {seeds} training seed{plural}. "
            "Bold: the interval of the difference excludes zero.")
    smoke = "**A smoke run: not evidence.**" if manifest["params"]["name"].startswith("smoke") else ""
    return "\n\n".join(part for part in (smoke, parts[0], note, *parts[1:]) if part) + "\n"


def results_frame(results: pd.DataFrame) -> pd.DataFrame:
    """One row a suite and decoding, as text; ``clear``: the interval of the difference excludes zero."""
    rows = [{"suite": row.suite, "decoding": row.decoding, "problems": row.problems,
             "baseline": _interval(row.before, row.before_low, row.before_high),
             "PLUM": _interval(row.after, row.after_low, row.after_high),
             "difference": _interval(row.difference, row.difference_low, row.difference_high, sign="+"),
             "relative": "" if pd.isna(row.relative_percent) else f"{row.relative_percent:+.0f}%",
             "better, worse": f"{row.wins}, {row.losses}",
             "clear": bool(row.difference_low > 0 or row.difference_high < 0)} for row in results.itertuples()]
    return pd.DataFrame(rows)


def _results_table(results: pd.DataFrame) -> str:
    frame = results_frame(results)
    lines = ["| suite | decoding | problems | baseline | PLUM | difference | relative | better, worse |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]
    for row in frame.to_dict("records"):
        if row.pop("clear"):
            row["difference"] = f"**{row['difference']}**"
        lines.append(f"| {' | '.join(str(value) for value in row.values())} |")
    return "\n".join(lines)


def sharpness_frame(curves: pd.DataFrame) -> pd.DataFrame:
    """Better or only sharper: pass@k of both at the largest k that was sampled; no rows when nothing was."""
    rows = []
    for (suite, temperature), group in curves[curves.k > 1].groupby(["suite", "temperature"], sort=False):
        last = group[group.k == group.k.max()].set_index("policy")
        one, two = (_interval(*last.loc[name, ["value", "low", "high"]]) for name in ("baseline", "PLUM"))
        rows.append({"suite": suite, "T": f"{temperature:g}", "k": group.k.max(), "pass@k, baseline": one,
                     "pass@k, PLUM": two})
    return pd.DataFrame(rows)


def _sharpness_table(curves: pd.DataFrame) -> str:
    frame = sharpness_frame(curves)
    lines = ["| suite | T | k | pass@k, baseline | pass@k, PLUM |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(str(value) for value in row.values())} |" for row in frame.to_dict("records")]
    return "\n".join(lines) if len(frame) else ""


def cost(stages: dict[str, Any]) -> str:
    last = max(stages.values(), key=lambda entry: entry.get("finished", ""))
    minutes = ", ".join(f"{name[:2]} {entry.get('seconds', 0) / 60:.1f}" for name, entry in sorted(stages.items()))
    total = sum(entry.get("seconds", 0) for entry in stages.values()) / 60
    peak = max(entry.get("peak_memory_mb", 0) for entry in stages.values()) / 1024
    return (f"Wall time in minutes by notebook: {minutes}; together {total:.0f}. Peak memory {peak:.1f} GiB. "
            f"Device: {last['device']}.")


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
