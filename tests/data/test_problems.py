"""Suites of held-out problems: what is loaded, and what is said where data is missing."""

from __future__ import annotations

import pytest

from plum_utils.data.evalplus import OVERRIDES, SuiteUnavailable
from plum_utils.data.problems import BUNDLED, load_suite, preamble


def test_suites_have_distinct_problems_and_a_limit():
    for suite in BUNDLED:
        names = [one.task_id for one in load_suite(suite)]
        assert len(names) == len(set(names)) >= 60
        assert [one.task_id for one in load_suite(suite, 3)] == names[:3]
    with pytest.raises(ValueError, match="unknown suite 'heldout'"):
        load_suite("heldout")


def test_mbpp_without_data_says_how_to_bring_it(monkeypatch, tmp_path):
    monkeypatch.delenv(OVERRIDES["mbpp"], raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SuiteUnavailable, match="MBPP_OVERRIDE_PATH"):
        load_suite("mbpp")


def test_an_override_that_names_no_file_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv(OVERRIDES["mbpp"], str(tmp_path / "absent.jsonl"))
    with pytest.raises(SuiteUnavailable, match="absent.jsonl: no such file"):
        load_suite("mbpp")


def test_humanevals_imports_and_helpers_stand_before_a_solution():
    source = "import math\n\ndef helper(x):\n    return x\n\ndef wanted(x):\n    '''Doc.'''\n"
    assert preamble(source, "wanted") == "import math\ndef helper(x):\n    return x\n"
    assert preamble("def wanted(x):\n    '''Doc.'''\n", "wanted") == ""


def test_humaneval_keeps_the_benchmarks_own_prompt_whatever_clock_counts():
    for one in load_suite("humaneval", clock="wall"):
        assert f"def {one.entry_point}(" in one.prompt and one.reference.startswith(one.prompt) and one.clock == "wall"
