"""A completion ends at the fence that closes its program, and at no other fence."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from plum_utils.models.completions import Completion
from plum_utils.models.extract import extract_code
from plum_utils.models.stopping import stopping_point
from plum_utils.models.vllm_engine import VllmBackend

PROGRAM = "def double(x):\n    return 2 * x\n"
AFTER = "It doubles.\n\n```\n>>> double(2)\n4\n```\n"
ENDED = {
    "tagged": f"Here it is:\n```python\n{PROGRAM}```\n",
    "bare fences after prose": f"Here is the function:\n\n```\n{PROGRAM}```\n",
    "tildes": f"~~~python\n{PROGRAM}~~~\n",
    "four ticks, three inside": f"````\n{PROGRAM}# ```\n````\n",
    "an example input before": f"For the input\n```\n3 4\n```\nit gives 7.\n```python\n{PROGRAM}```\n",
    "an example call before": f"```python\nprint(double(2))\n```\nprints 4:\n```python\n{PROGRAM}```\n",
    "another language before": f"```bash\npip install x\n```\n```python\n{PROGRAM}```\n",
    "a stub before": f"```python\ndef double(x):\n    pass\n```\nFilled in:\n```python\n{PROGRAM}```\n",
    "a broken program before": f"```python\ndef double(x:\n```\nMended:\n```python\n{PROGRAM}```\n",
    "a fence in a docstring": f'```python\ndef f(x):\n    """Text.\n\n```\nf(2)\n```\n"""\n    return x\n\n{PROGRAM}```\n',
    "reasoning before": f"<think>\n```python\n{PROGRAM.replace('2', '3')}```\n</think>\n```python\n{PROGRAM}```\n",
    "no opening fence": f"{PROGRAM}```\n",
    "in a list": "1. First:\n\n   ```python\n" + "".join(f"   {line}\n" for line in PROGRAM.splitlines()) + "   ```\n",
    "line breaks of Windows": f"```python\n{PROGRAM}```\n".replace("\n", "\r\n"),
}
OPEN = {
    "none at all": PROGRAM + "\nprint(double(2))\n",
    "an opening fence": "Here is the function:\n\n```\n",
    "not closed": f"```\n{PROGRAM}",
    "a fence line that may get a tag": f"```python\n{PROGRAM}```",
    "an example alone": "```\n3 4\n```\n",
    "within a docstring": '```python\ndef f(x):\n    """Text.\n\n```\n',
}


@pytest.mark.parametrize("name", ENDED)
def test_a_text_ends_at_the_fence_that_closes_its_program(name):
    text = ENDED[name]
    assert stopping_point(text + AFTER, [], True) == len(text)
    assert extract_code(text) == extract_code(text + AFTER) and "return 2 * x" in extract_code(text)
    assert stopping_point(text + AFTER, [], False) is None


@pytest.mark.parametrize("name", ENDED)
@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_it_ends_there_however_the_text_arrives(name, step):
    text, seen = ENDED[name] + AFTER, 0
    while (end := stopping_point(text[:seen + step], [], True, seen)) is None:
        seen += step
    assert end == len(ENDED[name]) > seen


@pytest.mark.parametrize("name", OPEN)
def test_no_text_ends_elsewhere(name):
    assert stopping_point(OPEN[name], [], True) is None


def test_a_stop_string_before_the_end_of_the_program_counts():
    text = ENDED["tagged"]
    assert stopping_point(text + "@@ Instruction", ["\n@@ "], True) == len(text)
    assert stopping_point("text\n@@ " + text, ["\n@@ "], True) == len("text\n@@ ")
    assert stopping_point("ab" + "cd", ["bc"], False, seen=2) == 3


class Engine:
    """A vLLM engine that writes a text for each request, three characters a step."""

    def __init__(self, texts):
        self.texts, self.left, self.asked, self.aborted = texts, {}, [], []

    def add_request(self, name, prompt, how, lora_request):
        self.asked.append((name, prompt, how))
        text = self.texts[len(self.left)]
        self.left[name] = deque(text[place:place + 3] for place in range(0, len(text), 3))

    def has_unfinished_requests(self):
        return any(self.left.values())

    def step(self):
        found = []
        for name, pieces in self.left.items():
            if pieces:
                piece = pieces.popleft()
                out = SimpleNamespace(text=piece, token_ids=[1], index=0, stop_reason=None,
                                      finish_reason=None if pieces else "length")
                found.append(SimpleNamespace(request_id=name, outputs=[out]))
        return found

    def abort_request(self, names):
        self.aborted += names
        for name in names:
            self.left[name].clear()


def test_vllm_is_told_to_abort_what_has_ended():
    text = ENDED["bare fences after prose"]
    texts = [text + AFTER, OPEN["none at all"]]
    backend = object.__new__(VllmBackend)
    backend._llm = SimpleNamespace(llm_engine=Engine(texts))
    asked = {(0, draw): ({"prompt_token_ids": [1]}, draw) for draw in range(2)}
    found = backend._completed(asked, None, None, True)
    assert found == {(0, 0): Completion(text, "stop_string", -(-len(text) // 3)),
                     (0, 1): Completion(texts[1], "length", -(-len(texts[1]) // 3))}
    assert backend._llm.llm_engine.aborted == ["0-0"]
    backend._llm = SimpleNamespace(llm_engine=Engine(texts))
    assert {out.finish_reason for out in backend._completed(asked, None, None, False).values()} == {"length"}
