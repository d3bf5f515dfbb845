"""Taking the program out of a completion: any text gives a text, fences in every state give the code inside."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from plum_utils.models.extract import extract_code
from plum_utils.models.prompts import TEMPLATES, template_stops

PIECES = st.sampled_from(["```", "```python\n", "\n```", "\n", " ", "x = 1", "    y = 2\n", "prose ", "```js\n", "`",
                          "\t", "~~~", "~~~py\n", "def f():\n", "import os\n", "The end.\n", "\n### Instruction\n",
                          "- ", "\0", "\ud800", "(", "'''"])
TEXT = st.text(st.characters(), max_size=60) | st.lists(PIECES, max_size=14).map("".join)
LINE = st.text(st.characters(blacklist_characters="`\r", blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1)
PROGRAM = st.lists(LINE.filter(str.strip), min_size=1, max_size=6).map("\n".join)


@given(TEXT, st.sampled_from(["chat", *TEMPLATES]))
def test_any_text_gives_lines_of_itself(text, template):
    assert all(line.strip() in text for line in extract_code(text, template).split("\n"))


@given(PROGRAM, st.sampled_from("`~"), st.integers(3, 5), st.sampled_from(["", "Sure, here it is:\n\n"]),
       st.sampled_from(["", "\n\nThis works because it is short.\n"]), st.sampled_from(["chat", *TEMPLATES]))
def test_a_program_between_prose_comes_back_unchanged(program, mark, length, before, after, template):
    assume(mark * 3 not in program and not any(stop in "\n" + program for stop in template_stops(template)))
    fence = mark * length
    assert extract_code(f"{before}{fence}python\n{program}\n{fence}{after}", template) == program


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


F = "def f(x):\n    return g(x)"
G = "def g(x):\n    return x + 1"
USE = "print(f(1))  # 2"


def fenced(*programs: str, tag: str = "python") -> str:
    return "\nThen:\n".join(f"```{tag}\n{program}\n```" for program in programs)


@pytest.mark.parametrize(("completion", "code"), [
    (fenced(F, USE), F),  # a usage example is left out
    (fenced(F, f"assert f(1) == 2\n{G}"), F),  # and so are tests, even with a helper
    (fenced(F, "result = f(1)"), F),
    (fenced(USE, F), F),  # the first that defines something
    (fenced("import math", F), f"import math\n\n{F}"),  # what only imports or assigns stands in front
    (fenced("import math\nMOST = 3", "x = f(1)", F), f"import math\nMOST = 3\n\n{F}"),
    (fenced(G, F), f"{G}\n\n{F}"),  # a helper, then what uses it
    (fenced(G, F, USE), f"{G}\n\n{F}"),
    (fenced(G, F, "class A:\n    run = f"), f"{G}\n\n{F}\n\nclass A:\n    run = f"),
    (fenced(F, "def f(x):\n    return x + 1"), F),  # another way to do it is not the same program
    (fenced(F, "def h(x):\n    return x"), F),  # nor is what has nothing to do with it
    (fenced("def f(x:\n", F), F),  # the first that parses
    (fenced("def f(x:\n", "y ="), "def f(x:"),
    (fenced(USE, "x = 1"), USE),  # no definition anywhere: the first
    (fenced(F, tag="js") + "\n" + fenced(G), G),
    (f"{fenced(F)}\n```python\ndef h(x):\n    return f(", F),  # cut off in a later block
])
def test_several_blocks(completion, code):
    assert extract_code(f"Sure!\n\n{completion}") == code


@pytest.mark.parametrize(("completion", "code"), [
    ("~~~python\nx = 1\n~~~\nDone.", "x = 1"),
    ("~~~\nx = 1\n```\n~~~\n", "x = 1\n```"),  # closed by its own kind
    ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''"),  # and by one as long
    ("a ~~~ b\n", "a ~~~ b"),  # within a line it opens nothing
    ("1. First:\n   ```python\n   if x:\n       y = 1\n   ```\n", "if x:\n    y = 1"),  # in a list
    ("- ```python\n  x = 1\n  ```\n", "x = 1"),
])
def test_fences(completion, code):
    assert extract_code(completion) == code


@pytest.mark.parametrize("program", ["def f(x):\n    return [x,", "def f(x):\n    s = '''a", "def f(x):\n    retu",
                                     "def f(x):\n    return x\n\nprint(f(", "def f(x):\n    if x:"])
def test_a_program_that_is_cut_off_is_not_repaired(program):
    assert extract_code(f"Sure:\n```python\n{program}") == program
    assert extract_code(program) == program


@pytest.mark.parametrize("program", [
    "def f(x):\n    retrun x",
    "def f(x):\n    return x\n\nresult f(1)",
    "def f(x):\n    return x\n\nprint 'a b'",
    "def f(x):\n    return x\n    else:\n        return 1\n\nThis function returns x.",
    "def f(x)\n    return x\n\nThis function returns x.",
    "The answer is 3.",  # no code at all
    "Define x, then return it.\nreturn x",
])
def test_what_is_wrong_stays_wrong(program):
    assert extract_code(program, "base") == program


@pytest.mark.parametrize("after", [
    "This function returns it.", "Here's how it works:\n\nThe `x` is it.", "Explanation:\n- x", "**Note**: it's short.",
    "1. First, (", "- The x", "A: The above solution is\nsimple.", "This is\n\ndef h(:\n\nAnother thing"])
def test_prose_after_a_program_without_a_fence_is_left_out(after):
    assert extract_code(f"{G}\n\n{after}\n", "base") == G


def test_prose_before_a_program_without_a_fence_is_left_out():
    assert extract_code(f"Here is the function:\n\n{G}\n", "base") == G
    assert extract_code(f"Here is the function:\n\nimport re\n{G}\n\nIt adds one. Isn't it?", "base") == f"import re\n{G}"


def test_prose_within_a_string_is_no_end():
    program = "def f():\n    return '''\nThe text ends here.\n'''"
    assert extract_code(f"{program}\n\nThis function returns a text.", "base") == program


@pytest.mark.parametrize(("completion", "code"), [
    (f"{G}\n```\n", G),  # it closes a fence that nobody opened
    (f"{G}\n```", G),
    (f"{G}\n~~~\n", G),
    (f"# Adds one.\n\n{G}\n```\n\nThis works.", f"# Adds one.\n\n{G}"),
    (f"{G}\n```\n\nUse it:\n\n```python\n{USE}\n```", G),
    (f"{G}\n\nThis function adds one:\n\n```python\n{USE}\n```", G),
    (f"import re\n```python\n{G}\n```", f"import re\n\n{G}"),
    ("f = lambda x: x\n```\n", "f = lambda x: x"),
    ("def g(x:\n```\n", "def g(x:"),
    ("Here:\n```python", ""),  # cut off in the fence itself
    ("Sure\n```\nx = 1\n```", "x = 1"),  # prose before a fence is no program
    ("import the module:\n```\nx = 1\n```", "x = 1"),
    ("# Solution\n```\nx = 1\n```", "x = 1"),
    (f"{G}\nprint('```')", f"{G}\nprint('```')"),  # ticks in a line close nothing
])
def test_a_text_that_begins_with_code_may_lack_its_first_fence(completion, code):
    assert extract_code(completion, "base") == code


def test_with_the_chat_template_fences_count_as_they_stand():
    assert extract_code(f"{G}\n```\n") == ""
    assert extract_code(f"{G}\n```") == f"{G}\n```"
    assert extract_code(f"{G}\n\nThis works.") == f"{G}\n\nThis works."


@pytest.mark.parametrize(("template", "turn"), [
    ("base", "\n### Instruction\nWrite a function"), ("magicoder", "\n@@ Instruction\nWrite"),
    ("deepseek-coder", "<|EOT|>\n### Instruction:\n"), ("wizardcoder", "\n\n### Instruction:\nWrite"),
    ("opencodeinterpreter-cl", " [INST] Write"), ("opencodeinterpreter-ds", "\n### Instruction:\nWrite"),
    ("codeqwen-chat", "<|im_end|>\n<|im_start|>user\nWrite")])
def test_another_turn_is_cut_off(template, turn):
    more = f"{turn}\n\n### Response\n```python\n{F}\n```"
    assert extract_code(G + more, template) == extract_code(fenced(G) + more, template) == G
    assert extract_code(turn.lstrip("\n"), template) == ""


def test_an_unknown_template_is_an_error():
    with pytest.raises(ValueError, match="policy.prompt: unknown template 'alpaca'"):
        extract_code("x = 1", "alpaca")


N = 30_000
HOSTILE = [
    "```" * 50_000, "```python\n" * N, "`" * 100_000, "```a\n```" * N, "```" + "a" * 100_000 + "`",
    "```" + " " * 100_000 + "`", "```\n" + " " * 100_000, "~~~\n```\n" * N, "x ```\n    ~~~\n" * N, "- ```\n  x\n" * N,
    "def f(\n" * N, "def f(): pass\nThe end (\n" * N, "The end (\n" * N + "import os\n", "A" * 100_000 + "\nimport os",
    "import " + "a." * N + "(", "import a" + " " * 100_000 + "x", "@" + "a" * 100_000 + " x", "# a\n" * N + "x",
    "\n" * 100_000 + "def f(", "\n### Instruction" * N, "import os\0\nThe end.", "import os\ud800\nThe end.",
    "def f(): '''" + "The end\n" * N, "def f():\n" + "(" * 50_000, "def f():\n return " + "-" * 90_000 + "1\nThe end.",
    "def f():\n return " + "a." * 40_000 + "a\nThe end.", "def f():\n return " + "[" * 190 + "\nThe end.",
    "def f(): return " + "{a:" * 90, "def f(): return " + "f(**" * 90, "def f(): return " + "lambda:" * 10_000,
    "```python\ndef f(): pass\n```\n" * 5_000, "```python\nf(" + "-" * 90_000 + "1)\n```\n```\ndef f(): pass\n```\n",
]


@pytest.mark.parametrize("template", ["chat", "base"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_takes_no_noticeable_time(text, template):
    started = time.process_time()
    extract_code(text, template)
    assert time.process_time() - started < 2
