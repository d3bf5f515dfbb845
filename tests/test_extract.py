"""Taking the program out of a completion: any text gives a text, fences in every state give the code inside."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies as st

from plum_utils.extract import extract_code

PIECES = st.sampled_from(["```", "```python\n", "\n```", "\n", " ", "x = 1", "    y = 2\n", "prose ", "```js\n", "`",
                          "\t"])
TEXT = st.text(st.characters(), max_size=60) | st.lists(PIECES, max_size=14).map("".join)
LINE = st.text(st.characters(blacklist_characters="`\r", blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1)
PROGRAM = st.lists(LINE.filter(str.strip), min_size=1, max_size=6).map("\n".join)


@given(TEXT)
def test_any_text_gives_a_part_of_itself(text):
    assert extract_code(text) in text


@given(PROGRAM, st.sampled_from(["python", "Python", "py", "python3", ""]), st.sampled_from(["", "Sure!\n", "So:\n\n"]),
       st.sampled_from(["", "\n", "\nThis works.\n```\nmore\n```\n"]))
def test_a_fenced_program_comes_back_unchanged(program, tag, before, after):
    assert extract_code(f"{before}```{tag}\n{program}\n```{after}") == program


@given(PROGRAM)
def test_a_program_cut_off_by_the_token_limit_is_kept(program):
    assert extract_code(f"Here:\n```python\n{program}") == program


@pytest.mark.parametrize(("completion", "code"), [
    ("x = 1\n", "x = 1"),  # no fence at all: the whole text
    ("```python\nx = 1\n```\n", "x = 1"),
    ("```python title=a.py\nx = 1\n```", "x = 1"),
    ("```\nx = 1\n```\n```python\ny = 2\n```", "x = 1"),  # the first block, tagged or not
    ("```bash\npip install x\n```\n```python\nx = 1\n```", "x = 1"),  # other languages are passed over
    ("```bash\npip install x\n```", ""),
    ("```python\n```\nprose", ""),  # an empty block is no code, and does not swallow the prose
    ("```python\n```\n```python\nx = 1\n```", ""),
    ("Answer: ```python\nx = 1\n```", "x = 1"),
    ("Use ```x``` so:\n```python\nx = 1\n```", "x = 1"),  # ticks in a line open no block
    ("```python\ndef f():\n    return '''a\n\n'''\n```", "def f():\n    return '''a\n\n'''"),
    ("", ""),
])
def test_cases(completion, code):
    assert extract_code(completion) == code


@pytest.mark.parametrize("text", ["```" * 50_000, "```python\n" * 30_000, "`" * 100_000, "```a\n```" * 30_000,
                                  "```" + "a" * 100_000 + "`", "```" + " " * 100_000 + "`", "```\n" + " " * 100_000])
def test_hostile_text_takes_no_noticeable_time(text):
    started = time.process_time()
    extract_code(text)
    assert time.process_time() - started < 2
