"""Instruction sets: the bundled ones are whole, a broken file is an error with its line."""

from __future__ import annotations

import json

import pytest

from plum_utils.data.instructions import RECORDED, load_instructions
from plum_utils.jsonl import JsonlError, read_jsonl
from plum_utils.provenance import ROOT


@pytest.mark.parametrize(("name", "instructions", "responses"), [
    ("basics_train", 456, 3), ("intermediate_train", 234, 3), ("oss", 150, 3), ("sharegpt", 40, 3), ("evol", 24, 6)])
def test_bundled_sets_are_whole(name, instructions, responses):
    items = load_instructions(name)
    assert len(items) == instructions and {len(item.responses) for item in items} == {responses}


def test_no_two_bundled_instructions_are_one():
    items = [item for name in RECORDED for item in load_instructions(name)]
    assert len({item.instruction_id for item in items}) == len({item.instruction for item in items}) == len(items)


@pytest.mark.parametrize("suite", ["heldout_basics", "heldout_intermediate", "heldout_public"])
def test_no_held_out_problem_is_trained_on(suite):
    trained = {item.instruction.casefold().strip() for name in RECORDED for item in load_instructions(name)}
    held_out = read_jsonl(ROOT / "plum_utils" / "data" / f"{suite}.jsonl")
    assert held_out and not [row["task_id"] for row in held_out
                             if row.get("instruction", "").casefold().strip() in trained]


def test_a_limit_takes_the_first():
    assert load_instructions("oss", 3) == load_instructions("oss")[:3]


def write(tmp_path, *lines):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


GOOD = {"id": "a", "instruction": "Add one.", "responses": ["text"]}


def test_a_local_file(tmp_path):
    path = write(tmp_path, GOOD, "", {"id": "b", "source": "mine", "instruction": "Add two.", "solution": "x + 2"})
    first, second = load_instructions(path)
    assert (first.instruction_id, first.source, first.responses) == ("a", path, ("text",))
    assert (second.source, second.responses) == ("mine", ()) and (first.solution, second.solution) == ("", "x + 2")


@pytest.mark.parametrize(("line", "message"), [
    ('{"id": "b", "instr', "not JSON"),
    ({"id": "b"}, "no key 'instruction'"),
    ({"instruction": "x"}, "no key 'id'"),
    (GOOD | {"id": 7}, "id: expected text, got int"),
    (GOOD | {"id": "b", "instruction": None}, "instruction: expected text, got NoneType"),
    (GOOD | {"id": "b", "instruction": "  "}, "instruction: empty"),
    (GOOD | {"id": "b", "responses": "one text, not a list"}, "responses: expected a list of texts"),
    (GOOD | {"id": "b", "solution": ["x"]}, "solution: expected text, got list"),
    (GOOD | {"id": "b", "responses": ["text", 3]}, "responses: expected a list of texts"),
])
def test_errors_name_file_and_line(tmp_path, line, message):
    path = write(tmp_path, GOOD, "", line)
    with pytest.raises(JsonlError) as caught:
        load_instructions(path)
    assert str(caught.value).startswith(f"{path}:3: {message}")


def test_two_instructions_with_one_id(tmp_path):
    with pytest.raises(ValueError, match="share an id"):
        load_instructions(write(tmp_path, GOOD, GOOD | {"instruction": "Another."}))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown instruction set 'humaneval'; one of basics_train, .* a JSONL file"):
        load_instructions("humaneval")
