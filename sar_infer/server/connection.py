"""uvicorn's HTTP connection, with limits on the time and size of what comes before a body.

uvicorn itself waits for headers as long as a client likes, and httptools takes headers of any size.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_SECONDS = 10.0
HEADER_BYTES = 64 * 2**10
_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """Closes a connection whose request does not begin, or whose headers do not end, in time or within a size."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._headers_ended()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to headers, and refuse too much of it."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if self._patience is None and (cycle is None or cycle.response_complete):
            self._wait_for_headers()
        super().data_received(data)
        if self._patience is not None:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES:
                self._give_up(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The request has begun; from here on the application counts and waits."""
        self._headers_ended()
        super().on_headers_complete()

    def _wait_for_headers(self) -> None:
        self._header_bytes = 0
        self._patience = self.loop.call_later(HEADER_SECONDS, self._give_up, _TIMEOUT)

    def _headers_ended(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self, answer: bytes) -> None:
        self._headers_ended()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
