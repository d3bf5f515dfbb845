"""A real browser for tests: headless Chromium, driven by playwright. A folder takes the fixture by importing it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Iterator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Path of the Chromium to use: ``PLUM_CHROMIUM``, else the first of the usual names on PATH; ``None``: none."""
    given = os.environ.get("PLUM_CHROMIUM")
    if given:
        return given if Path(given).exists() else None
    if Path("/usr/bin/chromium").exists():
        return "/usr/bin/chromium"
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A running headless Chromium (a playwright ``Browser``); the test is skipped where there is none.

    It ends with its module: playwright keeps an event loop running in this thread, and processes of its own, which
    other tests would meet.
    """
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: none on PATH, and PLUM_CHROMIUM names none")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()
