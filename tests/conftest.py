"""Fixtures and settings for all tests: a real browser, Ctrl-C for child processes, no deadline for examples."""

from __future__ import annotations

import gc
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from support.examples import examples

if TYPE_CHECKING:
    from support.browser import Watch

DURATIONS = Path(__file__).with_name("durations.json")

QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--disable-dev-shm-usage",
)  # fmt: skip


def pytest_configure() -> None:
    """A shell gives its background processes an ignored SIGINT, which those that tests interrupt would inherit.

    Garbage is looked for less often than by default: imports and traced graphs make millions of objects that stay.
    """
    gc.set_threshold(100_000)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    busy = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}  # examples that take longer than 0.2 s
    settings.register_profile("busy", settings(), max_examples=examples(100), **busy)
    settings.load_profile("busy")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest (`make durations`), so that no process waits for one at the end."""
    seconds = json.loads(DURATIONS.read_text("utf-8"))
    items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], 0))


def pytest_collection_finish() -> None:
    """Take what was imported out of garbage collection, which would look through half a million objects every time."""
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Free at exit what was frozen; libraries made with nanobind, triton among them, report each function otherwise."""
    gc.unfreeze()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for the session: while it runs, asyncio believes that its loop runs in this thread."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs the program chromium")
    driver.expect.set_options(timeout=15_000)  # other tests may run beside
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., tuple[Any, Watch]]]:
    """Opens a page in a context of its own; it is watched until the test ends."""
    from support.browser import Watch  # needs scikit-image, which most tests do without

    opened: list[tuple[Any, Watch]] = []

    def open_page(url: str, path: str = "/ui", script: str = "", **settings: Any) -> tuple[Any, Watch]:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
        context.set_default_timeout(15_000)
        page = context.new_page()
        watch = Watch(page, url)
        opened.append((context, watch))
        if script:
            page.add_init_script(script)
        page.goto(url + path)
        return page, watch

    yield open_page
    for context, watch in opened:
        context.close()
        watch.check()
