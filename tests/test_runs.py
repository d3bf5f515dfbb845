"""A run's folder: tables, figures, manifest, and shards that survive kills and damage."""

from __future__ import annotations

import threading
import time

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from plum_utils.progress import Bar
from plum_utils.runs import Run, check, fingerprint, make_shards, shards
from plum_utils.stages import BY_NAME


@pytest.fixture
def made():
    return []


@pytest.fixture
def make(made):
    def one(key):
        made.append(key)
        return [{"key": key, "text": "line\u2028separator \ud800", "pair": (1, 2)}, {"key": key}]
    return one


def test_shards_come_in_key_order_and_are_made_once(tmp_path, make, made):
    first = shards(tmp_path, ["b", "a"], make, "mark", "work")
    assert [row["key"] for row in first] == ["b", "b", "a", "a"]
    assert shards(tmp_path, ["b", "a"], make, "mark", "work") == first
    assert made == ["b", "a"]
    assert first[0]["pair"] == [1, 2]  # a fresh shard looks as a reread one


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1], lambda data: data[:10], lambda data: b"", lambda data: b"\xff\xfe", lambda data: b"[" * 9**5,
    lambda data: data.replace(b"line", b"lime"), lambda data: data + b'{"key": "forged"}\n', lambda data: b"3\n",
])
def test_damaged_shards_are_made_again(tmp_path, make, made, damage):
    rows = shards(tmp_path, ["a", "b"], make, "mark", "work")
    path = tmp_path / "a.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    assert shards(tmp_path, ["a", "b"], make, "mark", "work") == rows
    assert made == ["a", "b", "a"]


def test_another_fingerprint_makes_all_again(tmp_path, make, made):
    shards(tmp_path, ["a", "b"], make, "mark", "work")
    shards(tmp_path, ["a", "b"], make, "other mark", "work")
    assert made == ["a", "b", "a", "b"]


def test_finished_shards_are_kept_when_a_later_one_fails(tmp_path, make, made):
    def breaks(key):
        if key == "b":
            raise RuntimeError("killed")
        return make(key)
    with pytest.raises(RuntimeError):
        shards(tmp_path, ["a", "b", "c"], breaks, "mark", "work")
    shards(tmp_path, ["a", "b", "c"], make, "mark", "work")
    assert made == ["a", "b", "c"]


def test_an_empty_shard_is_a_finished_one(tmp_path, made):
    for _ in range(2):
        assert shards(tmp_path, ["a"], lambda key: made.append(key) or [], "mark", "work") == []
    assert made == ["a"]


# --- several shards at a time ---------------------------------------------------------------------------------------

def test_as_many_shards_are_made_at_a_time_as_there_are_workers_and_are_the_same(tmp_path, make):
    both = threading.Barrier(2)  # passed only by two threads together

    def together(key):
        both.wait(10)
        return make(key)

    keys = ["d", "a", "c", "b"]
    assert shards(tmp_path / "two", keys, together, "mark", "work", workers=2) == \
        shards(tmp_path / "one", keys, make, "mark", "work")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("two", "one")]
    assert files[0] == files[1] and len(files[0]) == 4


def test_no_more_shards_are_begun_than_there_are_workers(tmp_path):
    lock, running, most, read = threading.Lock(), [0], [0], []

    def slow(key):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            ahead.append(len(read) - int(key))
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return []

    ahead: list[int] = []
    parts = ((key, read.append(key) or key) for key in map(str, range(9)))
    paths = make_shards(tmp_path, parts, slow, lambda _: "mark", Bar("work", 9), workers=3)
    assert [path.stem for path in paths] == list(map(str, range(9)))
    assert most[0] == 3 and max(ahead) <= 3


def test_an_error_lets_shards_at_work_finish_and_begins_no_other(tmp_path, make, made):
    begun = threading.Event()

    def some(key):
        if key == "a":
            assert begun.wait(10)
            raise RuntimeError("no luck")
        begun.set()
        time.sleep(0.2)  # still at work when the error is raised
        return make(key)

    with pytest.raises(RuntimeError, match="no luck"):
        shards(tmp_path, ["a", "b", "c", "d"], some, "mark", "work", workers=2)
    assert made == ["b"]
    shards(tmp_path, ["a", "b", "c", "d"], make, "mark", "work", workers=2)
    assert sorted(made) == ["a", "b", "c", "d"]


def test_ctrl_c_does_not_wait_for_shards_at_work(tmp_path, make, made):
    release = threading.Event()

    def stuck(key):
        if key == "b":
            raise KeyboardInterrupt
        release.wait(60)
        return make(key)

    with pytest.raises(KeyboardInterrupt):
        shards(tmp_path, ["a", "b", "c"], stuck, "mark", "work", workers=2)
    assert made == [], "it waited for the shard that nothing had released"
    release.set()


def test_fingerprint_sees_content_and_not_order():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2}) != fingerprint({"a": [2]})
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
    assert len(fingerprint("\ud800")) == 16


def test_stage_dirs_are_made_and_unknown_ones_refused(tmp_path):
    run = Run(tmp_path / "run")
    assert all(run.stage_dir(stage).is_dir() for stage in BY_NAME)
    with pytest.raises(ValueError, match="unknown stage '07_more'"):
        run.stage_dir("07_more")


def test_tables_come_back(tmp_path):
    run, table = Run(tmp_path), pd.DataFrame({"suite": ["a|b", "c"], "pass@1": [0.25, 1.0]})
    run.save_table(table, "scores")
    pd.testing.assert_frame_equal(run.load_table("scores"), table)
    assert "pass@1" in (tmp_path / "tables/scores.md").read_text()


def test_a_figure_is_the_same_file_twice(tmp_path):
    def draw():
        figure, axes = plt.subplots()
        axes.plot([0, 1])
        Run(tmp_path).save_figure(figure, "line")
        plt.close(figure)
        return [(tmp_path / f"figures/line.{suffix}").read_bytes() for suffix in ("png", "svg")]
    assert draw() == draw()


def test_manifest_entries_are_replaced_one_by_one(tmp_path):
    run = Run(tmp_path)
    assert run.manifest() == {"stages": {}}
    run.update_stage("01_testgen", {"status": "failed"})
    run.update_stage("02_sampling", {"status": "done"})
    run.record_params({"name": "x"})
    run.update_stage("01_testgen", {"status": "done"})
    assert run.manifest() == {"params": {"name": "x"},
                              "stages": {"01_testgen": {"status": "done"}, "02_sampling": {"status": "done"}}}


def test_check_raises_with_its_message():
    check(True, "unused")
    with pytest.raises(AssertionError, match="3 != 4"):
        check(3 == 4, "3 != 4")
