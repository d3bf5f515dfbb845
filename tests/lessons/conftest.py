"""The smoke run: once a session, shared by the tests that need a finished one; and the browser.

Sessions that follow each other can share it too (``.ci/run``): ``PLUM_SMOKE_RUN`` names its folder, and what the command
finds finished there, and made by the same code, it skips.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from real_browser import browser  # noqa: F401
from smoke_command import Done, call


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """All six notebooks, undisturbed."""
    folder = os.environ.get("PLUM_SMOKE_RUN") or tmp_path_factory.mktemp("smoke") / "run"
    done = call(Path(folder))
    assert done.status == 0, done.output[-4000:]
    return done
