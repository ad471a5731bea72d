"""The page that shows the API."""

from __future__ import annotations

import json
import urllib.request

import pytest
from support.browser import ATTACK, PHONE, WIDTHS

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect


def test_the_api_page_shows_every_route(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url, "/docs", permissions=["clipboard-read", "clipboard-write"])
    with urllib.request.urlopen(f"{mini_server.url}/openapi.json", timeout=10) as answer:  # noqa: S310
        paths = json.load(answer)["paths"]
    expect(page.locator("h1")).to_have_text("sar-clip API")
    routes = [f"{method.upper()}{path}" for path, item in paths.items() for method in item]
    shown = page.locator("details.route > summary").evaluate_all(
        "nodes => nodes.map((node) => node.children[0].textContent + node.children[1].textContent)"
    )
    assert sorted(shown) == sorted(routes)
    page.locator("#contents a", has_text="/v1/classify").click()
    route = page.locator("#post-v1-classify")
    expect(route).to_have_attribute("open", "")
    for text in ("multipart/form-data", "application/json", "top_k", "required", "415"):
        expect(route).to_contain_text(text)
    expect(route.locator("pre", has_text="--data-binary @photo.jpg").first).to_contain_text(
        f"curl -X POST '{mini_server.url}/v1/classify'"
    )
    route.get_by_role("button", name="Copy").first.click()
    expect(page.locator("#status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl -X POST ")


def test_the_api_page_on_a_phone(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url, "/docs", **PHONE)
    expect(page.locator("details.route")).not_to_have_count(0)
    page.locator("details.route").evaluate_all("nodes => nodes.forEach((node) => { node.open = true; })")
    expect(page.locator(".copy").first).to_be_visible()
    assert page.evaluate(WIDTHS) == [390, 390]


def test_a_description_stays_text(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    operation = {
        "tags": [ATTACK],
        "summary": ATTACK,
        "description": f"`{ATTACK}`",
        "responses": {"200": {"description": ATTACK}},
    }
    document = json.dumps(
        {"info": {"title": ATTACK, "description": ATTACK}, "paths": {f"/{ATTACK}": {"get": operation}}}
    )
    page.route("**/openapi.json", lambda route: route.fulfill(content_type="application/json", body=document))
    page.goto(mini_server.url + "/docs")
    page.locator("details.route summary").click()
    expect(page.locator("details.route .path")).to_have_text(f"/{ATTACK}")
    assert page.locator("main img").count() == 0
