"""The pages in a real browser, headless Chromium, against the real server."""

from __future__ import annotations

import io
import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

CHROMIUM = shutil.which("chromium")
PHOTOS = Path(skimage.__file__).parent / "data"
COFFEE, CAT, ROCKET = (PHOTOS / name for name in ("coffee.png", "chelsea.png", "rocket.jpg"))
QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--disable-dev-shm-usage",
)  # fmt: skip
ATTACK = "<img src=x onerror=document.title='taken'>"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")
expect = playwright.expect


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Of this module only: while it runs, asyncio believes that its loop runs in this thread.
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


class Watch:
    """What a page must not do. ``expected`` matches console errors that a test provokes."""

    def __init__(self, page: Any, url: str) -> None:
        self.expected = "$^"
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        own = (url, "data:", f"blob:{url}")
        page.on("request", lambda request: request.url.startswith(own) or self.foreign.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        page.on("console", lambda message: message.type in ("error", "warning") and self.complaints.append(message.text))
        page.expose_function("reportViolation", lambda text: self.complaints.append(text))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => reportViolation(`policy: ${e.violatedDirective} ${e.blockedURI}`))"
        )

    def check(self) -> None:
        assert self.foreign == []
        assert [text for text in self.complaints if not re.search(self.expected, text)] == []


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., tuple[Any, Watch]]]:
    """Opens a page of a server in a context of its own; it is watched until the test ends."""
    opened: list[tuple[Any, Watch]] = []

    def open_page(url: str, path: str = "/ui", script: str = "", **settings: Any) -> tuple[Any, Watch]:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
        context.set_default_timeout(15_000)
        page = context.new_page()
        watch = Watch(page, url)
        opened.append((context, watch))
        if script:
            page.add_init_script(script)
        page.goto(url + path)
        return page, watch

    yield open_page
    for context, watch in opened:
        context.close()
        watch.check()


def first(page: Any) -> Any:
    return page.locator("#bars li").first.locator(".label")


def labels(page: Any, rows: str = "#bars") -> list[str]:
    return [text.removeprefix("+").removesuffix(" (your name)") for text in page.locator(f"{rows} .label").all_inner_texts()]


def settled(page: Any) -> None:
    """The ranking answers the question that stands there."""
    expect(page.locator("#ranking")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#bars li")).not_to_have_count(0)


def add(page: Any, *names: str) -> None:
    for name in names:
        page.fill("#name", name)
        page.press("#name", "Enter")


def ask(url: str, photo: Path, query: str = "", key: str | None = None) -> dict[str, Any]:
    headers = {"Content-Type": "image/png", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{url}/v1/classify{query}", photo.read_bytes(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def predictions(*names: str) -> str:
    """A made-up answer of the server."""
    rows = [{"rank": n, "label": name, "score": 0.5**n, "source": "extended"} for n, name in enumerate(names, 1)]
    result = {"image": "image[0]", "predictions": rows, "error": None, "error_code": None, "branch": "text"}
    return json.dumps({"results": [result], "classes": len(rows), "provider": "None", "bundle": "0", "timings_ms": {}})


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
    assert float(re.findall(r"[\d.]+", fill.get_attribute("style"))[0]) == pytest.approx(100 * expected[0]["score"], abs=0.01)
    assert page.locator("#preview").evaluate("image => image.naturalWidth") == 600
    expect(page.locator("#among")).to_have_text("of 1,000 classes")
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
    assert labels(page, "#lower-bars") == ["780.+wooden table"] or "wooden table" in labels(page, "#lower-bars")[0]
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
    expect(page.locator("#among")).to_have_text("of 1,000 classes")


def test_names_by_list_by_comma_and_twice(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    paste = """(input, text) => {
        const clipboardData = new DataTransfer();
        clipboardData.setData('text/plain', text);
        input.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
    }"""
    page.locator("#name").evaluate(paste, "red cup, blue cup\r\n\n  green   cup \nRED  cup,,")
    page.locator("#name").press_sequentially("saucer,Blue Cup,")
    page.fill("#name", "spoon")
    page.get_by_role("button", name="Add", exact=True).click()
    assert page.locator("#chips span").all_inner_texts() == ["red cup", "blue cup", "green cup", "saucer", "spoon"]
    page.press("#name", "Backspace")
    expect(page.locator("#chips li")).to_have_count(4)


def test_the_keyboard_alone_does_the_whole_job(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)

    def tab_to(selector: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.locator(selector).evaluate("node => node === document.activeElement"):
                outlined = "node => getComputedStyle(node).outlineStyle !== 'none' || node.parentElement.matches(':focus-within')"
                assert page.locator(selector).evaluate(outlined), f"focus on {selector} cannot be seen"
                return
        raise AssertionError(f"{selector} cannot be reached")

    tab_to("#choose")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([COFFEE, CAT])
    settled(page)
    tab_to("#strip li:nth-child(2) button")
    page.keyboard.press("Enter")
    expect(first(page)).to_have_text(re.compile("cat|Mau", re.IGNORECASE))
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


def test_what_a_server_says_stays_text(open_page, mini_server) -> None:
    page, watch = open_page(mini_server.url)
    watch.expected = "status of 413"
    problem = json.dumps({"title": ATTACK, "detail": ATTACK + " again", "code": "x"})
    page.route("**/v1/classify*", lambda route: route.fulfill(status=413, content_type="application/problem+json", body=problem))
    page.set_input_files("#files", COFFEE)
    expect(page.locator("#problem p")).to_contain_text(ATTACK)
    assert page.locator("#problem img").count() == 0


@pytest.mark.parametrize("abortable", [True, False])
def test_a_late_answer_never_replaces_a_newer_one(open_page, mini_server, abortable) -> None:
    """Also where dropping the earlier request does not help, because its answer is already on its way."""
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
    expect(first(page)).to_contain_text("the newer answer")
    for route in held:
        route.fulfill(content_type="application/json", body=predictions("a late answer"))
    page.wait_for_timeout(400)
    assert labels(page) == ["the newer answer"]
    assert len(held) == 1
    assert bool(given_up) == abortable


def test_typing_fast_asks_once(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    add(page, *(f"thing {number}" for number in range(8)))
    expect(page.locator("#among")).to_have_text("of 1,008 classes")
    assert len(asked) <= 3


def test_photos_have_rankings_of_their_own_and_a_bad_one_stops_nobody(open_page, mini_server, tmp_path) -> None:
    page, watch = open_page(mini_server.url)
    watch.expected = "status of 4(15|22)"
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    page.set_input_files("#files", [COFFEE, tmp_path / "bad.jpg", CAT])
    thumbnails = page.locator("#strip button")
    expect(thumbnails.nth(2).locator("span")).not_to_have_text("…")
    settled(page)
    expect(first(page)).to_have_text("espresso")
    expect(thumbnails.nth(0)).to_have_attribute("aria-current", "true")
    expect(thumbnails.nth(1)).to_have_accessible_name("Photo 2, bad.jpg: not classified")
    thumbnails.nth(1).click()
    expect(page.get_by_role("alert")).to_have_text(re.compile(r"^[A-Z].+\. [A-Z].+\.Try again$"))
    expect(page.locator("#unseen")).to_be_visible()
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


@pytest.mark.parametrize(("kind", "carrier", "target"), [("DragEvent", "dataTransfer", "#stage"), ("ClipboardEvent", "clipboardData", "body")])
def test_a_photo_is_dropped_or_pasted(open_page, mini_server, kind, carrier, target) -> None:
    page, _ = open_page(mini_server.url)
    hand_over = """async (node, [kind, carrier, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'given.png', { type: 'image/png' }));
        const send = (name) => node.dispatchEvent(new globalThis[kind](name, { [carrier]: data, bubbles: true, cancelable: true }));
        if (kind === 'ClipboardEvent') return !send('paste');
        const lit = !send('dragover') && document.body.classList.contains('dragging');
        return lit && !send('drop') && !document.body.classList.contains('dragging');
    }"""
    assert page.locator(target).evaluate(hand_over, [kind, carrier, list(COFFEE.read_bytes())])
    expect(first(page)).to_have_text("espresso")


def test_the_key_is_asked_for_once_and_forgotten_with_the_tab(open_page, keyed_server) -> None:
    page, watch = open_page(keyed_server.url)
    watch.expected = "status of 401"
    field = page.get_by_label("This server asks for its API key")
    expect(field).to_be_focused()
    page.set_input_files("#files", COFFEE)
    field.fill("wrong")
    field.press("Enter")
    expect(page.locator("#key-note")).to_have_text("The server did not accept that key.")
    field.fill(keyed_server.key)
    page.get_by_role("button", name="Use key").click()
    expect(first(page)).to_have_text("espresso")
    expect(field).to_be_hidden()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 1, ""]
    assert keyed_server.key not in page.url
    page.reload()
    page.set_input_files("#files", COFFEE)
    expect(first(page)).to_have_text("espresso")
    expect(field).to_be_hidden()


def test_no_key_is_asked_for_where_none_is_needed(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    expect(page.locator("#key-form")).to_be_hidden()
    add(page, "red cup")
    settled(page)
    expect(page.locator(".keep")).to_have_count(0)


def test_a_name_is_kept(open_page, keyed_server) -> None:
    page, watch = open_page(keyed_server.url)
    watch.expected = "status of 401"
    page.locator("#key").fill(keyed_server.key)
    page.locator("#key").press("Enter")
    page.set_input_files("#files", COFFEE)
    name = "cup / of 50% coffee?"
    add(page, name)
    page.get_by_role("button", name=f"Keep the class {name} on the server").click()
    expect(page.locator("#status")).to_have_text(re.compile("espresso|cup"))
    expect(page.locator("#chips li")).to_have_count(0)
    expect(page.locator("#among")).to_have_text("of 1,001 classes")
    page.reload()
    page.set_input_files("#files", COFFEE)
    page.select_option("#top-k", "20")
    expect(page.locator("#bars li")).to_have_count(20)
    assert name in labels(page)
    expect(page.locator("#bars .own")).to_have_count(0)


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
    expect(first(page)).to_have_text("espresso")
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


def png(pixels: np.ndarray, level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


@pytest.mark.parametrize("excess", ["bytes", "pixels"])
def test_what_is_beyond_the_limits_is_scaled_down_first(open_page, mini_server, excess) -> None:
    page, _ = open_page(mini_server.url)
    if excess == "bytes":
        photo = png(np.random.default_rng(0).integers(0, 256, (2100, 2000, 3), dtype=np.uint8), 0)
        told = r"Scaled down to 1950 × 2048 before sending: this photo has 12 MiB, and the server takes 10 MiB\."
    else:
        photo = png(np.zeros((7000, 8000), dtype=np.uint8), 6)
        told = r"Scaled down to 2048 × 1792 before sending: this photo has 56 megapixels, and the server takes 50 megapixels\."
    with page.expect_request("**/v1/classify*") as sent:
        page.set_input_files("#files", {"name": "big.png", "mimeType": "image/png", "buffer": photo})
    settled(page)
    assert sent.value.headers["content-type"] == "image/jpeg"
    expect(page.locator("#photo-note")).to_have_text(re.compile(told))


def test_a_file_that_is_too_large_and_no_picture_is_not_sent(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    asked: list[str] = []
    page.on("request", lambda request: "classify" in request.url and asked.append(request.url))
    page.set_input_files("#files", {"name": "film.mp4", "mimeType": "video/mp4", "buffer": b"\0" * 11 * 2**20})
    expect(page.get_by_role("alert")).to_contain_text("This file has 11 MiB, and the server takes 10 MiB.")
    assert asked == []


def test_a_long_list_of_names_travels_in_the_body(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    page.set_input_files("#files", COFFEE)
    settled(page)
    with page.expect_request("**/v1/classify*") as sent:
        page.locator("#name").evaluate(
            """(input, text) => {
            const clipboardData = new DataTransfer();
            clipboardData.setData('text/plain', text);
            input.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
        }""",
            ",".join(f"thing number {number}" for number in range(400)),
        )
    assert sent.value.headers["content-type"].startswith("multipart/form-data")
    expect(page.locator("#among")).to_have_text("of 1,400 classes")
    settled(page)


PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"


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


CONTRASTS = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
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
        if ((one + 0.05) / (two + 0.05) < 4.5) found.push(`${walker.currentNode.data.trim()}: ${((one + 0.05) / (two + 0.05)).toFixed(2)}`);
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
    moving = "[...document.querySelectorAll('*')].filter((n) => getComputedStyle(n).transitionProperty !== 'none' && getComputedStyle(n).transitionDuration !== '0s').length"
    assert page.evaluate(moving) == 0
    page.set_input_files("#files", {"name": "bad.png", "mimeType": "image/png", "buffer": b"no"})
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.evaluate(CONTRASTS) == []
    page.goto(mini_server.url + "/docs")
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


def test_the_api_page_shows_every_route(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url, "/docs", permissions=["clipboard-read", "clipboard-write"])
    with urllib.request.urlopen(f"{mini_server.url}/openapi.json", timeout=10) as answer:  # noqa: S310
        paths = json.load(answer)["paths"]
    expect(page.locator("h1")).to_have_text("sar-clip API")
    routes = [f"{method.upper()}{path}" for path, item in paths.items() for method in item]
    shown = page.locator("details.route > summary").evaluate_all("nodes => nodes.map((node) => node.children[0].textContent + node.children[1].textContent)")
    assert sorted(shown) == sorted(routes)
    page.locator("#contents a", has_text="/v1/classify").click()
    route = page.locator("#post-v1-classify")
    expect(route).to_have_attribute("open", "")
    for text in ("multipart/form-data", "application/json", "top_k", "required", "415"):
        expect(route).to_contain_text(text)
    expect(route.locator("pre", has_text="--data-binary @photo.jpg").first).to_contain_text(f"curl -X POST '{mini_server.url}/v1/classify'")
    route.get_by_role("button", name="Copy").first.click()
    expect(page.locator("#status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl -X POST ")


def test_the_api_page_on_a_phone(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url, "/docs", **PHONE)
    page.locator("details.route").evaluate_all("nodes => nodes.forEach((node) => { node.open = true; })")
    expect(page.locator(".copy").first).to_be_visible()
    assert page.evaluate(WIDTHS) == [390, 390]


def test_a_description_stays_text(open_page, mini_server) -> None:
    page, _ = open_page(mini_server.url)
    operation = {"tags": [ATTACK], "summary": ATTACK, "description": f"`{ATTACK}`", "responses": {"200": {"description": ATTACK}}}
    document = json.dumps({"info": {"title": ATTACK, "description": ATTACK}, "paths": {f"/{ATTACK}": {"get": operation}}})
    page.route("**/openapi.json", lambda route: route.fulfill(content_type="application/json", body=document))
    page.goto(mini_server.url + "/docs")
    page.locator("details.route summary").click()
    expect(page.locator("details.route .path")).to_have_text(f"/{ATTACK}")
    assert page.locator("main img").count() == 0
