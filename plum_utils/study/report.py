"""The results block of README.md, written from a run's tables, so that no number in it is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pandas as pd

from plum_utils.evaluation.tables import headline
from plum_utils.jsonl import write_text
from plum_utils.runs import Run
from plum_utils.stages import EVALUATION

START, END = "<!-- results:start -->", "<!-- results:end -->"


class NoResults(RuntimeError):
    """A run whose evaluation is not done, or a text without the two markers."""


def in_a_row(text: str) -> str:
    """A cell's text, which breaks no row of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


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
    results = run.load_table("results")
    shown, sharper = results_frame(headline(results)), sharpness_frame(run.load_table("pass_at_k"))
    shown["difference"] = shown.difference.where(~shown.clear, "**" + shown.difference + "**")
    shown = shown.drop(columns="clear")
    seeds = results[results.seed.astype(str) != "mean"].seed.nunique()
    plural = "s, averaged problem by problem" if seeds > 1 else ""
    note = (f"pass@1 in percent [95% bootstrap interval over problems]; {seeds} training seed{plural}. "
            "Bold: the interval of the difference excludes zero.")
    parts = ["**A smoke run: not evidence.**"] if manifest["params"]["name"].startswith("smoke") else []
    parts += [markdown_table(shown, [name not in ("suite", "decoding") for name in shown]), note]
    parts += [markdown_table(sharper, [name != "suite" for name in sharper])] if len(sharper) else []
    return "\n\n".join([*parts, cost(manifest["stages"])]) + "\n"


def markdown_table(cells: pd.DataFrame, right: list[bool], text: Callable[[str], str] = in_a_row) -> str:
    """A table as Markdown.

    Args:
        right: which columns are set right.
        text: what makes of a cell's text Markdown that shows it and breaks no row.
    """
    lines = [[text(name) for name in cells], ["---:" if one else "---" for one in right],
             *([text(str(value)) for value in row] for row in cells.itertuples(index=False, name=None))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(cells.columns) else "(no rows)"


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


def sharpness_frame(curves: pd.DataFrame) -> pd.DataFrame:
    """Better or only sharper: pass@k of both at the largest k that was sampled; no rows when nothing was."""
    rows = []
    for (suite, temperature), group in curves[curves.k > 1].groupby(["suite", "temperature"], sort=False):
        last = group[group.k == group.k.max()].set_index("policy")
        one, two = (_interval(*last.loc[name, ["value", "low", "high"]]) for name in ("baseline", "PLUM"))
        rows.append({"suite": suite, "T": f"{temperature:g}", "k": group.k.max(), "pass@k, baseline": one,
                     "pass@k, PLUM": two})
    return pd.DataFrame(rows)


def cost(stages: dict[str, Any]) -> str:
    last = max(stages.values(), key=lambda entry: entry.get("finished", ""))
    minutes = ", ".join(f"{name[:2]} {entry.get('seconds', 0) / 60:.1f}" for name, entry in sorted(stages.items()))
    total = sum(entry.get("seconds", 0) for entry in stages.values()) / 60
    peak = max(entry.get("peak_memory_mb", 0) for entry in stages.values()) / 1024
    return (f"Wall time in minutes by notebook: {minutes}; together {total:.0f}. Peak memory {peak:.1f} GiB. "
            f"Device: {last['device']}.")


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
