"""How far a loop is: a bar in a terminal or in JupyterLab, a plain line every half minute where output goes to a file.

    with Bar("sampling", 15, items=4560) as bar:    # 15 shards of 4,560 completions together
        bar.generate(backend, prompts, n=10)        # moves with every decoding step
        bar.add(items=320)                          # a shard is done
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, TextIO

from tqdm import tqdm

from plum_utils.jsonl import write_json

WIDTH = "PLUM_PROGRESS"  # told to a lesson's kernel: the columns of the terminal that shows its output, or "lines"
FIRST_CALL = "first_call.json"  # what a loop's first call to a model measured: completions, tokens, seconds
BAR_SECONDS, LINE_SECONDS = 0.5, 30.0  # between two states shown


def told_to_kernels(stream: TextIO) -> str:
    """Value of ``WIDTH`` for kernels whose output is passed on to the stream."""
    return str(shutil.get_terminal_size().columns) if stream.isatty() else "lines"


def spoken(seconds: float) -> str:
    """A time as it is worth saying: ``8 s``, ``45 s``, ``12 min``, ``2.5 h``."""
    if seconds < 89.5:
        return f"{round(seconds) if seconds < 10 else 5 * round(seconds / 5)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:,.{int(seconds < 36000)}f} h"


def one_line(message: object, most: int) -> str:
    """A message without line breaks, cut off after so many characters."""
    return " ".join(str(message).split())[:most]


class Bar:
    """Progress of one loop, which consists of parts (shards, steps, programs), and a part perhaps of items.

    ``add`` and what ``within`` gives may be called from several threads. What was ``made`` before, and is only read
    now, counts as done and in no rate.

    Args:
        parts, items: how many there are; ``None`` where that is not known.
        part, item: what one is called.
        measured: file for what the first call to a model takes, unless it is there.
        hidden: show nothing.
    """

    def __init__(self, name: str, parts: int | None = None, part: str = "shard", items: int | None = None,
                 item: str = "completion", *, measured: Path | None = None,
                 hidden: bool = False, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.name, self.parts, self.part, self.items, self.item = name, parts, part, items, item
        self._measured = measured
        self.done_parts = self.done_items = self._made_parts = self._made_items = 0
        self.tokens = 0  # of ended calls
        self._calls: dict[object, tuple[int, int, int]] = {}  # of running ones: tokens, items, items in all
        self._stream, self._clock, self._lock = stream or sys.stderr, clock, threading.Lock()
        self._hidden, self._columns = hidden, _columns(self._stream)
        self._write = (tqdm.status_printer(self._stream) if self._columns is not None and not hidden
                       else partial(print, file=self._stream, flush=True))
        self._began = clock()
        self._shown = self._began if self._columns is None else float("-inf")
        self._show()

    def add(self, parts: int = 1, items: int = 0, made: bool = True) -> None:
        """So many parts, with so many items together, are done."""
        with self._lock:
            self.done_parts, self.done_items = self.done_parts + parts, self.done_items + items
            if made:
                self._made_parts, self._made_items = self._made_parts + parts, self._made_items + items
        self._show()

    def generate(self, backend: Any, prompts: list[str], n: int = 1, **how: Any) -> list[list[Any]]:
        """What the backend's ``generate`` returns; the bar follows its decoding steps."""
        with self.within(n * len(prompts)) as watch:
            outputs = backend.generate(prompts, n=n, watch=watch, **how)
        with self._lock:
            self.tokens += sum(out.n_tokens for outs in outputs for out in outs)
        if self._measured and not self._measured.exists():
            write_json(self._measured, {"completions": n * len(prompts), "tokens": self.tokens, "seconds": self.seconds})
        return outputs

    @contextmanager
    def within(self, items: int) -> Iterator[Callable[[int, int], None]]:
        """Call what this gives with the tokens, and the items of so many, that are done within a part which ``add`` has
        not been told of."""
        call = object()

        def watch(tokens: int, done: int) -> None:
            self._calls[call] = (tokens, done, items)
            self._show()

        watch(0, 0)
        try:
            yield watch
        finally:
            with self._lock:
                del self._calls[call]

    @property
    def seconds(self) -> float:
        """Since the bar was made."""
        return self._clock() - self._began

    def close(self) -> None:
        """Show the last state, and leave it there."""
        self._show(last=True)
        if self._columns is not None and not self._hidden:
            print(file=self._stream, flush=True)
        self._hidden = True  # a thread that Ctrl-C did not wait for may still end its part

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, last: bool = False) -> None:
        if self._hidden:
            return
        with self._lock:
            due = self._shown + (LINE_SECONDS if self._columns is None else BAR_SECONDS)
            if not last and self._clock() < due:
                return
            self._shown, text = self._clock(), self._text(last)
            if self._columns is None:
                self._write(f"{self.name}: {text}")
                return
            done, total = (self._now()[1], self.items) if self.items else (self.done_parts, self.parts)
            form = "{desc}: {percentage:3.0f}%|{bar:10}| " + text
            self._write(tqdm.format_meter(done, total, self.seconds, self._columns or None, self.name, bar_format=form))

    def _now(self) -> tuple[int, int]:
        """Tokens generated and items done, with those of running calls."""
        running = list(self._calls.values())
        return self.tokens + sum(one[0] for one in running), self.done_items + sum(one[1] for one in running)

    def _text(self, last: bool) -> str:
        tokens, items = self._now()
        total = f"/{self.parts:,}" if self.parts else ""
        words = [] if self.parts == 1 else [f"{self.done_parts:,}{total} {self.part}{'s' * (total != '' or self.done_parts != 1)}"]
        if self.items:
            words.append(f"{items:,} of {self.items:,} {self.item}s")
        return ", ".join([*words, *self._rate(tokens), spoken(self.seconds) if last else self._left(tokens)])

    def _rate(self, tokens: int) -> list[str]:
        if not self.seconds or not (tokens or self._made_parts):
            return []
        if tokens:
            return [f"{tokens / self.seconds:,.0f} tokens/s"]
        seconds = self.seconds / self._made_parts
        return [f"{seconds:.1f} s a {self.part}"] if seconds > 0.5 else [f"{1 / seconds:,.0f} {self.part}s/s"]

    def _left(self, tokens: int) -> str:
        """How long the loop will go on as it went so far. Within a call the tokens tell how far it is, by the mean of
        those that ended; in the first one its ended items do, from a quarter of them on, for short ones end first."""
        running = list(self._calls.values())
        if self.items and (self._made_items or running):
            now: float = sum(one[1] for one in running)
            if self.tokens and self._made_items:
                now = (tokens - self.tokens) * self._made_items / self.tokens
            elif now < sum(one[2] for one in running) / 4:
                return "time left not known yet"
            made, missing = self._made_items + now, self.items - self.done_items - now
        else:
            made, missing = self._made_parts, (self.parts or 0) - self.done_parts
        if not made or not (self.items or self.parts):
            return "time left not known yet"
        return f"about {spoken(max(0.0, missing) * self.seconds / made)} left"


class DownloadBar(tqdm):
    """For a hub's downloads, in text: shown once something has come, and has taken two seconds."""

    def __init__(self, *arguments: Any, **how: Any):
        super().__init__(*arguments, **{"delay": 2.0} | how)

    def display(self, *arguments: Any, **how: Any) -> Any:
        return super().display(*arguments, **how) if self.n else None


def _columns(stream: TextIO) -> int | None:
    """Columns that a bar on this stream has, 0 for as many as it takes; ``None``: the stream takes plain lines."""
    told = os.environ.get(WIDTH)
    if told:
        return None if told == "lines" else int(told)
    if stream.isatty():
        return shutil.get_terminal_size().columns
    return 0 if type(stream).__module__.startswith("ipykernel") else None  # a notebook opened by hand


@contextmanager
def every_second(look: Callable[[], None]) -> Iterator[None]:
    """``look`` called each second, in a thread, as long as the block runs."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
