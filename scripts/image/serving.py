"""The server of an image: how soon it is ready, what it answers, how it stops."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scripts.image.builder import Builder, Server
from scripts.image.contents import drawn
from scripts.image.expecting import expect, say

READY_SECONDS = 60


def check_server(builder: Builder) -> dict[str, Any]:
    """From start to ready, one photo, the health check, and a stop while a request is on its way.

    Raises:
        SystemExit: one of them is not as it should be.
    """
    port = free_port()
    started = time.monotonic()
    server = builder.start(port)
    ready = wait_ready(port, started)
    if ready is None:
        server.terminate()
        raise SystemExit(f"not ready after {READY_SECONDS} s\n{server.wait()[1]}")
    idle = server.resident_kib()
    expect(server.healthy(), "the health check fails in a server that is ready")
    photo, names, label = a_photo(builder)
    path = "/v1/classify?top_k=1" + "".join(f"&classes={name}" for name in names) + ("&mode=only" if names else "")
    status, answer = ask(port, "POST", path, photo)
    expect(status == 200, f"classify: {status} {answer!r}")
    top = json.loads(answer)["results"][0]["predictions"][0]["label"]
    expect(label in (None, top), f"classified as {top}, not {label}")
    say(f"ready in {ready:.2f} s, {idle / 1024:.0f} MiB resident; a photo is {top!r}")
    stop = check_stop(server, port, photo)
    return {"ready_seconds": round(ready, 2), "idle_mib": round(idle / 1024), "stop_seconds": round(stop, 2)}


def check_stop(server: Server, port: int, photo: bytes) -> float:
    """Seconds from SIGTERM to the end; a request whose body is half sent by then is still answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("POST", "/v1/classify")
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", str(len(photo)))
    connection.endheaders(photo[: len(photo) // 2])
    time.sleep(0.3)
    server.terminate()
    stopping = time.monotonic()
    time.sleep(0.5)
    connection.send(photo[len(photo) // 2 :])
    status = connection.getresponse().status
    code, log = server.wait()
    seconds = time.monotonic() - stopping
    expect(status == 200, f"a request under way at SIGTERM got {status}\n{log}")
    expect(code == 0, f"exit code {code} after SIGTERM\n{log}")
    say("SIGTERM: the request under way was answered, exit code 0")
    return seconds


def wait_ready(port: int, started: float) -> float | None:
    """Seconds until /readyz answers 200; None where that takes too long."""
    while time.monotonic() - started < READY_SECONDS:
        try:
            if ask(port, "GET", "/readyz")[0] == 200:
                return time.monotonic() - started
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
    return None


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Content-Type": "application/octet-stream"} if body else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def a_photo(builder: Builder) -> tuple[bytes, list[str], str | None]:
    """A picture, names to choose from and the right one: scikit-image's cat, or one drawn in the image."""
    package = find_spec("skimage")
    photo = Path(package.origin or "").parent / "data" / "chelsea.png" if package else None
    if photo and photo.is_file():
        return photo.read_bytes(), ["espresso", "rocket", "tabby"], "tabby"
    return base64.b64decode(drawn(builder)), [], None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
