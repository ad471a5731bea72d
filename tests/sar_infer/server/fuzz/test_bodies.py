"""Malformed requests, through real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from support.hostile_requests import chunked, request, talk, wire
from support.pictures import jpeg
from support.servers import Local, Server, local_server, wait_for

from sar_infer.server import connection, startup
from sar_infer.server.problems import CODES
from sar_infer.server.settings import Limits, Settings

_MIB = 2**20


@pytest.fixture(scope="module")
def server(keyed_server: Server) -> Iterator[Server]:
    """Watch a server that accepts changes from its first request to its last."""
    process = psutil.Process(keyed_server.process.pid)
    for _ in range(20):
        talk(keyed_server.port, request(body=jpeg()))
    files = process.num_fds()
    yield keyed_server
    wait_for(lambda: process.num_fds() <= files + 5)
    assert "Traceback" not in keyed_server.log.read_text()
    httpx2.post(f"{keyed_server.url}/v1/bank/rollback", json={"to": 0}, headers=keyed_server.headers)


def is_sound(status: int, headers: dict[str, str], body: bytes) -> bool:
    """Tell whether an error has a documented form."""
    kind = headers.get("content-type", "")
    if not body or status < 400 or kind.startswith("text/plain"):  # what is no HTTP has no problem
        return status in (400, 431, 408) or status < 400
    content = json.loads(body)
    if kind == "application/problem+json":
        return content["code"] in CODES and content["status"] == status
    if isinstance(content["error"], dict):
        return content["error"]["code"] in CODES
    return isinstance(content["error"], str)


@pytest.mark.parametrize("name", list(wire()))
def test_a_hostile_request_gets_the_right_answer(server: Server, name: str) -> None:
    data, statuses = wire()[name]
    answer = talk(server.port, data)
    assert (answer.status if answer else 0) in statuses, answer and answer.body[:500]
    if answer is not None:
        assert is_sound(answer.status, answer.headers, answer.body)
        assert len(answer.body) < 200_000 or answer.status == 200
        assert "set-cookie" not in answer.headers
    assert httpx2.get(f"{server.url}/healthz").status_code == 200


def test_trailers_are_no_headers(server: Server) -> None:
    image = jpeg()
    answer = talk(server.port, chunked(b"%x\r\n%b\r\n0\r\nX-Request-ID: trailer\r\n\r\n" % (len(image), image)))
    assert answer is not None
    assert (answer.status, answer.headers["x-request-id"] == "trailer") == (200, False)


@contextlib.contextmanager
def deaf(port: int) -> Iterator[socket.socket]:
    """Open a connection that asks for much and reads nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        yield client


def test_a_client_that_goes_amid_many_requests_leaves_no_trace(server: Server) -> None:
    """The fixture looks for descriptors that stay open and for tracebacks in the log."""
    for seconds in (0.0, 0.05, 0.5):
        with deaf(server.port) as client:
            time.sleep(seconds)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(scope="module")
def impatient(bundle_path: Path) -> Iterator[Local]:
    """Run a server with short timeouts."""
    patch = pytest.MonkeyPatch()
    patch.setattr(connection, "HEADER_SECONDS", 1)
    patch.setattr(startup, "_UNREAD_SECONDS", 1)
    limits = Limits(body_bytes=10 * _MIB, body_seconds=1, seconds=4)
    with local_server(Settings(bundle=bundle_path, device="cpu", threads=1, limits=limits)) as server:
        yield server
    patch.undo()


def test_clients_that_never_read_are_cut_off(impatient: Local) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(deaf(impatient.port))
        assert talk(impatient.port, request(b"/healthz", method=b"GET")) is not None
        wait_for(lambda: not connections(impatient))


def connections(server: Local) -> int:
    """Return how many connections a server has."""
    open_ones = psutil.Process().net_connections("tcp4")
    return sum(one.laddr.port == server.port and one.status == "ESTABLISHED" for one in open_ones)


def test_bodies_in_memory_are_limited_together(bundle_path: Path) -> None:
    limits = Limits(body_bytes=10 * _MIB, body_seconds=60, seconds=60)
    with contextlib.ExitStack() as stack:
        patient = stack.enter_context(
            local_server(Settings(bundle=bundle_path, device="cpu", threads=1, limits=limits))
        )
        admission = patient.service
        admission.most_body_bytes = 3 * limits.body_bytes
        clients = stack.enter_context(contextlib.ExitStack())
        for _ in range(3):
            waiting = clients.enter_context(socket.create_connection(("127.0.0.1", patient.port), timeout=60))
            waiting.sendall(request(more=[b"Content-Length: 10000000"]) + bytes(9_900_000))
        wait_for(lambda: admission.body_bytes >= 29 * 10**6)
        answer = talk(patient.port, request(body=bytes(3_000_000)))
        assert answer is not None
        assert (answer.status, json.loads(answer.body)["code"]) == (429, "overloaded")
        small = talk(patient.port, request(body=jpeg()))
        assert small is not None
        assert small.status == 200
        clients.close()
        wait_for(lambda: not admission.body_bytes)
