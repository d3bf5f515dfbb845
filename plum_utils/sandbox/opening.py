"""The sandbox that the parameters ask for."""

from __future__ import annotations

from typing import Any

from plum_utils.sandbox.pool import Limits, Sandbox


def open_sandbox(p: Any) -> Sandbox:
    """The sandbox with the run's limits: on this machine, or over a Ray cluster, which runs and closes alike.

    Args:
        p: a run's parameters, of which ``p.sandbox`` is read; this room knows nothing of the others.
    """
    how = p.sandbox
    limits = Limits(seconds=how.seconds, memory_mb=how.memory_mb, factor=how.factor, least_seconds=how.least_seconds,
                    allow_weak=how.allow_weak)
    if how.ray is None:
        return Sandbox(how.workers, limits, quiet=True)  # the lessons print it where they speak of it
    from plum_utils.sandbox.ray_pool import RaySandbox

    return RaySandbox(limits=limits, address=how.ray)  # type: ignore[return-value]  # it runs and closes alike
