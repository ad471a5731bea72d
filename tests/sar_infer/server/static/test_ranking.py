"""Photos and class names on the page, the ranking that follows them, and what goes wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest
from support.browser import ATTACK, CAT, COFFEE, add, labels, predictions, settled
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


def test_a_late_answer_never_replaces_a_newer_one(open_page, mini_server) -> None:
    """Ignore an earlier answer even if it is already on its way when its request is dropped."""
    deaf = "const send = fetch; window.fetch = (path, options) => send(path, { ...options, signal: undefined });"
    page, _ = open_page(mini_server.url, script=deaf)
    page.set_input_files("#files", COFFEE)
    settled(page)
    held: list[Any] = []

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
