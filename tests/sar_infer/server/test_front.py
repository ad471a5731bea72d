"""The way of every request, from outside, through real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.hostile_requests import Answer, read_answer
from support.pictures import jpeg
from support.servers import Local, around, local_server, wait_for

from sar_infer.server import connection, front
from sar_infer.server.settings import Limits, Settings

IMAGE = {"Content-Type": "image/jpeg"}
HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Local]:
    limits = Limits(body_bytes=100_000, queue=3)
    with local_server(Settings(bundle=bundle_path, device="cpu", threads=1, max_batch=2, limits=limits)) as local:
        yield local


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for the rest of a body that is refused."""
    monkeypatch.setattr(front, "LINGER_SECONDS", 0.3)


@pytest.fixture
def settings(server: Local, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives the server other settings, and other limits, for the rest of the test."""

    def change(limits: dict[str, Any] | None = None, **changes: Any) -> None:
        before = server.service.settings
        after = replace(before, limits=replace(before.limits, **(limits or {})), **changes)
        monkeypatch.setattr(server.service, "settings", after)

    return change


@pytest.fixture
def gate(server: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Hold batches until the event is set; ``images`` counts what is in them."""
    event: Any = threading.Event()
    event.images = 0

    def waiting(compute: Any, images: Any) -> Any:
        event.images += len(images)
        event.wait(60)
        return compute(images)

    around(server, monkeypatch, waiting)
    yield event
    event.set()
    wait_for(lambda: server.metric("sar_queue_depth") == 0)


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> Any:
    """Return a function that returns the log's line of a path."""
    caplog.set_level("INFO", "sar_infer.access")

    def line_of(path: str) -> Any:
        records = [record for record in caplog.records if f" {path} " in record.getMessage()]
        return records[0] if records else None

    return lambda path: (wait_for(lambda: line_of(path)), line_of(path))[1]


def get(server: Local, path: str = "/v1/classes", **headers: str) -> httpx2.Response:
    return httpx2.get(server.url + path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def classify(server: Local) -> httpx2.Response:
    return httpx2.post(f"{server.url}/v1/classify", content=jpeg(), headers=IMAGE, timeout=60)


@contextlib.contextmanager
def sending(server: Local, data: bytes) -> Iterator[socket.socket]:
    """Open a connection on which something was sent; more may follow."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(data)
        yield client


def answered(client: socket.socket) -> Answer:
    answer = read_answer(client)
    assert answer is not None
    return answer


def is_closed(client: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return client.recv(1) == b""
    return True


def test_a_request_id_is_echoed_if_it_is_a_sensible_one(server: Local) -> None:
    assert get(server, "/healthz", X_Request_ID="order-66/a").headers["x-request-id"] == "order-66/a"
    for nonsense in ("a b", "x" * 129, ""):
        assert len(get(server, "/healthz", X_Request_ID=nonsense).headers["x-request-id"]) == 16


# -------------------------------------------------------------------------------------------------- names and keys
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "10.1.2.3:80", "[::1]:80", "Shop.example"]
)
def test_a_server_without_a_key_answers_to_its_own_names(server: Local, settings: Any, host: str) -> None:
    settings(hosts=("shop.example",))
    assert get(server, Host=host).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "localhost."])
def test_a_server_without_a_key_answers_to_no_other_name(server: Local, host: str) -> None:
    """Another site can give its own name the address of this server, and would read what it answers."""
    for method, path in (("GET", "/v1/classes"), ("POST", "/v1/classify"), ("GET", "/v2/models/sar-clip")):
        refused = httpx2.request(method, server.url + path, headers={"Host": host, **IMAGE}, content=jpeg())
        assert refused.status_code == 421
    problem = get(server, Host=host).json()
    assert (problem["code"], "--allowed-host" in problem["detail"]) == ("misdirected", True)
    assert "class" not in problem["title"]
    assert get(server, "/healthz", Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["x@[", "[", "a@localhost", "localhost/x", "localhost?x", "localhost:http", "[::1].evil.example", "a\\@localhost"],
)
def test_a_host_that_is_more_than_a_name_and_a_port_is_refused(server: Local, host: str) -> None:
    refused = get(server, "/healthz", Host=host)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad-request")


@pytest.mark.parametrize("changes", [{"hosts": ("*",)}, {"key": "k"}])
def test_any_name_is_allowed_by_an_asterisk_or_by_a_key(server: Local, settings: Any, changes: Any) -> None:
    settings(**changes)
    assert get(server, Host="shop.example", Authorization="Bearer k").status_code == 200


def test_a_key_is_asked_for_where_it_matters(server: Local, settings: Any) -> None:
    settings(key="open sesame")
    for path in ("/healthz", "/livez", "/readyz", "/metrics", "/ui", "/openapi.json", "/v2/health/ready"):
        assert get(server, path).status_code == 200, path
    wrong, expected = "the key in the header Authorization is not", "expected the header 'Authorization: Bearer KEY'"
    for sent, detail in (
        ({}, expected),
        ({"Authorization": "open-sesame"}, expected),
        ({"Authorization": "Basic open sesame"}, wrong),
        ({"Authorization": "Bearer wrong"}, wrong),
    ):
        for path in ("/v1/model", "/v1/classes", "/v1/classes/red", "/nowhere"):
            refused = get(server, path, **sent)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), (path, sent)
        assert refused.json()["detail"].startswith(detail)
    assert get(server, "/v2/models/x").status_code == 401
    for scheme in ("Bearer", "bearer", "BEARER "):
        assert get(server, Authorization=f"{scheme} open sesame").status_code == 200


def test_two_keys_open_until_the_old_one_is_taken_away(server: Local, settings: Any) -> None:
    settings(key="old\nnew")
    for key, status in (("old", 200), ("new", 200), ("old\\nnew", 401), ("ol", 401)):
        assert get(server, Authorization=f"Bearer {key}").status_code == status, key


def test_a_refused_request_does_not_cost_the_connection(server: Local, settings: Any) -> None:
    settings(key="k")
    with httpx2.Client(base_url=server.url) as client:
        for _ in range(3):
            answer = client.post("/v1/classify", content=jpeg(), headers=IMAGE)
            assert (answer.status_code, "connection" in answer.headers) == (401, False)


# ------------------------------------------------------------------------------------------------ size and time
def test_a_body_that_is_declared_too_large_is_refused_unread_and_the_client_learns_it(server: Local) -> None:
    with sending(server, HEAD + b"Content-Length: 1000000000\r\n\r\n" + b"x" * 300_000) as client:
        answer = answered(client)
        assert (answer.status, answer.closed, json.loads(answer.body)["code"]) == (413, True, "body-too-large")
        assert is_closed(client)


def test_a_body_of_no_declared_size_is_counted_while_it_is_read(server: Local) -> None:
    pieces = (b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 11
    with sending(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + pieces) as client:
        answer = answered(client)
        assert (answer.status, json.loads(answer.body)["code"]) == (413, "body-too-large")


def test_a_body_that_trickles_in_is_given_up(server: Local, settings: Any) -> None:
    settings({"body_seconds": 0.4})
    with sending(server, HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 10) as client:
        answer = answered(client)
        assert (answer.status, json.loads(answer.body)["code"]) == (408, "body-timeout")
        assert is_closed(client)
    assert classify(server).status_code == 200


def test_headers_that_trickle_in_are_given_up_but_no_slow_body(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 1)
    start, image = b"GET /healthz HTTP/1.1\r\nHost: x\r\n", jpeg()
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(image)
    with (
        sending(server, head) as patient,
        sending(server, b"") as silent,
        sending(server, start + b"X-A: ") as slow,
        sending(server, start + b"\r\n") as again,
    ):
        assert answered(again).status == 200
        again.sendall(b"GET /he")
        for client in (silent, slow, again):
            assert answered(client).status == 408
            assert is_closed(client)
        patient.sendall(image)
        assert answered(patient).status == 200


def test_endless_headers_are_refused(server: Local) -> None:
    with contextlib.suppress(ConnectionError), sending(server, b"GET /healthz HTTP/1.1\r\n") as client:
        with contextlib.suppress(ConnectionError):
            for number in range(200):
                client.sendall(f"X-{number}: {'y' * 1000}\r\n".encode())
        assert answered(client).status == 431
    assert get(server, "/healthz").status_code == 200


# ----------------------------------------------------------------------------------------------- waiting and faults
def test_a_deadline_ends_a_request_and_nothing_else(server: Local, gate: Any, settings: Any) -> None:
    longest = server.service.settings.limits.seconds
    settings({"seconds": 1})
    answer = classify(server)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert server.metric("sar_rejected_total", reason="deadline") == 1
    gate.set()
    settings({"seconds": longest})
    assert classify(server).status_code == 200


def test_a_full_queue_answers_429_at_once_and_says_when_to_come_again(server: Local, gate: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(classify, server) for _ in range(3)]
        wait_for(lambda: server.service.images.full)
        answer = classify(server)
        assert server.service.images.full  # it has waited for none of them
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
        assert "too many images are waiting" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        assert server.metric("sar_requests_total", route="/v1/classify", code="429") == 1
        assert server.metric("sar_rejected_total", reason="overloaded") == 1
        assert get(server, "/healthz").status_code == 200
        gate.set()
        assert [one.result().status_code for one in waiting] == [200] * 3


CLASSIFY = HEAD + b"Content-Length: %d\r\n\r\n" % len(jpeg()) + jpeg()
HALF = HEAD + b"Content-Length: 90000\r\n\r\n" + bytes(4500)


@pytest.mark.parametrize(
    ("sent", "inside"),
    [
        pytest.param(HALF, 0, id="in a body"),
        pytest.param(CLASSIFY, 1, id="while it waits"),
        pytest.param(CLASSIFY + CLASSIFY, 1, id="with a second request"),
        pytest.param(CLASSIFY + HALF, 1, id="in the body of a second"),
        pytest.param(CLASSIFY + HEAD, 1, id="in the headers of a second"),
        pytest.param(CLASSIFY + 3000 * b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 1, id="with thousands behind it"),
    ],
)
def test_a_client_that_leaves_at_any_time_takes_its_request_with_it_and_no_other(
    server: Local, gate: Any, sent: bytes, inside: int
) -> None:
    admission, before = server.service, server.metric("sar_rejected_total", reason="cancelled")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(classify, server)
        wait_for(lambda: gate.images)
        held = admission.body_bytes
        with sending(server, sent):
            wait_for(lambda: admission.images.held == 1 + inside and admission.body_bytes > held)
        wait_for(lambda: server.metric("sar_rejected_total", reason="cancelled") == before + 1)
        assert (admission.images.held, admission.body_bytes) == (1, held)
        wait_for(lambda: not admission.engine.line._waiting)  # where its image was held
        gate.set()
        assert other.result().status_code == 200
    assert server.metric("sar_rejected_total", reason="cancelled") == before + 1


def test_a_fault_is_a_500_without_insides_and_the_server_goes_on(
    server: Local, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(compute: object, images: object) -> Any:
        raise RuntimeError("secret inside")

    with monkeypatch.context() as patch:
        around(server, patch, broken)
        direct = classify(server)
        routed = httpx2.post(f"{server.url}/v1/classify?top_k=2", content=jpeg(), headers=IMAGE)
    for answer in (direct, routed):  # past FastAPI, and through it
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text
        assert answer.json()["request_id"] in answer.json()["detail"]
    wait_for(lambda: caplog.text.count("secret inside") >= 2)
    assert classify(server).status_code == 200


# ------------------------------------------------------------------------------------------------- metrics and log


def test_requests_are_counted_by_route_not_by_path(server: Local) -> None:
    for name in ("red", "green", "no such class"):
        get(server, f"/v1/classes/{name}")
    route = "/v1/classes/{name:text}"
    wait_for(lambda: server.metric("sar_requests_total", route=route, code="200") == 2)
    wait_for(lambda: server.metric("sar_requests_total", route=route, code="404") == 1)
    before = server.metric("sar_requests_total", route="unmatched", code="404")
    get(server, "/some/where")
    wait_for(lambda: server.metric("sar_requests_total", route="unmatched", code="404") == before + 1)


def test_a_log_line_says_who_was_refused_and_why_and_cannot_be_forged(server: Local, access: Any) -> None:
    get(server, "/nowhere/at/all", X_Request_ID="mine")
    assert access("/nowhere/at/all").getMessage().endswith(" ms mine 127.0.0.1 code=not-found")
    get(server, "/a%0Ab%1b[31m")
    assert access("/a%0Ab%1b[31m").getMessage().isprintable()


def test_a_log_line_names_the_trace(server: Local, access: Any) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    get(server, "/good", traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    get(server, "/bad", traceparent=f"00-{trace} forged-1-1")
    assert access("/good").getMessage().endswith(f" code=not-found trace_id={trace}")
    assert access("/good").fields["trace_id"] == trace
    assert "trace" not in access("/bad").getMessage()


def test_balancers_may_ask_with_head(server: Local) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/metrics"):
        answer = httpx2.head(server.url + path)
        assert (answer.status_code, answer.content) == (200, b"")
