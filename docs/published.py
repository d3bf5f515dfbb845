"""The paper's printed scores beside what EvalPlus, LiveCodeBench and the models' authors published (``published.json``);
docs/paper_notes.md has the tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pandas as pd

from plum_utils.data.paper import BENCHMARKS, DIFFICULTIES, table
from plum_utils.evaluation.beside_paper import whole_problems

MBPP = ("MBPP", "MBPP+")
COMPARED = {2: ("Baseline", "PLUM"), 3: ("Baseline", "PLUM"), 5: ("SFT", "PLUM-KTO"), 6: ("DPO", "KTO")}
TRIES = 10             # of each problem, on LiveCodeBench's leaderboard
WINDOW = "2023-09"     # first month of the window that the leaderboard showed when it was opened
CONTESTS = {"MagiCoder-S-CL-7B": "MagiCoderS-CL-7B", "MagiCoder-S-DS-6.7B": "MagiCoderS-DS-6.7B",
            "OpenCodeInterpreter-DS": "OC-DS-6.7B", "CodeQwen-7B-Chat": "CodeQwen15-7B-Chat"}  # the leaderboard's names


@cache
def _published() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("published.json").read_text())


def published(name: str) -> pd.DataFrame:
    """Scores by model of ``2024-04``, ``2024-05`` (EvalPlus' leaderboard) or ``authors``; ``contests`` and
    ``release_v2``; ``attrs["source"]`` names revision, date and licence."""
    frame = pd.DataFrame(_published()[name]["rows"])
    frame.attrs["source"] = _published()[name]["source"]
    return frame


def _scores(name: str, model: str) -> dict[str, Any] | None:
    """A model's row of that source, None where it has no such model."""
    return next((row for row in _published()[name]["rows"] if row["model"] == model), None)


# --- HumanEval(+) and MBPP(+) -----------------------------------------------------------------------------------------

def baselines() -> pd.DataFrame:
    """The baselines of Tables 2 and 3 beside what was published before the paper.

    Returns:
        Columns ``model``, ``printed``, ``authors``, ``2024-04``, ``2024-05`` (MBPP/MBPP+/HE/HE+ in percent, empty
        where nothing was published), ``asked`` (``completion`` or ``chat``, as the leaderboard says) and ``in none``:
        printed scores that no source has.
    """
    printed = pd.concat([table(2), table(3)]).query("row == 'Baseline'").drop_duplicates("model")
    asked = published("2024-05").set_index("model").prompted.map({True: "chat", False: "completion"})
    rows = []
    for row in printed.to_dict("records"):
        theirs = {name: _scores(name, row["model"]) for name in ("authors", "2024-04", "2024-05")}
        absent = [f"{name} {row[name]}" for name in BENCHMARKS
                  if not any(scores is not None and scores[name] == row[name] for scores in theirs.values())]
        rows.append({"model": row["model"], "printed": _joined(row),
                     **{name: "" if scores is None else _joined(scores) for name, scores in theirs.items()},
                     "asked": asked.get(row["model"], ""), "in none": ", ".join(absent)})
    return pd.DataFrame(rows)


def _joined(scores: dict[str, Any]) -> str:
    return "/".join("-" if scores[name] is None else f"{scores[name]:.1f}" for name in BENCHMARKS)


def suites(row: dict[str, Any]) -> list[int]:
    """Sizes of EvalPlus' MBPP (399 before April 2024, 378 after) of which both scores of a row are whole numbers."""
    return [size for size in (399, 378) if all(whole_problems(row[name], size) for name in MBPP)]


def mixed_suites() -> pd.DataFrame:
    """Printed comparisons on MBPP whose two rows fit no common size of the suite.

    Returns:
        Columns ``table``, ``data``, ``model``, ``rows``, ``before`` and ``after`` (MBPP/MBPP+ and the size that they
        fit), ``gain`` (points), ``one suite`` (the baseline that EvalPlus' leaderboard had for the size of ``after``;
        empty of a row that is no baseline, or that it lacks) and ``gain there``.
    """
    found = []
    for number, (one, two) in COMPARED.items():
        scores = table(number).assign(data=lambda frame: frame.get("data", ""))
        for (data, model), group in scores.groupby(["data", "model"], sort=False):
            rows = group.set_index("row").to_dict("index")
            before, after = suites(rows[one]), suites(rows[two])
            if before and after and not set(before) & set(after):
                there = _scores("2024-05" if after == [378] else "2024-04", model) if one == "Baseline" else None
                found.append({"table": number, "data": data, "model": model, "rows": f"{one}, {two}",
                              "before": f"{_pair(rows[one])} of {before[0]}", "after": f"{_pair(rows[two])} of {after[0]}",
                              "gain": _gain(rows[one], rows[two]), "one suite": "" if there is None else _pair(there),
                              "gain there": "" if there is None else _gain(there, rows[two])})
    return pd.DataFrame(found)


def _pair(scores: dict[str, Any]) -> str:
    return "/".join(f"{scores[name]:.1f}" for name in MBPP)


def _gain(before: dict[str, Any], after: dict[str, Any]) -> str:
    return "/".join(f"{after[name] - before[name] + 0:+.1f}" for name in MBPP)


# --- LiveCodeBench ----------------------------------------------------------------------------------------------------

def count_contests(path: Path) -> pd.DataFrame:
    """The rows ``contests`` of ``published.json``, from LiveCodeBench's ``performances_generation.json``."""
    frame = pd.DataFrame(json.loads(path.read_text())["performances"])
    names = {theirs: printed for printed, theirs in CONTESTS.items()}
    frame = frame[frame.model.isin(names)].assign(
        model=lambda rows: rows.model.map(names), correct=lambda rows: (rows["pass@1"] * TRIES / 100).round().astype(int),
        difficulty=lambda rows: rows.difficulty.str.capitalize(),
        month=[f"{datetime.fromtimestamp(date / 1000, UTC):%Y-%m}" for date in frame[frame.model.isin(names)].date])
    counts = frame.pivot_table("correct", ["month", "difficulty"], "model", "sum")[list(CONTESTS)]
    counts.insert(0, "problems", frame.groupby(["month", "difficulty"]).question_id.nunique())
    return counts.reset_index().rename_axis(columns=None)


def contest_scores(model: str, first: str = "2023-05", last: str = "2024-03") -> dict[str, float]:
    """pass@1 in percent, one digit, by difficulty and ``Overall`` of the published results of these months."""
    rows = [row for row in _published()["contests"]["rows"] if first <= row["month"] <= last]
    scores = {}
    for level in DIFFICULTIES:
        part = [row for row in rows if level in ("Overall", row["difficulty"])]
        share = sum(row[model] for row in part) / sum(row["problems"] for row in part) / TRIES
        scores[level] = round(100 * share + 1e-9, 1)  # a half is rounded up, as 21.85 is there
    return scores


def contest_baselines() -> pd.DataFrame:
    """Table 4's baselines beside LiveCodeBench's own per-problem results of April 2024.

    Returns:
        One row a model and difficulty: ``printed``, ``all 400`` and ``from 2023-09`` (published results of release_v1
        and of its last 238 problems), ``fits`` (which of the two the printed value equals), ``PLUM``, ``gain`` and
        ``gain over all 400`` (points; PLUM less the printed and less the published value).
    """
    rows = []
    for model, group in table(4).groupby("model", sort=False):
        by_row = group.set_index("row")
        whole, window = contest_scores(model), contest_scores(model, WINDOW)
        for level in DIFFICULTIES:
            printed, plum = by_row.at["Baseline", level], by_row.at["PLUM", level]
            both = {"all 400": whole[level], f"from {WINDOW}": window[level]}
            rows.append({"model": model, "difficulty": level, "printed": printed, **both,
                         "fits": ", ".join(name for name, score in both.items() if score == printed), "PLUM": plum,
                         "gain": f"{plum - printed:+.1f}", "gain over all 400": f"{plum - whole[level] + 0:+.1f}"})
    return pd.DataFrame(rows)


def best_windows() -> pd.DataFrame:
    """Of all runs of months, those whose published results agree with most of a printed baseline's four values.

    Returns:
        Columns ``model``, ``agree`` (of four) and ``windows``: first and last month.
    """
    months = sorted(set(published("contests").month))
    rows = []
    for row in table(4).query("row == 'Baseline'").to_dict("records"):
        agree = {window: sum(score == row[level] for level, score in contest_scores(row["model"], *window).items())
                 for window in combinations_with_replacement(months, 2)}
        most = max(agree.values())
        rows.append({"model": row["model"], "agree": most,
                     "windows": ", ".join(f"{first} to {last}" for (first, last), n in agree.items() if n == most)})
    return pd.DataFrame(rows)


def contest_mixtures() -> pd.DataFrame:
    """Which problems give a printed ``Overall`` of Table 4 from its printed levels.

    Returns:
        One row a model and method: ``printed``; for release_v1, its window from 2023-09 and release_v2 the range of
        ``Overall`` that the levels allow (each within 0.05 of its print); ``fits``: which ranges meet the printed one.
    """
    counts = published("contests")
    problems = {"release_v1": counts, f"from {WINDOW}": counts[counts.month >= WINDOW]}
    weights = {name: rows.groupby("difficulty").problems.sum() for name, rows in problems.items()}
    weights["release_v2"] = published("release_v2").iloc[0]
    rows = []
    for row in table(4).query("row != 'Rel. +'").to_dict("records"):
        ranges = {name: _range(row, of) for name, of in weights.items()}
        fits = [name for name, (low, high) in ranges.items()
                if low <= row["Overall"] + 0.05 + 1e-9 and high >= row["Overall"] - 0.05 - 1e-9]
        rows.append({"model": row["model"], "row": row["row"], "printed": row["Overall"],
                     **{name: f"{low:.2f} to {high:.2f}" for name, (low, high) in ranges.items()},
                     "fits": ", ".join(fits)})
    return pd.DataFrame(rows)


def _range(row: dict[str, Any], weights: pd.Series) -> tuple[float, float]:
    ends = [sum(weights[level] * max(0, row[level] + slip) for level in weights.index) / weights.sum()
            for slip in (-0.05, 0.05)]
    return ends[0], ends[1]
