"""How two processes share the tests (``pytest -n 2``): a plugin of the tests."""

from __future__ import annotations

from typing import Any

import pytest

TIMED = ("tests/sandbox/", "tests/evaluation/test_contests.py")  # they judge programs by their time


def together(test: str) -> str:
    """Name of the tests that run in one process: those of a file, whose fixtures are then made once, or the timed ones."""
    file = test.partition("::")[0]
    return "timed" if file.startswith(TIMED) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Instead of ``--dist loadgroup``: under pytest 9.2, xdist 3.8 ignores its groups without a word."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = together
    return scheduler
