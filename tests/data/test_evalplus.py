"""evalplus' data: its own downloader against a server on this machine, and what is said where there is none."""

from __future__ import annotations

import gzip
import json
import time
from contextlib import contextmanager

import pytest
from local_server import Handler, running

from plum_utils.data import evalplus
from plum_utils.data.evalplus import CACHED, OVERRIDES, SuiteUnavailable, evalplus_path, fetch, how_to_bring
from plum_utils.evaluation.protocols import load_suites
from plum_utils.params import EvaluationParams
from plum_utils.study.dry import tiny_humaneval, tiny_mbpp

ROWS = {"humaneval": tiny_humaneval, "mbpp": tiny_mbpp}


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch, tmp_path):
    """An empty cache, for evalplus and for us, and no override."""
    evalplus._download.cache_clear()
    for suite, variable in OVERRIDES.items():
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(f"evalplus.data.{suite}.{variable}", None)  # evalplus reads it when it is imported
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("evalplus.data.utils.CACHE_DIR", str(tmp_path / "evalplus"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield
    evalplus._download.cache_clear()


@contextmanager
def release_page(monkeypatch, body: bytes | None):
    """In place of the release pages on GitHub; without a body it accepts connections and stays silent."""
    asked = []

    class Releases(Handler):
        def do_GET(self):
            asked.append(self.path)
            if body is None:
                time.sleep(2)
                return
            self.reply(200, {}, body)

    from evalplus.data.utils import get_dataset_metadata

    def here(*which):
        url, path = get_dataset_metadata(*which)
        return url.replace("https://github.com", f"http://127.0.0.1:{port}"), path

    with running(Releases) as port:
        for module in ("humaneval", "mbpp"):
            monkeypatch.setattr(f"evalplus.data.{module}.get_dataset_metadata", here)
        yield asked


@pytest.mark.parametrize("suite", CACHED)
def test_evalplus_downloads_into_the_place_where_we_look(suite, monkeypatch, capsys):
    body = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS[suite]()).encode())
    with release_page(monkeypatch, body) as asked:
        assert fetch(suite) == "" and fetch(suite) == ""
    assert len(asked) == 1 and asked[0].endswith(CACHED[suite].partition("-")[0] + ".jsonl.gz")
    assert evalplus_path(suite).name == CACHED[suite]
    assert len(capsys.readouterr().out.splitlines()) == 1, "without the downloader's bar"


def test_an_unreachable_network_costs_seconds_and_is_asked_once(monkeypatch):
    monkeypatch.setattr(evalplus, "SILENCE", 0.2)
    with release_page(monkeypatch, None) as asked:
        began = time.monotonic()
        assert "timed out" in fetch("mbpp") and "timed out" in fetch("mbpp")
        assert time.monotonic() - began < 10 and len(asked) == 1
    assert evalplus_path("mbpp") is None


def test_a_page_in_place_of_the_file_leaves_nothing(monkeypatch):
    with release_page(monkeypatch, b"<html>please log in</html>"):
        assert fetch("mbpp").startswith("BadGzipFile")
    assert evalplus_path("mbpp") is None


def test_nothing_is_asked_offline_or_where_the_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with release_page(monkeypatch, b"") as asked:
        assert "HF_HUB_OFFLINE" in fetch("mbpp")
        monkeypatch.setenv(OVERRIDES["mbpp"], str(tmp_path / "absent.jsonl"))
        assert "no such file" in fetch("mbpp")
        (tmp_path / "absent.jsonl").write_text("")
        assert fetch("mbpp") == ""
    assert asked == []


def test_missing_columns_are_named_unless_evalplus_figures_are_asked_for():
    asked = {"suites": [{"name": "humaneval", "limit": 1}, {"name": "mbpp"}]}
    suites, missing = load_suites(EvaluationParams(**asked))
    assert list(suites) == ["humaneval"] and missing == [how_to_bring("humaneval"), how_to_bring("mbpp")]
    assert all(variable in line for variable, line in zip(OVERRIDES.values(), missing))
    with pytest.raises(SuiteUnavailable, match="HUMANEVAL_OVERRIDE_PATH.*MBPP_OVERRIDE_PATH"):
        load_suites(EvaluationParams(**asked, postprocess="evalplus"))


def test_nothing_is_missing_where_the_files_are_named(monkeypatch, tmp_path):
    for suite, rows in ROWS.items():
        (tmp_path / suite).write_text("".join(json.dumps(row) + "\n" for row in rows()))
        monkeypatch.setenv(OVERRIDES[suite], str(tmp_path / suite))
    how = EvaluationParams(suites=[{"name": "humaneval", "limit": 2}, {"name": "mbpp"}], postprocess="evalplus")
    suites, missing = load_suites(how)
    assert missing == [] and all(one.plus_tests for problems in suites.values() for one in problems)
