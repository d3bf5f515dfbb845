"""The connection to a Ray cluster: for the sandbox, and for the engines of ``models.ray_engines``."""

from __future__ import annotations

import os
from types import ModuleType


class ClusterError(RuntimeError):
    """Ray is not installed or no cluster was reached; it says why."""


def connect(address: str | None) -> tuple[ModuleType, bool]:
    """Ray, connected, and whether that was done here, so that it is the caller's to shut down.

    Args:
        address: of the cluster, as ``ray.init`` takes it; by default that of ``RAY_ADDRESS``, of a cluster that runs on
            this machine, or of one that is started on this machine alone.

    Raises:
        ClusterError: see there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ClusterError(f"Ray cannot be imported ({error}): pip install '.[ray]'") from error
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    except (ConnectionError, ray.exceptions.RpcError) as error:  # at `auto`, and where nothing listens
        raise ClusterError(f"no Ray cluster at {address}: {one_line(error)}") from error
    return ray, True


def one_line(error: Exception) -> str:
    """Kind and message; of an error of Ray's about an exception in another process, that exception's."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[-500:]}"
