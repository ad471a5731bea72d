"""Groups on the page: found among many photos, named, and each a class of the server then."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.browser import CONTRASTS, PHONE, WIDTHS, settled, unlock

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect
CLOTHES = Path(__file__).parents[4] / "examples" / "clothes" / "test"
PHOTOS = [path for kind in ("shoes", "hat", "trousers") for path in sorted((CLOTHES / kind).glob("*.jpg"))[:6]]


@pytest.fixture
def shop(open_page, keyed_server) -> Iterator[tuple[Any, Any]]:
    """Return the page of a server that can be changed and its watch; what the test changes is taken back."""
    page, watch = open_page(keyed_server.url)
    unlock(page, keyed_server.key)
    yield page, watch
    httpx2.post(f"{keyed_server.url}/v1/bank/rollback", json={"to": 0}, headers=keyed_server.headers)


def test_photos_are_grouped_and_a_group_becomes_a_class(shop, keyed_server, tmp_path) -> None:
    page, watch = shop
    watch.expected = "status of 4(15|22)"
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    page.set_input_files("#files", [*PHOTOS[:5], tmp_path / "bad.jpg"])
    expect(page.locator("#group")).to_be_hidden()  # too few
    page.set_input_files("#files", PHOTOS[5:])
    page.get_by_role("button", name="Find groups").click()
    groups = page.locator("#groups > li")
    expect(groups.first).to_be_visible(timeout=60_000)
    expect(page.locator("#groups-note")).to_have_text(
        re.compile(r"^\d+ of 18 photos look like none of the 998 classes\. Name a group, and it is one\.$")
    )
    assert sum(groups.nth(n).locator(".pictures button").count() for n in range(groups.count())) == 18
    group = groups.first
    shown = group.locator(".pictures button").count()
    group.locator(".pictures button").first.click()
    expect(group.locator(".pictures button").first).to_have_attribute("aria-pressed", "false")
    group.get_by_label("Name of group 1").fill("our thing")
    group.get_by_role("button", name="Make a class").click()
    expect(group.locator(".note").last).to_have_text(
        re.compile(rf"^{shown - 1} photos? added to “our thing”"), timeout=60_000
    )
    expect(page.locator("#bank-chips .added span").first).to_have_text("our thing")
    answer = httpx2.get(f"{keyed_server.url}/v1/classes/our%20thing", headers=keyed_server.headers)
    assert answer.json()["photos"] == shown - 1
    assert page.evaluate(CONTRASTS) == []
    page.set_viewport_size(PHONE["viewport"])
    widest, width = page.evaluate(WIDTHS)
    assert widest <= width
    settled(page)


def test_a_page_of_a_server_without_a_key_offers_no_groups(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", PHOTOS[:9])
    settled(page)
    expect(page.locator("#group")).to_be_hidden()
