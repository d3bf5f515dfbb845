"""A generator's response is read whatever Markdown makes of its headings and fences."""

import ast
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_utils.data.instructions import load_instructions
from plum_utils.testgen.response import SECTIONS, MalformedResponse, parse_response, strictly_formatted

SOLUTION = "def f(x):\n    return x + 1"
TESTS = "assert f(1) == 2\nassert f(-1) == 0"
START = "def f(x):\n    pass"


def response(analysis="Add one.", solution=SOLUTION, start=START, tests=TESTS, fence="```", heading="[{}]"):
    """A response in Figure 3's format, its code fenced unless ``fence`` is empty."""
    def block(code):
        return f"{fence}python\n{code}\n{fence}" if fence else code
    bodies = (analysis, block(solution), block(start), block(tests))
    return "".join(f"{heading.format(name)}\n{body}\n" for name, body in zip(SECTIONS, bodies))


def codes(text):
    parsed = parse_response(text)
    return parsed.solution, parsed.start_code, parsed.test_code


EXPRESSION = st.recursive(st.integers(0, 9).map(str) | st.sampled_from(["x", "f(x)", "''", "[]"]),
                          lambda inner: st.tuples(inner, inner).map(lambda pair: f"({pair[0]} + {pair[1]})"),
                          max_leaves=4)
PROGRAM = st.lists(EXPRESSION.map("value = {}".format), min_size=1, max_size=4).map("\n".join)
SUITE = st.lists(st.tuples(EXPRESSION, EXPRESSION).map(lambda pair: f"assert {pair[0]} == {pair[1]}"), min_size=1,
                 max_size=5).map("\n".join)
PROSE = st.text(st.characters(blacklist_characters="[]`#*~>_:<\r", blacklist_categories=("Cs", "Cc", "Zl", "Zp")),
                max_size=40)
# What Markdown offers around a heading's words, and the marks that may end the line.
WRAPPED = st.tuples(st.sampled_from(["", "  ", "> ", "- ", "1. ", "2) "]), st.sampled_from(["", "# ", "### "]),
                    st.sampled_from(["", "*", "**", "***", "_", "__", "`"]), st.sampled_from(["", ":"]),
                    st.sampled_from(["", " ###", "  "])).map(
    lambda parts: "{0}{1}{2}[{{}}]{3}{2}{4}".format(*parts))


@given(PROSE, PROGRAM, PROGRAM, SUITE, st.sampled_from(["```", "````", "~~~", "~~~~~", ""]), WRAPPED,
       st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", "\ufeff"]), st.booleans())
def test_round_trip(analysis, solution, start, tests, fence, heading, end, mark, shout):
    text = response(analysis, solution, start, tests, fence, heading)
    if shout:
        for name in SECTIONS:
            text = text.replace(name, name.upper())
    assert codes(mark + text.replace("\n", end)) == (solution, start, tests)
    assert parse_response(response(analysis)).analysis == analysis.strip()


PIECES = st.sampled_from(["[Analysis]", "[Solution]", "[Start Code]", "[Test Code]", "\n", "```", "```python\n",
                          "assert 1", "def f(:", "**", "# ", ":", "\x00", " ", "if x:\n", "(" * 300, "-" * 5000, "~~~",
                          "'''", "<think>", "\n</think>\n", "\r\n", "> ", "1. "])


@given(st.text(st.characters(), max_size=80) | st.lists(PIECES, max_size=25).map("".join))
def test_any_text_is_parsed_or_malformed(text):
    strictly_formatted(text)
    try:
        parsed = parse_response(text)
    except MalformedResponse as reason:
        assert str(reason)
    else:
        ast.parse(parsed.solution), ast.parse(parsed.test_code)


@pytest.mark.parametrize(("text", "reason"), [
    ("", "no [Analysis] section"),
    (response().partition("[Start Code]")[0], "no [Start Code] section"),
    (response() + "[Solution]\nx = 1\n", "sections repeated or out of order"),
    (response().replace("[Start Code]", "[X]").replace("[Solution]", "[Start Code]").replace("[X]", "[Solution]"),
     "sections repeated or out of order"),
    (response(tests="", fence=""), "empty [Test Code] section"),
    (response().replace(f"```python\n{TESTS}", "```bash\npytest"), "empty [Test Code] section"),
    (response(solution="def f(x: return"), "[Solution] is not Python (SyntaxError)"),
    (response(tests="assert f(1) == (2,"), "[Test Code] is not Python (SyntaxError)"),
    (response(solution="x = '\x00'"), "[Solution] is not Python"),
    (response(solution="x = " + "-" * 200_000 + "1"), "[Solution] is not Python"),
])
def test_reasons(text, reason):
    with pytest.raises(MalformedResponse) as caught:
        parse_response(text)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("heading", ["### {}", "**{}**", "**{}:**", "{}:", "## **{}**", "#### 1. {}", "[ {} ]", "__{}__:",
                                     "\\[{}\\]", "[**{}**]", "**[{}]**：", "<b>[{}]</b>", "<h3>[{}]</h3>", "[{}]\n====", "[{}]\n---",
                                     "[{}]\\", "### `{}`", "{}\n====", "{}\n----", "`{}`", "(1) [{}]", "#### 2.1 [{}]", "<b>{}</b>",
                                     "<h3>{}</h3>", "[{}:]", "### 🔍 [{}]", "🧠 **{}**", "[{}] ✅", "1️⃣ {}", "=== {} ===", "【{}】",
                                     "### Step 1: {}", "{}", "\u00a0[{}]\u200b", "- [x] [{}]", "### {} Section", "<{}>",
                                     "<details><summary>{}</summary>", "<a name='x'></a>\n## {}"])
@pytest.mark.parametrize("fence", ["```", ""])
def test_other_wrappings_of_a_heading(heading, fence):
    assert codes(response(heading=heading, fence=fence)) == (SOLUTION, START, TESTS)


@pytest.mark.parametrize("heading", ["[{}]", "## {}", "**{}:**", "{}:"])
@pytest.mark.parametrize("tag", ["", "markdown"])
def test_a_response_may_stand_in_a_fence_as_a_whole(heading, tag):
    for fence in ("```", ""):
        text = response(heading=heading, fence=fence)
        for marks in ("```", "````"):
            assert codes(f"Sure:\n\n{marks}{tag}\n{text}{marks}\n\nAsk me for more.") == (SOLUTION, START, TESTS)


@pytest.mark.parametrize("heading", ["[{}]", "## {}", "**{}:**", "> [{}]"])
def test_code_without_fences(heading):
    indented = {"solution": "    def f(x):\n        return x + 1", "start": "    def f(x):\n        pass",
                "tests": "    assert f(1) == 2\n    assert f(-1) == 0"}
    plain = response(heading=heading, fence="")
    for text in (plain, response(heading=heading, fence="", **indented), plain + "\nThese tests cover all cases.",
                 plain.replace(SOLUTION, "Here is the solution:\n\n" + SOLUTION), plain + "\n[Explanation]\nIt adds.",
                 plain.replace("\n" + START, " Begin here\n\n___\n" + START).replace(TESTS, TESTS + "\n\n___")):
        assert codes(text)[::2] == (SOLUTION, TESTS)
    assert codes(plain.replace(SOLUTION, "# Solution\n" + SOLUTION))[0] == "# Solution\n" + SOLUTION
    with pytest.raises(MalformedResponse):  # what is cut off is not repaired
        parse_response(plain + "assert f(1) == (2,")


@pytest.mark.parametrize("words", [("Start  Code", "Test\tCode"), ("Start_Code", "Test-Code"), ("StartCode", "testcode")])
def test_the_words_of_a_heading_may_be_joined_otherwise(words):
    assert codes(response().replace("Start Code", words[0]).replace("Test Code", words[1])) == (SOLUTION, START, TESTS)


@pytest.mark.parametrize("text", [
    response().replace("[Analysis]\n", "[Analysis] "),
    response().replace("[Analysis]\n", "**[Analysis]:** "),
    response(heading="## {}").replace("## Analysis\n", "## Analysis: "),
    response().replace("]\n", "] "), response(heading="**{}:**").replace(":**\n", ":** "),
    response(fence="") + "\n[End]", response(fence="") + "---END---",
    response(heading="**{}:**").replace("\n```python", " as asked\n```python"),
    response(heading="## {}", analysis="**Solution**\n\n1. Test Code: none.\nStart Code:"),
    response(analysis="```f(1)``` is 2.", fence="```").replace("```python", "```"),
    response(solution=f"{SOLUTION}\n```\nOutput:\n```\nf of 1 is 2").replace("```python", "```"),
    response().replace("```python\n" + START, "- ```\n  pass"),
    "> " + response().replace("\n", "\n> "),
    response(analysis="[Test Code] below checks one."),
    response(analysis="The [Test Code] section follows.\nSolution\nThe solution: add."),
    f"<think>\n{response(solution='x = 1')}\n</think>\n\n{response()}",
    f"First I draft.\n{response(solution='x = 1')}\n</think>\n{response()}",
    response(solution=f"{SOLUTION}\n```\nOutput:\n```\n3"),
    response(solution=f"{SOLUTION}\n```\nOutput:\n```text\nf(1)"),
    response(tests=f"{TESTS}\n```\nRun it:\n```bash\npytest"),
    response().replace(f"```python\n{SOLUTION}\n```", "- so:\n  ```python\n  def f(x):\n      return x + 1\n  ```"),
    response().replace("```python\n" + TESTS, "```py3\n" + TESTS),
    response(fence="").replace("[Start", "---\n[Start").replace("[Test", "* * *\n\n[Test"),
    response().rstrip().removesuffix("```"),
    response().replace(f"{SOLUTION}\n```", SOLUTION),  # a fence that nobody closes ends with its section
])
def test_what_stands_around_the_code_harms_nothing(text):
    assert codes(text)[::2] == (SOLUTION, TESTS)


@pytest.mark.parametrize("fence", ["```", "~~~", ""])
@pytest.mark.parametrize("solution", [
    'def f(x):\n    """Adds.\n\n    [Analysis]\n    """\n    return x + 1', 'TEXT = """\n[Test Code]\n"""',
    "TEXT = '''\n## Solution\n'''\nx = 1"])
def test_a_heading_in_code_is_none(solution, fence):
    assert codes(response(solution=solution, fence=fence))[0] == solution


def test_several_blocks_of_a_section_are_joined():
    text = response(tests="assert f(1) == 2\n```\nand\n```python\nassert f(2) == 3")
    assert codes(text)[2] == "assert f(1) == 2\nassert f(2) == 3"


def test_all_bundled_responses_that_are_read_are_in_the_strict_format_too():
    texts = [text for source in ("basics_train", "evol", "sharegpt") for item in load_instructions(source)
             for text in item.responses]
    for text in texts:
        try:
            parse_response(text)
        except MalformedResponse:
            continue
        assert strictly_formatted(text)
    assert not strictly_formatted(response(heading="### {}")) and strictly_formatted(response(heading="### [{}]"))


@pytest.mark.parametrize("text", ["[Solution]\n" * 50_000, "```\n[Analysis]\n" * 30_000, "'''\n[Analysis]\n" * 20_000,
                                  "# " * 100_000 + "[Analysis]", "[Analysis" + " " * 100_000, "**" * 100_000, "1. " * 60_000,
                                  "> " * 100_000 + "Solution", "- " * 100_000], ids=lambda text: ascii(text)[:20])
def test_hostile_text_takes_no_noticeable_time(text):
    started = time.process_time()
    for read in (parse_response, strictly_formatted):
        try:
            read(text)
        except MalformedResponse:
            pass
    assert time.process_time() - started < 10  # 0.2 s here, 2 on a loaded machine; what is quadratic takes minutes
