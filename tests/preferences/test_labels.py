"""The label rule and the training sets, on verdicts written by hand and on random ones."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.data import instructions as instructions_module
from plum_utils.models.completions import Ending
from plum_utils.params import LabelParams, TrainingParams
from plum_utils.plots.style import STATUS_COLOURS
from plum_utils.preferences import labels
from plum_utils.preferences import sets as sets_module
from plum_utils.preferences.labels import CHOSEN, LABEL_OF_STATUS, REJECTED, UNRUNNABLE
from plum_utils.preferences.static_checks import NO_CODE, TYPE_ERROR
from plum_utils.sandbox import Status
from plum_utils.syntax import defines, normalise
from plum_utils.training import objectives

STATUSES = [status for status in LABEL_OF_STATUS if status != Status.INFRASTRUCTURE]
# (instruction, status, text): few of each, so that duplicates and unsolved instructions are frequent
outcomes = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(STATUSES), st.integers(0, 3)), min_size=1, max_size=60)


def labelled(items, deduplicate: bool = True, finish: str = "stop_string") -> tuple[pd.DataFrame, list[dict]]:
    samples, verdicts, seen = [], [], Counter()
    for instruction, status, text in items:
        key = {"instruction_id": f"i{instruction}", "sample_index": seen[instruction]}
        seen[instruction] += 1
        completion = f"```python\n{status}{text}\n```\n"
        samples.append(key | {"prompt": f"p{instruction}", "completion": completion, "finish_reason": finish,
                              "end": "<end>" if finish == "end_token" else ""})
        verdicts.append(key | {"status": status, "detail": "?"})
    return labels.label_samples(verdicts, iter(samples), deduplicate), samples


def texts(rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["instruction_id"], row["completion"][0]["content"]) for row in rows]


def test_the_rule_verdict_by_verdict():
    assert {name for name, label in LABEL_OF_STATUS.items() if label == CHOSEN} == {"passed"}
    assert {name for name, label in LABEL_OF_STATUS.items() if label == REJECTED} == {"failed", "timeout", "memory"}
    assert {name for name, label in LABEL_OF_STATUS.items() if label == UNRUNNABLE} == {"error", "syntax", "type_error",
                                                                                        "no_code"}


def test_each_status_that_the_sandbox_gives_has_a_label_and_each_of_a_sample_a_colour():
    assert set(Status) | {TYPE_ERROR, NO_CODE} == set(LABEL_OF_STATUS)
    assert set(STATUS_COLOURS) == set(LABEL_OF_STATUS) - {Status.INFRASTRUCTURE}


def test_a_verdict_that_is_our_fault_never_becomes_a_label():
    with pytest.raises(ValueError, match="i0/0: the sandbox failed"):
        labelled([(0, "infrastructure", 0)])


def test_a_sample_without_a_verdict_is_an_error():
    sample = {"instruction_id": "i", "sample_index": 3, "completion": "x"}
    with pytest.raises(ValueError, match="i/3 has no verdict"):
        labels.label_samples([], [sample])


def test_an_unknown_verdict_is_an_error():
    with pytest.raises(KeyError, match="perfect"):
        labelled([(0, "perfect", 0)])


@given(outcomes)
def test_kto_holds_runnable_distinct_samples_of_solved_instructions(items):
    rows = list(sets_module.kto_rows(*labelled(items)))
    solved = {f"i{instruction}" for instruction, status, _ in items if status == "passed"}
    expected = {(f"i{instruction}", status, text) for instruction, status, text in items
                if f"i{instruction}" in solved and LABEL_OF_STATUS[status] in (CHOSEN, REJECTED)}
    assert len(rows) == len(expected)
    assert sum(row["label"] for row in rows) == sum(status == "passed" for _, status, _ in expected)
    assert len(set(texts(rows))) == len(rows)


@given(outcomes, st.sets(st.integers(0, 4)))
def test_a_part_of_the_table_gives_the_same_part_of_the_sets(items, some):
    frame, samples = labelled(items)
    names = {f"i{number}" for number in some}
    part = frame[frame.instruction_id.isin(names)]
    for make in (sets_module.kto_rows, sets_module.sft_rows, sets_module.unrunnable_rows):
        assert list(make(part, samples)) == [row for row in make(frame, samples) if row["instruction_id"] in names]


def test_samples_in_another_order_than_when_they_were_labelled_are_an_error():
    frame, samples = labelled([(0, "passed", 0), (0, "failed", 0), (1, "passed", 0)])
    for wrong in (samples[::-1], samples[:-1]):
        with pytest.raises(ValueError, match="not where it was when it was labelled"):
            list(sets_module.kto_rows(frame, wrong))


def test_pairs_are_written_as_soon_as_their_instruction_is_read():
    """What is held in memory is one instruction's texts, not the file's."""
    frame, samples = labelled([(number, status, 0) for number in range(3) for status in ("passed", "failed")])
    read = []
    stream = (read.append(sample) or sample for sample in samples)
    assert [(pair["instruction_id"], len(read)) for pair in sets_module.dpo_rows(frame, stream)] == \
        [("i0", 2), ("i1", 4), ("i2", 6)]


@given(outcomes, st.booleans())
def test_each_sample_has_one_fate(items, deduplicate):
    frame, _ = labelled(items, deduplicate)
    flow = labels.flow_counts(frame)
    assert sum(flow.values()) == len(items)
    assert flow[CHOSEN] + flow[REJECTED] == frame.used.sum()
    assert flow["un-runnable"] == sum(LABEL_OF_STATUS[status] == UNRUNNABLE for _, status, _ in items)
    assert deduplicate or flow["duplicate"] == 0


@given(outcomes, st.integers(0, 3))
def test_dpo_has_as_many_pairs_as_the_smaller_side_and_none_twice(items, seed):
    frame, samples = labelled(items)
    frame["completion"] = [sample["completion"] + sample["end"] for sample in samples]
    pairs = list(sets_module.dpo_rows(frame, iter(samples), seed))
    for name, group in frame[frame.used].groupby("instruction_id"):
        sides = group.label.value_counts()
        ours = [pair for pair in pairs if pair["instruction_id"] == name]
        assert len(ours) == min(sides.get(CHOSEN, 0), sides.get(REJECTED, 0))
        for side, label in (("chosen", CHOSEN), ("rejected", REJECTED)):
            used = [pair[side][0]["content"] for pair in ours]
            assert len(set(used)) == len(used)
            assert set(used) <= set(group[group.label == label].completion)
    assert pairs == list(sets_module.dpo_rows(frame, samples, seed))


@given(outcomes)
def test_sft_has_exactly_the_chosen_rows_of_kto(items):
    frame, samples = labelled(items)
    rows = list(sets_module.sft_rows(frame, samples))
    assert texts(rows) == texts([row for row in sets_module.kto_rows(frame, samples) if row["label"]])
    assert all("label" not in row for row in rows)


@given(outcomes)
def test_the_ablation_keeps_the_chosen_and_takes_unrunnable_ones_as_rejected(items):
    frame, samples = labelled(items)
    rows = list(sets_module.unrunnable_rows(frame, samples))
    assert texts([row for row in rows if row["label"]]) == texts(sets_module.sft_rows(frame, samples))
    solved = {f"i{instruction}" for instruction, status, _ in items if status == "passed"}
    expected = {(f"i{instruction}", status, text) for instruction, status, text in items
                if f"i{instruction}" in solved and LABEL_OF_STATUS[status] == UNRUNNABLE}
    assert sum(not row["label"] for row in rows) == len(expected)


@pytest.mark.parametrize("code, found", [("def f(x):\n    return x", True), ("async def f(): pass", True),
                                         ("class f: pass", True), ("def g():\n    def f(): pass", False),
                                         ("def f(:", False), ("", False), ("f = 1", False)])
def test_defines(code, found):
    assert defines(code, "f") is found


def test_what_tests_call_is_what_they_neither_define_nor_import():
    tests = ("from math import pi\ndef near(a, b):\n    return abs(a - b) < 1e-9\nassert near(area(1), pi)", "assert sum([1]) == 3")
    assert sets_module.names_called({"i": tests}, {"i": "def sum(xs):\n    return 3"}) == {"i": {"area", "sum"}}


@given(outcomes)
def test_kto_is_parted_into_what_defines_all_that_its_tests_call_and_what_does_not(items):
    """Each text is its own program; texts 0 and 1 define one of the two functions that are called, 2 and 3 both."""
    frame, samples = labelled(items)
    programs = ("def f(): pass", "g = f = 1\ndef g(): pass", "def f(): pass\ndef g(): pass", "class f: pass\ndef g(): pass")
    samples = [sample | {"code": programs[text]} for sample, (_, _, text) in zip(samples, items)]
    called = {f"i{number}": {"f", "g"} for number in range(5)}
    kto = list(sets_module.kto_rows(frame, samples))
    content, form = (list(sets_module.defining_rows(frame, samples, called, which)) for which in (True, False))
    chosen = [row for row in kto if row["label"]]
    assert [row for row in content if row["label"]] == [row for row in form if row["label"]] == chosen
    bad = [[row["completion"][0]["content"][-6] for row in part if not row["label"]] for part in (content, form)]
    assert set(bad[0]) <= {"2", "3"} and set(bad[1]) <= {"0", "1"} and sum(map(len, bad)) == len(kto) - len(chosen)


@pytest.mark.parametrize(("text", "same"), [
    ("def f():\n    return 1", "def f():\n    return 1\n\n"),
    ("a = 1  \nb = 2\t", "a = 1\nb = 2"),
    ("\n\na = 1\n\n", "a = 1"),
    ("a\n\nb", "a\nb"),
    ("if a:\n  \n\t\n    b", "if a:\n    b"),
    ("a\r\nb", "a\nb"),
    ("# a \"\"\" in a comment  \na = 1  \n# \"\"\"", "# a \"\"\" in a comment\na = 1\n# \"\"\""),
    ("a = '\"\"\"'  \nb = 1  \nc = '\"\"\"'", "a = '\"\"\"'\nb = 1\nc = '\"\"\"'"),
    ("It's 1.  \nThat's all.  \n", "It's 1.\nThat's all."),
    ("a = \"\"\"x\"\"\"  \n\nb", "a = \"\"\"x\"\"\"\nb"),
])
def test_white_space_does_not_make_another_answer(text, same):
    assert normalise(text) == normalise(same)


@pytest.mark.parametrize(("text", "other"), [
    ("a = 1", "a = 2"), ("a\nb", "a b"), ("  a = 1", "a = 1"), ("'a  b'", "'a b'"), ("a  = 1", "a = 1"),
    ("for t in x:\n    y\n    return t", "for t in x:\n    y\n        return t"),
    ("a = \"\"\"x\n\ny\"\"\"", "a = \"\"\"x\ny\"\"\""), ("a = '''x \ny'''", "a = '''x\ny'''"),
    ("a = \"\"\"cut  \nb", "a = \"\"\"cut\nb"), ("a\u00a0", "a")])
def test_other_answers_stay_other(text, other):
    assert normalise(text) != normalise(other)


def test_duplicates_count_once_within_an_instruction_only():
    frame, _ = labelled([(0, "passed", 1), (0, "passed", 1), (1, "passed", 1)])
    assert frame.duplicate.tolist() == [False, True, False]
    assert frame.used.tolist() == [True, False, True]
    assert labelled([(0, "passed", 1), (0, "passed", 1)], deduplicate=False)[0].used.all()


@pytest.mark.parametrize(("finish", "completion", "ended"), [
    ("stop_string", "```python\nx\n```\n", False),
    ("end_token", "I cannot do that.", True),
    ("end_token", "```python\nx\n```\n", True),     # the stop string came, and by itself the end
    ("stop_string", "x = 1", False),
    ("length", "```python\nx", False),
])
def test_the_end_token_is_trained_on_only_where_it_was_sampled(finish, completion, ended):
    sample = {"instruction_id": "i", "sample_index": 0, "prompt": "p", "completion": completion,
              "finish_reason": finish, "end": "<end>" if ended else ""}
    verdict = {"instruction_id": "i", "sample_index": 0, "status": "passed", "detail": ""}
    (row,) = sets_module.sft_rows(labels.label_samples([verdict], [sample]), [sample])
    assert row["completion"] == [{"role": "assistant", "content": completion + ("<end>" if ended else "")}]
    assert row["prompt"] == [{"role": "user", "content": "p"}]


def test_endings_are_those_of_the_backends():
    assert labels.ENDINGS == get_args(Ending)


def test_samples_of_an_older_version_are_an_error():
    with pytest.raises(ValueError, match="i0/0: finish_reason is 'stop', expected .*: run stage 02 again"):
        labelled([(0, "passed", 0)], finish="stop")


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=50), st.integers(1, 4), st.integers(0, 3))
def test_the_cap_holds_per_side_and_keeps_order(items, most, seed):
    rows = [{"instruction_id": f"i{one}", "label": label, "place": place} for place, (one, label) in enumerate(items)]
    kept = objectives.cap_per_side(rows, most, seed)
    before, after = (Counter((row["instruction_id"], row["label"]) for row in some) for some in (rows, kept))
    assert after == Counter({key: min(count, most) for key, count in before.items()})
    assert [row["place"] for row in kept] == sorted(row["place"] for row in kept)
    assert kept == objectives.cap_per_side(rows, most, seed)
    assert objectives.cap_per_side(rows, None, seed) == rows


def test_the_cap_counts_pairs_per_instruction():
    pairs = [{"instruction_id": "i0", "chosen": str(n)} for n in range(5)] + [{"instruction_id": "i1", "chosen": "x"}]
    assert Counter(row["instruction_id"] for row in objectives.cap_per_side(pairs, 2, 0)) == {"i0": 2, "i1": 1}


@given(st.sets(st.integers(0, 500), max_size=80), st.floats(0, 0.99), st.integers(0, 5))
def test_the_split_is_complete_disjoint_and_blind_to_order(numbers, fraction, seed):
    ids = [f"i{number}" for number in numbers]
    training, validation = instructions_module.split_instructions(ids * 2, fraction, seed)
    assert not set(training) & set(validation) and sorted(training + validation) == sorted(ids)
    assert len(validation) == round(len(ids) * fraction)
    assert instructions_module.split_instructions(ids[::-1], fraction, seed) == (training, validation)


def test_figure_2_counts_every_sample_duplicates_too():
    frame, _ = labelled([(0, "passed", 1), (0, "passed", 1), (0, "syntax", 0), (0, "failed", 0), (1, "error", 0)])
    assert labels.correctness_ratios(frame).to_dict() == {"i0": 0.5, "i1": 0.0}


@pytest.mark.parametrize(("items", "missing"), [
    ([(0, "failed", 0), (1, "syntax", 0)], "passes its tests"),
    ([(0, "passed", 0), (1, "failed", 0)], "fails tests that another passes"),
])
def test_nothing_to_prefer_is_an_error_that_says_what_to_do(items, missing):
    with pytest.raises(ValueError, match=f"none of 2 judged samples {missing}: .*sampling.k"):
        sets_module.require_both_sides(labelled(items)[0])


def test_no_sample_at_all_is_the_same_error():
    with pytest.raises(ValueError, match="none of 0 judged samples passes its tests"):
        sets_module.require_both_sides(pd.DataFrame())


def test_two_sides_are_enough():
    sets_module.require_both_sides(labelled([(0, "passed", 0), (0, "failed", 0)])[0])


def rows_of(ids, **more):
    return [{"instruction_id": name} | more for name in ids for _ in range(3)]


@pytest.mark.parametrize(("side", "shared"), [("same", True), ("unseen", False)])
def test_sft_gets_the_same_instructions_as_preference_learning_or_the_rest(side, shared):
    ids = [f"i{number}" for number in range(20)]
    sets = {"kto": rows_of(ids, label=True), "dpo": rows_of(ids), "sft": rows_of(ids)}
    training = TrainingParams(preference_fraction=0.5, sft_instructions=side, max_per_side=2)
    found = {name: {row["instruction_id"] for row in rows}
             for name, rows in objectives.training_sets(sets, training, 0).items()}
    assert len(found["kto"]) == 10 and found["dpo"] == found["kto"]
    assert (found["sft"] == found["kto"]) is shared
    assert shared or found["sft"] == set(ids) - found["kto"]


def test_all_instructions_train_by_default_and_the_cap_holds():
    sets = {"kto": rows_of("abc", label=True), "sft": rows_of("abc")}
    assert objectives.training_sets(sets, TrainingParams(), 0) == sets
    capped = objectives.training_sets(sets, TrainingParams(max_per_side=1), 0)
    assert [len(rows) for rows in capped.values()] == [3, 3]


def sampled(instructions: int, k: int) -> list[dict]:
    return [{"instruction_id": f"i{number}", "sample_index": index} for number in range(instructions)
            for index in range(k)]


@given(st.integers(0, 6), st.integers(1, 4), st.integers(1, 8), st.integers(1, 6), st.integers(0, 3))
def test_a_part_is_labelled_of_few_instructions_and_the_first_samples(instructions, k, wanted, first_k, seed):
    rows = sampled(instructions, k)
    ids = {row["instruction_id"] for row in rows}
    part = list(labels.selected(iter(rows), LabelParams(first_k=first_k, instructions=wanted), ids, seed))
    names = {row["instruction_id"] for row in part}
    assert len(names) == min(wanted, instructions)
    assert part == [row for row in rows if row["instruction_id"] in names and row["sample_index"] < first_k]


def test_without_limits_every_row_is_selected():
    rows = sampled(5, 3)
    ids = ["i0", "i1", "i2", "i3", "i4"]
    assert list(labels.selected(rows, LabelParams(), ids, 0)) == rows
    assert list(labels.selected(rows, LabelParams(), ids[:1], 0)) == rows[:3]


def test_smaller_parts_lie_within_larger_ones_and_depend_on_the_seed():
    rows = sampled(30, 1)
    ids = [row["instruction_id"] for row in rows]

    def names(size: int, seed: int = 0) -> set[str]:
        part = labels.selected(rows, LabelParams(instructions=size), reversed(ids), seed)
        return {row["instruction_id"] for row in part}

    assert names(5) < names(12) < names(30)
    assert names(5) == names(5) != names(5, 1)


def test_the_part_is_the_same_in_samples_and_in_verdicts_so_that_it_can_be_labelled():
    items = [(number, "passed" if index else "failed", index) for number in range(4) for index in range(3)]
    everything, samples = labelled(items)
    verdicts = everything.drop(columns=["label"]).to_dict("records")
    few = LabelParams(first_k=2, instructions=2)
    ids = set(everything.instruction_id)
    part = [list(labels.selected(rows, few, ids, 0)) for rows in (verdicts, samples)]
    frame = labels.label_samples(*part)
    assert len(frame) == 4 and list(frame.index) == [0, 1, 2, 3]
    assert [row["completion"] for _, row in labels.pick(frame, part[1])] == [row["completion"] for row in part[1]]
