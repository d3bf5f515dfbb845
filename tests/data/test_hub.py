"""Hub sets: rows in their real formats, filters whose counts add up, draws that do not depend on the files' order."""

from __future__ import annotations

import json
import random
import shutil

import pandas as pd
import pytest

from plum_utils.data import hub, selection
from plum_utils.data.hub import (
    HUB_SETS,
    MAX_CHARACTERS,
    HubUnavailable,
    LeftOut,
    answers_in_python,
    asks_for_another_language,
    to_instruction,
)
from plum_utils.data.instructions import RECORDED, load_instructions
from plum_utils.data.problems import load_suite
from plum_utils.data.selection import selection_table, training_instructions
from plum_utils.jsonl import read_jsonl, write_json, write_jsonl
from plum_utils.params import Params
from plum_utils.provenance import ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "hub"
KEPT = {"oss_instruct": 5, "evol_instruct": 6, "sharegpt_code": 6}
LEFT_OUT = {
    "oss_instruct": {"language is not Python": 3, f"longer than {MAX_CHARACTERS:,} characters": 1, "no instruction": 3,
                     "the same as another one": 1},
    "evol_instruct": {"asks for another language": 4, "gold answer is not Python": 6, "no instruction": 2,
                      "the same as another one": 1},
    "sharegpt_code": {"asks for another language": 1, "goes on from an earlier part": 1, "no conversation": 2,
                      f"longer than {MAX_CHARACTERS:,} characters": 1, "no turn asks for Python code": 3},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    selection._selection.cache_clear()


def params(name: str, seed: int = 0, **data) -> Params:
    source = {"source": str(FIXTURES)} if name in HUB_SETS else {}
    return Params(name="x", seed=seed, data={"train": name} | source | data)


def raw_rows(name: str) -> list[dict]:
    path = FIXTURES / HUB_SETS[name].files[0]
    return read_jsonl(path) if path.suffix == ".jsonl" else json.loads(path.read_text())


def shuffled(name: str, folder, seed: int):
    rows, path = raw_rows(name), folder / HUB_SETS[name].files[0]
    random.Random(seed).shuffle(rows)
    write_jsonl(path, rows) if path.suffix == ".jsonl" else write_json(path, rows)
    return str(folder)


def counts(p: Params) -> dict[str, int]:
    table = selection_table(p)
    return dict(zip(table.step, table.instructions))


# --- filters --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", HUB_SETS)
def test_the_counts_of_the_filters_add_up(name):
    steps = counts(params(name))
    reasons = {step.removeprefix("left out: "): count for step, count in steps.items() if step.startswith("left out: ")}
    rows = steps[f"rows of {HUB_SETS[name].repo}"]
    assert reasons == LEFT_OUT[name] and rows == len(raw_rows(name)) == KEPT[name] + sum(reasons.values())
    assert steps["Python instructions"] == steps["drawn with seed 0"] == KEPT[name]


@pytest.mark.parametrize("name", HUB_SETS)
def test_ids_are_stable_and_names_do_not_clash_with_the_bundled_ones(name):
    items = training_instructions(params(name))
    assert name not in RECORDED and {item.source for item in items} == {name}
    assert all(item.instruction_id.startswith(f"{HUB_SETS[name].prefix}-") for item in items)
    assert len({item.instruction_id for item in items}) == len(items) and not any(item.responses for item in items)


def test_an_id_is_a_hash_of_the_folded_instruction_alone():
    one = to_instruction("evol_instruct", {"instruction": "Add one.", "output": "def f(x):\n    return x + 1"})
    two = to_instruction("evol_instruct", {"instruction": " ADD\n one. ", "response": "def g(x):\n    return 1 + x"})
    assert one.instruction_id == two.instruction_id == "evol-3c50b55a678b"
    assert one.solution != two.solution


def test_texts_and_gold_answers_are_taken_as_they_are():
    by_text = {item.instruction: item.solution for item in training_instructions(params("oss_instruct"))}
    text = "Écris «unicode» safely: implement `fold_label(text)` in Python so that `ß` and `SS` count as equal 🙂."
    assert by_text[text] == "```python\ndef fold_label(text):\n    return text.casefold()\n```"
    assert by_text["Write a class `Ledger` with methods `add(amount)` and `total()`."] == ""


def test_of_a_conversation_the_first_turn_that_asks_for_python_is_taken():
    by_text = {item.instruction: item.solution for item in training_instructions(params("sharegpt_code"))}
    assert "divmod" in by_text["can you write a python function that turns minutes into hours and minutes?"]
    assert "max(f, key=len)" in by_text["I need to find the longest line of a text file."]  # after a greeting by gpt
    assert by_text["python script to rename all files of a folder to lower case"] == ""     # answered in bash
    assert by_text["Give me python code for a countdown."] == ""                            # not answered
    assert "umlaute" in by_text["Schreibe eine Funktion, die Umlaute (ä, ö, ü) zählt."]


@pytest.mark.parametrize(("name", "row", "reason"), [
    ("oss_instruct", {}, "language is not Python"),
    ("oss_instruct", {"lang": "python", "problem": 7}, "no instruction"),
    ("oss_instruct", {"lang": "python", "problem": "x" * (MAX_CHARACTERS + 1)}, "longer than"),
    ("evol_instruct", {"instruction": "Count.", "output": ["def f(): pass"]}, "gold answer is not Python"),
    ("evol_instruct", {"instruction": "Count in Java.", "output": "def f(): pass"}, "asks for another language"),
    ("sharegpt_code", {"id": "x", "conversations": "human: write python"}, "no conversation"),
    ("sharegpt_code", {"id": None, "conversations": [None, 3]}, "no conversation"),
    ("sharegpt_code", {"conversations": [{"from": "gpt", "value": "```python\nx = 1\n```"}]}, "no turn asks"),
])
def test_a_broken_row_is_left_out_with_its_reason(name, row, reason):
    with pytest.raises(LeftOut, match=reason):
        to_instruction(name, row)


def test_an_instruction_just_short_enough_is_taken():
    row = {"lang": "python", "problem": "x" * MAX_CHARACTERS}
    assert len(to_instruction("oss_instruct", row).instruction) == MAX_CHARACTERS


@pytest.mark.parametrize(("text", "other"), [
    ("Write a Java class.", True), ("Use JavaScript.", True), ("Write it in C++.", True), ("a c# program", True),
    ("Write a C program that adds.", True), ("Do it in C.", True), ("using R, plot it", True), ("Solve it in Go", True),
    ("Convert this Java code to Python.", True), ("Create a table with SQL.", True), ("```ruby\nputs 1\n```", True),
    ("Write a PHP script", True), ("a rust program", True), ("a shell script that counts", True),
    ("Use Node.js.", True),
    ("Let the temperature go from A to C.", False), ("Julia has 3 apples; Ruby has 2.", False),
    ("points A, B and C", False), ("Let's go!", False), ("Pascal's triangle", False), ("shell sort", False),
    ("Write a Python script that reads an SQL table.", False), ("Parse HTML with Python 3.", False),
    ("The node of a linked list.", False), ("javanese batik", False), ("in Cincinnati", False),
    ("swiftly sort the rusty nails", False), ("", False),
])
def test_requests_for_other_languages(text, other):
    assert asks_for_another_language(text) is other


@pytest.mark.parametrize(("answer", "python"), [
    ("```python\nnot even code\n```", True), ("```Python3\nx\n```", True), ("> ```py\n> x\n> ```", True),
    ("def f():\n    return 1", True), ("Sure:\n```\nimport os\n```\nDone.", True),
    ("first\n```java\nint x;\n```\nthen\n```\nimport os\n```", True),
    ("```java\nint x;\n```\nimport os\n```java\nint y;\n```", False),
    ("console.log('x');", False), ("x = 5", False), ("```\nconsole.log(1);\n```", False), ("", False),
    ("It goes on while it can.", False), ("def broken(:\n    pass", False), ("if x:\n" + "(" * 500, False),
    ("import x\n\0", False), ("print('\\d')", True),
])
def test_answers_in_python(answer, python, recwarn):
    assert answers_in_python(answer) is python and not recwarn


# --- draws ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", HUB_SETS)
@pytest.mark.parametrize("order", [1, 2])
def test_a_draw_does_not_depend_on_the_files_order(name, order, tmp_path):
    here = training_instructions(params(name, train_limit=4))
    there = training_instructions(params(name, train_limit=4, source=shuffled(name, tmp_path / "moved", order)))
    assert here == there and len(here) == 4


def test_a_draw_follows_the_seed_and_a_smaller_one_begins_a_larger_one():
    draws = [training_instructions(params("evol_instruct", seed=seed, train_limit=4)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert training_instructions(params("evol_instruct", train_limit=2)) == draws[0][:2]
    assert counts(params("evol_instruct", seed=1, train_limit=4))["drawn with seed 1"] == 4


def test_a_limit_above_what_is_there_takes_all():
    assert len(training_instructions(params("oss_instruct", train_limit=1000))) == KEPT["oss_instruct"]


def test_a_selection_is_made_once_and_anew_when_its_file_changes(tmp_path, monkeypatch):
    source, reads = shuffled("oss_instruct", tmp_path / "mine", 1), []
    read = hub.hub_rows
    monkeypatch.setattr(selection, "hub_rows", lambda *where: reads.append(where) or read(*where))
    p = params("oss_instruct", source=source)
    training_instructions(p).clear()  # the caller's own list
    assert len(training_instructions(p)) == counts(p)["drawn with seed 0"] == KEPT["oss_instruct"] and len(reads) == 1
    write_jsonl(tmp_path / "mine" / HUB_SETS["oss_instruct"].files[0], raw_rows("oss_instruct")[:2])
    assert len(training_instructions(p)) == 2 and len(reads) == 2


# --- bundled sets and files -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize("name", RECORDED)
def test_bundled_sets_are_what_load_instructions_gives(name, limit):
    p = params(name, train_limit=limit)
    assert training_instructions(p) == load_instructions(name, limit)
    assert counts(p) == {f"instructions of {name}": len(load_instructions(name)),
                         "taken from the start": len(load_instructions(name, limit))}


def test_a_file_is_read_as_it_is(tmp_path):
    write_jsonl(tmp_path / "mine.jsonl", [{"id": "a", "instruction": "Add one.", "solution": "x + 1"}])
    only, = training_instructions(params(str(tmp_path / "mine.jsonl")))
    assert only == load_instructions(str(tmp_path / "mine.jsonl"))[0] and only.solution == "x + 1"


# --- decontamination ------------------------------------------------------------------------------------------------

def planted(folder) -> str:
    """The fixture of OSS-Instruct with one HumanEval problem word for word, and one by its function's name alone."""
    by_name = {one.entry_point: one for one in load_suite("humaneval")}
    problems = [by_name["below_zero"].instruction, "Write `truncate_number(x)` for me, you know which."]
    rows = [{"lang": "python", "raw_index": 1, "index": 1, "seed": "", "openai_fingerprint": "", "problem": text,
             "solution": ""} for text in problems]
    write_jsonl(folder / HUB_SETS["oss_instruct"].files[0], [*raw_rows("oss_instruct"), *rows])
    return str(folder)


def test_overlaps_are_dropped_before_the_draw_and_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("MBPP_OVERRIDE_PATH", str(tmp_path / "no_such_file"))
    source = planted(tmp_path / "planted")
    assert counts(params("oss_instruct", source=source))["drawn with seed 0"] == 7
    p = params("oss_instruct", source=source, decontaminate=True)
    steps = counts(p)
    assert steps["left out: shares 10 words in a row with a benchmark"] == 1
    assert steps["left out: asks for a benchmark's function, by name"] == 1
    assert steps["without overlaps"] == steps["drawn with seed 0"] == 5
    assert [step for step in steps if step.startswith("NOT CHECKED against MBPP_OVERRIDE_PATH=")]


def test_an_unchecked_benchmark_has_no_number(tmp_path, monkeypatch):
    monkeypatch.setenv("MBPP_OVERRIDE_PATH", str(tmp_path / "no_such_file"))
    table = selection_table(params("sharegpt_code", decontaminate=True))
    assert table[table.step.str.startswith("NOT CHECKED")].instructions.isna().all()
    assert table.instructions.dtype == pd.Int64Dtype()


def test_bundled_sets_are_decontaminated_when_asked_and_then_limited(tmp_path, monkeypatch):
    monkeypatch.setenv("MBPP_OVERRIDE_PATH", str(tmp_path / "no_such_file"))
    all_of_them, p = load_instructions("oss"), params("oss", decontaminate=True, train_limit=100)
    chosen = training_instructions(p)
    assert len(chosen) == 100 and "oss-a-0005" not in {item.instruction_id for item in chosen}
    assert chosen == [item for item in all_of_them if item in set(chosen)]  # in the set's order
    assert counts(p)["without overlaps"] < len(all_of_them)


# --- errors ---------------------------------------------------------------------------------------------------------

def test_without_a_hub_the_error_says_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(HubUnavailable, match=r"OSS-Instruct-75K: not loadable \(ConnectionError: Couldn't reach.*"
                                             r"set data.source to its folder"):
        training_instructions(params("oss_instruct", source=None))


@pytest.mark.parametrize("name", HUB_SETS)
def test_the_hub_is_asked_for_the_files_at_the_revision(name, monkeypatch):
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *where, **how: asked.append((where, how)) or raw_rows(name))
    assert len(training_instructions(params(name, source=None, revision="abc123"))) == KEPT[name]
    assert asked == [((HUB_SETS[name].repo,), {"data_files": list(HUB_SETS[name].files), "split": "train",
                                               "revision": "abc123"})]


def test_missing_local_files_are_named(tmp_path):
    with pytest.raises(HubUnavailable, match="no file .*EvolInstruct-Code-80k.json. Where a hub is reachable"):
        training_instructions(params("evol_instruct", source=str(tmp_path)))


def test_a_local_file_that_is_no_json(tmp_path):
    (tmp_path / HUB_SETS["oss_instruct"].files[0]).write_text("<html>Not found</html>\n")
    with pytest.raises(HubUnavailable, match="no JSON that datasets can read"):
        training_instructions(params("oss_instruct", source=str(tmp_path)))


def test_source_may_be_one_file(tmp_path):
    shutil.copy(FIXTURES / "EvolInstruct-Code-80k.json", tmp_path / "other_name.json")
    assert len(training_instructions(params("evol_instruct", source=str(tmp_path / "other_name.json")))) == 6


def test_nothing_left_is_an_error_with_the_counts(tmp_path):
    write_jsonl(tmp_path / HUB_SETS["oss_instruct"].files[0], raw_rows("oss_instruct")[2:4])
    with pytest.raises(ValueError, match="no instruction is left: .*left out: language is not Python: 2"):
        training_instructions(params("oss_instruct", source=str(tmp_path)))


def test_a_source_beside_a_set_that_is_not_on_the_hub():
    with pytest.raises(ValueError, match="data.source: expected a hub set beside it .*got data.train 'basics_train'"):
        training_instructions(params("basics_train", source="somewhere"))


def test_an_unknown_set():
    with pytest.raises(ValueError, match="unknown instruction set 'oss_instruc'.*HUB_SETS"):
        training_instructions(params("oss_instruc"))
