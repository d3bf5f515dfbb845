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
    ("```\nx = 1\n```\n```python\ny = 2\n```", "y = 2"),  # beside a marked one an unmarked one may be data
    ("```\nx = f(1)\n```\nSo:\n```\ny = 2\n```", "x = f(1)"),
    ("```bash\npip install x\n```\n```python\nx = 1\n```", "x = 1"),  # other languages are passed over
    ("```bash\npip install x\n```", ""),
    ("```python\n```\nprose", ""),  # an empty block is no code, and does not swallow the prose
    ("```python\n```\n```python\nx = 1\n```", "x = 1"),
    ("```py3\nx = 1\n```", "x = 1"), ("```ipython3\nx = 1\n```", "x = 1"), ("```{.python}\nx = 1\n```", "x = 1"),
    ("```text\nf(1)\n```", "f(1)"), ("```text\n6\n```\n```python\nx = 1\n```", "x = 1"),
    ("```pycon\n>>> 1\n```", ""),
    ("Answer: ```python\nx = 1\n```", "x = 1"),
    ("Use ```x``` so:\n```python\nx = 1\n```", "x = 1"),  # ticks in a line open no block
    ("```python\ndef f():\n    return '''a\n\n'''\n```", "def f():\n    return '''a\n\n'''"),
    ("", ""),
    ("```unknown\nx = f(1)\n```", "x = f(1)"), ("```lua\nx = 1\n```", ""), ("```none\nx = f(1)\n```", "x = f(1)"),
    ("```\npython\nx = 1\n```", "x = 1"),
    ("````markdown\n# It\n```python\nx = 1\n```\n````", "x = 1"), ("```md\nIt:\n```python\nx = 1\n```\n```", "x = 1"),
    ("```python\n>>> x = 1\n>>> x\n1\n```", "x = 1\nx"),
    ("```python\n\ufeffx = 1\n```", "x = 1"), ("```python\nif x:\n\u00a0   y = 1\n```", "if x:\n    y = 1"),
    ("```python\nx = '\u00a0'\n```", "x = '\u00a0'"),
    ("```python\nx = 1\n```<|im_end|>", "x = 1"), ("x = 1</s>\n", "x = 1"),
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
    (fenced(F, f"assert f(1) == 2\n{G}"), f"{F}\n\n{G}"),  # and so are tests, but for a helper that is needed
    (fenced(F, "def test_f():\n    assert f(1) == 2"), F),
    (fenced(F, "import unittest\nclass Case(unittest.TestCase):\n    pass\nunittest.main()"), F),
    (fenced(F, "result = f(1)"), F),
    (fenced(USE, F), F),  # the first that defines something
    (fenced("import math", F), f"import math\n\n{F}"),  # what only imports or assigns stands in front
    (fenced("import math\nMOST = 3", "x = f(1)", F), f"import math\nMOST = 3\n\n{F}"),
    (fenced(G, F), f"{G}\n\n{F}"),  # a helper, then what uses it
    (fenced(G, F, USE), f"{G}\n\n{F}"),
    (fenced(G, F, "class A:\n    run = f"), f"{G}\n\n{F}\n\nclass A:\n    run = f"),
    (fenced(F, "def f(x):\n    return x + 1"), "def f(x):\n    return x + 1"),  # of two versions the last
    (fenced(F, "def h(x):\n    return x"), f"{F}\n\ndef h(x):\n    return x"),  # nobody knows which one is asked for
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
    ("> Here:\n> ```python\n> if x:\n>     y = 1\n> ```\n", "if x:\n    y = 1"),  # in a quote
    ("```python\nx = 1```\n\nSo it is.", "x = 1"),  # behind the last line
    ("```python\nx = 1```\n\n```python\ny = f(1)\n```", "x = 1\n\ny = f(1)"),
    ("```python\ndef f():\n    pass\n\nThis does nothing.", "def f():\n    pass"),  # the end is missing
    ("Sure:\n\n    def f():\n        pass\n\nDone.", "def f():\n    pass"),  # indented as a whole
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
    "1. First, (", "- The x", "A: The above solution is\nsimple.", "This is\n\ndef h(:\n\nAnother thing",
    ">>> g(1)\n2", "g(1) returns 2.", "`g` adds one.", "---\nso", "(It adds one.)", "该函数加一。", "Explanation",
    "User: thanks\nAssistant: welcome", "* adds\n* one", "=> 2", "<|user|>\nmore", "</s>", "# Why\n\nit adds one."])
def test_prose_after_a_program_without_a_fence_is_left_out(after):
    assert extract_code(f"{G}\n\n{after}\n", "base").partition("\n\n#")[0] == G


@pytest.mark.parametrize("before", ["Certainly!", "Sure", "ok", "[Solution]", "`g` adds one:", "x -> x + 1", "g(1) = 2",
                                    "Input: x\nOutput: x + 1", "当然，下面是代码：", "python", "Here it is:\n\nx y z"])
@pytest.mark.parametrize("program", [G, f"ONE = {{\n    1: 2,\n}}\n\n{G}", f"# Adds one.\n{G}"])
def test_words_before_a_program_without_a_fence_are_left_out(before, program):
    assert extract_code(f"{before}\n{program}") == extract_code(f"{before}\n\n{program}\n\nSo it is.") == program


def test_prose_between_the_parts_of_a_program_without_a_fence_is_left_out():
    assert extract_code(f"First:\n\n{G}\n\nNow the function:\n\n{F}\n\nThat is all.") == f"{G}\n\n{F}"
    assert extract_code(f"{F}\n\nWait, that is wrong:\n\ndef f(x):\n    return 1") == "def f(x):\n    return 1"


@pytest.mark.parametrize("wrapped", [
    "<code>\n{}\n</code>", "Here:\n<pre><code class='language-python'>{}\n</code></pre>\nDone.", "<answer>\n{}\n</answer>",
    "[PYTHON]\n{}\n[/PYTHON]", "[BEGIN]\n{}\n[DONE]", "<|begin_of_solution|>\n{}\n<|end_of_solution|>", "<python>\n{}"])
def test_a_program_between_other_marks_than_fences(wrapped):
    assert extract_code(wrapped.format(F)) == F
    page = 'def page():\n    return """\n<pre>\n</pre>\n"""'
    assert extract_code(wrapped.format(f"```python\n{page}\n```")) == extract_code(f"So:\n\n{page}\n\nIt is.") == page


def test_the_marks_of_a_web_page_within_a_program_are_characters():
    assert extract_code("<pre><code>def f(x):\n    return x if x &lt; 5 else 0\n</code></pre>") == (
        "def f(x):\n    return x if x < 5 else 0")


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


STUBS = ['def f(x):\n    """Adds."""', "def f(x):\n    pass", "def f(x):\n    ...", "def f(x): ...",
         "def f(x):\n    return None", "def f(x):\n    # later\n    return",
         "def f(x):\n    raise NotImplementedError", 'def f(x):\n    """Adds."""\n    raise NotImplementedError("later")']


@pytest.mark.parametrize("stub", STUBS)
@pytest.mark.parametrize("order", [1, -1])
def test_a_stub_never_wins_over_a_body(stub, order):
    assert extract_code(fenced(*[stub, F][::order])) == F
    assert extract_code(fenced(stub)) == stub


def test_a_class_of_stubs_is_one():
    stub = "class Solution:\n    def f(self, x):\n        pass"
    whole = "class Solution:\n    def f(self, x):\n        return x"
    assert extract_code(fenced(stub, whole)) == extract_code(fenced(whole, stub)) == whole


def test_a_class_with_a_stub_for_a_method_loses():
    whole = "class A:\n    size = 0\n    def __init__(self):\n        self.x = 1\n    def f(self):\n        return self.x"
    stub = whole.replace("return self.x", "pass")
    assert extract_code(fenced(stub, whole)) == extract_code(fenced(whole, stub)) == whole
    stateless = "class A:\n    def __init__(self):\n        pass\n    def f(self):\n        return 2"
    assert extract_code(fenced(whole, stateless)) == stateless  # that is no stub


@pytest.mark.parametrize("stubs", [
    "from typing import overload\n@overload\ndef f(x: int) -> int: ...\n@overload\ndef f(x: str) -> str: ...\n" + G.replace("g", "f"),
    "class Failed(Exception):\n    pass\n\n" + F, "class Base:\n    def run(self):\n        raise NotImplementedError\n\n" + F])
def test_stubs_beside_bodies_belong_to_the_program(stubs):
    assert extract_code(fenced(stubs, USE)) == stubs
    assert extract_code(fenced(stubs, "def h(x):\n    return x")) == f"{stubs}\n\ndef h(x):\n    return x"


@pytest.mark.parametrize(("blocks", "value"), [
    (("import math\nimport sys\nsys.setrecursionlimit(10 ** 4)", "def f(x):\n    return math.floor(x) + 1"), 2),
    (("ONE = int('1')", "def f(x):\n    return x + ONE"), 2),
    (("def f(x):\n    return step(x)", "def step(x):\n    return x + 1"), 2),
    (("def f(x):\n    return step(x)\n\nprint(f(1))", "def step(x):\n    return x + 1"), 2),
    (("def g(x):\n    return x + 1", "def f(x):\n    return g(x)\n\nprint(f(1))"), 2),
    (("def g(x):\n    return x + 1", "def f(x):\n    return g(x)\n\nif __name__ == '__main__':\n    print(f(1))"), 2),
    (("@twice\ndef f(x):\n    return x", "def twice(g):\n    return lambda x: 2 * g(x)"), 2),
    (("class B(A):\n    y = 1\n\ndef f(x):\n    return B().z + x", "class A:\n    z = 1"), 2),
    (("table = []\nfor i in range(5):\n    table.append(i + 1)", "def f(x):\n    return table[x]"), 2),
    (("cache = {}\ncache[1] = 2", "def f(x):\n    return cache[x]"), 2),
    (("def f(x, step=STEP):\n    return x + step", "STEP = 1"), 2),
    (("from decimal import getcontext\ngetcontext().prec = 50", "def f(x):\n    return x + 1"), 2),
    (("try:\n    import no_such_module as m\nexcept ImportError:\n    m = 1", "def f(x):\n    return x + m"), 2),
    (("def f(x):\n    return x + 1", "from __future__ import annotations\ndef g(x: int) -> int:\n    return f(x)"), 2),
    (("def f(x):\n    return x - 1\n\ndef g(x):\n    return x + 1", "Corrected = True\ndef f(x):\n    return g(x)"), 2),
    (("def f(x):\n    return x + 1", "import pytest_is_not_here\ndef test_f():\n    assert f(1) == 2"), 2),
    (("def f(x):\n    return x + 1", "result = f(10 ** 9)\nassert result == 3"), 2),
    (("def f(x):\n    return x + 1", "for x in (1, 2):\n    print(f(x))"), 2),
    (("from math import *", "def f(x):\n    return floor(x) + 1"), 2),
    (("def f(x):\n    return x + 1", "def f(x:"), 2),
    (("def f(x):\n    return x + 1", "x = 5\nf(x)"), 2),
    (("ONE = 1\ndef f(x):\n    return x + ONE", "ONE = 5\nprint(f(ONE))"), 2),  # an example's names are its own
    (("def g(x):\n    return x + 1\ndef f(x):\n    return g(x)", "g = f(3)\nprint(g)"), 2),
    (("def f(x):\n    return x + 1", "import sys\nif sys.argv[1:]:\n    print(f(1))\nsys.exit(0)"), 2),
    (("def f(x):\n    return math.floor(x) + 1", "import math\nprint(f(2.5))"), 2),
    (("def add(x):\n    return x + 1", "f = add", "print(f(1))"), 2),
    (("from functools import partial\ndef add(a, b):\n    return a + b", "f = partial(add, 1)\nprint(f(1))"), 2),
    (("class Solution:\n    def f(self, x):\n        return x + 1", "s = Solution()\nf = s.f\nprint(f(1))"), 2),
    (("def deco(g):\n    return lambda x: g(x) + 1", "def f(x):\n    return x\nf = deco(f)", "print(f(1))"), 2),
    (("@timed\ndef f(x):\n    return x + 1", "import functools\ndef timed(g):\n    return functools.wraps(g)(g)"), 2),
    (("def f(x, k=one()):\n    return x + k", "def one():\n    return helper()", "def helper():\n    return 1"), 2),
    (("# helper.py\ndef g(x):\n    return x + 1", "# main.py\nfrom helper import g\ndef f(x):\n    return g(x)"), 2),
    (("graph = {}\ndef f(x):\n    return graph.get(x, 2)", "graph[1] = f(2)\nprint(graph)"), 2),
])
def test_what_the_answer_needs_is_joined_in_an_order_that_loads(blocks, value):
    scope: dict = {}
    exec(compile(extract_code(fenced(*blocks)), "<joined>", "exec"), scope)
    assert scope["f"](1) == value


ASK = 'ASK = \'\'\'\n<think>\n</think>\n\'\'\'\n\ndef f(x):\n    # up to\n    # </think>\n    return x'


@pytest.mark.parametrize(("completion", "code"), [
    (f"<think>\n{fenced('def f(x): return 0')}\n</think>\n{fenced(F)}", F),
    (f"{fenced('def f(x): return 0')}\nso it is\n</think>\n\n{fenced(F)}", F),  # the prompt held the opening tag
    (f"<think>maybe `def f` </think>\n{F}", F),
    (f"<thinking>\nx\n</thinking>\n{fenced(F)}\n<think>Is it right?\n{fenced('def f(x): return 0')}", F),
    (f"<think>\n{fenced('def f(x): return 0')}\nand then", ""),  # it never came to an answer
    (f"[THINK]\nmaybe\n[/THINK]\n{fenced(F)}", F),
    (f"<think>plus</think>```python\n{F}\n```", F), (f"<think>plus</think>Here it is:\n\n{F}", F),
    (f"<think>\n<think>\n{fenced('def f(x): return 0')}\n</think>\nno\n</think>\n{fenced(F)}", F),
    (f"<think>\na\n</think>\n{fenced(F)}\n<think>\n{fenced('def f(x): return 0')}\n</think>\nIt is right.", F),
    (f"<think>\nmaybe\n```python\ndef f(x): return 0\n</think>\n{fenced(F)}", F),  # whose fence is left open
    (f"<|begin_of_thought|>\na\n<|end_of_thought|>\n<|begin_of_solution|>\n{F}\n<|end_of_solution|>", F),
    (f"◁think▷\n{fenced('def h(x): return 0')}\n◁/think▷{fenced(F)}", F),
    (f"<seed:think>\n{fenced('def h(x): return 0')}\n</seed:think>\n{fenced(F)}", F),
    (f"<Think time='3s'>\n{fenced('def h(x): return 0')}\n</Think>\n{fenced(F)}", F),
    (f"[Reasoning]\nIt adds.\n\n{fenced(F)}", F),  # a heading
    (f"Text up to `</think>` goes:\n{fenced(F)}", F),
    *((around.format(ASK), ASK) for around in ("{}", "```python\n{}\n```", "<think>\na\n</think>\n```python\n{}\n```")),
    (fenced("def f(s):\n    return s.replace('<think>', '').split('</think>')[-1]"),
     "def f(s):\n    return s.replace('<think>', '').split('</think>')[-1]"),
])
def test_reasoning_is_no_answer(completion, code):
    assert extract_code(completion) == code


DOC = 'def f(x):\n    """Adds.\n\n    ```\n    f(1)\n    ```\n    """\n    return x + 1'
FLAT = 'DOC = """\n```\nf(1)\n```\n"""\n\n\ndef f(x):\n    return x + 1'


@pytest.mark.parametrize("program", [DOC, FLAT, FLAT.replace('"""', "'''"), FLAT.replace("```\nf", "```python\nf"),
                                     "# it's\n" + DOC, 'def f():\n    return """\n   ```\n"""'])
@pytest.mark.parametrize("after", ["", "\n\nIt works.", f"\n\nUse:\n```python\n{USE}\n```"])
def test_a_fence_in_a_string_does_not_close_a_block(program, after):
    assert extract_code(f"Sure:\n```python\n{program}\n```{after}") == program


@pytest.mark.parametrize(("completion", "code"), [
    (f"Sure:\r\n```python\r\n{F}\r\n```\r\n".replace("\n    ", "\r\n    "), F),
    (f"\ufeff```python\n{F}\n```", F), (f"\ufeff{F}", F), (f"Sure:\r\n\r\n{F}".replace("\n    ", "\r\n    "), F),
    (f"{F}\n```", F), (f"{F}\n```\n\nThis function adds one to it.", F),
    (f"```python\n{F}\n```\n```", F), (f"   ```python\n   {F.replace(chr(10), chr(10) + '   ')}\n   ```", F),
    (f"```python\n{F}\n```python\n{G}\n```", f"{F}\n\n{G}"),  # the end of the first one is missing
    (f"Here it is:\n\n{F}\n\nAn example:\n```python\n{USE}\n```", F),
    (f"here is the function:\n\n{F}", F), (f"sure, it adds one.\nsee below:\n\n{F}\n\nHope it helps!", F),
])
def test_line_ends_marks_and_stray_fences_harm_nothing(completion, code):
    assert extract_code(completion) == code


@given(st.lists(st.sampled_from([F, G, USE, "import math", *STUBS]), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_every_version_of_the_rule_is_the_same_for_all_line_ends_and_templates(programs, end):
    text = fenced(*programs)
    assert extract_code(text.replace("\n", end)) == extract_code(text) == extract_code(text, "codeqwen-chat")


READ = "n = int(input())\nprint(sum(map(int, input().split())))"


@pytest.mark.parametrize(("completion", "code"), [
    (f"For\n```\n3\n1 2 3\n```\nit is 6.\n{fenced(READ)}", READ),
    (f"{fenced(READ)}\nIt prints\n```\n6\n```", READ),
    (fenced("import sys", "import sys\n" + READ), "import sys\n" + READ),
    (fenced("sum(map(int, input().split()))", READ), READ), (fenced("print(1)", READ), READ),
    (fenced("def solve():\n    return 1", "def solve():\n    return 2\nprint(solve())"), "def solve():\n    return 2\nprint(solve())"),
    (fenced("def solve():\n    return 1", "print(solve())"), "def solve():\n    return 1\n\nprint(solve())"),
    (fenced("import sys\ndef solve():\n    return sys.stdin.read()", "if __name__ == '__main__':\n    print(solve())"),
     "import sys\ndef solve():\n    return sys.stdin.read()\n\nif __name__ == '__main__':\n    print(solve())"),
    (fenced(READ, tag=""), READ), (f"```\n{READ}\n```\n```\n3\n1 2 3\n```", READ), (READ, READ),
    (f"```cpp\nint main() {{}}\n```\n{fenced(READ)}", READ), (f"{fenced(READ)}\n```bash\npython a.py\n```", READ),
    (fenced("print(", READ), READ), (f"{READ}\n```", READ), (f"```python\n{READ}```", READ), (fenced(READ, tag="none"), READ),
    (fenced("class S:\n    def f(self):\n        return 1", "print(S().f())"),
     "class S:\n    def f(self):\n        return 1\n\nprint(S().f())"),
    (fenced("n = int(input())\na = list(map(int, input().split()))", "t = sum(a)", "print(t)"),
     "n = int(input())\na = list(map(int, input().split()))\n\nt = sum(a)\n\nprint(t)"),  # the lines are read in order
])
def test_of_a_script_the_last_block_is_taken_with_what_it_needs(completion, code):
    assert extract_code(completion, script=True) == code


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
    "\n".join(f"```python\na{i} = a{i + 1}\n```" for i in range(3_000)) + "\n```python\ndef f(): return a0\n```",
    "```python\ndef f(): pass\n```\n```python\nx = " + "x + " * 2_000 + "f\n```", "<think>\n" * 12_000, "</think>\n" * 11_000,
    "".join("`" * (400 - i) + "md\n" for i in range(390)), "> ```python\n> x = 1\n" * 4_000, "```python\n" + "x```\n" * 18_000,
    "<|endoftext|>" * 7_500, "a\n" * 40_000 + "def f(): pass", "```python\ns = '''\n" + "```python\n" * 9_000, "<pre>\n" * 16_000,
    "```python\ndef f(): pass\n```\n" * 5_000, "```python\nf(" + "-" * 90_000 + "1)\n```\n```\ndef f(): pass\n```\n",
]


@pytest.mark.parametrize("template", ["chat", "base"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_takes_no_noticeable_time(text, template):
    started = time.process_time()
    extract_code(text, template)
    assert time.process_time() - started < 10  # 0.4 s here, 2 on a loaded machine; what is quadratic takes minutes
