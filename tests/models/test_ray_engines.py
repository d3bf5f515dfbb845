"""Several engines over a local Ray cluster: the completions of one engine, whatever dies on the way."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from plum_utils.data.instructions import Instruction
from plum_utils.data.problems import Problem
from plum_utils.evaluation.solutions import generate_solutions, solve_all
from plum_utils.models import ray_engines
from plum_utils.models.completions import Metered
from plum_utils.models.ray_engines import EngineError, RayBackend
from plum_utils.models.sampling import sample_policy
from plum_utils.models.transformers_engine import TransformersBackend
from plum_utils.params import Params

PROMPTS = ["ask 1?\n", "ask 22?\n", "ask 333?\n"]
HOW = {"n": 3, "temperature": 1.0, "max_tokens": 12}
INSTRUCTIONS = [Instruction(f"i{number}", "test", f"Write f{number}.") for number in range(8)]
P = Params(name="x", policy={"prompt": "base"},
           sampling={"k": 2, "shard_size": 2, "max_tokens": 8, "backend": "transformers"})


class Logged(ray_engines._Engine):
    """Notes its process and the number of each call in a file, and dies of the numbers that a file beside it asks for."""

    def __init__(self, kind, model_path, settings):
        self._folder = Path(settings.pop("folder"))
        super().__init__(kind, model_path, settings)

    def generate(self, prompts, how):
        # Of a shard its own number, by its first prompt; of another call the seed.
        number = how["seed"] if isinstance(how["seed"], int) else int(re.search(r"f(\d+)", prompts[0])[1]) // 2
        with open(self._folder / "calls.txt", "a") as log:
            log.write(f"{os.getpid()} {number}\n")
        time.sleep(0.3)  # a call of a real engine is longer than the way to it
        deadly = self._folder / f"die-of-{number}"
        if deadly.exists():
            left = int(deadly.read_text()) - 1
            deadly.write_text(str(left)) if left else deadly.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(prompts, how)


@pytest.fixture(scope="module")
def opened(cluster, tiny, tmp_path_factory):
    """Two engines, which the tests share, and the folder that they log to."""
    from ray import cloudpickle
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers do not find the tests
    folder = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engines, "_Engine", Logged)
        backend = RayBackend("transformers", tiny, 2, cluster.address, dtype="float32", folder=str(folder))
    yield backend, folder
    backend.close()


@pytest.fixture
def engines(opened):
    return opened[0]


@pytest.fixture
def log(opened):
    """The engines' folder, without the calls of earlier tests."""
    for path in opened[1].iterdir():
        path.unlink()
    return opened[1]


@pytest.fixture(scope="module")
def alone(tiny):
    """One engine in this process."""
    return TransformersBackend(tiny, "float32")


def calls(folder: Path) -> list[tuple[int, int]]:
    """(process, number) of each call that reached an engine."""
    return [tuple(map(int, line.split())) for line in (folder / "calls.txt").read_text().splitlines()]


def ask(backend, seeds: range, threads: int) -> list:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda seed: backend.generate(PROMPTS, seed=seed, **HOW), seeds))


def samples(backend, folder: Path) -> tuple[list[dict], dict[str, bytes]]:
    """The rows of stage 02's loop, and the bytes of its shards."""
    rows = sample_policy(P, backend, None, INSTRUCTIONS, folder)
    return rows, {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


@pytest.mark.long("cluster")
def test_an_engine_that_cannot_load_says_why(cluster, tmp_path):
    # The first of the tests: the engines that the others share take all CPUs.
    with pytest.raises(EngineError, match="an engine did not start: .*no-such-model"):
        RayBackend("transformers", str(tmp_path / "no-such-model"), 1, cluster.address)


@pytest.mark.long("cluster")
def test_two_engines_say_what_one_says_and_both_are_used(engines, alone, log):
    assert engines.name == "transformers" and engines.replicas == 2
    assert ask(engines, range(6), threads=2) == [alone.generate(PROMPTS, seed=seed, **HOW) for seed in range(6)]
    seen = calls(log)
    assert sorted(seed for _, seed in seen) == list(range(6))
    processes = {process for process, _ in seen}
    assert len(processes) == 2 and os.getpid() not in processes


@pytest.mark.long("cluster")
def test_shards_are_the_same_bytes_with_one_engine_and_with_two(engines, alone, log, tmp_path):
    meter = Metered(engines)
    assert samples(meter, tmp_path / "two") == samples(alone, tmp_path / "one")
    assert (meter.replicas, meter.calls) == (2, 4) and len({process for process, _ in calls(log)}) == 2


@pytest.mark.long("cluster")
def test_solutions_are_the_same_bytes_with_one_engine_and_with_two(engines, alone, log, tmp_path):
    """Lessons 05 and 06: a job is a call, of a policy with or without an adapter."""
    problems = [Problem(f"p{number}", "x", f"Write f{number}.", "f", "", "") for number in range(4)]
    adapter = trained(alone, tmp_path / "adapter")
    jobs = [(policy, temperature) for policy in (None, adapter) for temperature in (0.0, 1.0)]

    def solved(backend, folder):
        rows = solve_all(backend, lambda job: generate_solutions(
            P, backend, None, problems, folder, n=2, temperature=job[1], max_tokens=8, adapter=job[0],
            label=f"{job[1]}-{job[0] and job[0].name}"), jobs)
        return rows, {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}

    found = solved(engines, tmp_path / "two")
    assert found == solved(alone, tmp_path / "one") and list(found[0]) == jobs
    texts = [[row["completion"] for row in rows] for rows in found[0].values()]
    assert texts[0] != texts[2] and len({process for process, _ in calls(log)}) == 2


def trained(backend: TransformersBackend, folder: Path) -> Path:
    """An adapter for the backend's model that changes what it says."""
    torch.manual_seed(0)
    model = copy.deepcopy(backend._model)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    model.save_pretrained(folder)
    return folder


@pytest.mark.long("cluster")
def test_an_engine_that_dies_is_started_again_and_changes_nothing(engines, alone, log, tmp_path):
    (log / "die-of-2").write_text("1")
    assert samples(engines, tmp_path / "two") == samples(alone, tmp_path / "one")
    seen = calls(log)
    assert sorted(seed for _, seed in seen) == [0, 1, 2, 2, 3]
    dead = next(process for process, seed in seen if seed == 2)
    ask(engines, range(10, 14), threads=2)
    after = {process for process, seed in calls(log) if seed >= 10}
    assert len(after) == 2 and dead not in after


@pytest.mark.long("cluster")
def test_a_call_that_every_engine_dies_of_is_an_error_and_the_rest_can_go_on(engines, alone, log, tmp_path):
    (log / "die-of-1").write_text("100")
    with pytest.raises(EngineError, match="3 engines died of one call with 2 prompts"):
        samples(engines, tmp_path / "two")
    kept = {path.name for path in (tmp_path / "two").glob("*.jsonl")}
    assert "shard_0000.jsonl" in kept and "shard_0001.jsonl" not in kept
    (log / "die-of-1").unlink()
    (log / "calls.txt").unlink()
    assert samples(engines, tmp_path / "two") == samples(alone, tmp_path / "one")
    missing = {f"shard_{number:04d}.jsonl" for number in range(4)} - kept
    assert {f"shard_{seed:04d}.jsonl" for _, seed in calls(log)} == missing


@pytest.mark.long("cluster")
def test_what_an_engine_raises_arrives_as_it_is_and_costs_no_engine(engines, log):
    with pytest.raises(TypeError, match="no_such_argument"):
        engines.generate(PROMPTS, seed=0, no_such_argument=1)
    assert ask(engines, range(2), threads=2) and len(calls(log)) == 3


@pytest.mark.long("cluster")
def test_more_replicas_than_devices_is_an_error_that_counts_both(cluster, tiny):
    with pytest.raises(EngineError, match=r"sampling.replicas: expected at most 2, .* has 2 CPUs and an engine takes 1, got 3"):
        RayBackend("transformers", tiny, 3, cluster.address)


@pytest.mark.long("cluster")
def test_engines_that_find_no_free_device_are_an_error(engines, cluster, tiny):
    with pytest.raises(EngineError, match="not all of 1 engines started in 2 seconds: are their CPUs in use"):
        RayBackend("transformers", tiny, 1, cluster.address, start_seconds=2)


@pytest.mark.long("cluster")
def test_closing_ends_calls_that_still_run(engines, log):
    # The last of the tests: nothing is left of the engines.
    raised = []

    def call():
        try:
            engines.generate(PROMPTS, seed=0, **HOW)
        except EngineError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not (log / "calls.txt").exists():
        time.sleep(0.02)
    engines.close()
    thread.join(20)
    assert not thread.is_alive() and "the backend was closed" in str(raised[0])


def test_no_cluster_at_the_address_is_an_error(monkeypatch):
    ray = pytest.importorskip("ray")

    def refuse(**_):
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(EngineError, match="sampling.ray: no Ray cluster at auto: .*not find any running"):
        RayBackend("transformers", "nowhere", 1, "auto")


class Method:
    """Of an actor: what it does, asked for as Ray asks and done when the result is fetched."""

    def __init__(self, act):
        self.act = act

    def options(self, **_):
        return self

    def remote(self, *arguments):
        return lambda: self.act(*arguments)


def test_engines_that_find_no_device_again_are_given_up_and_the_others_go_on(monkeypatch, capsys):
    exceptions = pytest.importorskip("ray").exceptions

    class Engine:
        def __init__(self, number):
            self.number, self.dead = number, False
            self.name, self.generate = Method(self.start), Method(self.answer)

        def start(self):
            if self.dead:
                raise exceptions.GetTimeoutError("still pending")
            return "stub"

        def answer(self, prompts, how):
            self.dead = self.dead or self.number in how["deadly"]
            if self.dead:
                raise exceptions.RayActorError
            return self.number

    engines = [Engine(number) for number in range(3)]
    made = iter(engines)
    actor = SimpleNamespace(remote=lambda *_: next(made))
    ray = SimpleNamespace(
        exceptions=exceptions, cluster_resources=lambda: {"CPU": 3.0}, is_initialized=lambda: True, kill=lambda _: None,
        remote=lambda _: SimpleNamespace(options=lambda **_: actor),
        get=lambda asked, timeout=None: [one() for one in asked] if isinstance(asked, list) else asked())
    monkeypatch.setattr(ray_engines, "connect", lambda address: (ray, False))
    with contextlib.closing(RayBackend("vllm", "model", replicas=3)) as backend:
        assert backend.generate([], deadly=[0]) == 1
        assert [backend.generate([], deadly=[]) for _ in range(4)] == [2, 1, 2, 1]
        with pytest.raises(EngineError, match="no engine is left"):
            backend.generate([], deadly=[1, 2])
        with pytest.raises(EngineError, match="no engine is left"):
            backend.generate([], deadly=[])
    assert capsys.readouterr().err.count("an engine is given up: GetTimeoutError") == 3
