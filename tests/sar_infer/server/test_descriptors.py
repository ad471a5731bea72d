"""A server with few file descriptors: connections are limited, and once it serves nothing is imported or set up."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from support.hostile_requests import talk
from support.pictures import jpeg
from support.servers import Server, serving, wait_for

pytest.importorskip("resource")
FEW = """
import resource
from sar_infer.cli.serve import main
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
main()
"""
LATE = """
import os, sys
from pydantic import TypeAdapter
from sar_infer.cli.serve import main
from sar_infer.server.run import Server

async def startup(self, sockets):
    await start(self, sockets)
    sys.addaudithook(lambda event, details: event == "import" and os.write(2, f"late: import {details[0]}\\n".encode()))
    TypeAdapter.__init__ = prepare

def prepare(self, kind, **options):
    os.write(2, f"late: {kind} for a route\\n".encode())
    adapt(self, kind, **options)

adapt = TypeAdapter.__init__
start, Server.startup = Server.startup, startup
main()
"""
"""Prints the modules that are imported after the start, and the types that FastAPI then prepares for a route."""
HALF = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nAuthorization: Bearer k\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def few(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bank = tmp_path_factory.mktemp("few") / "bank.safetensors"
    options = ["--bundle", str(bundle_path), "--bank", str(bank), "--set", "body-timeout=60", "--set", "deadline=60"]
    with serving(*options, key="k", python=("-c", FEW)) as server:
        yield server


@pytest.fixture
def server(few: Server) -> Iterator[Server]:
    yield few
    wait_for(lambda: (answer := talk(few.port, HEALTH, 60)) is not None and answer.status == 200)


def connect(stack: ExitStack, server: Server, data: bytes) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
    connection.sendall(data)
    return connection


def test_connections_that_send_half_a_header_are_in_the_way_of_no_other(server: Server) -> None:
    with ExitStack() as stack:
        for i in range(80):
            connect(stack, server, HALF)
            if i % 8 == 0:
                image = {"Content-Type": "image/jpeg", **server.headers}
                answer = httpx2.post(f"{server.url}/v1/classify", content=jpeg(), headers=image, timeout=60)
                assert answer.status_code == 200
        assert httpx2.put(f"{server.url}/v1/classes/violet", headers=server.headers, timeout=60).status_code == 201
        assert httpx2.post(f"{server.url}/v1/reload", headers=server.headers, timeout=60).status_code == 200


def test_a_request_under_way_never_makes_way(server: Server) -> None:
    photo = jpeg()
    with ExitStack() as stack:
        under_way = connect(stack, server, HALF + b"Content-Length: %d\r\n\r\n" % len(photo))
        idle = connect(stack, server, HEALTH)
        assert idle.recv(15) == b"HTTP/1.1 200 OK"
        for _ in range(80):
            connect(stack, server, HALF)
        assert httpx2.get(f"{server.url}/healthz", timeout=60).status_code == 200
        while idle.recv(1000):  # closed: it was idle for longer than those
            pass
        under_way.sendall(photo)
        assert under_way.recv(15) == b"HTTP/1.1 200 OK"


def test_where_all_are_busy_new_ones_are_told_to_come_again(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            connect(stack, server, HALF + b"Content-Length: 1000\r\n\r\n")
        answer = talk(server.port, b"", 60)  # it need not send anything to learn that
        assert answer is not None
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_nothing_is_imported_or_set_up_once_it_serves(tmp_path: Path) -> None:
    text = base64.b64encode(jpeg()).decode()
    posts = {
        "/v1/classify": {"images": [text, "bad"], "classes": ["crème brûlée"]},
        "/v1/embeddings": {"input": ["naïve"]},
        "/v1/zero-shot-image-classification": {"inputs": text, "parameters": {"candidate_labels": "a, b"}},
        "/v2/models/sar-clip/infer": {"inputs": [{"name": "IMAGE", "datatype": "BYTES", "shape": [1], "data": [text]}]},
    }
    gets = ("/ui", "/healthz", "/readyz", "/metrics", "/v1/classes", "/v1/model", "/v2")
    with (
        serving("--bank", str(tmp_path / "bank.safetensors"), "--workers", "0", key="k", python=("-c", LATE)) as server,
        httpx2.Client(base_url=server.url, headers=server.headers, timeout=60) as client,
    ):
        for path, body in posts.items():
            assert client.post(path, json=body).status_code == 200
            assert client.post(path, content=b"{").status_code in (400, 415)
        for path in gets:
            assert client.get(path).status_code == 200
        image = {"Content-Type": "image/jpeg"}
        assert client.post("/v1/classify", content=jpeg(), headers=image, timeout=60).status_code == 200
        assert client.post("/v1/classify", files={"image": jpeg()}, data={"top_k": "2"}).status_code == 200
        assert client.get("/nowhere").status_code == 404
        assert client.put("/v1/classes/latte%20art").status_code == 201
        assert client.delete("/v1/classes/latte%20art").status_code == 204
        assert client.get("/v1/bank/history").status_code == 200
        assert client.post("/v1/bank/rollback", json={"steps": 1}).status_code == 200
        assert client.post("/v1/reload").status_code == 200
        assert late(server) == []
        assert client.get("/openapi.json").status_code == 200  # is made when it is first asked for
        assert [line for line in late(server) if "import" in line] == []


def late(server: Server) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if line.startswith("late: ")]
