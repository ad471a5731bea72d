from __future__ import annotations

import re
from importlib import resources

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
from fastapi import FastAPI
from starlette.testclient import TestClient

from sar_infer.server.routes import pages

STATIC = resources.files("sar_infer.server") / "static"
FILES = {entry.name: entry for entry in (*STATIC.iterdir(), resources.files("sar_infer.pages") / "base.css")}
NAMES = sorted(FILES)


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(pages.router(keyed=False))
    return TestClient(app, follow_redirects=False)


def test_the_start_leads_to_the_page_also_below_a_prefix(client: TestClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "ui")


@pytest.mark.parametrize(("path", "name"), [("/ui", "ui.html"), ("/docs", "docs.html")])
def test_pages(client: TestClient, path: str, name: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.content == (STATIC / name).read_bytes()


def test_the_page_of_a_server_with_a_key_says_so() -> None:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(pages.router(keyed=True))
    keyed = TestClient(app).get("/ui")
    plain = (STATIC / "ui.html").read_bytes()
    assert keyed.content == plain.replace(b'<html lang="en">', b'<html data-key lang="en">')
    assert keyed.content != plain
    assert keyed.headers["ETag"] != pages.files()["ui.html"].etag


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served_with_its_type(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/{name}")
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert answer.headers["Content-Type"].startswith(kinds[name.rpartition(".")[2]])
    assert answer.content == FILES[name].read_bytes()


@pytest.mark.parametrize("path", ["/", "/ui", "/docs", *(f"/static/{name}" for name in NAMES)])
def test_every_answer_is_fenced_in(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"


def test_a_known_file_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/ui")
    tag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "no-cache"
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get("/ui", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        assert "Content-Security-Policy" in again.headers
    assert client.get("/ui", headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/docs").headers["ETag"] != tag


def test_head_has_no_body(client: TestClient) -> None:
    answer = client.head("/ui")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len((STATIC / "ui.html").read_bytes())


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/none.js",
        "/static/../pages.py",
        "/static/%2e%2e/settings.py",
        "/static/..%2fsettings.py",
        "/static/%2e%2e%2fsettings.py",
        "/static/..%5csettings.py",
        "/static/%2fetc%2fpasswd",
        "/static//etc/passwd",
        "/static/ui.js%00",
        "/static/UI.JS",
        "/static/.",
        "/static/__init__.py",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_writing_is_not_a_thing(client: TestClient) -> None:
    assert client.post("/ui").status_code == 405


def test_pages_stay_out_of_the_api_description(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["paths"] == {}


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith((".html", ".js"))])
def test_nothing_inline_nothing_foreign_nothing_unsafe(name: str) -> None:
    text = (STATIC / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|(?:src|href)=\"(?://|/)", text), "links are relative"
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text), "the policy forbids these"
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc", text
    )
