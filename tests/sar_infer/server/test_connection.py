"""Connections that pipeline requests, through real sockets, before an application that counts them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from support.servers import wait_for

from sar_infer.server.connection import Connection
from sar_infer.server.startup import bind

REQUEST = b"GET /%d HTTP/1.1\r\n\r\n"
SMALLEST = len(b"GET / HTTP/1.1\r\n\r\n")


class Application:
    """Answers with the path of a request and the size of its body; notes how many requests wait."""

    def __init__(self) -> None:
        self.most_waiting = 0
        self.connections: set[Connection] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, size = scope["path"], 0
        self.most_waiting = max(self.most_waiting, *(len(connection.pipeline) for connection in self.connections))
        more = any(name == b"content-length" for name, _ in scope["headers"])
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        content = path.encode() + b" %d\n" % size
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]}
        )
        await send({"type": "http.response.body", "body": content})


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def port(application: Application) -> Iterator[int]:
    config = uvicorn.Config(
        application, http=Connection, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    application.connections = server.server_state.connections  # type: ignore[assignment]
    listener = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
    assert not thread.is_alive()


def bodies(client: socket.socket, count: int) -> Iterator[bytes]:
    """Yield the bodies of so many answers, in order of their arrival."""
    stream = client.makefile("rb")
    for _ in range(count):
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        length = 0
        while line := stream.readline().strip().lower():
            name, _, value = line.partition(b": ")
            length = int(value) if name == b"content-length" else length
        yield stream.read(length)


def test_requests_without_end_on_one_connection_are_answered_a_few_at_a_time(
    application: Application, port: int
) -> None:
    count = 20_000
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        sending = threading.Thread(target=client.sendall, args=(b"".join(REQUEST % n for n in range(count)),))
        sending.start()
        assert list(bodies(client, count)) == [b"/%d 0\n" % n for n in range(count)]
        sending.join(60)
    assert 0 < application.most_waiting <= 4096 / SMALLEST


@pytest.mark.parametrize("piece", [1, 1000, 10**6])
def test_bodies_and_requests_of_any_size_follow_one_another(port: int, piece: int) -> None:
    sizes = [0, 1, 3000, 0, 4096, 0, 0, 9000 if piece == 1 else 10**6, 5, 0]
    sent = b"".join(
        b"POST /%d HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (n, size, bytes(size)) for n, size in enumerate(sizes)
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:

        def send() -> None:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(sent), piece):
                client.sendall(sent[start : start + piece])

        sending = threading.Thread(target=send)
        sending.start()
        assert list(bodies(client, len(sizes))) == [b"/%d %d\n" % numbered for numbered in enumerate(sizes)]
        sending.join(60)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "broken", [b"BAD\x00\r\n\r\n", b"POST /9 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"]
)
def test_requests_before_a_malformed_one_keep_their_answers(port: int, broken: bytes, together: bool) -> None:
    sent = [REQUEST % 0, REQUEST % 1, broken + REQUEST % 2]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        for data in [b"".join(sent)] if together else sent:
            client.sendall(data)
        answers = client.makefile("rb").read().split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", b"400"]
    assert [answer.split()[-2:] for answer in answers[:2]] == [[b"/0", b"0"], [b"/1", b"0"]]
