"""The browser that these tests share."""

from real_browser import browser  # noqa: F401
