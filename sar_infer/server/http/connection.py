"""uvicorn's HTTP connection, with limits on the time and size of headers.

uvicorn itself waits for headers without end, httptools accepts headers of any size, and both keep the trailers that may
follow a chunked body as if they were headers.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_SECONDS = 10.0
HEADER_BYTES = 64 * 2**10
_FRAMING = 8
"""Bytes of framing allowed for each byte of a body: chunks of one byte need five."""
_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """Closes itself if a request does not begin in time, or if its headers take too long or are too large.

    Attributes:
        idle_since: Time of the loop at which it was opened or its last answer ended.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._trailing = False
        self._cycles: list[RequestResponseCycle] = []
        self.idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell every request of this connection; uvicorn tells the last one only."""
        self._headers_ended()
        for cycle in self._cycles:
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes outside of bodies, and refuse too many."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if self._patience is None and (cycle is None or cycle.response_complete):
            self._wait_for_headers()
        self._header_bytes += len(data)
        super().data_received(data)
        self._header_bytes = max(0, self._header_bytes)
        if self._header_bytes > HEADER_BYTES:
            self._give_up(_TOO_LARGE)

    @property
    def idle(self) -> bool:
        """Tell whether it is open without a request; one whose headers are incomplete does not count as a request."""
        cycle: RequestResponseCycle | None = self.cycle
        return (cycle is None or cycle.response_complete) and not self.transport.is_closing()

    def make_way(self) -> None:
        """Close this idle connection in favour of a new one."""
        self._give_up(_TIMEOUT if self._patience is not None else b"")

    def on_response_complete(self) -> None:
        """Note the time, from which on the connection is idle."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def on_message_begin(self) -> None:
        """Reset the count of header bytes."""
        self._header_bytes = 0
        self._trailing = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but no trailer that follows a body."""
        if not self._trailing:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop waiting; from here on the application reads and counts the body."""
        self._headers_ended()
        self._trailing = True
        super().on_headers_complete()
        self._cycles = [*(cycle for cycle in self._cycles if not cycle.response_complete), self.cycle]

    def on_body(self, body: bytes) -> None:
        """Pass on part of a body, and do not count its framing."""
        self._header_bytes -= _FRAMING * len(body)
        super().on_body(body)

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
