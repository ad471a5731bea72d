"""The pages by keyboard, on a phone, with high contrast, with a screen reader; the API's page; pages elsewhere."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.browser import ATTACK, CAT, COFFEE, CONTRASTS, PHONE, ROCKET, WIDTHS, add, labels, settled
from support.servers import serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect


def test_the_keyboard_alone_does_the_whole_job(page) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.locator(selector).evaluate("node => node === document.activeElement"):
                assert page.locator(selector).evaluate(OUTLINED), f"focus on {selector} cannot be seen"
                return
        raise AssertionError(f"{selector} cannot be reached")

    page.on("filechooser", lambda chooser: chooser.set_files([COFFEE, CAT]))  # early: waiting for it would be a race
    tab_to("#choose")
    page.keyboard.press("Enter")
    settled(page)
    tab_to("#strip li:nth-child(2) button")
    page.keyboard.press("Enter")
    expect(page.locator("#bars .name").first).to_have_text(re.compile("cat|Mau", re.IGNORECASE))
    tab_to("#top-k")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#top-k")).to_have_value("10")
    tab_to("#name")
    page.keyboard.type("sleepy cat")
    page.keyboard.press("Enter")
    page.keyboard.type("red cup")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#chips li")).to_have_count(1)
    tab_to("#only")
    page.keyboard.press("Space")
    expect(page.locator("#among")).to_have_text("of 1 class")
    assert labels(page) == ["sleepy cat"]


def test_on_a_phone(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url, **PHONE)
    expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
    assert page.evaluate(WIDTHS) == [390, 390]
    page.set_input_files("#files", [COFFEE, CAT, ROCKET] * 3)
    add(page, "w" * 200, "a cup of coffee on a wooden table with a spoon that shines in the afternoon sun", "spoon")
    page.get_by_role("switch").check()
    expect(page.locator("#among")).to_have_text("of 3 classes")
    assert page.evaluate(WIDTHS) == [390, 390]
    sizes = page.locator("button:visible, select:visible").evaluate_all(
        "nodes => nodes.map((node) => [node.getBoundingClientRect().width, node.getBoundingClientRect().height])"
    )
    assert min(min(size) for size in sizes) >= 34
    page.goto(mini_server.url + "/docs")
    open_all(page)
    assert page.evaluate(WIDTHS) == [390, 390]


def open_all(page: Any) -> None:
    """Open every route of the page that shows the API."""
    expect(page.locator("details.route")).not_to_have_count(0)
    page.locator("details.route").evaluate_all("nodes => nodes.forEach((node) => { node.open = true; })")
    expect(page.locator(".copy").first).to_be_visible()


OUTLINED = """node => getComputedStyle(node).outlineStyle !== 'none' || node.parentElement.matches(':focus-within')"""
MOVING = """[...document.querySelectorAll('*')].map((node) => getComputedStyle(node))
    .filter((style) => style.transitionProperty !== 'none' && style.transitionDuration !== '0s').length"""


def hard_to_read(page: Any) -> list[str]:
    """Return the texts that have too little contrast, in light or dark colours."""
    texts: list[str] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        texts += [f"{scheme}: {text}" for text in page.evaluate(CONTRASTS)]
    return texts


def test_text_can_be_read(open_page, mini_server) -> None:
    page, watch = open_page(mini_server.url, reduced_motion="reduce")
    watch.expected = "status of 4"
    page.set_input_files("#files", [COFFEE, CAT])
    add(page, "cup of coffee", "table")
    expect(page.locator("#legend")).to_be_visible()
    assert hard_to_read(page) == []
    assert page.evaluate(MOVING) == 0
    page.set_input_files("#files", {"name": "bad.png", "mimeType": "image/png", "buffer": b"no"})
    expect(page.get_by_role("alert")).to_be_visible()
    assert hard_to_read(page) == []
    page.goto(mini_server.url + "/docs")
    open_all(page)
    assert hard_to_read(page) == []


# ------------------------------------------------------------------------------------- the API, and pages elsewhere
def test_the_api_page_shows_every_route(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url, "/docs", permissions=["clipboard-read", "clipboard-write"])
    paths = httpx2.get(f"{mini_server.url}/openapi.json").json()["paths"]
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


def test_a_description_stays_text(page, mini_server) -> None:
    operation = {"tags": [ATTACK], "summary": ATTACK, "description": f"`{ATTACK}`"}
    operation["responses"] = {"200": {"description": ATTACK}}
    document = {"info": {"title": ATTACK, "description": ATTACK}, "paths": {f"/{ATTACK}": {"get": operation}}}
    page.route("**/openapi.json", lambda route: route.fulfill(json=document))
    page.goto(mini_server.url + "/docs")
    page.locator("details.route summary").click()
    expect(page.locator("details.route .path")).to_have_text(f"/{ATTACK}")
    assert page.locator("main img").count() == 0


SNIPPET = re.compile(r"^```js\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALL = """async ([source, photo, key]) => {
    const bytes = Uint8Array.from(atob(photo), (letter) => letter.charCodeAt(0));
    const classify = new Function(`return ${source}`)();
    return classify(new Blob([bytes], { type: "image/png" }), key).catch((error) => `refused: ${error.message}`);
}"""


def test_the_snippet_of_the_docs_classifies_on_a_page_of_a_named_origin_and_of_no_other(browser, mini_server) -> None:
    (source,) = SNIPPET.findall((Path(__file__).parents[4] / "docs" / "serving.md").read_text("utf-8"))
    photo = base64.b64encode(COFFEE.read_bytes()).decode()
    context = browser.new_context()
    page = context.new_page()  # of an origin without the policy that /ui has
    with serving("--workers", "0", "--cors-origin", f"http://LocalHost:{mini_server.port}", key="k") as server:
        source = source.replace("http://localhost:8000", server.url)
        assert server.url in source
        page.goto(f"http://localhost:{mini_server.port}/healthz")
        predictions = page.evaluate(CALL, [source, photo, "k"])
        assert [prediction["rank"] for prediction in predictions] == [1, 2, 3]
        assert predictions[0]["label"] == "espresso"
        wrong_key = "refused: the key in the header Authorization is not this server's"
        assert page.evaluate(CALL, [source, photo, "wrong"]) == wrong_key
        page.goto(f"http://127.0.0.1:{mini_server.port}/healthz")
        assert page.evaluate(CALL, [source, photo, "k"]) == "refused: Failed to fetch"
    context.close()
