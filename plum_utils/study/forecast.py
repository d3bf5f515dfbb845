"""How long a run will take on this machine, lesson by lesson: counted work over what a matrix product reaches here.

Said before the first lesson, and again once lesson 02 has measured its first shard. It is an estimate: other models
write longer or shorter answers, and other work on the machine takes its share.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

from plum_utils.data.evalplus import evalplus_path
from plum_utils.data.hub import HUB_SETS
from plum_utils.data.instructions import load_instructions
from plum_utils.data.livecodebench import bundled_path
from plum_utils.data.problems import load_suite
from plum_utils.evaluation.protocols import PROTOCOLS
from plum_utils.evaluation.sharpness import PROBLEMS
from plum_utils.models.shapes import bundled_shapes
from plum_utils.models.weights import EMBEDDED
from plum_utils.params import Params
from plum_utils.progress import every_second, one_line, spoken
from plum_utils.provenance import ROOT
from plum_utils.stages import SAMPLING
from plum_utils.training.flops import PASSES
from plum_utils.training.memory import Shape, shape_of

LONG = 90 * 60  # seconds; a run that takes more says what to do
PATIENCE = 30   # seconds that a run waits for the probe, which takes about four
REMEDIES = ("\nMore than 90 minutes. To have less: params/smoke.yaml (minutes, to see that everything runs), a GPU, or "
            "fewer samples (-p sampling.k=..., -p data.train_limit=..., fewer in evaluation.suites)")

# Calibration: params/mini.yaml with SmolLM2-135M on two kinds of two cores: AVX2 alone in float32, where the probe reaches
# 152 GFLOP/s (lesson 02: 242 tokens/s; lesson 04: 19.4 s a step of 16 rows), and AMX in bfloat16, 1,640 GFLOP/s (641
# tokens/s, 7.9 s a step): fast products leave what is no product. PROGRAM and the answers' lengths are outputs/reference's
# (manifest.json, tables). What is said of GPUs is assumed.
SHARES = {"cpu": (0.7, 0.8, 0.96), "cuda": (0.15, 0.5, 0.35)}  # of the probe's rate: decoding, prefill, training
ELEMENTWISE = {"cpu": 4.9e-8, "cuda": 0.0}        # seconds of all but products, for a token, a layer and a unit of its width
WITHOUT_VLLM = 0.8                                # of vLLM's rate of decoding, by transformers (docs/speed.md)
STEP = {"cpu": 0.03, "cuda": 0.01}                # seconds that a decoding step takes besides
AT_A_TIME = 256                                   # sequences that an engine decodes together
FIXED = {"01": 60, "02": 60, "03": 45, "04": 60, "05": 50, "06": 45}  # seconds: imports, engines, figures, exercises
PROGRAM = 0.005                                   # seconds to check and run a program of the policy's
DEMONSTRATED = 48                                 # rows that lesson 04 trains on besides the run's own
TEMPLATE = 25                                     # tokens around an instruction
LENGTHS = {"sampling": 52, "heldout_basics": 45, "heldout_intermediate": 45, "heldout_public": 65, "humaneval": 92,
           "mbpp": 60, "livecodebench": 250}      # tokens of an answer that ends at a stop string
WITHOUT_STOP = 3                                  # times as long where none is given
LABELLED, A_SIDE = 0.24, 0.83                     # rows to train on, of each sample; at most, for each of max_per_side
ROW_PASSES = PASSES | {"dpo": 2 * PASSES["dpo"]}  # forward passes' worth of a row: a pair is two sequences
# problems, and tokens of a prompt
HUB_SUITES: dict[str, tuple[int, float]] = {"humaneval": (164, 180), "mbpp": (378, 120)}
RELEASES = {f"release_v{number}": n for number, n in enumerate((400, 511, 612, 713, 880, 1055), 1)}
SMOLLM2 = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
           "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152}


@dataclass(frozen=True)
class Speed:
    """Seconds of work of one model on this machine."""

    flops: float  # a second, in the probe's product
    device: str
    shape: Shape
    vllm: bool = True

    def generate(self, prompts: int, n: int, length: float, most: int, prompt: float) -> float:
        """One call for ``n`` completions of ``length`` tokens, the longest of them ``most``, for prompts of so many."""
        decode, prefill, _ = SHARES[self.device]
        weights, head = self.shape.linear_weights, self.shape.vocabulary * self.shape.hidden
        tokens, read = prompts * n * length, prompts * prompt
        decode *= 1 if self.vllm else WITHOUT_VLLM
        work = 2 * (weights + head) * tokens / decode + 2 * weights * read / prefill
        besides = self._elementwise(tokens) + STEP[self.device] * (tokens / AT_A_TIME + most)
        return work / self.flops + besides if tokens else 0.0

    def train(self, rows: float, prompt: float, completion: float, passes: float) -> float:
        """Rows of a prompt and a completion, of which the output head sees the latter alone."""
        forward = 2 * self.shape.linear_weights * (prompt + completion)
        forward += 2 * self.shape.vocabulary * self.shape.hidden * completion
        products = forward / (SHARES[self.device][2] * self.flops)
        return rows * passes * (products + self._elementwise(prompt + completion))

    def _elementwise(self, tokens: float) -> float:
        return ELEMENTWISE[self.device] * tokens * self.shape.layers * self.shape.hidden


@dataclass(frozen=True)
class Forecast:
    """Seconds by lesson (``01`` ...): of generating, and of everything else.

    ``rate`` (tokens a second) and ``length`` (tokens) are what lesson 02 was expected to sample.
    """

    lessons: dict[str, tuple[float, float]]
    rate: float
    length: float
    machine: str
    besides: str = ""

    @property
    def seconds(self) -> float:
        return sum(map(sum, self.lessons.values()))

    def after(self, completions: int, tokens: int, seconds: float) -> Forecast:
        """The same with the rate of a measured shard, and the length of its answers in lesson 02."""
        slower, longer = self.rate * seconds / tokens, tokens / completions / self.length
        return replace(self, lessons={number: (made * slower * (longer if number == "02" else 1), rest)
                                      for number, (made, rest) in self.lessons.items()})

    def __str__(self) -> str:
        each = [f"{number} {spoken(sum(one)) if sum(one) else 'is done'}" for number, one in self.lessons.items()]
        text = (f"about {spoken(self.seconds)} for the whole on this machine ({self.machine}). By lesson: "
                f"{', '.join(each)}{self.besides}")
        return text + REMEDIES if self.seconds > LONG else text


def announce(pipeline: Any, chosen: list[Any], force: bool = False) -> Forecast | None:
    """Print how long the chosen stages will take, or why that cannot be told; never an error. Nothing where all are up to
    date."""
    try:
        known = known_times(pipeline, chosen, force)
        if all(seconds == 0 for seconds in known.values()):
            return None
        forecast = foresee(pipeline.params, known, pipeline.run.path / SAMPLING / "shards")
    except Exception as error:  # an estimate must not stop a run
        print(f"how long this takes cannot be told beforehand: {one_line(error, 200)}", flush=True)
        return None
    print(forecast, flush=True)
    return forecast


def known_times(pipeline: Any, chosen: list[Any], force: bool) -> dict[str, float | None]:
    """Number of each chosen stage -> 0 where it is up to date and stays so, the seconds it took where it ran with the
    same parameters before, ``None`` where neither is known."""
    known: dict[str, float | None] = {}
    for stage in chosen:
        entry = pipeline.run.manifest()["stages"].get(stage.name, {})
        again = force or any(known.get(need[:2], 0.0) != 0 for need in stage.needs)
        if not again and pipeline.state(stage)[0] == "up to date":
            known[stage.number] = 0.0
        else:
            same = entry.get("status") == "done" and entry.get("params") == stage.parameters(pipeline.params)
            known[stage.number] = entry["seconds"] if same else None
    return known


def foresee(p: Params, known: dict[str, float | None], shards: Path | None = None) -> Forecast:
    """The forecast of a run's stages.

    Args:
        known: as of ``known_times``.
        shards: folder of lesson 02's shards; those that are there are not sampled again.

    Raises:
        ValueError: the model's shape, or the number of instructions, is not known without a hub.
    """
    shape = known_shape(p)
    flops, device, what = probe(p.policy.dtype, shape.hidden, shape.inner)
    vllm = p.sampling.backend == "vllm" or p.sampling.backend == "auto" and importlib.util.find_spec("vllm") is not None
    speed = Speed(flops, device, shape, vllm)
    n, prompt = count_instructions(p)
    left = 1 - min(1, len(list(shards.glob("shard_*.jsonl"))) * p.sampling.shard_size / n) if shards else 1
    lessons = {"01": _testgen(p, speed, n, prompt), "02": _sampling(p, speed, n, prompt, left),
               "03": (0.0, FIXED["03"] + 2 * PROGRAM * n * p.sampling.k), "04": _training(p, speed, n, prompt),
               "05": _evaluation(p, speed), "06": _livecodebench(p, speed)}
    length = _length(p, "sampling", p.sampling.max_tokens)
    size = min(n, p.sampling.shard_size)
    rate = size * p.sampling.k * length / speed.generate(size, p.sampling.k, length, p.sampling.max_tokens, prompt)
    found = {number: lessons[number] if seconds is None else (0.0, seconds) for number, seconds in known.items()}
    return Forecast(found, rate, length, f"{what}: {flops / 1e9:,.0f} GFLOP/s",
                    "" if p.generator.backend == "recorded" else "; the generator's answers come on top")


@contextmanager
def told_again(forecast: Forecast | None, file: Path) -> Iterator[None]:
    """Print the forecast once more, as soon as lesson 02 has written what it measured into the file."""
    file.unlink(missing_ok=True)
    told = False

    def look() -> None:
        nonlocal told
        if forecast is not None and not told and file.exists():
            told, measured = True, json.loads(file.read_text())
            rate = measured["tokens"] / measured["seconds"]
            print(f"\n    first shard: {rate:,.0f} tokens/s, {forecast.rate:,.0f} were expected; so "
                  f"{forecast.after(**measured)}", flush=True)

    try:
        with every_second(look):
            yield
    finally:
        file.unlink(missing_ok=True)  # seconds: no part of what the stage made, which is the same in each run


# --- what there is to do ----------------------------------------------------------------------------------------------

def known_shape(p: Params) -> Shape:
    """The policy's shape; raises what ``known_config`` and ``shape_of`` do."""
    return shape_of(known_config(p))


def known_config(p: Params) -> SimpleNamespace:
    """The fields of the policy's config.json that decide its shape, without asking a hub and without loading a model
    library.

    Raises:
        ValueError: they are not known here.
    """
    name = p.policy.model
    if name == EMBEDDED:
        fields: dict[str, Any] | None = SMOLLM2
    elif (ROOT / name / "config.json").exists():
        fields = json.loads((ROOT / name / "config.json").read_text())
    else:
        fields = bundled_shapes().get(name) or _downloaded(name, p.policy.revision)
    if fields is None:
        raise ValueError(f"the shape of {name} is not known before it is downloaded")
    defaults = {"num_key_value_heads": fields["num_attention_heads"], "tie_word_embeddings": True}
    return SimpleNamespace(**defaults | fields)


def _downloaded(name: str, revision: str | None) -> dict[str, Any] | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return json.loads(Path(found).read_text()) if isinstance(found, str) else None


@cache
def probe(dtype: str, inner: int, outer: int) -> tuple[float, str, str]:
    """``plum_utils.study.probe``'s answer for the machine as the lessons find it.

    Raises:
        RuntimeError: it did not come, or came too late.
    """
    command = [sys.executable, "-m", "plum_utils.study.probe", dtype, str(inner), str(outer)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"this machine is too busy to say in {PATIENCE} seconds how fast it is") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"a matrix product failed here: {error.stderr.strip()[-150:]}") from None
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def count_instructions(p: Params) -> tuple[int, float]:
    """Training instructions, and the mean tokens of their prompts.

    Raises:
        ValueError: all of a hub data set are asked for, whose number only the hub knows.
    """
    if p.data.train not in HUB_SETS:
        texts = [item.instruction for item in load_instructions(p.data.train, p.data.train_limit)]
        return len(texts), _prompt_tokens(texts)
    if p.data.train_limit is None:
        raise ValueError(f"how many instructions {p.data.train} has, only the hub knows")
    return p.data.train_limit, TEMPLATE + 150


def _prompt_tokens(texts: list[str]) -> float:
    return TEMPLATE + sum(map(len, texts)) / 4 / max(1, len(texts))


def _length(p: Params, task: str, most: int) -> float:
    return min(most, LENGTHS[task] * (1 if p.sampling.stop or p.sampling.stop_after_program else WITHOUT_STOP))


def _testgen(p: Params, speed: Speed, n: int, prompt: float) -> tuple[float, float]:
    live = p.generator.live_instructions if p.generator.live_model == p.policy.model else 0
    most = p.generator.live_max_tokens
    return (speed.generate(min(n, live), 1, 0.9 * most, most, prompt + 350),
            FIXED["01"] + PROGRAM * (4 * p.generator.responses * n + 1000))


def _sampling(p: Params, speed: Speed, n: int, prompt: float, left: float) -> tuple[float, float]:
    how, length = p.sampling, _length(p, "sampling", p.sampling.max_tokens)
    calls = -(-n // how.shard_size)
    shards = speed.generate(n, how.k, length, how.max_tokens * calls, prompt)
    tries = 6 * speed.generate(2, how.k, length, how.max_tokens, prompt)  # the lesson's own, in sections 2.4 to 2.9
    return left * shards / how.replicas + tries, FIXED["02"]


def _training(p: Params, speed: Speed, n: int, prompt: float) -> tuple[float, float]:
    how, seconds = p.training, 0.0
    n, k = min(n, p.labels.instructions or n), min(p.sampling.k, p.labels.first_k or p.sampling.k)
    length = _length(p, "sampling", p.sampling.max_tokens)
    rows = n * (1 - p.data.validation_fraction) * min(LABELLED * k, A_SIDE * (how.max_per_side or k))
    for phase in how.objective.split("+"):
        there = rows * (how.sft_epochs if phase == "sft" else how.epochs) / {"kto": 1, "dpo": 3, "sft": 3}[phase]
        a_step = how.batch_size * how.accumulation
        trained = there if how.max_steps < 0 else min(there, how.max_steps * a_step)
        seconds += speed.train(trained / how.processes, prompt, length, ROW_PASSES[phase])
        if how.validate_steps:
            times = 2 + trained / a_step // how.validate_steps
            seconds += times * speed.generate(round(n * p.data.validation_fraction), 1, length, p.sampling.max_tokens, prompt)
    return 0.0, FIXED["04"] + len(how.seeds) * seconds + speed.train(DEMONSTRATED, prompt, length, ROW_PASSES["kto"])


def _evaluation(p: Params, speed: Speed) -> tuple[float, float]:
    policies, seconds, read, programs = 1 + len(p.training.seeds), 0.0, 0.0, 0
    for suite in p.evaluation.suites:
        problems, prompt = _suite(suite.name, suite.limit)
        most = PROTOCOLS[p.evaluation.protocol_of(suite)].asking(p, suite.name)["max_tokens"]
        length = _length(p, suite.name, most)
        for way in suite.decodings():
            seconds += policies * speed.generate(problems, way.n, length, most, prompt)
            programs += policies * problems * way.n
            if way.temperature:
                read += policies * speed.train(min(problems, PROBLEMS), prompt, length, 1)  # its entropy: a forward pass
    return seconds, FIXED["05"] + 2 * PROGRAM * programs + read


def _suite(name: str, limit: int | None) -> tuple[int, float]:
    if name == "mbpp" and evalplus_path(name) is None:
        return 0, 0.0  # it will be left out
    if name in HUB_SUITES:
        problems, prompt = HUB_SUITES[name]
    else:
        texts = [problem.instruction for problem in load_suite(name)]
        problems, prompt = len(texts), _prompt_tokens(texts)
    return min(problems, limit or problems), prompt


def _livecodebench(p: Params, speed: Speed) -> tuple[float, float]:
    how, policies = p.livecodebench, 1 + len(p.training.seeds)
    file = bundled_path() if how.source == "bundled" else ROOT / how.source
    problems = len(file.read_bytes().splitlines()) if file.is_file() else RELEASES.get(how.release, 500)
    problems = min(problems, how.limit or problems)
    made = speed.generate(problems, how.n, _length(p, "livecodebench", how.max_tokens), how.max_tokens, 200)
    return policies * made, FIXED["06"] + 20 * PROGRAM * policies * problems * how.n
