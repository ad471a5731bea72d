"""Photos and class names on the page, the ranking that follows them, and what goes wrong."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from support.browser import ATTACK, CAT, COFFEE, PASTE, Hold, add, among, drop, labels, predictions, settled
from support.servers import Server, local_server

from sar_infer.bank import ClassBank
from sar_infer.bank.edits import set_class
from sar_infer.bundle.bundle import default_bundle
from sar_infer.server.settings import Settings

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect


def explained(server: Server) -> dict[str, Any]:
    """Return the server's own answer for the cup."""
    headers = {"Content-Type": "image/png"}
    return httpx2.post(f"{server.url}/v1/classify?explain=true", content=COFFEE.read_bytes(), headers=headers).json()


# ------------------------------------------------------------------------------------------------------- the ranking
def test_a_photo_is_ranked_as_the_api_ranks_it(cup, mini_server) -> None:
    answer = explained(mini_server)
    (result,) = answer["results"]
    best = result["predictions"][0]
    assert labels(cup) == [prediction["label"] for prediction in result["predictions"]]
    assert cup.locator("#bars .share").first.inner_text() == f"{best['score']:.1%}"
    fill = cup.locator("#bars .fill").first
    expect(fill).to_have_attribute("style", re.compile(r"width: \d"))
    width = float(re.findall(r"[\d.]+", fill.get_attribute("style"))[0])
    assert width == pytest.approx(100 * best["score"], abs=0.01)
    assert cup.locator("#preview").evaluate("image => image.naturalWidth") == 600
    expect(cup.locator("#among")).to_have_text(f"of {answer['classes']} classes")
    for text in (f"bundle {answer['bundle'][:8]}", "CPU", re.compile(r"\d+ ms")):
        expect(cup.locator("footer")).to_contain_text(text)
    expect(cup.locator("#status")).to_contain_text("espresso")
    why = result["explanation"]
    nearest = ", ".join(f"{name} ({cosine:.2f})" for name, cosine in why["nearest"])
    expect(cup.locator("#why")).to_have_text(
        f"Why? espresso is {100 * why['margin']:.1f} points ahead of {why['runner_up']}, compared by their names. "
        f"Nearest classes to espresso, whatever the photo (cosine; 1 is the same): {nearest}."
    )
    expect(cup.locator("#took")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(cup.locator("#timing")).to_have_text(re.compile(r"^\d+ ms, of which the server [\d.]+ ms \(decode .+\)$"))
    cup.select_option("#top-k", "10")
    expect(cup.locator("#bars li")).to_have_count(10)


def test_own_names_change_the_ranking_and_are_marked(cup) -> None:
    before = cup.locator("#bars .share").first.inner_text()
    expect(cup.locator("#legend")).to_be_hidden()
    add(cup, "cup of coffee", "wooden table")
    expect(cup.locator("#bars .own")).to_have_count(1)
    settled(cup)
    assert cup.locator("#bars .share").first.inner_text() != before
    assert "cup of coffee" in labels(cup)
    expect(cup.locator("#bars .own")).to_have_text(re.compile(r"\+cup of coffee \(your name\)"))
    expect(cup.locator("#legend")).to_be_visible()
    assert labels(cup, "#lower-bars") == ["wooden table"]
    expect(cup.locator("#lower-bars .rank")).to_have_text(re.compile(r"^\d{2,3}\.$"))
    cup.get_by_role("button", name="Remove cup of coffee").click()
    cup.get_by_role("button", name="Remove wooden table").click()
    expect(cup.locator("#legend")).to_be_hidden()
    expect(cup.locator("#bars .share").first).to_have_text(before)
    expect(cup.locator("#name")).to_be_focused()


def test_only_these_names(cup) -> None:
    only = cup.get_by_role("switch", name="Only these names")
    expect(only).to_be_disabled()
    add(cup, "tabby cat", "red cup")
    only.check()
    expect(cup.locator("#bars li")).to_have_count(2)
    settled(cup)
    assert labels(cup) == ["red cup", "tabby cat"]
    expect(cup.locator("#among")).to_have_text("of 2 classes")
    cup.get_by_role("button", name="Clear names").click()
    expect(only).to_be_disabled()
    expect(only).not_to_be_checked()
    expect(cup.locator("#among")).not_to_have_text("of 2 classes")


def test_names_by_list_by_comma_and_twice(page) -> None:
    page.locator("#name").evaluate(PASTE, "red cup, blue cup\r\n\n  green   cup \nRED  cup,,")
    page.locator("#name").press_sequentially("saucer,Blue Cup,")
    page.fill("#name", "spoon")
    page.get_by_role("button", name="Add", exact=True).click()
    assert page.locator("#chips span").all_inner_texts() == ["red cup", "blue cup", "green cup", "saucer", "spoon"]
    page.press("#name", "Backspace")
    expect(page.locator("#chips li")).to_have_count(4)


def test_many_names_ask_once_and_a_long_list_travels_in_the_body(cup) -> None:
    count = among(cup)
    requests: list[Any] = []
    cup.on("request", lambda request: "/v1/classify" in request.url and requests.append(request))
    type_all = """(input, names) => names.forEach((name) => {
        input.value = name;
        input.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true }));
    })"""
    cup.locator("#name").evaluate(type_all, [f"thing {number}" for number in range(8)])
    expect(cup.locator("#among")).to_have_text(f"of {count + 8:,} classes")
    assert len(requests) == 1
    cup.locator("#name").evaluate(PASTE, ",".join(f"thing number {number}" for number in range(400)))
    expect(cup.locator("#among")).to_have_text(f"of {count + 408:,} classes")
    assert requests[-1].headers["content-type"].startswith("multipart/form-data")
    settled(cup)
    expect(cup.locator("#lower-bars li")).to_have_count(10)
    expect(cup.locator("#beyond")).to_have_text(re.compile(r"^Lower still: thing .* and \d+ more$"))


@pytest.mark.parametrize("abortable", [True, False])
def test_a_late_answer_never_replaces_a_newer_one(open_page, mini_server, abortable) -> None:
    """Ignore an earlier answer even if it is already on its way when its request is dropped."""
    deaf = "const send = fetch; window.fetch = (path, options) => send(path, { ...options, signal: undefined });"
    page, _ = open_page(mini_server.url, script="" if abortable else deaf)
    page.set_input_files("#files", COFFEE)
    settled(page)
    held: list[Any] = []
    given_up: list[str] = []
    page.on("requestfailed", lambda request: given_up.append(request.url))

    def answer(route: Any) -> None:
        if "newer" in route.request.url:
            route.fulfill(content_type="application/json", body=predictions("the newer answer"))
        else:
            held.append(route)

    page.route("**/v1/classify*", answer)
    with page.expect_request("**/v1/classify*"):
        add(page, "earlier")
    add(page, "newer")
    expect(page.locator("#bars .name").first).to_contain_text("the newer answer")
    for route in held:
        route.fulfill(content_type="application/json", body=predictions("a late answer"))
    page.wait_for_timeout(400)
    assert labels(page) == ["the newer answer"]
    assert len(held) == 1
    assert bool(given_up) == abortable


def test_a_name_is_pending_until_the_ranking_has_it(page) -> None:
    waiting = page.locator("#chips .pending")
    add(page, "wooden table")
    expect(waiting).to_have_count(0)  # without a photo nothing waits
    held = Hold(page, "**/v1/classify?*")
    page.set_input_files("#files", COFFEE)
    expect(waiting).to_have_text([re.compile("^wooden table")])
    held.take().continue_()
    settled(page)
    expect(waiting).to_have_count(0)
    add(page, "latte art")
    request = held.take()
    expect(waiting).to_have_text([re.compile("^latte art")])
    expect(page.locator("#chips li")).to_have_count(2)
    request.continue_()
    settled(page)
    expect(waiting).to_have_count(0)


def test_names_stay_text(page) -> None:
    page.set_input_files("#files", {"name": ATTACK, "mimeType": "image/png", "buffer": COFFEE.read_bytes()})
    names = [ATTACK, "<b>bold</b>", "<script>document.title = 'taken'</script>"]
    add(page, *names)
    page.get_by_role("switch").check()
    expect(page.locator("#among")).to_have_text("of 3 classes")
    settled(page)
    assert sorted(labels(page)) == sorted(names)
    assert ATTACK in page.locator("#chips span").all_inner_texts()
    assert ATTACK in page.locator("#preview").get_attribute("alt")
    assert page.locator("main :is(b, script)").count() == 0
    assert page.title() == "Classify photos – sar-clip"


# ------------------------------------------------------------------------------------------------------- confidence
def test_scores_that_are_not_calibrated_say_so(page) -> None:
    note = page.locator("#uncalibrated")
    expect(note).to_be_hidden()
    answer = json.loads(predictions("one", "two", "three"))
    page.route("**/v1/classify?*", lambda route: route.fulfill(json=answer))
    for calibrated, text in (
        ((False, False, False), r"^Not calibrated: percentages compare the classes, and do not say how often"),
        ((True, False, True), r"^Not calibrated for two: percentages"),
        ((True, True, True), None),
    ):
        for prediction, flag in zip(answer["results"][0]["predictions"], calibrated, strict=True):
            prediction["calibration"] = "held-out" if flag else "none"
        page.set_input_files("#files", COFFEE)
        settled(page)
        expect(note).to_have_text(re.compile(text)) if text else expect(note).to_be_hidden()
        page.get_by_role("button", name="Remove this photo").click()


def test_a_share_that_is_too_small_is_unknown(cup) -> None:
    verdict, unknown = cup.locator("#verdict"), cup.get_by_label("Unknown", exact=True)
    expect(verdict).to_be_hidden()
    expect(cup.locator("#uncalibrated")).to_have_text(re.compile("^Not calibrated: percentages compare the classes"))
    best = cup.locator("#bars .share").first.inner_text()
    cup.set_input_files("#files", CAT)
    cup.locator("#strip button").first.click()
    unknown.select_option("below 90%")
    expect(verdict).to_have_text("Unknown")
    expect(cup.locator("#reason")).to_have_text(
        f"None of these is likely enough: the best has {best}, less than 90.0%."
    )
    expect(cup.locator("#strip button").first).to_have_accessible_name(re.compile(": unknown$"))
    expect(cup.locator("#status")).to_have_text(re.compile("^Unknown. None of these"))
    unknown.select_option("never")
    expect(verdict).to_be_hidden()


def test_the_threshold_of_a_server_is_used_where_it_has_one(open_page, tmp_path) -> None:
    bank = ClassBank.load(default_bundle() / "bank.safetensors")
    set_class(bank, "espresso", threshold=0.99).save(tmp_path / "bank.safetensors")
    with local_server(Settings(bank=tmp_path / "bank.safetensors", device="cpu", threads=1)) as server:
        page, _ = open_page(server.url)
        unknown = page.get_by_label("Unknown", exact=True)
        expect(unknown).to_have_value("server")
        page.set_input_files("#files", COFFEE)
        expect(page.locator("#reason")).to_contain_text("is below 0.990, the threshold of this class.")
        unknown.select_option("never")
        expect(page.locator("#verdict")).to_be_hidden()
        settled(page)


# ----------------------------------------------------------------------------------------------------------- photos
def test_photos_have_rankings_of_their_own_and_a_bad_one_stops_no_other(page, watch, tmp_path) -> None:
    watch.expected = "status of 4(15|22)"
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    page.set_input_files("#files", [COFFEE, tmp_path / "bad.jpg", CAT])
    thumbnails, alert = page.locator("#strip button"), page.get_by_role("alert")
    expect(thumbnails.nth(2).locator("span")).not_to_have_text("…")
    settled(page)
    expect(page.locator("#bars .name").first).to_have_text("espresso")
    expect(thumbnails.nth(0)).to_have_attribute("aria-current", "true")
    expect(thumbnails.nth(1)).to_have_accessible_name("Photo 2, bad.jpg: not classified")
    thumbnails.nth(1).click()
    message = "Not an image (or none of JPEG, PNG, WEBP)."
    expect(alert).to_have_text(message, use_inner_text=True)  # there is no "Try again"
    with page.expect_response("**/v1/classify*red*") as answered:
        add(page, "red cup")
    assert answered.value.status == 200  # of the next photo: the bad one is not sent again
    expect(alert).to_have_text(message, use_inner_text=True)
    expect(page.locator("#unseen")).to_be_visible()
    assert thumbnails.nth(1).locator("img").get_attribute("src").startswith("data:")
    expect(page.locator("#bars li")).to_have_count(0)
    thumbnails.nth(2).click()
    expect(alert).to_be_hidden()
    expect(page.locator("#preview")).to_be_visible()
    assert "cat" in thumbnails.nth(2).inner_text().lower() or "mau" in thumbnails.nth(2).inner_text().lower()
    for left in (2, 1, 0):
        page.get_by_role("button", name="Remove this photo").click()
        expect(page.locator("#strip li")).to_have_count(left)
    expect(page.locator("#empty")).to_be_visible()
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()


def test_a_photo_is_dropped_or_pasted(page) -> None:
    page.evaluate("document.addEventListener('dragover', () => { window.lit = document.body.className; })")
    drop(page, page.locator("#stage"), [COFFEE])
    best = page.locator("#bars .name").first
    expect(best).to_have_text("espresso")
    assert (page.evaluate("lit"), page.evaluate("document.body.className")) == ("dragging", "")
    paste = """content => {
        const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        data.items.add(new File([bytes], 'pasted.png', { type: 'image/png' }));
        const details = { clipboardData: data, bubbles: true, cancelable: true };
        return document.body.dispatchEvent(new ClipboardEvent('paste', details));
    }"""
    assert page.evaluate(paste, base64.b64encode(CAT.read_bytes()).decode()) is False  # the page has taken it
    expect(page.locator("#strip button")).to_have_count(2)
    expect(best).to_have_text(re.compile("cat|Mau", re.IGNORECASE))


@pytest.fixture
def png(tmp_path: Path) -> Callable[[np.ndarray, int], Path]:
    """Return a function that writes a PNG at a level of compression."""

    def write(pixels: np.ndarray, level: int) -> Path:
        Image.fromarray(pixels).save(tmp_path / "photo.png", compress_level=level)
        return tmp_path / "photo.png"

    return write


def test_what_is_beyond_the_limits_is_scaled_down_first_and_shown_whole(page, png) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2100, 2000, 3), dtype=np.uint8)
    for pixels, level, text in (
        (noise, 0, "1950 × 2048 before sending: this photo has 12 MiB, and the server takes 10 MiB."),
        (
            np.zeros((7000, 8000), dtype=np.uint8),
            6,
            "2048 × 1792 before sending: this photo has 56 megapixels, and the server takes 50 megapixels.",
        ),
    ):
        with page.expect_request("**/v1/classify*") as sent:
            page.set_input_files("#files", png(pixels, level))
        settled(page)
        assert sent.value.headers["content-type"] == "image/jpeg"
        expect(page.locator("#photo-note")).to_have_text(f"Scaled down to {text}")
        page.get_by_role("button", name="Remove this photo").click()
    page.set_input_files("#files", png(np.zeros((1200, 400), dtype=np.uint8), 6))
    settled(page)
    stage, shown = (page.locator(name).bounding_box() for name in ("#stage", "#preview"))
    assert shown["height"] <= stage["height"]


def test_a_file_that_is_too_large_and_no_image_is_not_sent(page, tmp_path) -> None:
    urls: list[str] = []
    page.on("request", lambda request: "classify" in request.url and urls.append(request.url))
    (tmp_path / "film.mp4").write_bytes(bytes(11 * 2**20))
    page.set_input_files("#files", tmp_path / "film.mp4")
    expect(page.get_by_role("alert")).to_contain_text("This file has 11 MiB, and the server takes 10 MiB.")
    assert urls == []


# ---------------------------------------------------------------------------------------------------------- refusals
def test_the_key_is_asked_for_once_and_forgotten_with_the_tab(open_page, keyed_server) -> None:
    page, watch = open_page(keyed_server.url)
    watch.expected = "status of 401"
    field = page.get_by_label("This server needs an API key")
    expect(field).to_be_focused()
    page.set_input_files("#files", COFFEE)
    expect(page.locator("#locked")).to_be_visible()
    field.fill("wrong")
    field.press("Enter")
    expect(page.locator("#key-note")).to_have_text("The server did not accept that key.")
    field.fill(keyed_server.key)
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#bars .name").first).to_have_text("espresso")
    expect(field).to_be_hidden()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 1, ""]
    assert keyed_server.key not in page.url
    page.reload()
    page.set_input_files("#files", COFFEE)
    expect(page.locator("#bars .name").first).to_have_text("espresso")
    expect(field).to_be_hidden()


def test_a_busy_server_is_asked_once_more_and_one_that_is_gone_is_named(cup, watch) -> None:
    watch.expected = "status of 429|ERR_CONNECTION_REFUSED"
    expect(cup.locator("#key-form")).to_be_hidden()  # none is needed here
    urls: list[str] = []

    def busy(route: Any) -> None:
        urls.append(route.request.url)
        body = json.dumps({"title": "Too busy", "detail": "128 images are waiting", "code": "overloaded"})
        route.fulfill(status=429, headers={"Retry-After": "1"}, content_type="application/problem+json", body=body)

    cup.route("**/v1/classify*", busy, times=1)
    add(cup, "blue cup")
    expect(cup.locator("#status")).to_have_text("The server is busy. Trying once more in 1 s.")
    settled(cup)
    expect(cup.locator(".keep")).to_have_count(0)
    cup.route("**/v1/classify*", busy)
    add(cup, "red cup")
    alert = cup.get_by_role("alert")
    expect(alert).to_contain_text("Too busy. 128 images are waiting.")
    assert len(urls) == 3
    cup.unroute("**/v1/classify*")
    cup.get_by_role("button", name="Try again").click()
    settled(cup)
    expect(alert).to_be_hidden()
    cup.route("**/v1/classify*", lambda route: route.abort("connectionrefused"))
    add(cup, "green cup")
    expect(alert).to_contain_text("The server cannot be reached.")


def test_what_a_server_says_stays_text(page, watch) -> None:
    watch.expected = "status of 413"
    problem = {"title": ATTACK, "detail": ATTACK + " again", "code": "x"}
    page.route("**/v1/classify*", lambda route: route.fulfill(status=413, json=problem))
    page.set_input_files("#files", COFFEE)
    expect(page.locator("#problem p")).to_contain_text(ATTACK)
    assert page.locator("#problem img").count() == 0
