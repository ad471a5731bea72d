"""A headless Chromium on the server's pages, and what tests ask of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import skimage

_PHOTOS = Path(skimage.__file__).parent / "data"
COFFEE, CAT, ROCKET = (_PHOTOS / name for name in ("coffee.png", "chelsea.png", "rocket.jpg"))
ATTACK = "<img src=x onerror=document.title='taken'>"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
WINDOWS = ({"viewport": {"width": 1280, "height": 800}}, PHONE)
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"
CONTRASTS = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const behind = (node) => { // the nearest background that is not see-through
        for (let at = node; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility({ visibilityProperty: true })) continue;
        const [one, two] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
        const contrast = (one + 0.05) / (two + 0.05);
        if (contrast < 4.5) found.push(`${walker.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
    }
    return found;
}"""


class Watch:
    """What a page must not do: ask other hosts, break the policy, complain in the console.

    ``expected`` matches the complaints that a test provokes.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.expected = "$^"
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        schemes = (url, "data:", f"blob:{url}")
        page.on("request", lambda request: request.url.startswith(schemes) or self.foreign.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        page.on(
            "console", lambda message: message.type in ("error", "warning") and self.complaints.append(message.text)
        )

    def check(self) -> None:
        """Fail if any of it happened."""
        assert self.foreign == [], self.foreign
        complaints = [text for text in self.complaints if not re.search(self.expected, text)]
        assert complaints == [], complaints


@contextmanager
def visited(browser: Any, file: Path, **settings: Any) -> Iterator[Any]:
    """Yield the page of a file in a window of its own; at the end it fits, can be read, and has not complained."""
    context = browser.new_context(accept_downloads=True, **settings)
    page = context.new_page()
    watch = Watch(page, "file:")
    page.goto(file.absolute().as_uri())
    yield page
    widest, width = page.evaluate(WIDTHS)
    assert widest <= width
    assert page.evaluate(CONTRASTS) == []
    watch.check()
    context.close()


def labels(page: Any, rows: str = "#bars") -> list[str]:
    """The names in the ranking, the best first."""
    return page.locator(f"{rows} .name").all_inner_texts()


def among(page: Any) -> int:
    """How many classes the ranking chose from."""
    return int(re.sub(r"\D", "", page.locator("#among").inner_text()))


def settled(page: Any) -> None:
    """Wait until the ranking answers the question that stands there."""
    from playwright.sync_api import expect

    expect(page.locator("#ranking")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#bars li")).not_to_have_count(0)


def add(page: Any, *names: str) -> None:
    """Type class names."""
    for name in names:
        page.fill("#name", name)
        page.press("#name", "Enter")


def drop(page: Any, target: Any, files: Sequence[Path]) -> None:
    """Drag files from outside the browser onto the middle of an element, and let them go."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "data": data}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **at})
    session.detach()


def unlock(page: Any, key: str) -> None:
    """Give the page the server's key."""
    page.locator("#key").fill(key)
    page.locator("#key").press("Enter")
