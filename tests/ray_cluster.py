"""A local Ray cluster, once a session: a plugin of the tests (conftest.py), which run its tests one after the other."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A head and a second node of one CPU each; ``cluster.more()`` adds another."""
    if sys.platform != "linux":
        pytest.skip("Ray is tested on Linux")
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install '.[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets are made in it
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)  # Ray notes the address there and does not make it
    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False, "temp_dir": folder})
    made.more = lambda: made.add_node(**node)
    made.more()
    yield made
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cluster's tests come last, so that it stands beside no other test, and is made once."""
    items.sort(key=lambda item: "cluster" in getattr(item, "fixturenames", ()))
