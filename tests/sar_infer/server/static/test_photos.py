"""Adding photos to the page: several, bad and large ones."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from support.browser import CAT, COFFEE, add, settled

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect


def test_photos_have_rankings_of_their_own_and_a_bad_one_stops_no_other(open_page, mini_server, tmp_path) -> None:
    page, watch = open_page(mini_server.url)
    watch.expected = "status of 4(15|22)"
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    page.set_input_files("#files", [COFFEE, tmp_path / "bad.jpg", CAT])
    thumbnails = page.locator("#strip button")
    expect(thumbnails.nth(2).locator("span")).not_to_have_text("…")
    settled(page)
    expect(page.locator("#bars .name").first).to_have_text("espresso")
    expect(thumbnails.nth(0)).to_have_attribute("aria-current", "true")
    expect(thumbnails.nth(1)).to_have_accessible_name("Photo 2, bad.jpg: not classified")
    thumbnails.nth(1).click()
    says = "Not an image (or none of JPEG, PNG, WEBP)."
    expect(page.get_by_role("alert")).to_have_text(says, use_inner_text=True)  # there is no "Try again"
    with page.expect_response("**/v1/classify*red*") as answered:
        add(page, "red cup")
    assert answered.value.status == 200  # of the next photo: the bad one is not sent again
    expect(page.get_by_role("alert")).to_have_text(says, use_inner_text=True)
    expect(page.locator("#unseen")).to_be_visible()
    assert thumbnails.nth(1).locator("img").get_attribute("src").startswith("data:")
    expect(page.locator("#bars li")).to_have_count(0)
    thumbnails.nth(2).click()
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#preview")).to_be_visible()
    assert "cat" in thumbnails.nth(2).inner_text().lower() or "mau" in thumbnails.nth(2).inner_text().lower()
    for left in (2, 1, 0):
        page.get_by_role("button", name="Remove this photo").click()
        expect(page.locator("#strip li")).to_have_count(left)
    expect(page.locator("#empty")).to_be_visible()
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()


@pytest.mark.parametrize(
    ("kind", "carrier", "target"),
    [("DragEvent", "dataTransfer", "#stage"), ("ClipboardEvent", "clipboardData", "body")],
)
def test_a_photo_is_dropped_or_pasted(open_page, mini_server, kind, carrier, target) -> None:
    page, _ = open_page(mini_server.url)
    hand_over = """(node, [kind, carrier, content]) => {
        const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        data.items.add(new File([bytes], 'given.png', { type: 'image/png' }));
        const details = { [carrier]: data, bubbles: true, cancelable: true };
        const send = (name) => node.dispatchEvent(new globalThis[kind](name, details));
        if (kind === 'ClipboardEvent') return !send('paste');
        const lit = !send('dragover') && document.body.classList.contains('dragging');
        return lit && !send('drop') && !document.body.classList.contains('dragging');
    }"""
    assert page.locator(target).evaluate(hand_over, [kind, carrier, base64.b64encode(COFFEE.read_bytes()).decode()])
    expect(page.locator("#bars .name").first).to_have_text("espresso")


def test_the_whole_photo_is_shown(open_page, mini_server, tmp_path) -> None:
    page, _ = open_page(mini_server.url)
    (tmp_path / "tall.png").write_bytes(png(np.zeros((1200, 400), dtype=np.uint8), 6))
    page.set_input_files("#files", tmp_path / "tall.png")
    settled(page)
    stage, photo = (page.locator(name).bounding_box() for name in ("#stage", "#preview"))
    assert photo["height"] <= stage["height"]


def png(pixels: np.ndarray, level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


@pytest.mark.parametrize("excess", ["bytes", "pixels"])
def test_what_is_beyond_the_limits_is_scaled_down_first(open_page, mini_server, tmp_path, excess) -> None:
    page, _ = open_page(mini_server.url)
    if excess == "bytes":
        photo = png(np.random.default_rng(0).integers(0, 256, (2100, 2000, 3), dtype=np.uint8), 0)
        told = "1950 × 2048 before sending: this photo has 12 MiB, and the server takes 10 MiB."
    else:
        photo = png(np.zeros((7000, 8000), dtype=np.uint8), 6)
        told = "2048 × 1792 before sending: this photo has 56 megapixels, and the server takes 50 megapixels."
    (tmp_path / "big.png").write_bytes(photo)
    with page.expect_request("**/v1/classify*") as sent:
        page.set_input_files("#files", tmp_path / "big.png")
    settled(page)
    assert sent.value.headers["content-type"] == "image/jpeg"
    expect(page.locator("#photo-note")).to_have_text(f"Scaled down to {told}")


def test_a_file_that_is_too_large_and_no_image_is_not_sent(open_page, mini_server, tmp_path) -> None:
    page, _ = open_page(mini_server.url)
    asked: list[str] = []
    page.on("request", lambda request: "classify" in request.url and asked.append(request.url))
    (tmp_path / "film.mp4").write_bytes(bytes(11 * 2**20))
    page.set_input_files("#files", tmp_path / "film.mp4")
    expect(page.get_by_role("alert")).to_contain_text("This file has 11 MiB, and the server takes 10 MiB.")
    assert asked == []
