"""Photos and class names on the page, the ranking that follows them, and what goes wrong."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx2
import pytest
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
        f"Why? espresso is {100 * why['margin']:.1f} points ahead of {why['runner_up']}. "
        f"Nearest classes to espresso, whatever the photo (cosine; 1 is the same): {nearest}."
    )
    expect(cup.locator("#took")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(cup.locator("#timing")).to_have_text(re.compile(r"^\d+ ms, of which the server [\d.]+ ms \(decode .+\)$"))
    cup.select_option("#top-k", "10")
    expect(cup.locator("#bars li")).to_have_count(10)


def test_a_sample_photo_can_be_tried_and_the_classes_are_named_before(page) -> None:
    expect(page.locator("#choice")).to_contain_text("The server chooses from ")
    count, names = page.locator("#bank-count").inner_text(), page.locator("#bank-chips span").all_inner_texts()
    expect(page.locator("#choice")).to_have_text(re.compile(f"^The server chooses from {count} classes: "))
    expect(page.locator("#choice")).to_contain_text(", ".join(names[:6]))
    page.get_by_role("button", name="Try a sample photo").click()
    settled(page)
    expect(page.locator("#preview")).to_have_attribute("alt", "The chosen photo, sample.jpg")
    expect(page.locator("#sample")).to_be_hidden()


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
