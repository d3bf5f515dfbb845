"""Small parameters and instructions, and stand-ins for a tokenizer, a model and the sandbox."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from plum_utils.data.instructions import Instruction
from plum_utils.models.completions import Completion
from plum_utils.params import Params
from plum_utils.sandbox import Verdict

P = Params(name="x", policy={"system": "Be brief."}, sampling={"k": 3, "shard_size": 2, "max_tokens": 9})
INSTRUCTIONS = [Instruction(f"i{number}", "test", f"Write f{number}.") for number in range(5)]


class Words:
    """A tokenizer whose chat template shows roles and contents."""

    chat_template = "there is one"

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        assert add_generation_prompt and not tokenize
        return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"


class Memory:
    """A backend that answers each prompt with its length, its seed and the sample's number, and keeps its calls."""

    name = "memory"

    def __init__(self, fail_at_call: int | None = None):
        self.calls, self.fail_at_call = [], fail_at_call

    def generate(self, prompts, n=1, temperature=0.0, top_p=1.0, max_tokens=512, stop=None, seed=0, adapter=None,
                 watch=None, stop_after_program=False):
        if len(self.calls) == self.fail_at_call:
            raise KeyboardInterrupt
        self.calls.append({"prompts": prompts, "n": n, "temperature": temperature, "top_p": top_p, "stop": stop,
                           "stop_after_program": stop_after_program, "max_tokens": max_tokens, "seed": seed, "adapter": adapter})
        seeds = seed if isinstance(seed, list) else [seed] * len(prompts)
        return [[Completion(f"```python\nx = {len(prompt)}, {own}, {index}\n```", "end_token", 7) for index in range(n)]
                for prompt, own in zip(prompts, seeds)]

    def close(self):
        pass


class TwoMemories(Memory):
    """Two replicas: each call waits for a second one."""

    replicas = 2

    def __init__(self):
        super().__init__()
        self.both = threading.Barrier(2)

    def generate(self, prompts, **how):
        self.both.wait(10)
        return super().generate(prompts, **how)


@dataclass
class StubSandbox:
    """Answers each program with a fixed status; keeps what it was asked."""

    status: str = "passed"

    def __post_init__(self):
        self.asked = []

    def run(self, programs, limits=None, ended=None):
        self.asked += programs
        return [Verdict(program.id, self.status, "" if self.status == "passed" else "at 0x7f3a1b2c3d4e", 0.1)
                for program in programs]
