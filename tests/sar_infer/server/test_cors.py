"""Pages of other origins: what browsers ask first, and which answers they may read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.pictures import jpeg
from support.servers import Local, local_server

from sar_infer.server.settings import Limits, Settings

SHOP, EVIL = "https://shop.example", "https://evil.example"
ALLOWED = "access-control-allow-origin"
BEARER = {"Authorization": "Bearer k"}


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Local]:
    limits = Limits(body_bytes=100_000)
    with local_server(Settings(bundle_path, key="k", origins=(SHOP,), device="cpu", threads=1, limits=limits)) as local:
        yield local


def preflight(url: str, origin: str, method: str, *headers: str) -> httpx2.Response:
    """Ask as a browser does before a request of its page; a preflight never carries a key."""
    request = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        request["Access-Control-Request-Headers"] = ",".join(headers)
    return httpx2.options(url, headers=request)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/v1/classify", ("authorization", "content-type")),
        ("PUT", "/v1/classes/mug", ("authorization", "content-type", "if-match", "if-none-match")),
        ("DELETE", "/v1/classes/mug", ("authorization", "if-match")),
        ("GET", "/v1/classes", ("authorization", "if-none-match", "x-request-id")),
        ("POST", "/v2/models/sar-clip/infer", ("authorization", "content-type")),
    ],
)
def test_a_preflight_needs_no_key(server: Local, method: str, path: str, headers: tuple[str, ...]) -> None:
    answer = preflight(server.url + path, SHOP, method, *headers)
    assert (answer.status_code, answer.headers[ALLOWED]) == (200, SHOP)
    assert method in answer.headers["access-control-allow-methods"]
    permitted = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert {*headers} <= {*permitted}


def test_a_page_of_a_named_origin_reads_answers_refusals_and_their_headers(server: Local) -> None:
    image = {"Content-Type": "image/jpeg", "Origin": SHOP}
    for path, headers, content, status in (
        ("/v1/classify", image | BEARER, jpeg(), 200),
        ("/v1/classify", image, jpeg(), 401),
        ("/v1/classify", image | BEARER, b"no image", 415),
        ("/v1/classify", image | BEARER, b"x" * 200_000, 413),
        ("/v1/nothing", image | BEARER, b"", 404),
    ):
        answer = httpx2.post(server.url + path, content=content, headers=headers)
        assert (answer.status_code, answer.headers[ALLOWED]) == (status, SHOP)
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    listed = httpx2.get(f"{server.url}/v1/classes", headers={"Origin": SHOP, **BEARER})
    assert listed.headers["etag"]
    assert {"ETag", "Retry-After", "X-Request-ID"} <= {*listed.headers["access-control-expose-headers"].split(", ")}
    assert "Origin" in listed.headers["vary"]
    assert "access-control-allow-credentials" not in listed.headers


def test_a_page_of_another_origin_reads_nothing(server: Local) -> None:
    assert preflight(f"{server.url}/v1/classify", EVIL, "POST").status_code == 400
    for origin in (EVIL, f"{SHOP}.evil.example", f"{SHOP}:8443", "http://shop.example", "null"):
        assert ALLOWED not in preflight(f"{server.url}/v1/classify", origin, "POST").headers
        assert ALLOWED not in httpx2.get(f"{server.url}/v1/classes", headers={"Origin": origin, **BEARER}).headers


def test_no_origin_is_allowed_unless_it_is_named(bundle_path: Path) -> None:
    with local_server(Settings(bundle=bundle_path, device="cpu", threads=1)) as plain:
        answer = preflight(f"{plain.url}/v1/classes", SHOP, "GET")
        assert answer.status_code == 405
        read = httpx2.get(f"{plain.url}/v1/classes", headers={"Origin": SHOP})
        assert read.status_code == 200
        for headers in (answer.headers, read.headers):
            assert not any(name.startswith("access-control-") for name in headers)
