"""A headless Chromium on the server's pages, and what tests ask of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import skimage

_PHOTOS = Path(skimage.__file__).parent / "data"
COFFEE, CAT, ROCKET = (_PHOTOS / name for name in ("coffee.png", "chelsea.png", "rocket.jpg"))
ATTACK = "<img src=x onerror=document.title='taken'>"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"
PASTE = """(input, text) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text/plain', text);
    input.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
}"""


class Watch:
    """What a page must not do: ask other hosts, break the policy, complain in the console.

    ``expected`` matches the complaints that a test provokes.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.expected = "$^"
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        own = (url, "data:", f"blob:{url}")
        page.on("request", lambda request: request.url.startswith(own) or self.foreign.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        page.on(
            "console", lambda message: message.type in ("error", "warning") and self.complaints.append(message.text)
        )

    def check(self) -> None:
        """Fail if any of it happened."""
        assert self.foreign == []
        assert [text for text in self.complaints if not re.search(self.expected, text)] == []


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


def predictions(*names: str) -> str:
    """A made-up answer of the server."""
    rows = [{"rank": n, "label": name, "score": 0.5**n, "source": "extended"} for n, name in enumerate(names, 1)]
    result = {"image": "image[0]", "predictions": rows, "error": None, "error_code": None, "branch": "text"}
    return json.dumps({"results": [result], "classes": len(rows), "provider": "None", "bundle": "0", "timings_ms": {}})
