"""The smoke run: once a session, shared by the smoke tests and the kill tests."""

from __future__ import annotations

import pytest
from smoke_command import Done, call


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """All six notebooks, undisturbed."""
    done = call(tmp_path_factory.mktemp("smoke") / "run")
    assert done.status == 0, done.output[-4000:]
    return done
