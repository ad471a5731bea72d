"""The load generator, closed loop: N keep-alive clients, each sending its next photo when the last was answered.

    python -m benchmarks.serving.load --port 8000 --path /v1/classify --photos DIR --clients 8 --seconds 20

A process of its own. It prints ``start`` when the warm-up is over, ``at N`` after each ``--report`` answers, then JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks import command
from benchmarks.serving.connection import Connection, percentiles, requests

CHECKED = 20
"""Every so many answers the label of one is told, so that the caller can see whose answer it was."""


class Tally:
    """Counts since the warm-up."""

    def __init__(self, report: int = 0) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.answers: list[tuple[int, bytes]] = []
        self._report = report

    def add(self, photo: int, status: int | str, body: bytes, seconds: float) -> None:
        """Count one answer, or its absence under the error's name."""
        self.statuses[str(status)] += 1
        self.seconds.append(seconds)
        if status == 200 and len(self.seconds) % CHECKED == 0:
            self.answers.append((photo, body))
        if self._report and len(self.seconds) % self._report == 0:
            print(f"at {len(self.seconds)}", flush=True)


class Plan:
    """The order of photos, which all clients share, and when to stop."""

    def __init__(self, prepared: list[bytes], seconds: float, count: int) -> None:
        self.prepared = prepared
        self.end = time.perf_counter() + seconds
        self.tally = Tally()
        self._left = count
        self._order = _shuffled(len(prepared))

    def next(self) -> int | None:
        """The photo to send next; None where it is over."""
        if self._left == 0 or time.perf_counter() >= self.end:
            return None
        self._left -= 1  # negative from the start where there is no limit
        return next(self._order)


async def client(port: int, plan: Plan) -> None:
    """One client until the plan is over."""
    connection = await Connection.open(port)
    while (photo := plan.next()) is not None:
        start = time.perf_counter()
        try:
            if connection.closed:
                connection = await Connection.open(port)
            status, body = await connection.ask(plan.prepared[photo])
            plan.tally.add(photo, status, body, time.perf_counter() - start)
        except OSError as error:
            plan.tally.add(photo, type(error).__name__, b"", time.perf_counter() - start)
            connection.close()
            await asyncio.sleep(0.05)
    connection.close()


async def drive(options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, then count; the clients stay connected in between."""
    prepared = requests(options.photos, options.path)
    plan = Plan(
        prepared, options.warm + options.seconds, options.requests + options.warm_requests if options.requests else -1
    )
    tasks = [asyncio.create_task(client(options.port, plan)) for _ in range(options.clients)]
    while len(plan.tally.seconds) < options.warm_requests or time.perf_counter() < plan.end - options.seconds:
        await asyncio.sleep(0.005)
    plan.tally = Tally(options.report)
    print("start", flush=True)
    start, cpu, idle = time.perf_counter(), time.process_time(), psutil.cpu_times().idle
    if options.requests:
        await asyncio.gather(*tasks)
    else:
        await asyncio.sleep(plan.end - start)
    wall, cpu, idle = time.perf_counter() - start, time.process_time() - cpu, psutil.cpu_times().idle - idle
    tally, plan.tally = plan.tally, Tally()
    print("stop", flush=True)
    await asyncio.gather(*tasks)
    good = tally.statuses["200"]
    return {
        "clients": options.clients,
        "wall": wall,
        "client_cpu": cpu,
        "unused": idle / wall / (psutil.cpu_count() or 1),
        "images": good,
        "errors": sum(tally.statuses.values()) - good,
        "statuses": dict(tally.statuses),
        "latency_ms": percentiles(tally.seconds),
        "labels": [(photo, label(body)) for photo, body in tally.answers],
    }


def label(body: bytes) -> str:
    """The best label of an answer, ours or a peer's."""
    answer = json.loads(body)
    predictions = answer["results"][0]["predictions"] if "results" in answer else answer["predictions"]
    return str(predictions[0]["label"])


def run(coroutine: Any) -> Any:
    """``asyncio.run``, on uvloop where it is installed."""
    gc.disable()
    try:
        import uvloop
    except ImportError:
        return asyncio.run(coroutine)
    return uvloop.run(coroutine)


def _shuffled(count: int) -> Iterator[int]:
    """Photos in a fixed random order, over and over."""
    order = list(range(count))
    random.Random(0).shuffle(order)
    return itertools.cycle(order)


def main() -> None:
    """Read the command line and print the result."""
    options = command.options(
        __doc__,
        port=int,
        path="/v1/classify",
        photos=Path,
        clients=8,
        seconds=20.0,
        warm=3.0,
        requests=(0, "stop after so many in place of --seconds"),
        warm_requests=0,
        report=0,
    )
    if options.requests:
        options.seconds, options.warm = 1e6, 0.0
    print(json.dumps(run(drive(options))))


if __name__ == "__main__":
    main()
