"""The load generator, open loop: requests arrive at a fixed rate, whatever the server does with them.

    python -m benchmarks.serving.flood --port 8000 --photos DIR --rate 1000 --seconds 60

An arrival takes an idle keep-alive connection or opens one, up to ``--connections``; where all are busy it is counted
as not sent, as a proxy with a bound would refuse it. Prints ``stop`` when the last one has arrived, then JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.serving.connection import Connection, percentiles, requests
from benchmarks.serving.load import run

_TICK = 0.002
_PATIENCE = 60


class Flood:
    """Connections, and what came over them."""

    def __init__(self, port: int, connections: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.unsent = 0
        self.opened = 0
        self._port = port
        self._free = connections
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def arrive(self, request: bytes) -> None:
        """Send one, if a connection can be had."""
        if not self._idle and not self._free:
            self.unsent += 1
            return
        connection = self._idle.pop() if self._idle else None
        self._free -= connection is None
        task = asyncio.create_task(self._send(connection, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the answers that are still due."""
        await asyncio.gather(*self._tasks)

    async def _send(self, connection: Connection | None, request: bytes) -> None:
        start = time.perf_counter()
        try:
            if connection is None or connection.closed:
                self.opened += 1
                connection = await Connection.open(self._port)
            status = str((await asyncio.wait_for(connection.ask(request), _PATIENCE)).status)
        except (OSError, TimeoutError) as error:
            status = type(error).__name__
            if connection is not None:
                connection.close()
        self.statuses[status] += 1
        self.seconds[status].append(time.perf_counter() - start)
        if connection is None or connection.closed:
            self._free += 1
        else:
            self._idle.append(connection)


async def drive(options: argparse.Namespace) -> dict[str, Any]:
    """Let requests arrive for some seconds, then wait for the last answers."""
    prepared = requests(options.photos, options.path)
    flood, offered = Flood(options.port, options.connections), 0
    start, cpu = time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - start) < options.seconds:
        for number in range(offered, int(passed * options.rate)):
            flood.arrive(prepared[number % len(prepared)])
            offered = number + 1
        await asyncio.sleep(_TICK)
    print("stop", flush=True)
    cpu = time.process_time() - cpu
    await flood.finish()
    return {
        "rate": options.rate,
        "seconds": options.seconds,
        "offered": offered,
        "unsent": flood.unsent,
        "connections_opened": flood.opened,
        "statuses": dict(flood.statuses),
        "latency_ms": {status: percentiles(seconds) for status, seconds in flood.seconds.items()},
        "client_cpu": cpu,
    }


def main() -> None:
    """Read the command line and print the result."""
    options = command.options(
        __doc__,
        port=int,
        path="/v1/classify",
        photos=Path,
        rate=(float, "requests per second"),
        seconds=60.0,
        connections=256,
    )
    print(json.dumps(run(drive(options))))


if __name__ == "__main__":
    main()
