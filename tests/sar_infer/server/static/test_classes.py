"""The server's classes on the page: kept, taught by photos that are dropped, grouped, removed, restored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from support.browser import (
    CAT,
    COFFEE,
    CONTRASTS,
    PHONE,
    ROCKET,
    WIDTHS,
    Watch,
    add,
    among,
    drop,
    labels,
    settled,
    unlock,
)  # fmt: skip
from support.servers import Server

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect
NAME = "my own mug"
CLOTHES = Path(__file__).parents[4] / "examples" / "clothes" / "test"
GARMENTS = [path for kind in ("shoes", "hat", "trousers") for path in sorted((CLOTHES / kind).glob("*.jpg"))[:6]]


@pytest.fixture
def opened(open_page: Any, keyed_server: Server) -> Iterator[tuple[Any, Watch]]:
    """Return the page of a server that can be changed and its watch; what the test changes is taken back."""
    page, watch = open_page(keyed_server.url)
    unlock(page, keyed_server.key)
    expect(page.locator("#bank")).to_be_visible()
    yield page, watch
    httpx2.post(f"{keyed_server.url}/v1/bank/rollback", json={"to": 0}, headers=keyed_server.headers)


@pytest.fixture(scope="module")
def mugs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write two photos of the cup, from nearer."""
    folder = tmp_path_factory.mktemp("mugs")
    with Image.open(COFFEE) as photo:
        for edge in (20, 60):
            photo.crop((edge, edge, photo.width - edge, photo.height - edge)).save(folder / f"{edge}.png")
    return sorted(folder.iterdir())


def photo_count(server: Server, name: str) -> int | None:
    """Return how many photos a class of the server has; None if it has no such class."""
    answer = httpx2.get(f"{server.url}/v1/classes/{name}", headers=server.headers)
    return None if answer.status_code == 404 else answer.json().get("photos", 0)


def keep(page: Any, name: str) -> None:
    page.get_by_role("button", name=f"Keep the class {name} on the server").click()


def test_a_name_is_kept(cup) -> None:
    name = "cup / of 50% coffee?"
    count = among(cup)
    add(cup, name)
    keep(cup, name)
    expect(cup.locator("#taught")).to_contain_text(f"“{name}” is one of the server’s classes now.")
    expect(cup.locator("#chips li")).to_have_count(0)
    expect(cup.locator("#bank-chips .added span")).to_have_text([name])
    expect(cup.locator("#among")).to_have_text(f"of {count + 1:,} classes")
    still = r"^This photo is still espresso, [\d.]+%;"
    effect = cup.locator("#effect")
    expect(effect).to_have_text(re.compile(rf"{still} {re.escape(name)} is fourth now, [\d.]+%\.$"))
    assert labels(cup)[3] == name
    cup.select_option("#top-k", "3")
    add(cup, "wooden table")
    keep(cup, "wooden table")
    expect(effect).to_have_text(re.compile(rf"{still} wooden table is not among the best 3\.$"))
    cup.reload()
    cup.set_input_files("#files", COFFEE)
    cup.select_option("#top-k", "20")
    expect(cup.locator("#bars li")).to_have_count(20)
    assert name in labels(cup)
    expect(cup.locator("#bars .own")).to_have_count(0)
    entry = {"name": NAME, "origin": "added", "phrases": [NAME], "findings": [], "calibrated": False}
    cup.route("**/v1/classes/*", lambda route: route.fulfill(status=201, json=entry, headers={"ETag": '"x"'}))
    add(cup, NAME)
    keep(cup, NAME)
    expect(cup.locator("#taught")).to_contain_text("The bank has changed since it was calibrated; sar-bank calibrate")


def test_photos_that_are_dropped_on_a_name_teach_it_and_undo_forgets_them(cup, watch, keyed_server, mugs, tmp_path):
    watch.expected = "status of 4(15|22)"
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    add(cup, NAME)
    settled(cup)
    notice, undo = cup.locator("#taught"), cup.get_by_role("button", name="Undo")
    drop(cup, cup.locator("#chips li"), [CAT, tmp_path / "bad.jpg"])
    expect(cup.locator("#taught.bad")).to_contain_text("image")
    expect(undo).to_have_count(0)
    expect(cup.locator("#chips span")).to_have_text([NAME])
    assert photo_count(keyed_server, NAME) is None
    drop(cup, cup.locator("#chips li"), mugs)
    expect(notice).to_contain_text(f"2 photos added to “{NAME}”; added so far: 2.")
    expect(notice.locator("img")).to_have_count(2)
    expect(cup.locator("#effect")).to_have_text(re.compile(rf"^This photo was espresso, .*; it is {NAME}, .* now\.$"))
    assert labels(cup)[0] == NAME
    expect(cup.locator("#chips li")).to_have_count(0)
    expect(cup.locator("#bank-chips .added").first).to_have_text(re.compile(f"^{NAME}2 photos"))
    expect(cup.locator("#strip")).to_be_hidden()  # they are not photos to classify
    assert cup.locator("body").evaluate("body => body.className") == ""
    assert photo_count(keyed_server, NAME) == 2
    drop(cup, cup.locator("#bars li").first, mugs)  # the same again, on the ranking
    expect(notice).to_have_text("2 photos counted already.")  # nothing to take back
    drop(cup, cup.locator("#bank-chips li").first, [*mugs, ROCKET])
    expect(notice).to_contain_text("1 photo added")
    expect(notice).to_contain_text("2 photos counted already.")
    undo.click()
    expect(notice).to_contain_text("was taken back")
    expect(cup.locator("#bank-chips .added").first).to_have_text(re.compile("2 photos"))
    assert photo_count(keyed_server, NAME) == 2
    add(cup, NAME)
    button = cup.locator("#chips").get_by_role("button", name=f"Add photos to the class {NAME}, which has 2")
    expect(button).to_have_text("2 photos +")


def test_photos_are_grouped_and_a_group_becomes_a_class(page, watch, keyed_server, tmp_path) -> None:
    watch.expected = "status of 4(15|22)"
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    page.set_input_files("#files", [*GARMENTS[:5], tmp_path / "bad.jpg"])
    expect(page.locator("#group")).to_be_hidden()  # too few
    page.set_input_files("#files", GARMENTS[5:])
    page.get_by_role("button", name="Find groups").click()
    groups = page.locator("#groups > li")
    expect(groups.first).to_be_visible(timeout=60_000)
    expect(page.locator("#groups-note")).to_have_text(
        re.compile(r"^\d+ of 18 photos look like none of the 998 classes\. Name a group, and it is one\.$")
    )
    assert sum(groups.nth(n).locator(".pictures button").count() for n in range(groups.count())) == 18
    group = groups.first
    pictures = group.locator(".pictures button")
    shown = pictures.count()
    pictures.first.click()
    expect(pictures.first).to_have_attribute("aria-pressed", "false")
    group.get_by_label("Name of group 1").fill("our thing")
    group.get_by_role("button", name="Make a class").click()
    note = re.compile(rf"^{shown - 1} photos? added to “our thing”")
    expect(group.locator(".note").last).to_have_text(note, timeout=60_000)
    expect(page.locator("#bank-chips .added span").first).to_have_text("our thing")
    assert photo_count(keyed_server, "our%20thing") == shown - 1
    assert page.evaluate(CONTRASTS) == []
    page.set_viewport_size(PHONE["viewport"])
    widest, width = page.evaluate(WIDTHS)
    assert widest <= width
    settled(page)
