"""The middleware around every request, from outside, through real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.pictures import jpeg
from support.servers import Local, around, local_server, wait_for

from sar_infer.server.http import connection
from sar_infer.server.settings import Limits, Settings

IMAGE = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def settings(bundle_path: Path) -> Settings:
    limits = Limits(body_bytes=100_000, queue=3)
    return Settings(bundle=bundle_path, device="cpu", threads=1, max_batch=2, limits=limits)


@pytest.fixture(scope="module", params=[0, 2], ids=["one process", "worker processes"])
def server(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Local]:
    with local_server(replace(settings, workers=request.param)) as local:
        yield local


@pytest.fixture
def gate(server: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold batches until the event is set; ``seen`` counts their images."""
    event = threading.Event()

    def waiting(compute: Any, images: Any) -> Any:
        event.seen += len(images)  # type: ignore[attr-defined]
        event.wait(60)
        return compute(images)

    event.seen = 0  # type: ignore[attr-defined]
    around(server, monkeypatch, waiting)
    yield event
    event.set()
    wait_for(lambda: server.metric("sar_queue_depth") == 0)


def limited(server: Local, patch: pytest.MonkeyPatch, **limits: Any) -> None:
    """Let a server have other limits; all tests of a busy machine would meet those that are short."""
    settings = server.service.settings
    patch.setattr(server.service, "settings", replace(settings, limits=replace(settings.limits, **limits)))


def classify(server: Local, **options: Any) -> httpx2.Response:
    return httpx2.post(f"{server.url}/v1/classify", content=jpeg(), headers=IMAGE, timeout=60, **options)


class Talk:
    """A connection on which a test writes any bytes."""

    def __init__(self, server: Local) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def head(self, path: str = "/v1/classify", **headers: object) -> None:
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        stream = self.socket.makefile("rb")
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, stream.read(int(headers.get("content-length", 0)))

    def closed(self) -> bool:
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True


def test_a_request_id_is_echoed_if_it_is_a_sensible_one(server: Local) -> None:
    given = httpx2.get(f"{server.url}/healthz", headers={"X-Request-ID": "order-66/a"})
    assert given.headers["x-request-id"] == "order-66/a"
    for nonsense in ("a b", "x" * 129, ""):
        made = httpx2.get(f"{server.url}/healthz", headers={"X-Request-ID": nonsense}).headers["x-request-id"]
        assert made != nonsense
        assert len(made) == 16


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "10.1.2.3:80", "[::1]:80", "Shop.example"]
)
def test_a_server_without_a_key_answers_to_its_own_names(
    server: Local, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(server.service, "settings", replace(server.service.settings, hosts=("shop.example",)))
    assert httpx2.get(f"{server.url}/v1/classes", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "x@[", "["])
def test_a_server_without_a_key_answers_to_no_other_name(server: Local, host: str) -> None:
    """Another site can give its own name the address of this server, and would read what it answers."""
    for method, path in (("GET", "/v1/classes"), ("POST", "/v1/classify"), ("GET", "/v2/models/sar-clip")):
        refused = httpx2.request(method, server.url + path, headers={"Host": host, **IMAGE}, content=jpeg())
        assert refused.status_code == 421
    assert (refused := httpx2.get(f"{server.url}/v1/classes", headers={"Host": host})).json()["code"] == "misdirected"
    assert "--allowed-host" in refused.json()["detail"]
    assert "class" not in refused.json()["title"]
    assert httpx2.get(f"{server.url}/healthz", headers={"Host": host}).status_code == 200


def test_any_name_is_allowed_by_an_asterisk_or_by_a_key(
    server: Local, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"Host": "shop.example", "Authorization": "Bearer k"}
    for more in ({"hosts": ("*",)}, {"key": "k"}):
        with monkeypatch.context() as patch:
            patch.setattr(server.service, "settings", replace(settings, **more))
            assert httpx2.get(f"{server.url}/v1/classes", headers=asked).status_code == 200


def test_a_body_that_is_declared_too_large_is_refused_unread_and_the_client_learns_it(server: Local) -> None:
    with Talk(server) as talk:
        talk.head(Content_Length=10**9)
        talk.socket.sendall(b"x" * 300_000)
        status, headers, body = talk.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["code"] == "body-too-large"
        assert talk.closed()


def test_a_body_of_no_declared_size_is_counted_while_it_is_read(server: Local) -> None:
    with Talk(server) as talk:
        talk.head(Transfer_Encoding="chunked")
        for _ in range(11):
            talk.socket.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        status, _, body = talk.answer()
        assert (status, json.loads(body)["code"]) == (413, "body-too-large")


def test_a_body_that_trickles_in_is_given_up(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, Talk(server) as talk:
        limited(server, patch, body_seconds=0.4)
        talk.head(Content_Length=1000)
        talk.socket.sendall(b"x" * 10)
        status, _, body = talk.answer()
        assert (status, json.loads(body)["code"]) == (408, "body-timeout")
        assert talk.closed()
    assert classify(server).status_code == 200


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give headers one second."""
    monkeypatch.setattr(connection, "HEADER_SECONDS", 1)


@pytest.mark.usefixtures("hasty")
def test_headers_that_trickle_in_are_given_up(server: Local) -> None:
    with Talk(server) as silent, Talk(server) as slow, Talk(server) as again:
        slow.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ")
        again.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert again.answer()[0] == 200
        again.socket.sendall(b"GET /he")
        for talk in (silent, slow, again):
            assert talk.answer()[0] == 408
            assert talk.closed()


@pytest.mark.usefixtures("hasty")
def test_a_slow_body_after_headers_in_time_is_no_slow_header(server: Local) -> None:
    image = jpeg()
    with Talk(server) as talk:
        talk.head(Content_Length=len(image))
        time.sleep(1.2)
        talk.socket.sendall(image)
        assert talk.answer()[0] == 200


def test_endless_headers_are_refused(server: Local) -> None:
    with Talk(server) as talk:
        talk.socket.sendall(b"GET /healthz HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(200):
                talk.socket.sendall(f"X-{number}: {'y' * 1000}\r\n".encode())
        with contextlib.suppress(ConnectionResetError):
            assert talk.answer()[0] == 431
    assert httpx2.get(f"{server.url}/healthz").status_code == 200


def test_a_deadline_ends_a_request_and_nothing_else(
    server: Local, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        limited(server, patch, seconds=1)
        answer = classify(server)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert server.metric("sar_rejected_total", reason="deadline") == 1
    gate.set()
    assert classify(server).status_code == 200


def test_a_full_queue_answers_429_at_once_and_says_when_to_come_again(server: Local, gate: threading.Event) -> None:
    waiting = [threading.Thread(target=classify, args=(server,)) for _ in range(3)]
    for thread in waiting:
        thread.start()
    wait_for(lambda: server.service.admission.images.full)
    answer = classify(server)
    assert server.service.admission.images.full  # it has waited for none of them
    assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
    assert "too many images are waiting" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    assert server.metric("sar_requests_total", route="/v1/classify", code="429") == 1
    assert httpx2.get(f"{server.url}/healthz").status_code == 200
    gate.set()
    for thread in waiting:
        thread.join(60)
    assert classify(server).status_code == 200


def test_a_client_that_disconnects_leaves_the_queue(server: Local, gate: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(classify, server) for _ in range(2)]
        wait_for(lambda: gate.seen == 2)
        with Talk(server) as talk:
            talk.head(Content_Length=len(jpeg()))
            talk.socket.sendall(jpeg())
            wait_for(lambda: server.metric("sar_queue_depth") == 3)
        wait_for(lambda: server.metric("sar_queue_depth") == 2)
        assert server.metric("sar_rejected_total", reason="cancelled") == 1
        gate.set()
        assert [one.result().status_code for one in running] == [200, 200]
    assert gate.seen == 2
    assert classify(server).status_code == 200


def test_a_fault_is_a_500_without_insides_and_the_server_goes_on(
    server: Local, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(compute: object, images: object) -> Any:
        raise RuntimeError("secret inside")

    with monkeypatch.context() as patch:
        around(server, patch, broken)
        answer = classify(server)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] in answer.json()["detail"]
    wait_for(lambda: "secret inside" in caplog.text)
    assert classify(server).status_code == 200


def test_a_refused_request_does_not_cost_the_connection(settings: Settings) -> None:
    with local_server(replace(settings, key="k")) as server, httpx2.Client(base_url=server.url) as client:
        for _ in range(3):
            answer = client.post("/v1/classify", content=jpeg(), headers=IMAGE)
            assert answer.status_code == 401
            assert "connection" not in answer.headers


def test_two_keys_open_until_the_old_one_is_taken_away(settings: Settings) -> None:
    with local_server(replace(settings, key="old\nnew")) as server:
        for key, status in (("old", 200), ("new", 200), ("old\\nnew", 401), ("ol", 401)):
            answer = httpx2.get(f"{server.url}/v1/model", headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == status, key


def test_a_key_is_asked_for_where_it_matters(settings: Settings) -> None:
    with local_server(replace(settings, key="open sesame")) as server, httpx2.Client(base_url=server.url) as client:
        for path in ("/healthz", "/livez", "/readyz", "/metrics", "/ui", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for path in ("/v1/model", "/v1/classes", "/v1/classes/red", "/v2/models/x", "/nowhere"):
            for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "open sesame!"}):
                answer = client.get(path, headers=header)
                assert answer.status_code == 401, (path, header)
                assert answer.headers["www-authenticate"] == "Bearer"
        for given, title, detail in (
            ({}, "A key is needed", "expected the header 'Authorization: Bearer KEY'"),
            ({"Authorization": "Basic wrong"}, "A key is needed", "expected the header 'Authorization: Bearer KEY'"),
            ({"Authorization": "Bearer wrong"}, "The key is wrong", "the key in the header Authorization is not this"),
        ):
            problem = client.get("/v1/model", headers=given).json()
            assert problem["title"] == title
            assert problem["detail"].startswith(detail)
        for scheme in ("Bearer", "bearer", "BEARER "):
            assert client.get("/v1/model", headers={"Authorization": f"{scheme} open sesame"}).status_code == 200
        for other in ("open sesame", "Basic open sesame"):
            assert client.get("/v1/model", headers={"Authorization": other}).status_code == 401


def test_requests_are_counted_by_route_not_by_path(server: Local) -> None:
    for name in ("red", "green", "no such class"):
        httpx2.get(f"{server.url}/v1/classes/{name}")
    route = "/v1/classes/{name:text}"
    assert server.metric("sar_requests_total", route=route, code="200") == 2
    assert server.metric("sar_requests_total", route=route, code="404") == 1
    httpx2.get(f"{server.url}/some/where")
    assert server.metric("sar_requests_total", route="unmatched", code="404") == 1


def test_refusals_are_counted_by_their_code(server: Local) -> None:
    before = {code: server.metric("sar_rejected_total", reason=code) for code in ("unsupported-format", "not-found")}
    httpx2.post(f"{server.url}/v1/classify", content=b"no image", headers=IMAGE)
    httpx2.get(f"{server.url}/nowhere")
    for code, count in before.items():
        wait_for(lambda code=code, count=count: server.metric("sar_rejected_total", reason=code) == count + 1)


def test_a_path_cannot_forge_a_log_line(server: Local, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sar_infer.access")
    httpx2.get(f"{server.url}/a%0Ab%1b[31m")
    wait_for(lambda: "%0Ab" in caplog.text)
    (line,) = [record.getMessage() for record in caplog.records if "%0Ab" in record.getMessage()]
    assert line.isprintable()


def test_a_log_line_says_who_was_refused_and_why(server: Local, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sar_infer.access")
    httpx2.get(f"{server.url}/nowhere/at/all", headers={"X-Request-ID": "mine"})
    wait_for(lambda: "/nowhere/at/all" in caplog.text)
    (line,) = [record.getMessage() for record in caplog.records if "/nowhere/at/all" in record.getMessage()]
    assert line.endswith(" ms mine 127.0.0.1 code=not-found")


def test_a_log_line_names_the_trace(server: Local, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sar_infer.access")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for path, given in (("/good", f"00-{trace}-00f067aa0ba902b7-01"), ("/bad", f"00-{trace} forged-1-1")):
        httpx2.get(server.url + path, headers={"traceparent": given.encode()})
    wait_for(lambda: "/bad" in caplog.text)
    good, bad = (record for record in caplog.records if record.name == "sar_infer.access")
    assert good.getMessage().endswith(f" code=not-found trace_id={trace}")
    assert good.fields["trace_id"] == trace
    assert "trace" not in bad.getMessage()


def test_balancers_may_ask_with_head(server: Local) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/metrics"):
        answer = httpx2.head(server.url + path)
        assert (answer.status_code, answer.content) == (200, b"")
