"""The server's classes on the page: kept, taught by photos that are dropped, removed, restored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from support.browser import CAT, COFFEE, PASTE, ROCKET, Hold, add, among, drop, labels, settled, unlock

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect
NAME = "my own mug"


@pytest.fixture
def page(open_page, keyed_server) -> Iterator[Any]:
    """Return the page of a server that can be changed, with a photo on it; what the test changes is taken back."""
    page, _ = open_page(keyed_server.url)
    unlock(page, keyed_server.key)
    page.set_input_files("#files", COFFEE)
    settled(page)
    expect(page.locator("#bank")).to_be_visible()
    yield page
    httpx2.post(f"{keyed_server.url}/v1/bank/rollback", json={"to": 0}, headers=keyed_server.headers)


@pytest.fixture(scope="module")
def mugs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write two photos of the cup, from nearer."""
    folder = tmp_path_factory.mktemp("mugs")
    with Image.open(COFFEE) as photo:
        for edge in (20, 60):
            photo.crop((edge, edge, photo.width - edge, photo.height - edge)).save(folder / f"{edge}.png")
    return sorted(folder.iterdir())


def kept(server: Any, name: str) -> int | None:
    """Return how many photos a class of the server has; None if it has no such class."""
    answer = httpx2.get(f"{server.url}/v1/classes/{name}", headers=server.headers)
    return None if answer.status_code == 404 else answer.json().get("photos", 0)


def test_a_name_is_kept(page, keyed_server) -> None:
    name = "cup / of 50% coffee?"
    known = among(page)
    add(page, name)
    page.get_by_role("button", name=f"Keep the class {name} on the server").click()
    expect(page.locator("#taught")).to_contain_text(f"“{name}” is one of the server’s classes now.")
    expect(page.locator("#chips li")).to_have_count(0)
    expect(page.locator("#bank-chips .added span")).to_have_text([name])
    expect(page.locator("#among")).to_have_text(f"of {known + 1:,} classes")
    still = r"^This photo is still espresso, [\d.]+%;"
    effect = page.locator("#effect")
    expect(effect).to_have_text(re.compile(rf"{still} {re.escape(name)} is fourth now, [\d.]+%\.$"))
    assert labels(page)[3] == name
    page.select_option("#top-k", "3")
    add(page, "wooden table")
    page.get_by_role("button", name="Keep the class wooden table on the server").click()
    expect(effect).to_have_text(re.compile(rf"{still} wooden table is not among the best 3\.$"))
    page.reload()
    page.set_input_files("#files", COFFEE)
    page.select_option("#top-k", "20")
    expect(page.locator("#bars li")).to_have_count(20)
    assert name in labels(page)
    expect(page.locator("#bars .own")).to_have_count(0)
    add(page, "cup of espresso")
    page.get_by_role("button", name="Keep the class cup of espresso on the server").click()
    expect(page.locator("#taught .note")).to_contain_text("cosine 0.985 to 'espresso'")


def test_a_class_is_pending_while_its_change_is_on_its_way(open_page, keyed_server) -> None:
    page, watch = open_page(keyed_server.url)
    watch.expected = "status of 409"
    unlock(page, keyed_server.key)
    add(page, NAME)
    keep = page.get_by_role("button", name=f"Keep the class {NAME} on the server")
    expect(keep).to_be_visible()
    held = Hold(page, "**/v1/classes/*")
    keep.click()
    waiting = page.locator("#bank-chips .pending")
    request = held.take()
    expect(waiting).to_have_text([NAME])
    expect(waiting).to_have_attribute("data-doing", "adding …")
    expect(page.locator("#chips .pending")).to_have_count(1)
    assert kept(keyed_server, NAME) is None
    request.continue_()
    expect(page.locator("#bank-chips .added span")).to_have_text([NAME])
    expect(waiting).to_have_count(0)
    page.get_by_role("button", name=f"Remove the class {NAME} from the server").click()
    request = held.take()
    expect(waiting).to_have_attribute("data-doing", "removing …")
    request.fulfill(status=409, json={"title": "No", "detail": "it stays", "code": "conflict"})
    expect(page.locator("#taught.bad")).to_contain_text("It stays")
    expect(waiting).to_have_count(0)
    expect(page.locator("#bank-chips .added span")).to_have_text([NAME])
    httpx2.post(f"{keyed_server.url}/v1/bank/rollback", json={"to": 0}, headers=keyed_server.headers)


def test_a_typed_name_says_how_many_photos_its_class_has(page, keyed_server, mugs) -> None:
    files = [("image", (photo.name, photo.read_bytes(), "image/png")) for photo in mugs]
    httpx2.put(f"{keyed_server.url}/v1/classes/{NAME}", files=files, headers=keyed_server.headers)
    add(page, NAME)
    button = page.locator("#chips").get_by_role("button", name=f"Add photos to the class {NAME}, which has 2")
    expect(button).to_have_text("2 photos +")


def test_a_change_says_that_the_calibration_is_of_before(page, keyed_server) -> None:
    entry = {"name": NAME, "origin": "added", "phrases": [NAME], "findings": [], "calibrated": False}
    page.route("**/v1/classes/*", lambda route: route.fulfill(status=201, json=entry, headers={"ETag": '"x"'}))
    add(page, NAME)
    page.get_by_role("button", name=f"Keep the class {NAME} on the server").click()
    expect(page.locator("#taught")).to_contain_text("The bank has changed since it was calibrated; sar-bank calibrate")


def test_two_photos_that_are_dropped_on_a_name_teach_it_and_undo_forgets_it(page, keyed_server, mugs) -> None:
    add(page, NAME)
    settled(page)
    drop(page, page.locator("#chips li"), mugs)
    notice = page.locator("#taught")
    expect(notice).to_contain_text(f"2 photos added to “{NAME}”; added so far: 2.")
    expect(notice.locator("img")).to_have_count(2)
    expect(page.locator("#effect")).to_have_text(re.compile(rf"^This photo was espresso, .*; it is {NAME}, .* now\.$"))
    assert labels(page)[0] == NAME
    expect(page.locator("#chips li")).to_have_count(0)
    expect(page.locator("#bank-chips .added").first).to_have_text(re.compile(f"^{NAME}2 photos"))
    expect(page.locator("#strip")).to_be_hidden()  # they are not photos to classify
    assert page.locator("body").evaluate("body => body.className") == ""
    assert kept(keyed_server, NAME) == 2
    drop(page, page.locator("#bars li").first, mugs)  # the same again, on the ranking
    expect(notice).to_have_text("2 photos counted already.")  # nothing to take back
    drop(page, page.locator("#bank-chips li").first, [*mugs, ROCKET])
    expect(notice).to_contain_text("1 photo added")
    expect(notice).to_contain_text("2 photos counted already.")
    page.get_by_role("button", name="Undo").click()
    expect(notice).to_contain_text("was taken back")
    expect(page.locator("#bank-chips .added").first).to_have_text(re.compile("2 photos"))
    assert kept(keyed_server, NAME) == 2


def test_photos_are_chosen_for_a_class_by_keyboard_and_it_is_removed(page, keyed_server, mugs) -> None:
    page.on("filechooser", lambda chooser: chooser.set_files(mugs[:1]))
    add(page, NAME)
    page.get_by_role("button", name=f"Add photos to the class {NAME}").press("Enter")
    expect(page.locator("#bars .name").first).to_have_text(NAME)
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.get_by_role("button", name=f"Add photos to the class {NAME}, which has 1").wait_for()
    page.get_by_role("button", name=f"Remove the class {NAME} from the server").press("Enter")
    expect(page.locator("#bars .name").first).to_have_text("espresso")
    assert kept(keyed_server, NAME) is None
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#bars .name").first).to_have_text(NAME)
    expect(page.locator("#name")).to_be_focused()
    assert kept(keyed_server, NAME) == 1


@pytest.mark.parametrize("methods", [["PUT"], ["PUT", "DELETE"]])
def test_nothing_is_taken_back_that_somebody_else_did_meanwhile(open_page, keyed_server, methods) -> None:
    page, watch = open_page(keyed_server.url)
    watch.expected = "status of 412"
    unlock(page, keyed_server.key)
    expect(page.locator("#bank")).to_be_visible()
    add(page, NAME)
    page.get_by_role("button", name=f"Keep the class {NAME} on the server").click()
    page.get_by_role("button", name="Undo").wait_for()
    for method in methods:
        httpx2.request(method, f"{keyed_server.url}/v1/classes/theirs", headers=keyed_server.headers)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#taught.bad")).to_be_visible()
    left = ["theirs", NAME] if methods == ["PUT"] else [NAME]
    expect(page.locator("#bank-chips .added span")).to_have_text(left)
    httpx2.post(f"{keyed_server.url}/v1/bank/rollback", json={"to": 0}, headers=keyed_server.headers)


def test_a_file_that_is_no_photo_changes_nothing(open_page, keyed_server, tmp_path) -> None:
    page, watch = open_page(keyed_server.url)
    watch.expected = "status of 4(15|22)"
    unlock(page, keyed_server.key)
    add(page, NAME)
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    page.get_by_role("button", name=f"Keep the class {NAME} on the server").wait_for()
    drop(page, page.locator("#chips li"), [CAT, tmp_path / "bad.jpg"])
    expect(page.locator("#taught.bad")).to_contain_text("image")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    expect(page.locator("#chips span")).to_have_text([NAME])
    assert kept(keyed_server, NAME) is None


def test_a_name_that_the_server_has_or_nearly_has_is_said(page) -> None:
    page.locator("#name").evaluate(PASTE, "Espresso, zebras, own mug")
    chips = page.locator("#chips li")
    expect(chips.nth(0)).to_have_text(re.compile("^Espressoalready a class"))
    expect(chips.nth(1)).to_have_text(re.compile("^zebrasclose to zebra"))
    expect(chips.nth(2).locator(".count")).to_have_count(0)
    keep = page.get_by_role("button", name="Keep the class")
    assert [button.get_attribute("aria-label") for button in keep.all()] == [
        "Keep the class zebras on the server",
        "Keep the class own mug on the server",
    ]


def test_a_screen_reader_is_told_that_a_name_is_a_class_already(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    expect(page.locator("#bank")).to_be_visible()
    add(page, "zebra")
    expect(page.locator("#status")).to_have_text("zebra: already a class")


def test_classes_of_the_server_are_found_by_a_part_of_their_name(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    box = page.get_by_role("searchbox", name="Find a class of the server")
    box.fill("ON SHOE")
    expect(page.locator("#bank-chips li")).to_have_text(["slip-on shoe"])
    expect(page.locator("#status")).to_have_text("1 found.")
    box.fill("e")
    expect(page.locator("#bank-chips .rest")).to_have_text(re.compile(r"^and \d+ more$"))
    box.fill("no such thing")
    expect(page.locator("#bank-chips li")).to_have_text(["no class has this in its name"])
    box.fill("")
    expect(page.locator("#bank-chips li")).to_have_count(25)


def test_a_server_that_keeps_nothing_says_how_it_would(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    expect(page.locator("#read-only")).to_contain_text("--bank FILE")
    expect(page.locator("#bank-chips li")).to_have_count(25)
    expect(page.locator("#bank-chips .rest")).to_have_text("and 974 more")
    expect(page.locator("#bank-chips button")).to_have_count(0)
    drop(page, page.locator("#bank-chips li").first, [COFFEE])  # as anywhere on the page
    expect(page.locator("#bars .name").first).to_have_text("espresso")
