"""The pages by keyboard, on a phone, with high contrast, with a screen reader; pages elsewhere."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from support.browser import CAT, COFFEE, CONTRASTS, PHONE, WIDTHS, add, labels, settled, unlock
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


OUTLINED = """node => getComputedStyle(node).outlineStyle !== 'none' || node.parentElement.matches(':focus-within')"""


def hard_to_read(page: Any) -> list[str]:
    """Return the texts that have too little contrast, in light or dark colours."""
    texts: list[str] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        texts += [f"{scheme}: {text}" for text in page.evaluate(CONTRASTS)]
    return texts


def test_everything_has_a_name_and_can_be_read_where_classes_can_be_changed(open_page, keyed_server) -> None:
    page, _ = open_page(keyed_server.url, reduced_motion="reduce", **PHONE)
    expect(page.locator("#key-form")).to_be_visible()
    assert hard_to_read(page) == []
    unlock(page, keyed_server.key)
    page.set_input_files("#files", [COFFEE, CAT])
    add(page, "cup of coffee", "bowl of cherries")
    settled(page)
    page.get_by_role("button", name="Keep the class bowl of cherries on the server").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    page.get_by_label("Unknown", exact=True).select_option("below 90%")
    expect(page.locator("#verdict")).to_be_visible()
    settled(page)
    assert hard_to_read(page) == []
    assert page.evaluate(WIDTHS)[0] == page.evaluate(WIDTHS)[1]
    tree = page.locator("body").aria_snapshot()
    assert not re.search(r"^\s*- (button|textbox|switch|combobox|link|img)\s*:?$", tree, re.MULTILINE), tree
    regions = (("region", "Photos"), ("region", "Ranking"), ("region", "Classes"))
    for role, name in (*regions, ("list", "Your class names"), ("list", "The server’s classes")):
        expect(page.get_by_role(role, name=name)).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#bank-chips .added")).to_have_count(0)


# ----------------------------------------------------------------------------------------------------- pages elsewhere
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
        assert page.evaluate(CALL, [source, photo, "wrong"]).startswith(wrong_key)
        page.goto(f"http://127.0.0.1:{mini_server.port}/healthz")
        assert page.evaluate(CALL, [source, photo, "k"]) == "refused: Failed to fetch"
    context.close()
