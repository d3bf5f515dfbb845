"""Samples by verdict: what is shown changes with the controls, hostile text stays text, and memory is bounded."""

from __future__ import annotations

from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest

from plum_utils.preferences import browser as browser_module
from plum_utils.preferences import labels
from plum_utils.preferences.browser import Gathered, Sample, SampleBrowser, code_html, failing_lines, static_html

SUITE = 'assert twice(2) == 4\nassert twice(\n    "a"\n) == "aa"\nfor n in (1, 2):\n    assert twice(n) == 2 * n\n'
HOSTILE = "x = '</pre></div><script>alert(1)</script><img src=x onerror=alert(2)>' # \ud800 \x00 \u202e end"


def sample(index: int, status: str, code: str = "def twice(n):\n    return n\n", detail: str = "") -> Sample:
    label = labels.LABEL_OF_STATUS[status]
    return Sample(index, code, "" if code else "I cannot.", status, label, detail, "in KTO's set")


@pytest.fixture
def two() -> list[Gathered]:
    failed = "AssertionError: assert twice( (test line 2)"
    return [Gathered("one", "Double it.", SUITE, (
                sample(0, "failed", detail=failed), sample(1, "passed", "def twice(n):\n    return 2 * n\n"),
                sample(2, "failed", "def twice(n):\n    return n * n\n", "AssertionError: assert (test line 6)"))),
            Gathered("two", "Halve it.", "assert half(4) == 2\n", (sample(0, "no_code", "", "no Python code"),))]


class Tags(HTMLParser):
    """The tags that a browser would see, with their attributes, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def marked(html: str) -> list[str]:
    """The text of the lines that bear a cross."""
    rows = html.split('<span style="display:block')
    return [Tags('<span style="' + row).text.split("\n")[0] for row in rows if "✗" in row]


def test_the_failing_assert_is_marked_as_a_whole():
    failed = sample(0, "failed", detail="AssertionError: assert twice( (test line 3)")
    assert failing_lines(failed, SUITE) == (range(0), range(2, 5))
    lines = marked(browser_module.sample_html(failed, SUITE))
    assert [line.split(maxsplit=2)[1] for line in lines] == ["2", "3", "4"]
    assert "assert twice(" in lines[0] and '"a"' in lines[1]


@pytest.mark.parametrize("detail, lines", [
    ("AssertionError: assert twice(n) == 2 * n (test line 6)", (range(0), range(6, 7))),
    ("SyntaxError: '(' was never closed (line 2)", (range(2, 3), range(0))),
    ('Name "values" is not defined (line 5) [name-defined]', (range(5, 6), range(0))),
    ("out of time in tests", (range(0), range(0))), ("", (range(0), range(0)))])
def test_the_line_is_read_from_every_kind_of_detail(detail, lines):
    assert failing_lines(sample(0, "failed", detail=detail), SUITE) == lines


def test_a_program_cannot_name_a_test_that_it_was_never_given():
    lying = sample(0, "error", detail="ValueError: (test line 1)")
    assert failing_lines(lying, SUITE) == (range(0), range(0))
    assert not marked(code_html("x = 1", range(900, 901)))


@pytest.mark.parametrize("status, detail", [("failed", f"{HOSTILE} (test line 1)"), ("no_code", HOSTILE)])
def test_hostile_text_stays_text(status, detail):
    code = "" if status == "no_code" else HOSTILE
    one = Gathered(HOSTILE, HOSTILE, f"assert f() == '{HOSTILE}'", (
        Sample(0, code, HOSTILE, status, "rejected", detail, "in KTO's set"),))
    for html in (static_html(one, 1), SampleBrowser([one], 1).pane.value):
        html.encode("utf-8")  # a lone surrogate would stop the kernel's message
        page = Tags(html)
        assert {tag for tag, _ in page.tags} <= {"div", "p", "b", "span", "pre", "code", "details", "summary", "hr"}
        assert {name for _, attrs in page.tags for name in attrs} <= {"style", "open", "tabindex"}
        assert "<script>alert(1)</script>" in page.text
        assert not set("\x00\u202e\ud800") & set(html)


def test_each_program_keeps_its_lines_whatever_ends_them():
    html = code_html("\n\na = 1\r\nb = 2\rc = '''\n'''\n\n")
    assert html.count("display:block") == 6
    assert Tags(html).text.split() == "1 2 3 a = 1 4 b = 2 5 c = ''' 6 '''".split()
    assert "font-style" in code_html("# a comment") and "font-style" not in code_html("# a comment", python=False)


def test_the_static_form_has_a_fold_for_each_verdict(two):
    html = static_html(two[0], of=7)
    assert html.count("<details") == 4 and html.count("<details open") == 1  # prompt, tests, failed, passed
    assert "failed: 2" in html and "passed: 1" in html and "7 instructions" in html
    assert "<script" not in html and "<style" not in html and "http" not in html and 'class="' not in html


def test_the_static_form_shows_some_of_many():
    many = Gathered("one", "", SUITE, tuple(sample(index, "failed") for index in range(9)))
    html = static_html(many, 1)
    assert "failed: 9, the first 5 of them" in html and "sample 4</b>" in html and "sample 5</b>" not in html


def test_the_live_form_shows_all_samples_of_the_chosen_instruction(two):
    browser = SampleBrowser(two, 2)
    assert [title for title, _ in browser.instruction.options] == ["one: 2 failed, 1 passed", "two: 1 no_code"]
    assert browser.pane.value.count("<details") == 4 and marked(browser.pane.value)
    assert all(f"sample {index}</b>" in browser.pane.value for index in range(3))
    browser.instruction.value = 1
    assert "I cannot." in unescape(Tags(browser.pane.value).text) and "Halve it." in Tags(browser.pane.value).text
    assert "sample 1" not in browser.pane.value


def test_most_mixed_puts_labels_first_then_verdicts_then_evenness():
    status = {"P": "passed", "F": "failed", "S": "syntax", "E": "error", "N": "no_code"}
    rows = {"a": "PPPF", "b": "PPFF", "c": "PFSS", "d": "FFFF", "e": "FSEN", "f": "FFPP"}
    frame = pd.DataFrame([(name, status[one]) for name, all_of in rows.items() for one in all_of],
                         columns=["instruction_id", "status"])
    assert browser_module.most_mixed(frame) == ["c", "e", "b", "f", "a", "d"]
    assert browser_module.most_mixed(frame, 2) == ["c", "e"]
    assert browser_module.most_mixed(frame[frame.instruction_id == "d"], 2) == ["d"]


def test_different_takes_every_kind_before_a_second_of_any():
    assert browser_module.different(list("FFFPSF"), 4) == [0, 1, 3, 4]
    assert browser_module.different(list("FFFPSF"), 2) == [0, 3]
    assert browser_module.different(list("FF"), 5) == [0, 1]


def stage(n: int, k: int, code: str):
    """Labels, samples, verdicts and suites of ``n`` instructions with ``k`` samples each, of which the first passes."""
    samples = [{"instruction_id": f"i{i}", "sample_index": j, "prompt": f"prompt {i}", "completion": f"{code}{j}",
                "code": code if j % 2 else ""} for i in range(n) for j in range(k)]
    verdicts = [{"instruction_id": row["instruction_id"], "sample_index": row["sample_index"], "detail": f"seen {j}",
                 "status": "failed" if row["sample_index"] else "passed"} for j, row in enumerate(samples)]
    return labels.label_samples(verdicts, samples), samples, verdicts, {f"i{i}": ("assert 1", f"assert {i}") for i in range(n)}


def test_gather_joins_rows_of_the_wanted_instructions_in_their_order():
    labelled, samples, verdicts, suites = stage(3, 2, "x = 1")
    last, first = browser_module.gather(labelled, iter(samples), iter(verdicts), suites, ["i2", "i0"])
    assert (last.instruction_id, last.prompt, last.suite) == ("i2", "prompt 2", "assert 1\nassert 2")
    assert [one.detail for one in last.samples] == ["seen 4", "seen 5"]
    assert last.samples[0].completion == "x = 10" and last.samples[1].code == "x = 1"
    assert first.counts() == {"passed": 1, "failed": 1} and first.samples[1].fate == "in KTO's set"


def test_fates():
    labelled, samples, verdicts, suites = stage(1, 3, "x")
    labelled["used"], labelled["duplicate"] = False, [True, False, False]
    labelled.loc[2, "label"] = labels.UNRUNNABLE
    (one,) = browser_module.gather(labelled, samples, verdicts, suites, ["i0"])
    assert [row.fate.split()[-1] for row in one.samples] == ["duplicate", "solution", "un-runnable"]


def test_what_is_kept_is_bounded():
    labelled, samples, verdicts, suites = stage(60, 60, "#" * 9000)
    kept = browser_module.gather(labelled, iter(samples), iter(verdicts), suites, list(suites))
    assert len(kept) == browser_module.MOST_INSTRUCTIONS
    assert {len(one.samples) for one in kept} == {browser_module.MOST_SAMPLES}
    assert max(len(one.code) + len(one.completion) for each in kept for one in each.samples) < 3100
    browser = SampleBrowser(kept, len(suites))
    assert "50 of 60 instructions" in browser.children[0].value
    assert len(browser.pane.value) < 60_000 * browser_module.MOST_SAMPLES and len(browser.instruction.options) == 50
