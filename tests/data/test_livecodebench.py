"""LiveCodeBench: its encoded tests, hostile and broken files, its messages."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import zlib
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_utils.data import livecodebench
from plum_utils.data.livecodebench import (
    FIELDS,
    LiveCodeBenchUnavailable,
    bundled_path,
    decode_private_tests,
    encode_private_tests,
    load_livecodebench,
)
from plum_utils.jsonl import JsonlError, read_jsonl, write_jsonl

TESTS = st.lists(st.fixed_dictionaries({"input": st.text(), "output": st.text(),
                                        "testtype": st.sampled_from(["stdin", "functional"])}), max_size=5)


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.fixture(scope="module")
def problems():
    return {one.task_id: one for one in load_livecodebench()}


@pytest.fixture(scope="module")
def rows():
    return read_jsonl(bundled_path())


@given(TESTS)
@settings(deadline=None)
def test_decoding_undoes_encoding(tests):
    assert decode_private_tests(encode_private_tests(tests)) == tests
    assert decode_private_tests(json.dumps(tests)) == tests


@given(st.one_of(st.text(), st.binary().map(lambda data: base64.b64encode(data).decode()), st.binary().map(packed)))
@settings(deadline=None)
def test_anything_else_is_a_value_error_or_json(text):
    try:
        decode_private_tests(text)
    except ValueError:
        return
    assert json.loads(text) is not NotImplemented  # only plain JSON may pass


@given(st.binary(max_size=200), st.integers(0, 199))
@settings(deadline=None)
def test_a_damaged_pickle_is_a_value_error(noise, place):
    whole = pickle.dumps(json.dumps([{"input": "1", "output": "2", "testtype": "stdin"}]))
    place = min(place, len(whole))
    try:
        assert isinstance(decode_private_tests(packed(whole[:place] + noise)), (list, dict, str, int, float, bool))
    except ValueError:
        pass


class _Mkdir:
    def __init__(self, target: str):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


class _Eval:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_calls_a_function_is_refused(protocol, tmp_path):
    target = tmp_path / "owned"
    hostile = pickle.dumps(_Mkdir(str(target)), protocol)
    with pytest.raises(ValueError, match="refused (STACK_)?GLOBAL"):
        decode_private_tests(packed(hostile))
    assert not target.exists()
    pickle.loads(hostile)
    assert target.exists()  # the attack is one


@pytest.mark.parametrize("value", [_Eval(), Exception, len, io.StringIO, complex(1, 2), {1, 2}, [1], b"bytes", None])
def test_a_pickle_of_anything_but_a_string_is_refused(value):
    data = pickle.dumps(value)
    with pytest.raises(ValueError, match="refused|one pickled string"):
        decode_private_tests(packed(data))


def test_a_memo_index_that_would_take_all_memory_is_never_allocated():
    assert decode_private_tests(packed(b"\x80\x04X\x02\x00\x00\x00[]r\xff\xff\xff\xff.")) == []


def test_a_zip_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(livecodebench, "MAX_TESTS_BYTES", 1 << 20)
    bomb = packed(pickle.dumps(" " * (64 << 20)))
    assert len(bomb) < 100_000
    with pytest.raises(ValueError, match="more than 1 MiB"):
        decode_private_tests(bomb)


def test_bundled_rows_are_in_livecodebenchs_schema(rows, problems):
    assert all(set(row) == set(FIELDS) for row in rows) and len(rows) == len(problems) >= 12
    kinds = {(one.difficulty, bool(one.func_name)) for one in problems.values()}
    assert kinds == {(level, functional) for level in livecodebench.DIFFICULTIES for functional in (True, False)}
    for one in problems.values():
        types = {test.testtype for test in one.public_tests + one.private_tests}
        assert types == {"functional" if one.func_name else "stdin"}
        assert bool(one.starter_code) == bool(one.func_name) and len(one.private_tests) >= 5
    assert all(not row["private_test_cases"].startswith("[") for row in rows)  # encoded, as the originals are


def test_a_release_is_its_files_together(rows, tmp_path):
    write_jsonl(tmp_path / "test.jsonl", rows[:3])
    write_jsonl(tmp_path / "test2.jsonl", rows[3:7])
    assert len(load_livecodebench(str(tmp_path), "release_v1")) == 3
    both = load_livecodebench(str(tmp_path), "release_v2")
    assert [one.task_id for one in both] == [row["question_id"] for row in rows[:7]]
    assert len(load_livecodebench(str(tmp_path / "test2.jsonl"), limit=2)) == 2
    with pytest.raises(LiveCodeBenchUnavailable, match="release_v4 needs test3.jsonl, test4.jsonl"):
        load_livecodebench(str(tmp_path), "release_v4")
    with pytest.raises(ValueError, match="unknown 'latest'"):
        load_livecodebench(str(tmp_path), "latest")


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch):
    def refuse(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(LiveCodeBenchUnavailable, match="test.jsonl: not loadable .*livecodebench.source: bundled"):
        load_livecodebench("livecodebench/code_generation_lite", "release_v1")


def test_hub_files_are_downloaded_by_release(monkeypatch, rows, tmp_path):
    asked = []

    def fetch(repository, name, repo_type, tqdm_class):
        asked.append((repository, name, repo_type))
        write_jsonl(tmp_path / name, rows[len(asked) - 1:len(asked)])
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert len(load_livecodebench("livecodebench/code_generation_lite", "release_v3")) == 3
    assert asked == [("livecodebench/code_generation_lite", name, "dataset") for name in ("test.jsonl", "test2.jsonl", "test3.jsonl")]


@pytest.mark.parametrize("change, message", [
    ({"private_test_cases": packed(pickle.dumps(_Eval()))}, "refused STACK_GLOBAL"),
    ({"private_test_cases": "%%%"}, "private tests cannot be decoded|base64"),
    ({"public_test_cases": "[{}]"}, "missing 3 required"),
    ({"public_test_cases": "not json"}, "Expecting value"),
    ({"public_test_cases": "[]", "private_test_cases": "[]"}, "no tests, public or private; any program would pass"),
    ({"metadata": "{"}, "Expecting property name"),
    ({"contest_date": "last spring"}, "contest_date: expected a date such as .*, got 'last spring'"),
    ({"contest_date": None}, "contest_date: expected a date"),
    ({"platform": "topcoder"}, "platform: expected one of leetcode, atcoder, codeforces, got 'topcoder'")])
def test_a_broken_row_is_named_by_file_and_line(change, message, rows, tmp_path):
    write_jsonl(tmp_path / "test.jsonl", [rows[0], rows[1] | change])
    with pytest.raises(JsonlError, match=rf"test\.jsonl:2: .*({message})"):
        load_livecodebench(str(tmp_path / "test.jsonl"))


def test_a_row_without_a_field_is_named_by_file_and_line(rows, tmp_path):
    write_jsonl(tmp_path / "test.jsonl", [rows[0], {k: v for k, v in rows[1].items() if k != "difficulty"}])
    with pytest.raises(JsonlError, match=r"test\.jsonl:2: no key 'difficulty'"):
        load_livecodebench(str(tmp_path / "test.jsonl"))


def dated(rows: list[dict], folder, *contests: tuple[str, str]) -> str:
    """A file of problems held on these (day, platform)."""
    write_jsonl(folder / "test.jsonl", [row | {"contest_date": day, "platform": platform}
                                        for row, (day, platform) in zip(rows, contests)])
    return str(folder / "test.jsonl")


CONTESTS = (("2023-08-21T00:00:00", "codeforces"), ("2023-09-01T14:30:00", "leetcode"), ("2023-09-30", "atcoder"),
            ("2023-10-01T00:00:00", "leetcode"))


@pytest.mark.parametrize("start, end, platforms, kept", [
    (None, None, (), [0, 1, 2, 3]), (date(2023, 9, 1), None, (), [1, 2, 3]), (None, date(2023, 9, 1), (), [0, 1]),
    (date(2023, 9, 1), date(2023, 9, 30), [], [1, 2]), (None, None, ["leetcode"], [1, 3]),
    (date(2023, 9, 2), None, ["leetcode", "codeforces"], [3])])
def test_a_window_of_contests_keeps_both_its_ends(start, end, platforms, kept, rows, tmp_path):
    source = dated(rows, tmp_path, *CONTESTS)
    found = load_livecodebench(source, start_date=start, end_date=end, platforms=platforms)
    assert [one.task_id for one in found] == [rows[place]["question_id"] for place in kept]
    first = load_livecodebench(source, limit=1, start_date=start, end_date=end, platforms=platforms)
    assert first == found[:1], "the limit counts what the window leaves"


def test_days_are_read_whatever_the_hour(rows, tmp_path):
    days = [one.contest_date for one in load_livecodebench(dated(rows, tmp_path, *CONTESTS))]
    assert days == [date(2023, 8, 21), date(2023, 9, 1), date(2023, 9, 30), date(2023, 10, 1)]


def test_an_empty_window_names_what_there_is(rows, tmp_path):
    source = dated(rows, tmp_path, *CONTESTS)
    with pytest.raises(ValueError, match=r"no problem of contests from 2024-01-01 to the last; there are 4 from "
                                         r"2023-08-21 to 2023-10-01 on atcoder, codeforces, leetcode"):
        load_livecodebench(source, start_date=date(2024, 1, 1))
    with pytest.raises(ValueError, match="from the first to 2023-08-31 on leetcode, atcoder; there are 4"):
        load_livecodebench(source, end_date=date(2023, 8, 31), platforms=["leetcode", "atcoder"])
    with pytest.raises(ValueError, match="livecodebench.platforms: unknown 'topcoder'; any of leetcode, atcoder, code"):
        load_livecodebench(source, platforms=["leetcode", "topcoder"])


def test_tests_outside_the_window_are_not_decoded(rows, tmp_path):
    old = rows[0] | {"private_test_cases": "%%%", "contest_date": "2023-01-01"}
    write_jsonl(tmp_path / "test.jsonl", [old, rows[1]])
    assert len(load_livecodebench(str(tmp_path / "test.jsonl"), start_date=date(2024, 1, 1))) == 1


def test_the_message_says_how_the_program_is_called(problems):
    assert "standard input" in problems["plum-e1"].instruction
    assert "class Solution:" in problems["plum-e4"].instruction
    assert not any(test.output in problems["plum-e4"].instruction for test in problems["plum-e4"].private_tests
                   if len(test.output) > 3)
