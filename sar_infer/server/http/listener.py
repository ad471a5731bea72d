"""Accepts connections, but no more than the file descriptors allow.

uvicorn accepts every connection. When that uses up the descriptors, connections are reset, and a request that has to
open a file fails.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from sar_infer.server.http.connection import Connection

_RESERVE = 32
"""Descriptors kept for files, such as a bundle that is loaded or the bank that is written."""
_MOST = 16_384
_PAUSE_SECONDS = 0.002
_BUSY_SECONDS = 0.05


def most_connections() -> int:
    """Return how many connections may be open: the free descriptors of this process less a reserve."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MOST
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST
    return min(_MOST, max(1, limit - _descriptors() - _RESERVE))


def _descriptors() -> int:
    """Return the number of descriptors in use."""
    try:
        return len(list(Path("/dev/fd").iterdir()))
    except OSError:  # a container without it
        return _RESERVE


class Listener:
    """Accepts the connections of one socket on the running event loop, until it is closed.

    When ``most`` are open, the connection that has been idle longest is closed for a new one. Connections with a
    request under way are never closed; if all have one, new connections wait in the kernel's queue.

    Args:
        source: A bound socket that does not listen yet.
        make: Makes the protocol of a new connection.
        connections: The open connections, kept up to date by the caller.
        backlog: Connections that the kernel may hold until they are accepted.
        most: Connections open at once.
    """

    def __init__(
        self, source: socket.socket, make: Callable[[], Connection], connections: Set[Any], backlog: int, most: int
    ) -> None:
        self._make = make
        self._connections: Set[Connection] = connections
        self._most = most
        self._arriving: set[asyncio.Task[Any]] = set()
        source.setblocking(False)
        source.listen(backlog)
        self._task = asyncio.create_task(self._accept(source))

    def close(self) -> None:
        """Stop accepting; the socket itself stays open."""
        self._task.cancel()

    async def _accept(self, source: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room()
            try:
                accepted, _ = await loop.sock_accept(source)
            except OSError:  # the client has disconnected, or the machine is out of descriptors
                await asyncio.sleep(_BUSY_SECONDS)
                continue
            task = asyncio.create_task(loop.connect_accepted_socket(self._make, accepted))
            self._arriving.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        self._arriving.discard(task)
        _ = task.cancelled() or task.exception()  # the client has disconnected

    async def _room(self) -> None:
        while len(self._connections) + len(self._arriving) >= self._most:
            idle = [connection for connection in self._connections if connection.idle]
            if idle:
                min(idle, key=lambda connection: connection.idle_since).make_way()
            await asyncio.sleep(_PAUSE_SECONDS if idle else _BUSY_SECONDS)
