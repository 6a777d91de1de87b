"""A real browser for tests of pages: headless Chromium, driven by Playwright.

    from browsers import open_page

    def test_page():
        with open_page("http://127.0.0.1:7860/") as page:
            page.click("#ask")                       # Playwright's own page
            assert page.console_errors == []         # text of console errors, and of exceptions nobody caught
            assert page.foreign_requests() == []     # addresses asked for outside of the page's own host

A file is opened by its address: `path.resolve().as_uri()`. A test that opens a page is skipped, with the reason, where
Playwright (`pip install playwright`) or a browser (`apt-get install chromium`, or `playwright install chromium`) is
missing.
"""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--no-proxy-server")
SECONDS = 180.0
"""That anything waits before it fails: tests share a machine with others that compile."""
WITHIN = ("data", "blob", "about")
"""Addresses that lie in the page itself."""


def browser_program() -> str | None:
    """A browser of the system; None leaves it to Playwright's own."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def open_page(url: str, *, width: int = 1280, height: int = 900, seconds: float = SECONDS) -> Iterator[Any]:
    """A page in a browser of its own, closed at the end.

    Args:
      url: to open.
      width: of the window, in pixels.
      height: of the window, in pixels.
      seconds: that anything waits before it fails.

    Yields:
      Playwright's page, with `console_errors` and `requests` (lists of texts and of addresses, growing) and
      `foreign_requests()`.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(playwright.sync_playwright())
        try:
            browser = driver.chromium.launch(executable_path=browser_program(), args=list(ARGUMENTS))
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
        page.set_default_timeout(1000 * seconds)
        watch(page)
        page.goto(url)
        yield page


@contextlib.contextmanager
def another_visitor(page: Any, url: str) -> Iterator[Any]:
    """A page of someone else, in the same browser: nothing is shared with `page`, also one of `open_page`."""
    context = page.context.browser.new_context(viewport=page.viewport_size, accept_downloads=True)
    try:
        other = watch(context.new_page())
        other.set_default_timeout(1000 * SECONDS)
        other.goto(url)
        yield other
    finally:
        context.close()


def watch(page: Any) -> Any:
    """Gives a page of Playwright its `console_errors`, `requests` and `foreign_requests`; returns it."""
    page.console_errors, page.requests = [], []
    page.on("console", lambda said: page.console_errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.console_errors.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))

    def foreign_requests() -> list[str]:
        own = urlsplit(page.url).netloc
        asked = [(urlsplit(address), address) for address in page.requests]
        return [address for at, address in asked if at.scheme not in WITHIN and at.netloc != own]

    page.foreign_requests = foreign_requests
    return page
