"""Ask ``GET /healthz`` every 100 ms on a connection of its own until told to stop (SIGTERM); prints JSON.

python -m benchmarks.serving.watch --port 8000
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from typing import Any

from benchmarks import command
from benchmarks.serving.connection import Connection, percentiles

_EVERY = 0.1
_PATIENCE = 10
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def drive(port: int) -> dict[str, Any]:
    """Ask until SIGTERM; one question at a time, so that a slow answer delays the next."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    statuses: Counter[str] = Counter()
    seconds: list[float] = []
    connection = await Connection.open(port)
    print("start", flush=True)
    while not stop.is_set():
        start = time.perf_counter()
        try:
            if connection.closed:
                connection = await Connection.open(port)
            status = str((await asyncio.wait_for(connection.ask(_REQUEST), _PATIENCE)).status)
        except (OSError, TimeoutError) as error:
            status = type(error).__name__
            connection.close()
        statuses[status] += 1
        seconds.append(time.perf_counter() - start)
        await asyncio.sleep(max(0.0, _EVERY - seconds[-1]))
    connection.close()
    return {"statuses": dict(statuses), "latency_ms": percentiles(seconds)}


def main() -> None:
    """Read the command line and print the result."""
    print(json.dumps(asyncio.run(drive(command.options(__doc__, port=int).port))))


if __name__ == "__main__":
    main()
