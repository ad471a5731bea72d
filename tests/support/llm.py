"""A server on this machine that speaks OpenAI's chat completions, as far as one needs to be lied to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very-secret-1234567890"
MODEL = "stub-1"


@dataclass
class Reply:
    """One response."""

    text: str = ""
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    delay: float = 0.0
    finish: str = "stop"
    model: str | None = f"{MODEL}-2026-11-25"

    def content(self) -> bytes:
        """What is sent."""
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": self.text, "type": "stub", "param": None, "code": None}}).encode()
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "finish_reason": self.finish, "message": message}
        whole: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 1, "choices": [choice]}
        return json.dumps(whole | ({"model": self.model} if self.model else {})).encode()


@dataclass
class Stub:
    """A running server.

    Attributes:
        url: its base URL.
        replies: sent one after the other, the last one again and again.
        requests: what was asked: path, headers and JSON body.
    """

    url: str
    replies: list[Reply]
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def texts(self) -> list[str]:
        """The text of each request."""
        return [body["messages"][0]["content"] for _, _, body in self.requests]


@contextmanager
def serve(*replies: Reply) -> Iterator[Stub]:
    """A server that gives these replies while the block runs."""
    stub = Stub("", list(replies))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            stub.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(sent)))
            reply = stub.replies.pop(0) if len(stub.replies) > 1 else stub.replies[0]
            time.sleep(reply.delay)
            content = reply.content()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": reply.kind, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # who asked has gone

        def log_message(self, *arguments: object) -> None:
            pass

    with listening(Handler) as url:
        stub.url = f"{url}/v1"
        yield stub


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer on a free port of the loopback until the block ends; gives the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
