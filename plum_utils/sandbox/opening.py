"""The sandbox that the parameters ask for, and its verdicts, or an error where the sandbox failed."""

from __future__ import annotations

import os
from typing import Any, Callable

from plum_utils.sandbox.pool import Sandbox
from plum_utils.sandbox.program import Limits, Program, Verdict
from plum_utils.sandbox.status import Status


def open_sandbox(p: Any) -> Sandbox:
    """The sandbox with the run's limits: on this machine, or over a Ray cluster, which runs and closes alike.

    Args:
        p: a run's parameters, of which ``p.sandbox`` is read; this room knows nothing of the others.
    """
    how = p.sandbox
    limits = Limits(**how.what_decides())
    if how.ray is None:
        return Sandbox(how.workers or workers_here(limits), limits, quiet=True)  # the lessons print it where they speak of it
    from plum_utils.sandbox.ray_pool import RaySandbox

    return RaySandbox(limits=limits, address=how.ray)  # type: ignore[return-value]  # it runs and closes alike


def workers_here(limits: Limits) -> int:
    """One for each core that this process may run on, but no more than half of the machine's memory has room for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, memory // 2 // (limits.memory_mb << 20)))


def judge(sandbox: Sandbox, programs: list[Program], limits: Limits | None = None,
          ended: Callable[[int], object] = lambda n: None) -> list[Verdict]:
    """``sandbox.run``'s verdicts, none of which is ``infrastructure``.

    Raises:
        RuntimeError: the sandbox failed on a program, so that nothing is known of it.
    """
    verdicts = sandbox.run(programs, limits=limits, ended=ended)
    for verdict in verdicts:
        if verdict.status == Status.INFRASTRUCTURE:
            raise RuntimeError(f"{verdict.id}: the sandbox failed, not the program: {verdict.detail}. Nothing is judged by a "
                               "guess; run the stage again")
    return verdicts
