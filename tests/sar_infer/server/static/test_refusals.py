"""The page when the server does not answer with a ranking."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.browser import ATTACK, COFFEE, add, settled

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect


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


def test_no_key_is_asked_for_where_none_is_needed(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    expect(page.locator("#key-form")).to_be_hidden()
    add(page, "red cup")
    settled(page)
    expect(page.locator(".keep")).to_have_count(0)


def test_a_busy_server_is_asked_once_more(open_page, mini_server) -> None:
    page, watch = open_page(mini_server.url)
    watch.expected = "status of 429"
    asked: list[str] = []

    def busy(route: Any) -> None:
        asked.append(route.request.url)
        body = json.dumps({"title": "Too busy", "detail": "128 images are waiting", "code": "overloaded"})
        route.fulfill(status=429, headers={"Retry-After": "1"}, content_type="application/problem+json", body=body)

    page.route("**/v1/classify*", busy, times=1)
    page.set_input_files("#files", COFFEE)
    expect(page.locator("#status")).to_have_text("The server is busy. Trying once more in 1 s.")
    expect(page.locator("#bars .name").first).to_have_text("espresso")
    page.route("**/v1/classify*", busy)
    add(page, "red cup")
    expect(page.get_by_role("alert")).to_contain_text("Too busy. 128 images are waiting.")
    assert len(asked) == 3
    page.unroute("**/v1/classify*")
    page.get_by_role("button", name="Try again").click()
    settled(page)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_is_gone(open_page, mini_server) -> None:
    page, watch = open_page(mini_server.url)
    watch.expected = "ERR_CONNECTION_REFUSED"
    page.route("**/v1/classify*", lambda route: route.abort("connectionrefused"))
    page.set_input_files("#files", COFFEE)
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")


def test_what_a_server_says_stays_text(open_page, mini_server) -> None:
    page, watch = open_page(mini_server.url)
    watch.expected = "status of 413"
    problem = json.dumps({"title": ATTACK, "detail": ATTACK + " again", "code": "x"})
    page.route(
        "**/v1/classify*",
        lambda route: route.fulfill(status=413, content_type="application/problem+json", body=problem),
    )
    page.set_input_files("#files", COFFEE)
    expect(page.locator("#problem p")).to_contain_text(ATTACK)
    assert page.locator("#problem img").count() == 0
