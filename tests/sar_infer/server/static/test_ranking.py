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
from support.browser import ATTACK, CAT, COFFEE, add, drop, labels, settled
from support.servers import Server

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


# ----------------------------------------------------------------------------------------------------------- photos


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
