"""A run's folder: tables, figures, manifest, and shards that survive kills and damage."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from plum_utils.runs import STAGES, Run, check, fingerprint, shards


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


def test_fingerprint_sees_content_and_not_order():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2}) != fingerprint({"a": [2]})
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
    assert len(fingerprint("\ud800")) == 16


def test_stage_dirs_are_made_and_unknown_ones_refused(tmp_path):
    run = Run(tmp_path / "run")
    assert all(run.stage_dir(stage).is_dir() for stage in STAGES)
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
