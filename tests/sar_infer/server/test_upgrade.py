"""A new server takes the place of an old one, as docs/operate.md describes it, and no request is lost."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from support.pictures import jpeg
from support.servers import Server, serving, wait_for

CLIENTS = 6
IMAGE = {"Content-Type": "image/jpeg", "Authorization": "Bearer k"}


class Proxy:
    """Sends each request to the server of now, on a connection of its own, as nginx does; counts the answers."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self.statuses: list[int] = []
        self.stopped = threading.Event()

    def classify(self) -> None:
        """Send one request after another."""
        while not self.stopped.is_set():
            with self._lock:
                connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
                connection.request("POST", "/v1/classify", jpeg(), IMAGE)
            self.statuses.append(connection.getresponse().status)
            connection.close()

    def switch(self, server: Server) -> None:
        """Send to another server from now on; the old one may not have accepted what was sent to it before."""
        with self._lock:
            self._server = server

    def more(self, count: int) -> None:
        """Wait for so many answers."""
        before = len(self.statuses)
        wait_for(lambda: len(self.statuses) >= before + count)


@pytest.fixture
def options(bundle_path: Path, tmp_path: Path) -> list[str]:
    return ["--bundle", str(bundle_path), "--bank", str(tmp_path / "mine.safetensors"), "--set", "body-timeout=60"]


@pytest.fixture
def old(options: list[str]) -> Iterator[Server]:
    with serving(*options, key="k") as server:
        yield server


def test_an_upgrade_behind_a_proxy_loses_no_request(old: Server, options: list[str]) -> None:
    photo = jpeg()
    with ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as pool:
        proxy = Proxy(old)
        clients = [pool.submit(proxy.classify) for _ in range(CLIENTS)]
        stack.callback(proxy.stopped.set)
        proxy.more(20)
        new = stack.enter_context(serving(*options, key="k"))
        assert httpx2.get(f"{new.url}/readyz", timeout=60).status_code == 200
        half = stack.enter_context(socket.create_connection(("127.0.0.1", old.port), timeout=60))
        half.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n")
        half.sendall(b"Authorization: Bearer k\r\nContent-Length: %d\r\n\r\n" % len(photo) + photo[:50])
        proxy.switch(new)
        old.process.send_signal(signal.SIGTERM)
        old.logged("not ready any more")
        proxy.more(20)
        assert old.process.poll() is None  # it waits for what has begun
        half.sendall(photo[50:])
        assert half.recv(15) == b"HTTP/1.1 200 OK"
        assert old.process.wait(60) == 0
        proxy.more(20)
        proxy.stopped.set()
        for client in clients:
            client.result()
    assert set(proxy.statuses) == {200}


def test_a_client_that_keeps_its_connection_is_told_to_leave_during_the_notice(bundle_path: Path) -> None:
    with (
        serving("--bundle", str(bundle_path), "--set", "notice=60", "--workers", "0") as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        assert "connection" not in client.get("/healthz").headers
        server.process.terminate()
        server.logged("not ready any more")
        assert client.get("/healthz").headers["connection"] == "close"
        server.process.terminate()  # a second one ends the notice
        assert server.process.wait(60) == 0


def test_a_body_that_the_proxy_still_buffers_at_sigterm_is_answered_during_the_notice(options: list[str]) -> None:
    with serving(*options, "--set", "notice=60", "--workers", "0", key="k") as server:
        server.process.terminate()
        server.logged("not ready any more")
        late = httpx2.post(f"{server.url}/v1/classify", content=jpeg(), headers=IMAGE, timeout=60)
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        server.process.terminate()
        assert server.process.wait(60) == 0
