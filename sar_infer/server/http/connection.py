"""uvicorn's HTTP connection, with limits on headers, on requests that wait for one another, and on open connections.

uvicorn itself waits for headers without end, queues whatever is pipelined and accepts connections until the file
descriptors are used up; httptools accepts headers of any size, and both keep the trailers that may follow a chunked
body as if they were headers.
"""

from __future__ import annotations

import asyncio
import heapq
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_SECONDS = 10.0
HEADER_BYTES = 64 * 2**10
_FRAMING = 8
"""Bytes of framing allowed for each byte of a body: chunks of one byte need five."""
_PIECE = 4 * 2**10
"""Bytes parsed at a time, beside those that belong to a body. A request takes 18 at least, so this bounds how many can
be queued, and the time it takes."""
RESERVE = 32
"""Descriptors kept for files, such as a bundle that is loaded or the bank that is written."""
_MOST = 16_384
_MAKES_WAY = 16
"""One in so many connections is closed when there are too many, so that few have to look for it."""
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


def _nothing() -> None:
    """Do nothing: no middleware has yet said what to do."""


class _Flow(FlowControl):
    """Reads nothing more while ``full``, whoever asks for it."""

    full = False

    def resume_reading(self) -> None:
        """Read on, unless this connection has more than it can parse."""
        if not self.full:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """Closes itself if a request does not begin in time, or if its headers take too long or are too large.

    Requests that are pipelined are answered one after the other. While any waits for the one before it, nothing more is
    parsed, and soon nothing more is read.

    When more than ``most`` are open, those that have been idle longest are closed. Connections with a request under way
    never are; if all have one, a new one gets 503.

    Attributes:
        most: Connections open at once; set before the first is accepted.
        idle_since: Time of the loop at which it was opened or its last answer ended.
    """

    most = _MOST

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._trailing = False
        self._body_left = 0
        self._running: RequestResponseCycle | None = None
        self._unparsed = b""
        self.idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        self._wait_for_headers()
        if len(self.connections) > self.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell the request under way; uvicorn tells the last one, which may not have begun."""
        self._headers_ended()
        self.pipeline.clear()
        if self._running is not None:
            self._running.disconnected = not self._running.response_complete
            self._running.message_event.set()
            if self._running.disconnected:
                self._running.scope["state"].get("left", _nothing)()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, piece by piece; the rest is kept while a request waits for the one before it."""
        data, parsed = self._unparsed + data, 0
        view = memoryview(data)
        while parsed < len(data) and not self.pipeline and not self.transport.is_closing():
            piece = view[parsed : parsed + max(_PIECE, self._body_left)]
            self._parse(piece)
            parsed += len(piece)
        self._unparsed = data[parsed:]
        self._flow.full = len(self._unparsed) > HEADER_BYTES  # else it reads on, and notices a client that leaves
        if self._flow.full:
            self._flow.pause_reading()

    @property
    def idle(self) -> bool:
        """Tell whether it is open without a request; one whose headers are incomplete does not count as a request."""
        cycle: RequestResponseCycle | None = self.cycle
        return (cycle is None or cycle.response_complete) and not self.transport.is_closing()

    def on_response_complete(self) -> None:
        """Note the time, from which on the connection is idle, and go on with the next request."""
        self.idle_since = self.loop.time()
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()
        if self._unparsed and not self.pipeline:
            self.data_received(b"")
            self._flow.resume_reading()

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
        self._trailing = True
        if self.parser.should_upgrade():
            self._body_left = 0  # what follows is no body to the parser
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle

    def on_message_complete(self) -> None:
        """Read on while the request is answered, so that a client that leaves is noticed."""
        super().on_message_complete()
        self._flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """Pass on part of a body, and do not count its framing."""
        self._header_bytes -= _FRAMING * len(body)
        self._body_left -= len(body)
        super().on_body(body)

    def _parse(self, piece: memoryview) -> None:
        """Count the bytes outside of bodies, and refuse too many."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if self._patience is None and (cycle is None or cycle.response_complete):
            self._wait_for_headers()
        self._header_bytes += len(piece)
        super().data_received(piece)  # type: ignore[arg-type]
        self._header_bytes = max(0, self._header_bytes)
        if self._header_bytes > HEADER_BYTES:
            self._give_up(_TOO_LARGE)

    def _make_room(self) -> None:
        """Close idle connections in favour of this one, or this one if there are none."""
        others: list[Connection] = [other for other in self.connections if other is not self and other.idle]  # type: ignore[misc, union-attr]
        if not others:
            self._give_up(_BUSY)
        for other in heapq.nsmallest(max(1, self.most // _MAKES_WAY), others, key=lambda other: other.idle_since):
            other._give_up(_TIMEOUT if other._patience is not None else b"")

    def _wait_for_headers(self) -> None:
        self._patience = self.loop.call_later(HEADER_SECONDS, self._give_up, _TIMEOUT)

    def _headers_ended(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self, answer: bytes) -> None:
        self._headers_ended()
        cycle: RequestResponseCycle | None = self.cycle
        if self.transport.is_closing():
            return
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(answer)
        self.transport.close()
