"""The uvicorn server, drained on SIGTERM, reloaded on SIGHUP."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Sequence
from types import FrameType

import uvicorn

from sar_infer.encoders.waiting import leave
from sar_infer.server.connection import Connection, most_connections
from sar_infer.server.door import Door
from sar_infer.server.front import build_app
from sar_infer.server.service import Service

_log = logging.getLogger("sar_infer.server")
_KEEP_ALIVE_SECONDS = 30
_GRACE_SECONDS = 3
"""After the drain, for the shutdown itself; then the process is ended, whatever it waits for."""


class Server(uvicorn.Server):
    """A uvicorn server that becomes unready some time before it stops, and reloads the bundle on SIGHUP.

    Args:
        config: The configuration of uvicorn.
        service: The service.
        notice: Seconds between becoming unready and closing the listener.
    """

    def __init__(self, config: uvicorn.Config, service: Service, notice: float) -> None:
        super().__init__(config)
        self._service = service
        self._notice = notice

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, handle SIGHUP from now on, and log the address."""
        (listener,) = sockets or []
        Connection.most = most_connections()
        await super().startup(sockets)
        self._watching = asyncio.ensure_future(self._service.watch())
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        host, port = listener.getsockname()[:2]
        engine, file = self._service.engine, self._service.settings.bank
        source = "" if file is None else f" of {file}" if file.exists() else " of the bundle"
        workers = "worker processes" if engine.sizes.processes else "batches at once in one process"
        sizes = f"{engine.sizes.workers} {workers}, batches of {engine.sizes.max_batch}"
        runs = f"{engine.classifier.choice.precision}, {engine.provider}"
        served = f"{engine.bundle.location} ({len(engine.banks.bank.names)} classes{source}, {runs}, {sizes})"
        shown = f"[{host}]" if ":" in host else host
        _log.info("Serving %s on http://%s:%d - try /ui", served, shown, port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain, then end with exit code 0; a second signal ends the drain."""
        if self._service.draining:
            self.should_exit, self.force_exit = True, sig == signal.SIGINT
            return
        self._service.draining = True
        notice = self._notice if sig == signal.SIGTERM else 0
        drain = self.config.timeout_graceful_shutdown or 0
        if threading.current_thread() is threading.main_thread():
            watchdog = threading.Timer(notice + drain + _GRACE_SECONDS, leave, (1,))
            watchdog.daemon = True
            watchdog.start()
        listening = f", listening for another {notice:g} s" if notice else ""
        text = f"stopping: not ready any more{listening}; requests that have begun are answered"
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(_log.info, text)  # not here: the signal may have come while a line is being written
        # later even without a notice: connections that wait in the backlog are accepted before the listener closes
        loop.call_soon_threadsafe(loop.call_later, notice, setattr, self, "should_exit", True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for requests, then for changes that outlive theirs; both together get the time of the drain."""
        self._watching.cancel()
        end = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        await super().shutdown(sockets)
        if not self.force_exit:
            await self._service.unfinished(end - time.monotonic())

    def _reload(self) -> None:
        task = asyncio.ensure_future(self._service.reload())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # which was logged already


def make_server(service: Service, doors: Sequence[Door] = (), drain: int = 20, notice: float = 0) -> Server:
    """Return a server that has not started; at its end, requests that have begun get ``drain`` seconds."""
    config = uvicorn.Config(
        build_app(service, doors),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain,
    )
    return Server(config, service, notice)


def serve(service: Service, doors: Sequence[Door], listener: socket.socket, drain: int, notice: float) -> None:
    """Serve until a signal stops the server."""
    server = make_server(service, doors, drain, notice)
    gc.collect()
    gc.freeze()  # else looking through all that stays would hold up every request once, 0.13 to 0.36 s (ADR 10)
    server.run(sockets=[listener])
    service.close()
    _log.info("stopped")
