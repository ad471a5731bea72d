"""Two servers with one bank file behind nginx, as ``deploy/nginx.conf`` has it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner
from support.pictures import jpeg
from support.servers import Server, serving, wait_for

from sar_infer.cli.bank import main as sar_bank

PROGRAM = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")
pytestmark = [pytest.mark.nightly, pytest.mark.skipif(PROGRAM is None, reason="needs the program nginx")]
CONFIGURATION = Path(__file__).parents[3] / "deploy" / "nginx.conf"
KEY = "k"
HEADERS = {"Authorization": f"Bearer {KEY}"}
CLIENTS = 8


@dataclass(frozen=True)
class Replicas:
    """The address of nginx, and the servers behind it."""

    url: str
    servers: list[Server]


@pytest.fixture
def options(bundle_path: Path, tmp_path: Path) -> list[str]:
    return ["--bundle", str(bundle_path), "--bank", str(tmp_path / "mine.safetensors")]


@pytest.fixture
def replicas(options: list[str], tmp_path: Path) -> Iterator[Replicas]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(*options, "--set", "notice=4", key=KEY)) for _ in range(2)]
        port = free_port()
        stack.enter_context(nginx(tmp_path / "nginx", {8000: port, 8001: servers[0].port, 8002: servers[1].port}))
        yield Replicas(f"http://127.0.0.1:{port}", servers)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def nginx(folder: Path, ports: dict[int, int], configuration: Path = CONFIGURATION) -> Iterator[None]:
    """Run nginx as our configuration has it, on other ports, with all its files in a folder."""
    folder.mkdir()
    text = re.sub(r"\b800[012]\b", lambda match: str(ports[int(match[0])]), configuration.read_text())
    (folder / "sar.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary} include {folder}/sar.conf; }}\n"
    )
    assert PROGRAM is not None
    command = [PROGRAM, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors")]
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: process.poll() is not None or answers(ports[8000]))
            assert process.poll() is None, (folder / "errors").read_text()
            yield
        finally:
            process.kill()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def classes(url: str) -> list[str]:
    listed = httpx2.get(f"{url}/v1/classes", headers=HEADERS, timeout=30).json()["classes"]
    return [entry["name"] for entry in listed]


def classify(url: str) -> int:
    headers = {**HEADERS, "Content-Type": "image/jpeg"}
    return httpx2.post(f"{url}/v1/classify", content=jpeg(), headers=headers, timeout=60).status_code


@contextlib.contextmanager
def asking(replicas: Replicas) -> Iterator[list[tuple[float, int]]]:
    """Have clients ask until the block ends; yield when each request began, and its status, 0 without an answer."""
    stop, done = threading.Event(), list[tuple[float, int]]()

    def ask() -> None:
        while not stop.is_set():
            start, status = time.monotonic(), 0
            with contextlib.suppress(httpx2.TransportError):  # nginx had passed on the beginning of an answer
                status = classify(replicas.url)
            done.append((start, status))

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask) for _ in range(CLIENTS)]
        try:
            yield done
        finally:
            stop.set()
        for one in clients:
            one.result()


def answered(server: Server) -> bool:
    """Tell whether a server has classified."""
    text = httpx2.get(f"{server.url}/metrics", timeout=30).text
    return 'sar_requests_total{code="200",route="/v1/classify"}' in text


def test_changes_of_the_bank_reach_both_and_none_is_lost(replicas: Replicas) -> None:
    names = [f"added {number}" for number in range(12)]

    def put(name: str) -> int:
        return httpx2.put(f"{replicas.url}/v1/classes/{name}", headers=HEADERS, timeout=60).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(put, names)) == {201}
    for server in replicas.servers:
        wait_for(lambda server=server: set(names) < set(classes(server.url)))  # type: ignore[misc]
    first, second = replicas.servers
    changed = httpx2.put(f"{first.url}/v1/classes/last", headers=HEADERS, timeout=30)
    request = f"{second.url}/v1/classes/added 0"
    assert httpx2.delete(request, headers={**HEADERS, "If-Match": '"of-yesterday"'}, timeout=30).status_code == 412
    current = {**HEADERS, "If-Match": changed.headers["etag"]}
    assert httpx2.delete(request, headers=current, timeout=30).status_code == 204
    for server in replicas.servers:
        wait_for(lambda server=server: "added 0" not in classes(server.url))  # type: ignore[misc]
        assert classes(server.url)[-1] == "last"


def test_a_server_that_is_killed_loses_no_more_than_its_requests_in_flight(
    replicas: Replicas, options: list[str]
) -> None:
    victim, other = replicas.servers
    with asking(replicas) as done:
        wait_for(lambda: len(done) > 50 and answered(victim) and answered(other))
        victim.process.kill()
        victim.process.wait()
        gone = time.monotonic()
        wait_for(lambda: sum(start > gone for start, _ in done) > 50)
    lost = [start for start, status in done if status != 200]
    assert len(lost) <= CLIENTS
    assert all(start < gone for start in lost)
    with serving(*options, "--port", str(victim.port), key=KEY) as back:
        wait_for(lambda: classify(replicas.url) == 200 and answered(back))


def test_servers_that_are_restarted_in_turn_lose_no_request(replicas: Replicas, options: list[str]) -> None:
    """The steps of docs/operate.md; fail_timeout is 2 s, and each server is given a notice above it."""
    noticed = [*options, "--set", "notice=4"]
    with contextlib.ExitStack() as stack, asking(replicas) as done:
        for server in replicas.servers:
            wait_for(lambda: len(done) > 50)
            server.process.terminate()
            assert server.process.wait(60) == 0
            stack.enter_context(serving(*noticed, "--port", str(server.port), key=KEY))
            time.sleep(3)
        before = len(done)
        wait_for(lambda: len(done) > before + 50)
        assert httpx2.get(f"{replicas.url}/metrics", timeout=30).status_code == 404
    assert {status for _, status in done} == {200}


def test_nginx_gives_each_customer_a_key_and_a_bank(bundle_path: Path, tmp_path: Path) -> None:
    folder, port = tmp_path / "banks", free_port()
    folder.mkdir()
    for name in ("alpha", "beta"):
        add = ["add", str(folder / f"{name}.safetensors"), f"only {name}", "--bundle", str(bundle_path)]
        assert CliRunner().invoke(sar_bank, add).exit_code == 0
    call = ("--bundle", str(bundle_path), "--banks", str(folder), "--workers", "0")
    with serving(*call, key="key-of-the-server") as server:
        ports = {8000: port, 8001: server.port}
        with nginx(tmp_path / "nginx", ports, CONFIGURATION.with_name("nginx-customers.conf")):
            url = f"http://127.0.0.1:{port}"
            for name in ("alpha", "beta"):
                headers = {"Authorization": f"Bearer key-of-{name}"}
                image = {"image": jpeg()}
                answer = httpx2.post(f"{url}/v1/classify?bank=beta", files=image, data={"top_k": 9}, headers=headers)
                labels = {p["label"] for p in answer.json()["results"][0]["predictions"]}
                assert labels & {"only alpha", "only beta"} == {f"only {name}"}
                assert httpx2.put(f"{url}/v1/classes/new?bank=beta", headers=headers).status_code == 201
                assert httpx2.get(f"{url}/v1/banks", headers=headers).status_code == 404
            assert httpx2.get(f"{url}/v1/classes").status_code == 401
