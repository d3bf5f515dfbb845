"""What every engine keeps to: prompts in, completions out; and what is measured and given back around it."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Literal, Protocol

from plum_utils.runs import fingerprint

Ending = Literal["end_token", "stop_string", "length"]


@dataclass(frozen=True)
class Completion:
    """One completion; ``text`` keeps the stop string, ``n_tokens`` counts generated tokens. It ended with an end token of
    the model's, which ``end`` names and the text leaves out, with a string or a closing fence at which we stopped it, or
    at the limit of tokens."""

    text: str
    finish_reason: Ending
    n_tokens: int
    end: str = ""


Watch = Callable[[int, int], None]


def stream_seed(*parts: Any) -> int:
    """The seed of a stream of random numbers, of 52 bits, by everything that tells it from all others: a hash, for seeds
    that are near each other meet as soon as an engine counts on from one of them."""
    return int(fingerprint(parts)[:13], 16)


def draw_seeds(seed: int | list[int], prompts: int, draws: int) -> list[list[int]]:
    """A seed for each draw of each prompt of a call, from the call's one or from one a prompt."""
    own = seed if isinstance(seed, list) else [stream_seed(seed, number) for number in range(prompts)]
    return [[stream_seed(one, draw) for draw in range(draws)] for one in own]


class Backend(Protocol):
    """What a stage needs of a model: prompts in, ``n`` completions for each out, in order.

    ``watch`` is called after each decoding step with the tokens generated and the completions finished so far in this
    call. ``stop`` and ``stop_after_program`` end a completion as ``stopping.stopping_point`` says. ``seed`` is the call's, or
    a list of one a prompt; no two completions share random numbers (``draw_seeds``).
    """

    name: str

    def generate(self, prompts: list[str], *, n: int = 1, temperature: float = 0.0, top_p: float = 1.0,
                 max_tokens: int = 512, stop: list[str] | None = None, stop_after_program: bool = False,
                 seed: int | list[int] = 0, adapter: str | None = None, watch: Watch | None = None
                 ) -> list[list[Completion]]: ...

    def close(self) -> None: ...


def release_memory() -> None:
    """Hand memory that nothing refers to back to the GPU and to the system, for what this process does next."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's, which else keeps what was freed
        if trim is not None:
            trim(0)


def before_stop(completion: str, stops: list[str]) -> str:
    """The text up to the first stop string, which our engines leave at its end."""
    return completion[:min((completion.find(stop) for stop in stops if stop in completion), default=len(completion))]


class Metered:
    """A backend that counts what passes through it, so that a rate covers only what was generated in this process:
    shards read back from disk never reach it.

    ``calls``, ``tokens`` (generated ones) and ``seconds`` (wall time in which at least one call was running) add up
    from zero, whichever threads call.
    """

    def __init__(self, backend: Backend):
        self._backend = backend
        self.name = backend.name
        self.replicas = getattr(backend, "replicas", 1)
        self.calls, self.tokens, self.seconds = 0, 0, 0.0
        self._lock, self._running, self._since = threading.Lock(), 0, 0.0

    def generate(self, prompts: list[str], **how: Any) -> list[list[Completion]]:
        with self._clock():
            outputs = self._backend.generate(prompts, **how)
        with self._lock:
            self.calls += 1
            self.tokens += sum(out.n_tokens for outs in outputs for out in outs)
        return outputs

    @contextmanager
    def _clock(self) -> Iterator[None]:
        """Runs from the first of several overlapping calls to the last one's end."""
        with self._lock:
            if not self._running:
                self._since = time.monotonic()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self.seconds += time.monotonic() - self._since

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second; not a number before anything was generated."""
        return self.tokens / self.seconds if self.tokens else float("nan")

    def close(self) -> None:
        self._backend.close()
