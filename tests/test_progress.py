"""One bar for every loop: what it says, how often, in a terminal and in a file; and how a backend's steps move it."""

from __future__ import annotations

import io

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from plum_utils.models.completions import Completion
from plum_utils.progress import WIDTH, Bar, DownloadBar, spoken, told_to_kernels
from plum_utils.runs import shards
from plum_utils.study.notebooks import _tidy


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def nobody_told(monkeypatch):
    monkeypatch.delenv(WIDTH, raising=False)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def clock():
    return Clock()


class Steps:
    """A backend that takes a second for each step, in which every sequence grows by a token; the first of each prompt
    ends with half of them."""

    name = "steps"

    def __init__(self, clock, steps=40, seen=None):
        self.clock, self.steps, self.seen = clock, steps, seen if seen is not None else []

    def generate(self, prompts, n=1, watch=None, **how):
        for step in range(1, self.steps + 1):
            self.clock.now += 1
            tokens = len(prompts) * (min(step, self.steps // 2) + (n - 1) * step)
            ended = len(prompts) * ((step >= self.steps // 2) + (n - 1) * (step == self.steps))
            watch(tokens, ended)
            self.seen.append(tokens)
        return [[Completion("x", "end_token", self.steps // 2 if not index else self.steps) for index in range(n)]
                for _ in prompts]


def sample(stream, clock, n_shards=3, folder=None):
    """``n_shards`` shards of two prompts with two completions each, as the study's loops make them."""
    bar = Bar("sampling", n_shards, items=4 * n_shards, stream=stream, clock=clock)
    backend = Steps(clock)

    def make(key):
        outputs = bar.generate(backend, ["a", "b"], n=2)
        return [{"tokens": out.n_tokens} for outs in outputs for out in outs]

    return shards(folder, [f"s{number}" for number in range(n_shards)], make, "mark", bar)


def test_a_file_gets_whole_lines_at_most_one_every_half_minute_and_the_last_state(tmp_path, clock):
    stream = io.StringIO()
    sample(stream, clock, folder=tmp_path)
    assert "\r" not in stream.getvalue() and stream.getvalue().endswith("\n")
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 120 // 30 + 1
    assert lines[0] == "sampling: 0/3 shards, 2 of 12 completions, 3 tokens/s, about 2 min left"
    assert lines[-1] == "sampling: 3/3 shards, 12 of 12 completions, 3 tokens/s, 2 min"
    assert all(line.endswith(" left") for line in lines[:-1])


def test_a_terminal_gets_one_bar_that_is_written_over(tmp_path, clock):
    stream = Terminal()
    sample(stream, clock, folder=tmp_path)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    states = text.strip().split("\r")[1:]
    assert len(states) >= 120  # one a step
    assert "0/3 shards, 0 of 12 completions, 1" not in states[0] and "time left not known yet" in states[1]
    assert "sampling: 100%|██████████| 3/3 shards, 12 of 12 completions, 3 tokens/s, 2 min" in states[-1]


def test_a_bar_keeps_to_the_terminals_width(tmp_path, clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    sample(stream, clock, folder=tmp_path)
    assert max(map(len, stream.getvalue().rstrip("\n").split("\r"))) <= 40


def test_the_time_left_is_of_the_whole_loop_and_follows_the_steps_within_a_shard(clock):
    bar, left, clock.now = Bar("x", 3, items=12, stream=io.StringIO(), clock=clock), [], 0.0
    backend = Steps(clock)
    watch_once = backend.generate

    def generate(prompts, n, watch, **how):
        def look(tokens, items):
            watch(tokens, items)
            left.append(bar._left(bar._now()[0]))
        return watch_once(prompts, n, look, **how)

    backend.generate = generate
    for _ in range(3):
        bar.generate(backend, ["a", "b"], n=2)
        bar.add(items=4)
    assert left[0] == left[18] == "time left not known yet"
    assert left[40] == "about 80 s left" and left[-1] == "about 0 s left"
    later = [int(text.split()[1]) for text in left[40:]]
    assert all(one - two in (-5, 0, 1, 5) for one, two in zip(later, later[1:])), "it jumps"


def test_shards_that_are_there_count_as_done_and_in_no_rate(tmp_path, clock):
    sample(io.StringIO(), clock, 2, tmp_path)
    stream, clock.now = io.StringIO(), 0.0
    sample(stream, clock, 3, tmp_path)
    assert stream.getvalue().splitlines()[-1] == "sampling: 3/3 shards, 12 of 12 completions, 3 tokens/s, 40 s"
    stream = io.StringIO()
    sample(stream, clock, 3, tmp_path)
    assert stream.getvalue() == "sampling: 3/3 shards, 12 of 12 completions, 0 s\n"


def test_training_shows_seconds_a_step_and_the_time_left(clock):
    stream = io.StringIO()
    bar = Bar("kto, seed 0", 36, "step", stream=stream, clock=clock)
    bar.add(6, made=False)
    for _ in range(30):
        clock.now += 20
        bar.add()
    bar.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "kto, seed 0: 8/36 steps, 20.0 s a step, about 9 min left"
    assert lines[-1] == "kto, seed 0: 36/36 steps, 20.0 s a step, 10 min"


def test_many_quick_parts_show_their_rate(clock):
    stream = io.StringIO()
    with Bar("sandbox", 1500, "program", stream=stream, clock=clock) as bar:
        for _ in range(1500):
            clock.now += 1 / 250
            bar.add()
    assert stream.getvalue() == "sandbox: 1,500/1,500 programs, 250 programs/s, 6 s\n"


def test_one_call_is_one_part_and_an_unknown_total_has_no_end(clock):
    stream = io.StringIO()
    with Bar("humaneval-greedy-baseline", 1, items=4, stream=stream, clock=clock) as bar:
        bar.generate(Steps(clock), ["a", "b"], n=2)
        bar.add(items=4)
    assert stream.getvalue().splitlines()[-1] == "humaneval-greedy-baseline: 4 of 4 completions, 3 tokens/s, 40 s"
    stream = io.StringIO()
    with Bar("judging", stream=stream, clock=clock) as bar:
        clock.now += 31
        bar.add(items=1000)
    assert stream.getvalue() == ("judging: 1 shard, 31.0 s a shard, time left not known yet\n"
                                 "judging: 1 shard, 31.0 s a shard, 30 s\n")


def test_a_hidden_bar_and_a_closed_one_say_nothing(clock):
    for stream in (io.StringIO(), Terminal()):
        Bar("x", 2, hidden=True, stream=stream, clock=clock).add()
        assert stream.getvalue() == ""
        with Bar("x", 2, stream=stream, clock=clock) as bar:
            pass
        said = stream.getvalue()
        bar.add()
        assert stream.getvalue() == said


def test_a_failed_call_leaves_no_trace_in_the_counts(clock):
    class Fails(Steps):
        def generate(self, prompts, n=1, watch=None, **how):
            watch(5, 1)
            raise KeyboardInterrupt

    bar = Bar("x", 1, items=4, stream=io.StringIO(), clock=clock)
    with pytest.raises(KeyboardInterrupt):
        bar.generate(Fails(clock), ["a"], n=2)
    assert bar._now() == (0, 0)


def test_a_kernel_shows_what_its_runs_terminal_can(monkeypatch, clock):
    assert told_to_kernels(Terminal()) == "120" and told_to_kernels(io.StringIO()) == "lines"
    monkeypatch.setenv(WIDTH, "60")
    stream = io.StringIO()
    with Bar("x", 2, stream=stream, clock=clock):
        pass
    assert stream.getvalue().startswith("\rx:   0%|") and stream.getvalue().endswith("\n")
    monkeypatch.setenv(WIDTH, "lines")
    stream = Terminal()
    with Bar("x", 2, stream=stream, clock=clock):
        pass
    assert "\r" not in stream.getvalue()


def test_an_executed_notebook_keeps_the_last_line_of_each_loop(tmp_path):
    said = ("sampling: 1/3 shards, 4 of 12 completions, 3 tokens/s, about 80 s left\n"
            "sampling: 2/3 shards, time left not known yet\nsampling: 3/3 shards, 2 min\nnote: nothing left\n"
            "kto, seed 0: 1/2 steps, about 5 s left\nkto, seed 0: 2/2 steps, 9 s\n")
    outputs = [new_output("stream", name=name, text=said) for name in ("stderr", "stdout")]
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=outputs)]), tmp_path / "x.ipynb")
    _tidy(tmp_path / "x.ipynb")
    err, out = nbformat.read(tmp_path / "x.ipynb", as_version=4).cells[0].outputs
    assert err.text == "sampling: 3/3 shards, 2 min\nnote: nothing left\nkto, seed 0: 2/2 steps, 9 s\n"
    assert out.text == said


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (8.4, "8 s"), (44, "45 s"), (89, "90 s"), (90, "2 min"),
                                               (3000, "50 min"), (5400, "1.5 h"), (90000, "25 h")])
def test_times_are_said_as_precisely_as_they_are_worth(seconds, text):
    assert spoken(seconds) == text


def test_a_download_shows_a_bar_once_something_has_come():
    shown = io.StringIO()
    with DownloadBar(total=0, desc="Downloading bytes", delay=0, file=shown) as bar:
        bar.set_description_str("Download complete")  # as the hub's library says of what was there
        assert not shown.getvalue()
        bar.total = 10
        bar.update(5)
    assert "Download complete:  50%" in shown.getvalue()
    brief = io.StringIO()
    with DownloadBar(total=1, file=brief) as bar:
        bar.update(1)
    assert not brief.getvalue(), "what takes no time needs no bar"
