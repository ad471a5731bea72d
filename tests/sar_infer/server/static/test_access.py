"""The page by keyboard, on a phone, with high contrast, and with a screen reader."""

from __future__ import annotations

import re

import pytest
from support.browser import CAT, COFFEE, PHONE, ROCKET, WIDTHS, add, labels, settled

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect


def test_the_keyboard_alone_does_the_whole_job(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)

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
    tab_to("#top-k")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#top-k")).to_have_value("10")


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


OUTLINED = """node => getComputedStyle(node).outlineStyle !== 'none' || node.parentElement.matches(':focus-within')"""
MOVING = """[...document.querySelectorAll('*')].map((node) => getComputedStyle(node))
    .filter((style) => style.transitionProperty !== 'none' && style.transitionDuration !== '0s').length"""
CONTRASTS = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const behind = (node) => { // the nearest background that is not see-through
        for (let at = node; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility({ visibilityProperty: true })) continue;
        const [one, two] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
        const contrast = (one + 0.05) / (two + 0.05);
        if (contrast < 4.5) found.push(`${walker.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
    }
    return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(open_page, mini_server, scheme) -> None:
    page, watch = open_page(mini_server.url, color_scheme=scheme, reduced_motion="reduce")
    watch.expected = "status of 4"
    page.set_input_files("#files", [COFFEE, CAT])
    add(page, "cup of coffee", "table")
    expect(page.locator("#legend")).to_be_visible()
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate(MOVING) == 0
    page.set_input_files("#files", {"name": "bad.png", "mimeType": "image/png", "buffer": b"no"})
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.evaluate(CONTRASTS) == []
    page.goto(mini_server.url + "/docs")
    expect(page.locator("details.route")).not_to_have_count(0)
    page.locator("details.route").evaluate_all("nodes => nodes.forEach((node) => { node.open = true; })")
    expect(page.locator(".copy").first).to_be_visible()
    assert page.evaluate(CONTRASTS) == []


def test_everything_has_a_name(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", [COFFEE, CAT])
    add(page, "cup of coffee")
    settled(page)
    tree = page.locator("body").aria_snapshot()
    assert not re.search(r"^\s*- (button|textbox|switch|combobox|link|img)\s*:?$", tree, re.MULTILINE), tree
    for role, name in (("region", "Photos"), ("region", "Ranking"), ("list", "Your class names")):
        expect(page.get_by_role(role, name=name)).to_be_visible()


def test_the_policy_is_in_force_and_this_test_would_see_a_breach(open_page, mini_server) -> None:
    page, watch = open_page(mini_server.url)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('style'), { textContent: 'p { color: red }' }))"
    )
    page.evaluate("fetch('http://other.example/').catch(() => 0)")
    page.wait_for_timeout(200)
    assert len(watch.complaints) >= 2
    with pytest.raises(AssertionError):
        watch.check()
    watch.expected = "Content Security Policy"
    watch.check()
