from __future__ import annotations

import re
from importlib import resources

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
from fastapi import FastAPI
from starlette.testclient import TestClient

from sar_infer.server.routes import pages

STATIC = resources.files("sar_infer.server") / "static"
FILES = {entry.name: entry for entry in (*STATIC.iterdir(), resources.files("sar_infer.evaluation") / "base.css")}
PAGES = {"/ui": "ui.html"} | {f"/static/{name}": name for name in sorted(FILES)}
KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
OTHERS = (
    "none.js ../pages.py %2e%2e/settings.py ..%2fsettings.py ..%5csettings.py %2fetc%2fpasswd /etc/passwd ui.js%00 "
    "UI.JS . __init__.py"
)
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def client_of(*, keyed: bool) -> TestClient:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(pages.router(keyed=keyed))
    return TestClient(app, follow_redirects=False)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return client_of(keyed=False)


def check_fence(headers: dict[str, str]) -> None:
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"


def test_the_start_leads_to_the_page_also_below_a_prefix(client: TestClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "ui")
    check_fence(answer.headers)


@pytest.mark.parametrize("path", PAGES)
def test_every_file_is_served_with_its_type_and_fenced_in(client: TestClient, path: str) -> None:
    answer, name = client.get(path), PAGES[path]
    assert answer.headers["Content-Type"].startswith(KINDS[name.rpartition(".")[2]])
    assert answer.content == FILES[name].read_bytes()
    check_fence(answer.headers)


def test_a_known_file_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/ui")
    tag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "no-cache"
    for tags in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get("/ui", headers={"If-None-Match": tags})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        check_fence(again.headers)
    assert client.get("/ui", headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/static/ui.js").headers["ETag"] != tag


def test_head_has_no_body_and_nothing_can_be_written(client: TestClient) -> None:
    answer = client.head("/ui")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len((STATIC / "ui.html").read_bytes())
    assert client.post("/ui").status_code == 405
    assert client.get("/openapi.json").json()["paths"] == {}


@pytest.mark.parametrize("name", ["", *OTHERS.split()])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if name.endswith((".html", ".js"))])
def test_nothing_inline_nothing_foreign_nothing_unsafe(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert not re.search(r"https?://|(?:src|href)=\"(?://|/)", text), "links are relative"
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text), "the policy forbids these"
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc", text
    )
