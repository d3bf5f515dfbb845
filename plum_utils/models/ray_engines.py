"""Data-parallel sampling: several engines on the nodes of a Ray cluster, behind the protocol of one.

    backend = RayBackend("vllm", model_path, replicas=8, address="auto")   # `ray start` on every node first
    rows = sample_policy(p, backend, ...)                                  # asks for eight shards at a time

An engine is an actor that opens the ordinary backend on its own GPU (or GPUs: ``engine.tensor_parallel_size``), or on
one CPU where the cluster has no GPU. A call to ``generate`` goes to one engine as it is: the unit of determinism
stays one call (``backends``), so completions are those of a single engine of the same kind on the same hardware, and
which engine makes a shard changes nothing.

If an engine or its node dies, Ray starts it again on a device that is free, and the call is made again. An engine that
finds no device in ``start_seconds`` is given up, and the others go on; only when none is left, or when one call has
cost ``TRIES`` engines, is that an error. Every node needs this package in the same version, and the model and adapters
under the same paths. Keep Ray's ports on a private network: Ray obeys whoever reaches them.
"""

from __future__ import annotations

import queue
import sys
from typing import Any

from plum_utils.cluster import ClusterError, connect, one_line
from plum_utils.models.completions import Completion
from plum_utils.params import EngineParams

RESTARTS = 5  # of one engine over its life
TRIES = 3     # engines that may die of one call


class EngineError(RuntimeError):
    """The cluster cannot run the engines, or lost them; it says why."""


class RayBackend:
    """``replicas`` engines of one kind; ``generate`` may be called from as many threads at a time.

    Uses the connection that this process has to Ray, or else connects (and disconnects in ``close``).

    Args:
        kind, model_path: as of ``open_backend``, which gets the ``settings`` (``dtype``, ``lora_rank``, ...) too.
        replicas: number of engines, each with whole GPUs (a CPU, where the cluster has no GPU).
        address: of the cluster, as of ``cluster.connect``.
        start_seconds: how long engines may take to load the model, at first and after one died.

    Attributes:
        name: that of the engines' own backend, for a shard does not depend on who made it.

    Raises:
        EngineError: Ray is not installed or not reached, it has fewer devices than ``replicas``, or an engine did not
            start.
    """

    def __init__(self, kind: str, model_path: str, replicas: int = 1, address: str | None = None,
                 start_seconds: float = 900.0, **settings: Any):
        self.replicas = replicas
        self._start_seconds = start_seconds
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()  # engines; ``None``: none is left to wait for
        self._closed = False
        try:
            self._ray, self._connected = connect(address)
        except ClusterError as error:
            raise EngineError(f"sampling.ray: {error}") from error
        self._engines: list[Any] = []
        try:
            self._start(kind, model_path, settings)
        except BaseException:
            self.close()
            raise

    def generate(self, prompts: list[str], watch: Any = None, **how: Any) -> list[list[Completion]]:
        """What ``generate`` of the next idle engine returns; waits while none is. ``watch`` is not called: progress moves
        shard by shard.

        Raises:
            EngineError: no engine is left, or ``TRIES`` died of this call.
        """
        for _ in range(TRIES):
            engine = self._take()
            works = True
            try:
                return self._ray.get(engine.generate.remote(prompts, how))
            except self._ray.exceptions.RayActorError as error:
                works, cause = self._closed or self._started_again(engine), one_line(error)
            finally:
                if works:
                    self._idle.put(engine)
        raise EngineError(f"{TRIES} engines died of one call with {len(prompts)} prompts, the last one of {cause}")

    def close(self) -> None:
        """Stop the engines, and disconnect if the connection was made here. Calls that still run fail."""
        self._closed = True
        self._idle.put(None)
        if not self._ray.is_initialized():
            return
        for engine in list(self._engines):  # a call that fails now may give one up
            self._ray.kill(engine)
        if self._connected:
            self._ray.shutdown()

    def _start(self, kind: str, model_path: str, settings: dict[str, Any]) -> None:
        resources = self._ray.cluster_resources()
        device = "GPU" if resources.get("GPU") else "CPU"
        each = settings.get("engine", EngineParams()).tensor_parallel_size if device == "GPU" else 1
        if resources.get(device, 0) < self.replicas * each:
            raise EngineError(f"sampling.replicas: expected at most {resources.get(device, 0) // each:g}, for the Ray cluster "
                              f"has {resources.get(device, 0):g} {device}s and an engine takes {each}, got {self.replicas}; "
                              "add nodes (ray start --address=...) or lower it")
        actor = self._ray.remote(_Engine).options(num_gpus=each if device == "GPU" else 0, num_cpus=1,
                                                  max_restarts=RESTARTS)
        self._engines += [actor.remote(kind, model_path, settings) for _ in range(self.replicas)]
        try:
            names = self._ray.get([engine.name.remote() for engine in self._engines], timeout=self._start_seconds)
        except self._ray.exceptions.GetTimeoutError as error:
            raise EngineError(f"not all of {self.replicas} engines started in {self._start_seconds:g} seconds: are "
                              f"their {device}s in use by something else?") from error
        except self._ray.exceptions.RayActorError as error:
            raise EngineError(f"an engine did not start: {one_line(error)}") from error
        self.name = names[0]
        for engine in self._engines:
            self._idle.put(engine)

    def _take(self) -> Any:
        engine = self._idle.get()
        if engine is None or self._closed:
            self._idle.put(None)  # for the next thread that waits
            raise EngineError("the backend was closed" if self._closed else "no engine is left; the last one's node is "
                              "gone and no device is free. Run the stage again, finished shards are kept")
        return engine

    def _started_again(self, engine: Any) -> bool:
        """Wait until Ray has started a dead engine again; if it cannot, give the engine up."""
        try:
            self._ray.get(engine.name.options(max_task_retries=-1).remote(), timeout=self._start_seconds)
            return True
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError) as error:
            print(f"sampling: an engine is given up: {one_line(error)}", file=sys.stderr)
        self._engines.remove(engine)
        if not self._engines:
            self._idle.put(None)
        return False


class _Engine:
    """One backend, in a process of its own."""

    def __init__(self, kind: str, model_path: str, settings: dict[str, Any]):
        from plum_utils.models.engines import open_backend

        self._backend = open_backend(kind, model_path, **settings)

    def name(self) -> str:
        return self._backend.name

    def generate(self, prompts: list[str], how: dict[str, Any]) -> list[list[Completion]]:
        return self._backend.generate(prompts, **how)
