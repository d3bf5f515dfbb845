"""JSON Lines: what comes back is what was written, errors name the line, no reader sees half a file."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.jsonl import DiskFull, JsonlError, new_folder, read_jsonl, write_json, write_jsonl, write_text

# Text as a model writes it: any code point, lone surrogates and separators of every kind included.
TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(["\u2028", "\x85", "\r\n", "\ud800", "\x00"])
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


@given(rows=st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=4))
def test_rows_survive_the_round_trip(rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows


@given(garbage=st.binary(max_size=60))
def test_any_bytes_are_rows_or_a_jsonl_error(garbage, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "garbage.jsonl"
    path.write_bytes(garbage)
    try:
        assert all(isinstance(row, dict) for row in read_jsonl(path))
    except JsonlError as error:
        assert str(error).startswith(f"{path}:")


def test_gz_and_empty_lines(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n\n  \n{"a": 2}'))
    assert read_jsonl(path, required=("a",)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(("line", "message"), [
    (b'{"a": 1', "not JSON"),
    (b'[1]', "expected a JSON object, got list"),
    (b'{"b": 1}', "no key 'a' (it has b); add it"),
    (b'\xff', "not JSON"),
    (b'[' * 100_000, "not JSON"),
])
def test_errors_name_file_and_line(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(JsonlError) as caught:
        read_jsonl(path, required=("a",))
    assert str(caught.value).startswith(f"{path}:3: ") and message in str(caught.value)


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_jsonl(tmp_path / "none.jsonl")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path, monkeypatch, number):
    path = tmp_path / "kept.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(number, "no room")))
    with pytest.raises(DiskFull, match="kept.txt: the disk is full"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["kept.txt"]


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "deeper" / "kept.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"new": 1})
    assert path.read_text() == '{\n "old": 1\n}\n' and os.listdir(path.parent) == ["kept.json"]


def test_a_real_full_device_is_recognised():
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError) as caught:
        with open(device, "wb", buffering=0) as handle:
            handle.write(b"x")
    assert caught.value.errno == errno.ENOSPC  # the number DiskFull is made from


@pytest.mark.parametrize(("replace", "left"), [(True, "new"), (False, "old")])
def test_a_folder_has_its_name_when_it_is_whole(tmp_path, replace, left):
    path = tmp_path / "deeper" / "model"
    for text in ("old", "new"):
        with new_folder(path, replace) as folder:
            (folder / text).write_text(text)
    assert os.listdir(path) == [left] and os.listdir(path.parent) == ["model"]


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_folder_leaves_what_was_there(tmp_path, there):
    path = tmp_path / "model"
    if there:
        path.mkdir()
    with pytest.raises(KeyboardInterrupt):
        with new_folder(path, replace=True) as folder:
            (folder / "half").write_text("")
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["model"] * there and not (path / "half").exists()
