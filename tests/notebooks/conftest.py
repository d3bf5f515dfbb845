"""The smoke run: once a session, shared by the tests that need a finished one; and the browser."""

from __future__ import annotations

import pytest
from real_browser import browser  # noqa: F401
from smoke_command import Done, call


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """All six notebooks, undisturbed."""
    done = call(tmp_path_factory.mktemp("smoke") / "run")
    assert done.status == 0, done.output[-4000:]
    return done
