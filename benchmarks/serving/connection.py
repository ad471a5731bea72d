"""One keep-alive HTTP/1.1 connection, parsed as little as possible, so that the client takes little of the machine."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """Send one request at a time and wait for its answer; only answers with a Content-Length are understood."""

    def __init__(self) -> None:
        self.closed = False
        self._buffer = bytearray()
        self._body_at = 0
        self._end = 0
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to loopback."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request and return its answer.

        Raises:
            ConnectionError: the server closed the connection first.
        """
        if self._transport is None or self.closed:
            raise ConnectionError("closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        """Close at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        if not self._end:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            length = _LENGTH.search(self._buffer, 0, head)
            self._body_at = head + 4
            self._end = self._body_at + (int(length[1]) if length else 0)
            self.closed = self.closed or b"connection: close" in self._buffer[:head].lower()
        if len(self._buffer) >= self._end:
            answer = Answer(int(self._buffer[9:12]), bytes(self._buffer[self._body_at : self._end]))
            self._buffer.clear()
            self._end = 0
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error or ConnectionError("closed without an answer"))


def post(path: str, photo: bytes) -> bytes:
    """The bytes of a request that posts a JPEG file as it is."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}\r\n\r\n"
    )
    return head.encode() + photo


def requests(folder: Path, path: str) -> list[bytes]:
    """A request for each photo of a folder, in the order of file names."""
    return [post(path, file.read_bytes()) for file in sorted(folder.glob("*.jpg"))]


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in milliseconds; all 0 where there is none."""
    ordered = sorted(seconds) or [0.0]
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in shares.items()}
