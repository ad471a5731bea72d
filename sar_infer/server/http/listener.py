"""Accepting connections, never more than there are file descriptors for.

uvicorn accepts whatever comes. Once the descriptors are used up that way, connections are reset, and a request that has
to open a file fails.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from sar_infer.server.http.connection import Connection

_RESERVE = 32
"""Descriptors kept for files: a bundle that is loaded, the bank that is written."""
_MOST = 16_384
_PAUSE_SECONDS = 0.002
_BUSY_SECONDS = 0.05


def most_connections() -> int:
    """Return how many connections may be open: what the descriptors of this process leave, with a reserve."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MOST
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST
    return min(_MOST, max(1, limit - _descriptors() - _RESERVE))


def _descriptors() -> int:
    """Return how many are in use now."""
    try:
        return len(list(Path("/dev/fd").iterdir()))
    except OSError:  # a container without it
        return _RESERVE


class Listener:
    """Accepts the connections of one socket, from the running event loop, until it is closed.

    Where ``most`` are open, the one that has been idle longest makes way for a new one. One with a request under way
    never does; where all have one, new connections wait in the kernel's queue.

    Args:
        source: Bound, and not listening yet.
        make: Makes the protocol of a new connection.
        connections: Those that are open now.
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
        """Accept no more; the socket itself stays open."""
        self._task.cancel()

    async def _accept(self, source: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room()
            try:
                accepted, _ = await loop.sock_accept(source)
            except OSError:  # the client has gone already, or the whole machine is out of descriptors
                await asyncio.sleep(_BUSY_SECONDS)
                continue
            task = asyncio.create_task(loop.connect_accepted_socket(self._make, accepted))
            self._arriving.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        self._arriving.discard(task)
        _ = task.cancelled() or task.exception()  # has gone already

    async def _room(self) -> None:
        while len(self._connections) + len(self._arriving) >= self._most:
            idle = [connection for connection in self._connections if connection.idle]
            if idle:
                min(idle, key=lambda connection: connection.idle_since).make_way()
            await asyncio.sleep(_PAUSE_SECONDS if idle else _BUSY_SECONDS)
