"""docs/findings.md: what it says is computed from committed tables, and each claim's sources can be made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from docs import findings, paper_audit
from docs.findings import FAILS, HOLDS, REFERENCE, UNMEASURED, UNTOLD, claims, measurements, printed, verdict, why
from plum_utils.data import paper
from plum_utils.params import load_params
from plum_utils.provenance import ROOT
from plum_utils.study.sweep_tables import LONG, group_of
from plum_utils.study.sweeps import is_sweep, load_sweep

PAGE = findings.PAGE.read_text()
SOURCES = [source for claim in claims() for source in claim.get("ours", [])]
NUMBER = r"[+-]?\d+\.\d+"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="outputs/reference is not there")


def table(folder: Path, *differences: tuple[float, float, float], name: str = "t.csv", **columns) -> dict:
    """A claim that a table with these differences (value, low, high) answers."""
    rows = pd.DataFrame(differences, columns=["difference", "difference_low", "difference_high"])
    rows.assign(suite="s", problems=9, **columns).to_csv(folder / name, index=False)
    return {"claim": "c", "ours": [{"table": name, "rows": {"suite": "s"}}]}


# --- the verdict ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("differences", "said"), [
    ([(2, 1, 3)], HOLDS),
    ([(-2, -3, -1)], FAILS),
    ([(2, -1, 5)], UNTOLD),
    ([(2, 0, 5)], UNTOLD),                       # at zero is not beyond it
    ([(2, 1, 3), (-1, -4, 2)], HOLDS),           # one beyond, none against
    ([(-2, -3, -1), (1, -4, 6)], FAILS),
    ([(2, 1, 3), (-2, -3, -1)], UNTOLD),         # they point both ways
])
def test_the_verdict_follows_from_the_intervals(tmp_path, differences, said):
    claim = table(tmp_path, *differences)
    assert verdict(claim, tmp_path) == said
    turned = {HOLDS: FAILS, FAILS: HOLDS}.get(said, said)
    assert verdict(claim | {"sign": -1}, tmp_path) == turned


def test_several_tables_are_taken_together(tmp_path):
    one, two = table(tmp_path, (2, 1, 3)), table(tmp_path, (-2, -3, -1), name="u.csv")
    assert verdict({"claim": "c", "ours": one["ours"] + two["ours"]}, tmp_path) == UNTOLD


@pytest.mark.parametrize("change", [{"table": "absent.csv"}, {"column": "gain"}, {"rows": {"suite": "other"}}])
def test_what_no_table_has_is_not_measured(tmp_path, change):
    claim = table(tmp_path, (2, 1, 3))
    claim["ours"][0] |= change
    assert verdict(claim, tmp_path) == UNMEASURED
    assert why(claim, tmp_path) == "`params/reference.yaml` measures it."


def test_a_value_that_is_no_difference_decides_nothing(tmp_path):
    claim = table(tmp_path, (2, 1, 3))
    claim["ours"][0] |= {"value": "difference", "low": "difference_low", "high": "difference_high"}
    assert verdict(claim, tmp_path) == UNTOLD and measurements(claim["ours"][0], tmp_path)[0].low == 1
    assert verdict({"claim": "nothing measures it"}) == UNTOLD


def test_of_several_seeds_their_mean_counts(tmp_path):
    claim = table(tmp_path, (-2, -3, -1), (5, 4, 6), (2, 1, 3), seed=["0", "1", "mean"])
    assert [one.value for one in measurements(claim["ours"][0], tmp_path)] == [2]
    assert verdict(claim, tmp_path) == HOLDS


def test_a_verdict_that_turned_needs_a_sentence_of_its_own(tmp_path, monkeypatch):
    claim = table(tmp_path, (2, 1, 3)) | {"why": {HOLDS: "It does."}}
    assert why(claim, tmp_path) == "It does."
    table(tmp_path, (-2, -3, -1))
    assert why(claim, tmp_path) is None
    unmade = {"claim": "c", "why": {HOLDS: "It does."}}
    monkeypatch.setattr(findings, "claims", lambda: [unmade])
    monkeypatch.setattr(findings, "EXPLAINED", {"c": HOLDS})
    assert findings.unexplained() == [
        "docs/findings.json: no sentence for 'cannot be told' of 'c'",
        "docs/findings.md: the section on 'c' explains 'holds here'; it is now 'cannot be told'"]


# --- the claims -------------------------------------------------------------------------------------------------------

def test_the_papers_numbers_are_computed():
    assert printed({"tables": [6], "before": "DPO", "after": "KTO"}) == (
        "11 of 12 scores rise, mean +4.4 (+0.0 to +10.4)")
    assert printed({"tables": [4], "rows": {"metric": ["Easy"]}}) == (
        "3 of 4 scores rise, mean +2.0 (-3.8 to +8.2)")
    assert printed({"tables": [2], "rows": {"setting": ["unseen"], "metric": ["HE"]}}) == (
        "1 of 1 scores rise, mean +6.3 (+6.3 to +6.3)")
    assert printed({"column": "Self-Consistency Pass Rate"}) == (
        "OSS-Instruct 63.76, Evol-instruct 42.38, ShareGPT 45.69")
    assert printed({"column": "samples"}) == "OSS-Instruct 20, Evol-Instruct 50, ShareGPT 20"


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim["claim"])
def test_a_claim_is_whole(claim):
    assert {"claim", "where", "paper"} <= set(claim) <= {"claim", "where", "paper", "ours", "sign", "why"}
    spec = claim["paper"]
    assert set(spec) <= {"text", "column", "tables", "rows", "before", "after"} and printed(spec)
    for number in spec.get("tables", []):
        assert {spec.get("before", "Baseline"), spec.get("after", "PLUM")} <= set(paper.table(number).row)
        assert len(findings.changes(number, spec))
    assert set(claim.get("why", {})) <= {HOLDS, FAILS, UNTOLD, UNMEASURED}
    sentences = re.sub(r"`[^`]*`|GPT-4|7B|Table \d|T = 0\.8", "", "".join(claim.get("why", {}).values()))
    assert not re.search(r"\d", sentences)  # no number is typed


@needs_reference
def test_each_present_verdict_has_its_sentence_and_its_section():
    assert findings.unexplained() == []


@pytest.mark.parametrize("source", SOURCES, ids=json.dumps)
def test_a_source_can_be_made_by_its_parameter_file(source):
    """The rows that a source asks for are among what the parameter file of its table measures."""
    path, rows = ROOT / findings.parameter_file(source["table"]), source["rows"]
    assert set(source) <= {"table", "rows", "column", "value", "low", "high", "n", "shows"}
    assert source.get("column", "difference") in {"difference", *LONG}
    if not is_sweep(path):
        params = load_params(path, {})
        assert rows.get("suite", "any").rstrip("+") in {suite.name for suite in params.evaluation.suites} | {"any"}
        assert rows.get("round", 1) <= params.rounds and rows.get("label", "Easy") in paper.DIFFICULTIES
        return
    _, experiments = load_sweep(path)
    methods = [one.row.row for one in experiments]
    asked = [rows[key] for key in ("first", "second", "method") if key in rows]
    assert [methods.index(name) for name in asked] == sorted(methods.index(name) for name in asked)
    assert rows.get("group", group_of(experiments[0])) in {group_of(one) for one in experiments}
    if Path(source["table"]).parts[1] == "figure2":
        assert Path(source["table"]).stem in {one.params.name for one in experiments}


@needs_reference
@pytest.mark.parametrize("source", SOURCES, ids=json.dumps)
def test_a_source_asks_for_columns_that_its_committed_table_has(source):
    path = REFERENCE / source["table"]
    if path.exists():
        columns = set(pd.read_csv(path, nrows=0))
        assert set(source["rows"]) | {source[key] for key in ("value", "low", "high", "n") if key in source} <= columns


# --- the page ---------------------------------------------------------------------------------------------------------

@needs_reference
def test_the_page_has_what_the_committed_tables_say():
    assert PAGE == paper_audit.filled(PAGE, findings.BLOCKS), "python -m docs.findings --write"
    assert re.findall(r"<!-- (\w+):start -->", PAGE) == list(findings.BLOCKS)


@needs_reference
def test_each_number_of_ours_stands_in_the_table_that_is_linked_beside_it():
    block = PAGE.split("<!-- claims:start -->")[1].split("<!-- claims:end -->")[0]
    cells = [line.split(" | ")[2] for line in block.strip().splitlines()[2:]]
    linked = [found for cell in cells for found in re.findall(r"(.*?)\(\[\w+\]\(\.\./(.*?)\.md\)\)", cell)]
    assert len(linked) > 10
    for told, link in linked:
        numbers = pd.read_csv(ROOT / f"{link}.csv").select_dtypes("number").stack()
        for shown in re.findall(NUMBER, re.sub(r"T=\d\.\d", "", told)):
            digits = len(shown.split(".")[1])
            assert ((numbers - float(shown)).abs() <= 0.5 * 10 ** -digits + 1e-9).any(), f"{shown} is not in {link}.csv"


def test_no_measured_number_is_typed():
    prose = re.sub(r"<!-- (\w+):start -->.*?<!-- \1:end -->|```.*?```|`[^`]*`", "", PAGE, flags=re.DOTALL)
    assert set(re.findall(rf"{NUMBER}%?|\d+%", prose)) == {"0.8", "95%"}  # a temperature, the intervals' level
    assert "0.8" in [f"{one:g}" for suite in load_params(ROOT / "params/mini/base.yaml", {}).evaluation.suites
                     for one in suite.temperatures]
