"""Measure what a request costs in the server's front and in its workers, beside mosec: CPU time, interleaved.

    python -m benchmarks.front_cost [--peer-python PYTHON] [--rounds 3] [--requests 400] [--clients 8 32] [--bundle DIR]

CPU milliseconds, user and system, of the process that clients talk to (mosec: its Rust front and the Python that
started it) and of the worker processes; they hardly depend on what else the machine does, as rates do. Beside them the
share of the cores' time in which nothing ran: a worker that waits though there is work. Prints medians.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.serving import bundles, photos, servers

_COLUMNS = ("server, clients", "front, ms", "workers, ms", "all, ms", "cores unused, %")


def spent(server: servers.Running) -> tuple[float, float]:
    """Return the CPU seconds of the front and of the workers so far."""
    front = workers = 0.0
    for process in server.processes():
        seconds = sum(process.cpu_times()[:2])
        if "spawn_main" in " ".join(process.cmdline()):
            workers += seconds
        else:
            front += seconds
    return front, workers


def load(server: servers.Running, folder: Path, clients: int, requests: int) -> dict[str, Any]:
    """Send so many requests and return what the load generator says of them."""
    options = {"port": server.port, "path": server.path, "photos": folder, "clients": clients, "requests": requests}
    arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    generator = [sys.executable, "-m", "benchmarks.serving.load", *arguments]
    printed = subprocess.run(generator, check=True, stdout=subprocess.PIPE, text=True, cwd=command.ROOT).stdout
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def measured(candidate: servers.Candidate, bundle: Path, folder: Path, requests: int, clients: int) -> list[float]:
    """Serve so many requests.

    Returns:
        CPU milliseconds of a request in the front, in the workers, and in all; percent of the cores' time unused.
    """
    with servers.started(candidate, bundle, min(folder.glob("*.jpg")).read_bytes()) as server:
        load(server, folder, clients, max(64, requests // 4))
        before = spent(server)
        result = load(server, folder, clients, requests)
        after = spent(server)
    if result["errors"]:
        sys.exit(f"errors: {result['statuses']}")
    front, workers = (1000 * (end - start) / requests for start, end in zip(before, after, strict=True))
    return [front, workers, front + workers, 100 * result["unused"]]


def main() -> None:
    """Measure ours and mosec in turn, and print them as a table, then as JSON."""
    options = command.options(
        __doc__,
        peer_python=(sys.executable, "interpreter that has mosec"),
        rounds=3,
        requests=400,
        clients=[8, 32],
        bundle=bundles.MINI,
        mix="mixed",
    )
    candidates = [servers.ours([])]
    for peer in servers.peers(options.peer_python):
        if peer.name == "mosec" and peer.environment.get("BATCH") == "1":
            if obstacle := peer.obstacle():
                sys.exit(f"mosec: {obstacle}")
            candidates.append(peer)
    values: dict[str, list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "photos")
        words = photos.make(folder, options.mix, command.SHARED_DATA)
        for number in range(options.rounds):
            for clients in options.clients:
                for candidate in candidates:
                    costs = measured(candidate, options.bundle, folder, options.requests, clients)
                    command.say(f"{number} {clients} {candidate.name}: " + ", ".join(f"{cost:.2f}" for cost in costs))
                    values[f"{candidate.name}, {clients}"].append(costs)
    rows = [
        (name, *(f"{statistics.median(column):.2f}" for column in zip(*costs, strict=True)))
        for name, costs in values.items()
    ]
    print(words)
    command.tell(command.markdown(_COLUMNS, rows), values)


if __name__ == "__main__":
    main()
