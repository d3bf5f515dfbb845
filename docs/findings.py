"""The paper's claims beside this study's committed results; ``tests/repository/test_findings.py`` checks the page.

    python -m docs.findings           # print what docs/findings.md has between its markers
    python -m docs.findings --write   # write it there

``findings.json`` has a claim a row: in our words, where the paper makes it, which of its numbers bear on it, and which
rows of which committed table answer it. A verdict is computed (``verdict``); the sentence that says why stands in the
data under the verdict it explains.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import pandas as pd

from docs import paper_audit
from docs.paper_claims import settings, sizes
from plum_utils.data import paper
from plum_utils.evaluation.tables import direction, headline
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.stages import EVALUATION
from plum_utils.study.page import as_text, numeric_columns, read_table
from plum_utils.study.report import markdown_table
from plum_utils.study.sweep_tables import shared

PAGE = Path(__file__).with_name("findings.md")
REFERENCE = ROOT / "outputs" / "reference"
HOLDS, FAILS, UNTOLD, UNMEASURED = "holds here", "does not", "cannot be told", "not measured"
LABELS = ("suite", "decoding", "metric", "label", "source")  # columns that say what a row of a table measured
Claim = dict[str, Any]


class Measurement(NamedTuple):
    """A number of a committed table, its 95% interval (NaN: none) and how many problems (programs, ...) it is of."""

    label: str
    value: float
    low: float
    high: float
    n: int


@cache
def claims() -> list[Claim]:
    return json.loads(Path(__file__).with_name("findings.json").read_text())


# --- the paper's numbers ----------------------------------------------------------------------------------------------

def printed(spec: dict[str, Any]) -> str:
    """The paper's numbers that bear on a claim, in words.

    Args:
        spec: ``text``, where nothing is printed; ``column`` of Table 1 or of the numbers in section 4's text; or
            ``tables`` whose rows ``before`` (Baseline) and ``after`` (PLUM) are compared, of the ``rows`` that have one
            of these values (``model``, ``data``, ``type``, ``setting``, ``metric``).
    """
    if "text" in spec:
        return spec["text"]
    if "column" in spec:
        rows = pd.concat([paper.table(1).rename(columns={"Dataset": "data"}), sizes()]).dropna(subset=spec["column"])
        return ", ".join(f"{row['data']} {row[spec['column']]:g}" for row in rows.to_dict("records"))
    both = pd.concat([changes(number, spec) for number in spec["tables"]])
    gains = both.after - both.before
    return (f"{int((gains > 0).sum())} of {len(both)} scores rise, mean {gains.mean():+.1f} "
            f"({gains.min():+.1f} to {gains.max():+.1f})")


def changes(number: int, spec: dict[str, Any]) -> pd.DataFrame:
    """The printed changes of one table that ``spec`` (of ``printed``) asks for: columns before and after."""
    frame, wanted = paper.table(number), dict(spec.get("rows", {}))
    metrics = wanted.pop("metric", None)
    if "setting" in wanted:
        frame = frame.merge(settings(), on=["data", "model"])
    for column, values in wanted.items():
        frame = frame[frame[column].isin(values)]
    both = paper.changes(frame, spec.get("before", "Baseline"), spec.get("after", "PLUM"))
    return both[both.metric.isin(metrics)] if metrics else both


# --- ours -------------------------------------------------------------------------------------------------------------

def measurements(source: dict[str, Any], reference: Path = REFERENCE) -> list[Measurement]:
    """The rows of a committed table that answer a claim; none where the table, its column or these rows are missing.

    Args:
        source: ``table`` below the reference run, ``rows`` (column -> value that each row has), and ``column`` of the
            difference in points (``difference``), its interval beside it; or ``value`` with ``low``, ``high`` and ``n``:
            a number that is no difference, and decides nothing. What it is of, where that is not plain, ``shows``.
    """
    path, column = reference / source["table"], source.get("value", source.get("column", "difference"))
    if not path.exists():
        return []
    frame = read_table(path)
    if "seed" in frame:
        frame = headline(frame)
    for name, value in source["rows"].items():
        frame = frame[frame[name] == value]
    low, high = (source.get(end) if "value" in source else f"{column}_{end}" for end in ("low", "high"))
    rows = frame.dropna(subset=column).to_dict("records") if column in frame else []
    return [Measurement(", ".join(str(row[name]) for name in LABELS if name in row), row[column],
                        row.get(low, float("nan")), row.get(high, float("nan")), int(row[source.get("n", "problems")]))
            for row in rows]


def verdict(claim: Claim, reference: Path = REFERENCE) -> str:
    """What the differences measured for a claim say of it.

    With at least one interval beyond zero on the claimed side and none on the other the claim holds here; the other way
    round it does not; with none beyond zero, or some on each side, it cannot be told. Nor can it where nothing that
    could be measured here would decide it (no difference among its sources).
    """
    tests = [source for source in claim.get("ours", []) if "value" not in source]
    found = [one for source in tests for one in measurements(source, reference)]
    if tests and not found:
        return UNMEASURED
    sides = {direction(one.low, one.high) for one in found} & {"better", "worse"}
    claimed, against = ("better", "worse") if claim.get("sign", 1) > 0 else ("worse", "better")
    return HOLDS if sides == {claimed} else FAILS if sides == {against} else UNTOLD


def why(claim: Claim, reference: Path = REFERENCE) -> str | None:
    """The sentence of the claim's present verdict; of an unmeasured one without a sentence, what measures it; ``None``
    where the verdict has turned and findings.json has no sentence for it yet."""
    said, sentences = verdict(claim, reference), claim.get("why", {})
    if said == UNMEASURED and UNMEASURED not in sentences:
        return f"`{parameter_file(claim['ours'][0]['table'])}` measures it."
    return sentences.get(said)


def unexplained() -> list[str]:
    """Present verdicts that findings.json has no sentence for, or that a section of the page does not explain."""
    said = {claim["claim"]: verdict(claim) for claim in claims()}
    silent = [claim["claim"] for claim in claims() if why(claim) is None]
    missing = [f"docs/findings.json: no sentence for {said[name]!r} of {name!r}" for name in silent]
    return missing + [f"docs/findings.md: the section on {name!r} explains {explained!r}; it is now {said[name]!r}"
                      for name, explained in EXPLAINED.items() if said[name] != explained]


def parameter_file(table: str) -> str:
    """What makes a table of the reference run: the parameter file of its sweep, or of the run itself."""
    parts = Path(table).parts
    return f"params/mini/{parts[1]}.yaml" if parts[0] == "sweeps" else "params/reference.yaml"


# --- the page ---------------------------------------------------------------------------------------------------------

def claims_block() -> str:
    """A row a claim: the claim, the paper's numbers, ours, the verdict and why."""
    rows = [{"claim": f"{claim['claim']} ({claim['where']})", "the paper": printed(claim["paper"]),
             "here": _here(claim), "verdict": f"**{verdict(claim)}**", "why": why(claim)} for claim in claims()]
    return markdown_table(pd.DataFrame(rows), [False] * 5)


def _here(claim: Claim) -> str:
    return "<br>".join(_told(source) for source in claim.get("ours", [])) or "-"


def _told(source: dict[str, Any]) -> str:
    """A source's measurements in words, with a link to its table."""
    found = measurements(source)
    text = "<br>".join(_measured(one, sign="" if "value" in source else "+") for one in found)
    text = f"{source['shows']}:<br>{text}" if "shows" in source else text
    table = f"../outputs/reference/{Path(source['table']).with_suffix('.md')}"
    return f"{text} ([{Path(table).stem}]({table}))" if found else UNMEASURED


def _measured(one: Measurement, sign: str) -> str:
    digits = f"{sign}.1f" if sign else ".3g"
    label = f"{one.label}: " if one.label else ""
    return f"{label}{_with_interval(one.value, one.low, one.high, digits)}, n = {one.n}"


def _with_interval(value: float, low: float, high: float, digits: str) -> str:
    """A value with its interval, where it has one; ``digits`` is their format."""
    interval = "" if pd.isna(low) else f" [{low:{digits}}, {high:{digits}}]"
    return f"{value + 0:{digits}}{interval}"  # no -0


def run_block() -> str:
    """Which run the page's numbers are of, and how many claims have which verdict."""
    run = Run(REFERENCE)
    manifest, results = run.manifest(), run.load_table("results")
    stage, params = manifest["stages"][EVALUATION], manifest["params"]
    instructions, seeds = len(run.load_table("figure2")), ", ".join(map(str, params["training"]["seeds"]))
    problems = ", ".join(f"{suite} {n}" for suite, n in results.groupby("suite", sort=False).problems.first().items())
    said = pd.Series([verdict(claim) for claim in claims()])
    counts = ", ".join(f"{int((said == one).sum())} *{one}*" for one in (HOLDS, FAILS, UNTOLD, UNMEASURED))
    text = (f"The reference run: parameters `{params['name']}`, finished {stage['finished'][:10]} at commit "
            f"`{stage['commit'][:8]}`; {instructions} instructions, K = {params['sampling']['k']} at T = "
            f"{params['sampling']['temperature']:g}; training seeds: {seeds}. Problems: {problems}."
            f"\n\nOf {len(said)} claims: {counts}.")
    return f"{text}\n\n{markdown_table(_sweeps(), [False, False, True, True])}"


def _sweeps() -> pd.DataFrame:
    """The committed sweeps that compare methods."""
    rows = []
    for path in sorted(REFERENCE.glob("sweeps/*/tables/methods.csv")):
        ours = _ours(read_table(path))
        name = path.parts[-3]
        rows.append({"sweep": f"[{name}](../{path.with_suffix('.md').relative_to(ROOT).as_posix()})",
                     "methods": ", ".join(dict.fromkeys(ours.method)), "training seeds": int(ours.seeds.max()),
                     "problems, at most": int(ours.problems.max())})
    return pd.DataFrame(rows)


def _ours(frame: pd.DataFrame) -> pd.DataFrame:
    """A sweep's own rows, without columns that say nothing there."""
    own = frame[frame.origin == "this run"] if "origin" in frame else frame
    return own.drop(columns="origin", errors="ignore").dropna(axis="columns", how="all")


def sweep_block(name: str, *tables: str, against: Sequence[str] = ()) -> str:
    """Those of a sweep's tables that are committed, with a link to each: our own rows of what several methods were measured on, a
    value and its interval in one cell; of pairs those with a method of ``against`` alone, where it is given."""
    shown = []
    for table in tables:
        path = REFERENCE / "sweeps" / name / "tables" / f"{table}.csv"
        if path.exists():
            frame = _beside_each_other(_ours(read_table(path)), against).drop(columns="group")
            folded, right = _folded(frame), dict(zip(frame, numeric_columns(frame)))
            shown.append(f"[{table}](../{path.with_suffix('.md').relative_to(ROOT).as_posix()}):\n\n"
                         + markdown_table(as_text(folded), [right[column] for column in folded]))
    return "\n\n".join(shown)


def _beside_each_other(frame: pd.DataFrame, against: Sequence[str]) -> pd.DataFrame:
    """Suites that several methods were measured on; of a table of pairs those that could be compared."""
    if "second" in frame:
        wanted = frame[["first", "second"]].isin(against).any(axis=1) | (not against)
        ranges = [name for name in frame if name.endswith(("_least", "_greatest"))]
        return frame[wanted].dropna(subset="difference").drop(columns=ranges)
    columns = next((two for two in (("metric", "method"), ("suite", "policy")) if set(two) <= set(frame)), None)
    return shared(frame, *columns) if columns else frame


def _folded(frame: pd.DataFrame) -> pd.DataFrame:
    """Each column with its ``_low`` and ``_high`` (``value`` with ``low`` and ``high``) as one, of text."""
    ends = {name: ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high") for name in frame}
    triples = {name: two for name, two in ends.items() if set(two) <= set(frame)}
    cells = {name: ["" if pd.isna(value) else _with_interval(value, low, high, ".3g")
                    for value, low, high in frame[[name, *two]].itertuples(index=False)] for name, two in triples.items()}
    return frame.assign(**cells).drop(columns=[name for two in triples.values() for name in two])


BLOCKS = {"run": run_block, "claims": claims_block,
          "sft_against_kto": lambda: sweep_block("table5", "methods", "comparisons", "sharpness", "equal_entropy"),
          "dpo_against_kto": lambda: sweep_block("table6", "methods", "comparisons", "equal_entropy", "training", against=("KTO",)),
          "negatives": lambda: sweep_block("figure3", "methods", "comparisons", "training", against=("SFT", "PLUM"))}
# The verdicts that the page's sections below the table explain: where one turns, its section is to be written anew.
EXPLAINED = {"KTO is better than SFT on correct solutions": UNTOLD,
             "KTO is better than DPO": HOLDS,
             "Failing programs are better negatives than un-runnable ones": HOLDS}


if __name__ == "__main__":
    if missing := unexplained():
        sys.exit("\n".join(missing))
    paper_audit.main(sys.argv[1:], PAGE, BLOCKS)
