"""The reference run's site in a real browser, on a wide screen and on a phone."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest

pytestmark = pytest.mark.long("browser")
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture(scope="module")
def address(reference_site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=reference_site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def opened(browser: Any, viewport: dict[str, int], troubles: list[str]) -> Any:
    """A new page that notes down what goes wrong: console errors, exceptions, requests that fail or leave the site."""
    page = browser.new_context(viewport=viewport).new_page()
    page.on("console", lambda said: troubles.append(f"console: {said.text}")
            if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url}")
            if request.failure != "net::ERR_ABORTED" else None)  # the next page was opened before it had come
    page.on("response", lambda response: troubles.append(f"{response.status}: {response.url}")
            if response.status >= 400 else None)
    page.on("request", lambda request: troubles.append(f"elsewhere: {request.url}")
            if not request.url.startswith(("http://127.0.0.1", "data:")) else None)
    return page


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_page_is_quiet_and_fits(browser, reference_site, address, viewport):
    troubles: list[str] = []
    page = opened(browser, viewport, troubles)
    files = sorted(path.relative_to(reference_site).as_posix() for path in reference_site.rglob("*.html"))
    assert len(files) > 15
    for file in files:
        page.goto(address + file)
        if page.locator(".math").count():
            page.evaluate("MathJax.startup.promise")
        width, window = page.evaluate("[document.scrollingElement.scrollWidth, window.innerWidth]")
        if width > window:
            troubles.append(f"{file}: {width} pixels wide in a window of {window}")
        if page.locator(".math").count() and not page.locator("mjx-container").count():
            troubles.append(f"{file}: mathematics is not set")
        if page.locator("mjx-merror").count():
            troubles.append(f"{file}: mathematics with an error")
        blank = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        troubles += [f"{file}: {image} is not shown" for image in blank]
    page.context.close()
    assert troubles == []


CONTRAST = """selector => Math.min(...[...document.querySelectorAll(selector)].map(element => {
    const shade = text => { const [r, g, b, a] = text.match(/[0-9.]+/g).map(Number);
        const part = x => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
        return a === 0 ? null : 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
    let below = element, ground = null;
    for (; ground === null && below; below = below.parentElement)
        ground = shade(getComputedStyle(below).backgroundColor);
    const ink = shade(getComputedStyle(element).color);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05); }))"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, address, theme):
    page = opened(browser, WIDE, [])
    page.emulate_media(color_scheme=theme)
    weak = {}
    for lesson in ("02_sampling", "05_evalplus_eval"):
        page.goto(f"{address}lessons/{lesson}.html")
        for selector in ("article p", ".frame td", ".frame th", ".paper pre", ".cell_output pre", "summary"):
            if page.locator(selector).count() and (ratio := page.evaluate(CONTRAST, selector)) < 4.5:
                weak[f"{lesson} {selector}"] = round(ratio, 1)
    page.context.close()
    assert weak == {}


def test_lines_of_120_columns_fit_on_a_wide_screen(browser, address):
    page = opened(browser, WIDE, [])
    page.goto(f"{address}lessons/04_train_kto.html", wait_until="networkidle")
    fits = page.evaluate("""() => { const pre = document.querySelector('.cell_input pre');
        pre.textContent = 'x'.repeat(120); return pre.scrollWidth <= pre.clientWidth; }""")
    page.context.close()
    assert fits


def test_search_finds_a_lesson(browser, address):
    troubles: list[str] = []
    page = opened(browser, WIDE, troubles)
    page.goto(f"{address}search.html?q=desirable", wait_until="networkidle")
    page.locator("#search-results li a").first.wait_for()
    found = page.locator("#search-results li a").all_inner_texts()
    page.context.close()
    assert any("KTO" in text for text in found) and troubles == []


def test_the_search_page_works_without_a_query_too(browser, address):
    page = opened(browser, PHONE, [])
    page.goto(f"{address}search.html", wait_until="networkidle")
    page.locator("form.plum-search input").fill("sandbox")
    page.locator("form.plum-search button").click()
    page.locator("#search-results li a").first.wait_for()
    page.context.close()


def test_the_phones_menu_opens_and_leads_to_a_lesson(browser, address):
    page = opened(browser, PHONE, [])
    page.goto(f"{address}index.html", wait_until="networkidle")
    link = page.locator(".sidebar-tree a", has_text="01 Tests").first
    assert page.evaluate("e => e.getBoundingClientRect().right", link.element_handle()) <= 0
    page.locator(".mobile-header .nav-overlay-icon").click()
    link.click()
    page.wait_for_url("**/lessons/01_testgen.html")
    page.context.close()


def test_progress_opens_on_a_click(browser, address):
    page = opened(browser, PHONE, [])
    page.goto(f"{address}lessons/02_sampling.html", wait_until="networkidle")
    bar = page.locator("details.progress").first
    assert not bar.locator("pre").is_visible()
    bar.locator("summary").click()
    assert bar.locator("pre").is_visible()
    page.context.close()
