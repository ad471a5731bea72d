"""The page of ``sar-label`` in a browser, the safety of its routes, and the library that it ships."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.browser import CONTRASTS, PHONE, WIDTHS

from sar_infer import Classifier
from sar_infer.labelling import routes

ROOT = Path(__file__).parents[3]
CLOTHES = ROOT / "examples" / "clothes" / "test"


def started(heap: Path, bank: Path) -> tuple[subprocess.Popen[str], str]:
    """Return a running ``sar-label`` and its address."""
    command = [sys.executable, "-m", "sar_infer.cli.label", str(heap), "--bank", str(bank), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    if not re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S{32}", address):
        process.kill()
        pytest.fail(f"{address}\n{process.communicate()[1]}")
    return process, address


@pytest.fixture
def heap(tmp_path: Path) -> Iterator[tuple[Path, Path, str]]:
    """Photos of three garments in one folder, a bank that is still missing, and the address of the page."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for kind in ("shoes", "hat", "trousers"):
        for path in sorted((CLOTHES / kind).glob("*.jpg"))[:8]:
            shutil.copy(path, folder / f"{kind} {path.name}")
    (folder / "broken.jpg").write_bytes(b"no photo")
    process, address = started(folder, tmp_path / "shop.safetensors")
    yield folder, tmp_path / "shop.safetensors", address
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Everything is stored" in errors


def answer_by_keyboard(page: Any, known: set[str]) -> None:
    """Answer the question truthfully: other classes of a group are unticked."""
    shown = [
        text.split()[0]
        for text in page.locator(".sheet[aria-label=Question] img").evaluate_all(
            "all => all.map(one => one.alt.split('/').pop())"
        )
    ]
    first = shown[0]
    for place, kind in enumerate(shown):
        if kind != first:
            tile = page.locator(".group .tile").nth(place)
            tile.focus()
            page.keyboard.press("Enter")
    for _ in range(100):  # a new question listens a moment after it is shown
        page.locator("body").press("/")
        if page.evaluate("document.activeElement.tagName") == "INPUT":
            break
    page.keyboard.type(first)
    page.keyboard.press("Enter")
    known.add(first)


def number_of_answers(page: Any) -> int:
    return int(page.get_by_role("status").inner_text().split()[0])


def test_a_session_by_keyboard_with_a_reload_ends_with_a_bank(heap: Any, open_page: Any) -> None:
    from playwright.sync_api import expect

    _, bank, address = heap
    url, _, query = address.partition("/?")
    page, _ = open_page(url, f"/?{query}")
    question, status = page.locator(".sheet[aria-label=Question]"), page.get_by_role("status")
    expect(question).to_be_visible()
    expect(status).not_to_contain_text("ready")
    assert "token" not in page.url
    known: set[str] = set()
    for answers in range(60):
        if not question.is_visible():
            break
        if answers == 3:
            page.reload()
            expect(status).to_contain_text("3 answers")
        answer_by_keyboard(page, known)
        expect(status).to_contain_text(re.compile(rf"^{answers + 1} answer"))
    assert known == {"shoes", "hat", "trousers"}
    expect(page.get_by_text("Nothing is left to ask.")).to_be_visible()
    expect(page.get_by_text("1 photo cannot be read")).to_be_visible()
    page.get_by_role("button", name="Save the classifier").press("Enter")
    expect(page.get_by_text(f"Saved as {bank}")).to_be_visible()
    assert page.evaluate(CONTRASTS) == []
    classifier = Classifier(bank=bank)
    right = [
        classifier.classify(path).label == path.parent.name
        for kind in known
        for path in sorted((CLOTHES / kind).glob("*.jpg"))[-3:]
    ]
    assert sum(right) >= 7


def test_a_class_is_moved_by_touch_on_a_phone_in_the_dark(heap: Any, open_page: Any) -> None:
    from playwright.sync_api import expect

    *_, address = heap
    url, _, query = address.partition("/?")
    page, _ = open_page(url, f"/?{query}", **PHONE, color_scheme="dark")
    field = page.get_by_label("Name of the class")
    for name in ("<b>one</b>", "two"):
        field.fill(name)
        page.get_by_role("button", name="Name", exact=True).tap()
        expect(page.locator(".classes").get_by_text(name, exact=True)).to_be_visible()
    page.locator(".classes").get_by_text("two", exact=True).tap()
    page.locator("section[aria-label=Photos] .tile").first.tap()
    field = page.get_by_label("Another class")
    field.fill("three")
    page.get_by_role("button", name="Move").tap()
    expect(page.locator(".classes").get_by_text("three", exact=True)).to_be_visible()
    widest, width = page.evaluate(WIDTHS)
    assert widest <= width
    assert page.evaluate(CONTRASTS) == []
    page.get_by_role("button", name="Back to the questions").tap()
    before = number_of_answers(page)
    page.get_by_role("button", name="Undo").tap()
    expect(page.get_by_role("status")).to_contain_text(f"{before - 1} answer")


def test_only_the_page_of_this_machine_is_served(heap: Any) -> None:
    _, _, address = heap
    url = address.partition("/?")[0]
    with httpx2.Client(base_url=url) as page:
        for path in ("/", "/state", "/photos/0", "/static/label.js", "/?token=wrong"):
            assert page.get(path).status_code == 403
        opened = page.get(address)
        assert opened.status_code == 303
        assert {"httponly", "samesite=strict"} <= {*opened.headers["set-cookie"].lower().split("; ")}
        assert "default-src 'none'" in page.get("/").headers["content-security-policy"]
        state = page.get("/state").json()
        assert "held_out" not in state["question"]
        photo = page.get(f"/photos/{state['question']['photos'][0]['number']}?side=large")
        assert photo.content.startswith(b"\xff\xd8")
        assert photo.headers["x-content-type-options"] == "nosniff"
        for path in (
            "/photos/99",
            "/photos/-1",
            "/photos/..%2Fshop.answers",
            "/static/..%2Froutes.py",
            "/photos/0?side=1",
        ):
            assert page.get(path).status_code == 404, path
        assert page.get("/state", headers={"Host": "evil.example"}).status_code == 421
        assert page.post("/save", json={}, headers={"Origin": "http://evil.example"}).status_code == 403
        for path, body in {
            "/answer": {"labels": {"99": "a"}},
            "/answer ": {"labels": ["a"]},
            "/answer  ": {"labels": {"0": ""}},
            "/skip": {"photos": [True]},
            "/save": [],
        }.items():
            refused = page.post(path.strip(), json=body)
            assert refused.status_code == 400, (body, refused.text)
            assert refused.json()["detail"]
        assert page.get("/state").json()["estimate"]["answers"] == 0


def test_bad_calls_are_one_line(tmp_path: Path) -> None:
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "1.jpg").write_text("no photo")
    for photos in (tmp_path / "missing", tmp_path / "empty", tmp_path / "broken"):
        command = [sys.executable, "-m", "sar_infer.cli.label", str(photos), "--bank", str(tmp_path / "a.safetensors")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


def test_the_library_is_the_published_file() -> None:
    """preact/standalone.module.js of htm 3.1.1, with Preact; both licences are shipped."""
    content = (Path(routes.__file__).parent / "static" / "preact.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7"
    assert "Jason Miller" in (ROOT / "LICENSES" / "Preact.txt").read_text()
    assert "htm 3.1.1 (Apache License 2.0" in (ROOT / "NOTICE").read_text()
