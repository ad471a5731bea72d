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

    def add(self, asked: int, status: int | str, body: bytes, seconds: float) -> None:
        """Count one answer, or its absence under the error's name."""
        self.statuses[str(status)] += 1
        self.seconds.append(seconds)
        if status == 200 and len(self.seconds) % CHECKED == 0:
            self.answers.append((asked, body))
        if self._report and len(self.seconds) % self._report == 0:
            print(f"at {len(self.seconds)}", flush=True)


class Plan:
    """The order of photos, which all clients share, and when to stop."""

    def __init__(self, prepared: list[bytes], seconds: float, count: int, banks: int = 0) -> None:
        self._prepared = prepared
        self._banks = _drawn(banks) if banks else None
        self.end = time.perf_counter() + seconds
        self.tally = Tally()
        self._left = count
        self._order = _shuffled(len(prepared))

    def next(self) -> tuple[int, bytes] | None:
        """The next request, and the number of its photo, or of its bank if there are several; None at the end."""
        if self._left == 0 or time.perf_counter() >= self.end:
            return None
        self._left -= 1  # negative from the start where there is no limit
        photo = next(self._order)
        if self._banks is None:
            return photo, self._prepared[photo]
        bank = next(self._banks)
        return bank, self._prepared[photo].replace(b" HTTP/1.1", b"?bank=%d HTTP/1.1" % bank, 1)


async def client(port: int, plan: Plan) -> None:
    """One client until the plan is over."""
    connection = await Connection.open(port)
    while (item := plan.next()) is not None:
        asked, request = item
        start = time.perf_counter()
        try:
            if connection.closed:
                connection = await Connection.open(port)
            status, body = await connection.ask(request)
            plan.tally.add(asked, status, body, time.perf_counter() - start)
        except OSError as error:
            plan.tally.add(asked, type(error).__name__, b"", time.perf_counter() - start)
            connection.close()
            await asyncio.sleep(0.05)
    connection.close()


async def drive(options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, then count; the clients stay connected in between."""
    prepared = requests(options.photos, options.path)
    count = options.requests + options.warm_requests if options.requests else -1
    plan = Plan(prepared, options.warm + options.seconds, count, options.banks)
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
        "labels": [(asked, label(body, of_bank=options.banks > 0)) for asked, body in tally.answers],
    }


def label(body: bytes, *, of_bank: bool = False) -> str:
    """The best label of an answer, ours or a peer's; its last word, the bank's number, if there are several banks."""
    answer = json.loads(body)
    predictions = answer["results"][0]["predictions"] if "results" in answer else answer["predictions"]
    best = str(predictions[0]["label"])
    return best.rsplit(maxsplit=1)[-1] if of_bank else best


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


def _drawn(banks: int) -> Iterator[int]:
    """Numbers of banks by Zipf's law, over and over: that of rank r is as likely as 1 / r, the ranks are shuffled."""
    numbers, generator = list(range(banks)), random.Random()
    random.Random(0).shuffle(numbers)
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(banks)))
    while True:
        yield from generator.choices(numbers, cum_weights=weights, k=1000)


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
        banks=(0, "ask for one of so many, named by number, each time another by Zipf's law"),
    )
    if options.requests:
        options.seconds, options.warm = 1e6, 0.0
    print(json.dumps(run(drive(options))))


if __name__ == "__main__":
    main()
