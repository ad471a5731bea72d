"""Class names typed on the page, and the ranking that follows them."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.browser import ATTACK, CAT, COFFEE, PASTE, Hold, add, among, labels, predictions, settled
from support.servers import serving

from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bank.edits import amend
from sar_infer.bundle.bundle import default_bundle

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect


def ask(url: str, photo: Path, query: str = "", key: str | None = None) -> dict[str, Any]:
    headers = {"Content-Type": "image/png", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{url}/v1/classify{query}", photo.read_bytes(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def test_a_photo_is_ranked_as_the_api_ranks_it(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    answer = ask(mini_server.url, COFFEE)
    expected = answer["results"][0]["predictions"]
    assert labels(page) == [prediction["label"] for prediction in expected]
    assert page.locator("#bars .share").first.inner_text() == f"{expected[0]['score']:.1%}"
    fill = page.locator("#bars .fill").first
    expect(fill).to_have_attribute("style", re.compile(r"width: \d"))
    assert float(re.findall(r"[\d.]+", fill.get_attribute("style"))[0]) == pytest.approx(
        100 * expected[0]["score"], abs=0.01
    )
    assert page.locator("#preview").evaluate("image => image.naturalWidth") == 600
    expect(page.locator("#among")).to_have_text(f"of {answer['classes']} classes")
    expect(page.locator("footer")).to_contain_text(f"bundle {answer['bundle'][:8]}")
    expect(page.locator("footer")).to_contain_text("CPU")
    expect(page.locator("footer")).to_contain_text(re.compile(r"\d+ ms"))
    expect(page.locator("#status")).to_contain_text("espresso")
    page.select_option("#top-k", "10")
    expect(page.locator("#bars li")).to_have_count(10)


def test_own_names_change_the_ranking_and_are_marked(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    before = page.locator("#bars .share").first.inner_text()
    expect(page.locator("#legend")).to_be_hidden()
    add(page, "cup of coffee", "wooden table")
    expect(page.locator("#bars .own")).to_have_count(1)
    settled(page)
    assert page.locator("#bars .share").first.inner_text() != before
    assert "cup of coffee" in labels(page)
    expect(page.locator("#bars .own")).to_have_text(re.compile(r"\+cup of coffee \(your name\)"))
    expect(page.locator("#legend")).to_be_visible()
    assert labels(page, "#lower-bars") == ["wooden table"]
    expect(page.locator("#lower-bars .rank")).to_have_text(re.compile(r"^\d{2,3}\.$"))
    page.get_by_role("button", name="Remove cup of coffee").click()
    page.get_by_role("button", name="Remove wooden table").click()
    expect(page.locator("#legend")).to_be_hidden()
    expect(page.locator("#bars .share").first).to_have_text(before)
    expect(page.locator("#name")).to_be_focused()


def test_only_these_names(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    only = page.get_by_role("switch", name="Only these names")
    expect(only).to_be_disabled()
    add(page, "tabby cat", "red cup")
    only.check()
    expect(page.locator("#bars li")).to_have_count(2)
    settled(page)
    assert labels(page) == ["red cup", "tabby cat"]
    expect(page.locator("#among")).to_have_text("of 2 classes")
    page.get_by_role("button", name="Clear names").click()
    expect(only).to_be_disabled()
    expect(only).not_to_be_checked()
    expect(page.locator("#among")).not_to_have_text("of 2 classes")


def test_names_by_list_by_comma_and_twice(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.locator("#name").evaluate(PASTE, "red cup, blue cup\r\n\n  green   cup \nRED  cup,,")
    page.locator("#name").press_sequentially("saucer,Blue Cup,")
    page.fill("#name", "spoon")
    page.get_by_role("button", name="Add", exact=True).click()
    assert page.locator("#chips span").all_inner_texts() == ["red cup", "blue cup", "green cup", "saucer", "spoon"]
    page.press("#name", "Backspace")
    expect(page.locator("#chips li")).to_have_count(4)


def test_a_long_list_of_names_travels_in_the_body(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    known = among(page)
    with page.expect_request("**/v1/classify*") as sent:
        page.locator("#name").evaluate(
            PASTE,
            ",".join(f"thing number {number}" for number in range(400)),
        )
    assert sent.value.headers["content-type"].startswith("multipart/form-data")
    expect(page.locator("#among")).to_have_text(f"of {known + 400:,} classes")
    settled(page)
    expect(page.locator("#lower-bars li")).to_have_count(10)
    expect(page.locator("#beyond")).to_have_text(re.compile(r"^Lower still: thing number \d+, .* and \d+ more$"))


def test_typing_fast_asks_once(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    known = among(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    type_all = """(input, names) => names.forEach((name) => {
        input.value = name;
        input.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true }));
    })"""
    page.locator("#name").evaluate(type_all, [f"thing {number}" for number in range(8)])
    expect(page.locator("#among")).to_have_text(f"of {known + 8:,} classes")
    assert len([url for url in asked if "/v1/classify" in url]) == 1


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


def test_names_stay_text(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", {"name": ATTACK, "mimeType": "image/png", "buffer": COFFEE.read_bytes()})
    add(page, ATTACK, "<script>document.title = 'taken'</script>", "<b>bold</b>")
    page.get_by_role("switch").check()
    expect(page.locator("#among")).to_have_text("of 3 classes")
    settled(page)
    assert sorted(labels(page)) == sorted([ATTACK, "<b>bold</b>", "<script>document.title = 'taken'</script>"])
    assert ATTACK in page.locator("#chips span").all_inner_texts()
    assert ATTACK in page.locator("#preview").get_attribute("alt")
    assert page.locator("main :is(b, script)").count() == 0
    assert page.title() == "Classify photos – sar-clip"


def test_the_answer_says_why_and_how_long_it_took(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    why = ask(mini_server.url, COFFEE, "?explain=true")["results"][0]["explanation"]
    nearest = ", ".join(f"{name} ({cosine:.2f})" for name, cosine in why["nearest"])
    expect(page.locator("#why")).to_have_text(
        f"Why? espresso is {100 * why['margin']:.1f} points ahead of {why['runner_up']}, compared by their names. "
        f"Nearest classes to espresso, whatever the photo (cosine; 1 is the same): {nearest}."
    )
    expect(page.locator("#took")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(page.locator("#timing")).to_have_text(re.compile(r"^\d+ ms, of which the server [\d.]+ ms \(decode .+\)$"))


def test_scores_that_are_not_calibrated_say_so(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    note = page.locator("#uncalibrated")
    expect(note).to_be_hidden()
    page.set_input_files("#files", COFFEE)
    settled(page)
    expect(note).to_have_text(re.compile("^Not calibrated: percentages compare the classes, and do not say how often"))


@pytest.mark.parametrize(
    ("flags", "says"), [((True, True, True), None), ((True, False, True), "Not calibrated for two: percentages")]
)
def test_scores_of_calibrated_classes_are_left_alone(open_page, mini_server, flags, says) -> None:
    answer = json.loads(predictions("one", "two", "three"))
    for prediction, calibrated in zip(answer["results"][0]["predictions"], flags, strict=True):
        prediction["calibration"] = "held-out" if calibrated else "none"
    page, _ = open_page(mini_server.url)
    page.route("**/v1/classify?*", lambda route: route.fulfill(json=answer))
    page.set_input_files("#files", COFFEE)
    settled(page)
    assert labels(page) == ["one", "two", "three"]
    if says is None:
        expect(page.locator("#uncalibrated")).to_be_hidden()
    else:
        expect(page.locator("#uncalibrated")).to_contain_text(says)


def test_a_name_is_pending_until_the_ranking_has_it(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
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


def test_a_share_that_is_too_small_is_unknown(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", [COFFEE, CAT])
    settled(page)
    expect(page.locator("#verdict")).to_be_hidden()
    best = page.locator("#bars .share").first.inner_text()
    page.get_by_label("Unknown", exact=True).select_option("below 90%")
    expect(page.locator("#verdict")).to_have_text("Unknown")
    expect(page.locator("#reason")).to_have_text(
        f"None of these is likely enough: the best has {best}, less than 90.0%."
    )
    expect(page.locator("#strip button").first).to_have_accessible_name(re.compile(": unknown$"))
    expect(page.locator("#status")).to_have_text(re.compile("^Unknown. None of these"))
    page.get_by_label("Unknown", exact=True).select_option("never")
    expect(page.locator("#verdict")).to_be_hidden()


def test_the_threshold_of_a_server_is_used_where_it_has_one(open_page, tmp_path) -> None:
    bank = ClassBank.load(default_bundle() / "bank.safetensors")
    amend(bank, {"espresso": ClassInfo(threshold=0.99)}).save(tmp_path / "bank.safetensors")
    with serving("--bank", str(tmp_path / "bank.safetensors")) as server:
        page, _ = open_page(server.url)
        expect(page.get_by_label("Unknown", exact=True)).to_have_value("server")
        page.set_input_files("#files", COFFEE)
        expect(page.locator("#reason")).to_contain_text("is below 0.990, the threshold of this class.")
        page.get_by_label("Unknown", exact=True).select_option("never")
        expect(page.locator("#verdict")).to_be_hidden()
        settled(page)
