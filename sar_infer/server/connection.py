"""uvicorn's HTTP connection, with limits on headers, on requests that wait for one another, and on open connections.

uvicorn itself waits for headers without end, queues whatever is pipelined and accepts connections until the file
descriptors are used up; httptools accepts headers of any size, and both keep the trailers that may follow a chunked
body as if they were headers. Its limits cost 3 % of the CPU by 8 clients and nothing by 32 (ADR 10).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_SECONDS = 10.0
HEADER_BYTES = 64 * 2**10
_FRAMING = 8
"""Bytes of framing allowed for each byte of a body: chunks of one byte need five."""
_PIECE = 4 * 2**10
"""Bytes parsed at a time, without those of a body. A request takes 18 at least, so this bounds how many can
be queued, and the time it takes."""
RESERVE = 32
"""Descriptors kept for files, such as a bundle that is loaded or the bank that is written."""
_MOST = 16_384
_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"


def most_connections() -> int:
    """Return how many connections may be open: the free descriptors of this process less a reserve."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MOST
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(list(Path("/dev/fd").iterdir()))
    except OSError:  # a container without it
        used = RESERVE
    return _MOST if limit == resource.RLIM_INFINITY else min(_MOST, max(1, limit - used - RESERVE))


class Connection(HttpToolsProtocol):
    """Closes itself if a request does not begin in time, or if its headers take too long or are too large.

    Requests that are pipelined are answered one after the other. While any waits for the one before it, nothing more is
    parsed, and soon nothing more is read.

    When more than ``most`` are open, the one that has been idle longest is closed. Connections with a request under way
    never are; if all have one, a new one gets 503.

    Attributes:
        most: Connections open at once; set before the first is accepted.
        idle: Connections without a request, the longest idle first; a request begins when its headers are complete.
    """

    most = _MOST
    idle: ClassVar[dict[Connection, None]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._trailing = False
        self._body_left = 0
        self._running: RequestResponseCycle | None = None
        self._unparsed = b""
        self._malformed = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request; if there are too many connections, one makes way, perhaps this one."""
        super().connection_made(transport)
        self._wait_for_headers()
        self.idle[self] = None
        if len(self.connections) > self.most:
            longest = next(iter(self.idle))
            longest._give_up(_BUSY if longest is self else _TIMEOUT if longest._patience else b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and cancel the request under way; those behind it never begin."""
        self._headers_ended()
        self.idle.pop(self, None)
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
            if cancel := self._running.scope["state"].get("cancel"):
                cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, piece by piece; the rest is kept while a request waits for the one before it."""
        data, parsed = b"" if self._malformed else self._unparsed + data, 0
        view = memoryview(data)
        while parsed < len(data) and not (self.pipeline or self._malformed or self.transport.is_closing()):
            piece = view[parsed : parsed + max(_PIECE, self._body_left)]
            parsed += len(piece)
            self._header_bytes += len(piece)  # ``on_body`` takes off what was none
            super().data_received(piece)  # type: ignore[arg-type]
            self._header_bytes = max(0, self._header_bytes)
            if self._header_bytes > HEADER_BYTES:
                self._give_up(_TOO_LARGE)
            elif self in self.idle and self._patience is None:  # headers are incomplete
                self._wait_for_headers()
        self._unparsed = data[parsed:]
        if len(self._unparsed) > HEADER_BYTES:
            self.flow.pause_reading()
        elif self.pipeline or (self._running is not None and not self._running.more_body):
            self.flow.resume_reading()  # which uvicorn has paused, and would not notice a client that leaves

    def on_response_complete(self) -> None:
        """Become idle, or go on with the next request."""
        if not self.pipeline and not self.transport.is_closing():
            self.idle[self] = None
        super().on_response_complete()
        if self._malformed and self._running is not None and self._running.response_complete:
            self.send_400_response(self._malformed)
        elif self._unparsed:
            self.data_received(b"")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, after the requests before it; a body that breaks off is of the request itself."""
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()  # the latest
        elif self._running is None or self._running.response_complete or self.cycle.more_body:
            if not self.transport.is_closing():
                super().send_400_response(msg)
            return
        self._malformed = msg

    def on_message_begin(self) -> None:
        """Reset the count of header bytes."""
        self._header_bytes = 0
        self._trailing = False
        self._body_left = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but no trailer that follows a body."""
        if not self._trailing:
            if name.lower() == b"content-length" and value.isdigit():
                self._body_left = int(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop waiting; from here on the application reads and counts the body."""
        self._headers_ended()
        self.idle.pop(self, None)
        self._trailing = True
        if self.parser.should_upgrade():
            self._body_left = 0  # what follows is no body to the parser
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on part of a body, and do not count its framing."""
        self._header_bytes -= _FRAMING * len(body)
        self._body_left -= len(body)
        super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _wait_for_headers(self) -> None:
        self._patience = self.loop.call_later(HEADER_SECONDS, self._give_up, _TIMEOUT)

    def _headers_ended(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self, answer: bytes) -> None:
        self._headers_ended()
        self.idle.pop(self, None)
        if not self.transport.is_closing():
            if self._running is None or self._running.response_complete or not self._running.response_started:
                self.transport.write(answer)
            self.transport.close()
