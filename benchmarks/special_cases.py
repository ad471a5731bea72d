"""Measure each special case of the server: CPU time of an image and memory, with it and without it, interleaved.

    python -m benchmarks.special_cases [--cases NAME...] [--rounds 3] [--requests 600] [--clients 8 32] [--bundle DIR]

Each case is taken away by a line of Python that runs first in the server and in each of its worker processes, or by
options. CPU seconds are those of all its processes, user and system, for so many requests, so that they hardly depend
on what else the machine does; the rate does. Memory is their PSS at the end; the part of it that is
anonymous does not depend on who else has the same libraries open. Prints medians.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.serving import bundles, photos, servers

AS_IT_IS = "as it is"
_ELSEWHERE = """import sys
COMMAND = " ".join(sys.orig_argv)
FRONT = "multiprocessing" not in COMMAND
if "resource_tracker" not in COMMAND:
    exec({!r})
"""
_PROTOCOL = """
if FRONT:
    from sar_infer.server import run
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    HttpToolsProtocol.idle = False
    run.Connection = HttpToolsProtocol
"""
_ONE = """
if FRONT:
    from sar_infer.server.model import engine
    engine.HANDED = 0
"""
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    AS_IT_IS: ("", ()),
    "again": ("", ()),
    "nothing given back": ("from sar_infer.encoders import sessions; sessions.give_back_memory = lambda: None", ()),
    "uvicorn's protocol": (_PROTOCOL, ()),
    "one image handed over at a time": (_ONE, ()),
    "no second encoder": ("", ("--threads", "1")),
    "one process": ("", ("--workers", "0")),
}


def measured(
    case: tuple[str, tuple[str, ...]], bundle: Path, folder: Path, requests: int, clients: int
) -> dict[str, float]:
    """Serve so many requests; return CPU milliseconds of an image, images a second, MiB, and seconds of the start."""
    patch, arguments = case
    photo = min(folder.glob("*.jpg")).read_bytes()
    with tempfile.TemporaryDirectory() as site:
        Path(site, "sitecustomize.py").write_text(_ELSEWHERE.format(patch), "utf-8")
        candidate = servers.ours(list(arguments))
        candidate = dataclasses.replace(
            candidate, command=("env", f"PYTHONPATH={site}:{command.ROOT}", *candidate.command)
        )
        begun = time.monotonic()
        with servers.started(candidate, bundle, photo) as server:
            start = time.monotonic() - begun
            load(server, folder, clients, max(64, requests // 4))
            cpu = server.cpu()
            result = load(server, folder, clients, requests)
            cpu = server.cpu() - cpu
            memory, anonymous = server.memory()["pss"], server.anonymous()
    if result["errors"]:
        sys.exit(f"errors: {result['statuses']}")
    return {
        "cpu_ms": 1000 * cpu / result["images"],
        "rate": result["images"] / result["wall"],
        "pss_mib": memory,
        "anonymous_mib": anonymous,
        "start": start,
    }


def load(server: servers.Running, folder: Path, clients: int, requests: int) -> dict[str, Any]:
    """Send so many requests and return what the load generator says of them."""
    options = {"port": server.port, "photos": folder, "clients": clients, "requests": requests}
    arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    generator = [sys.executable, "-m", "benchmarks.serving.load", *arguments]
    printed = subprocess.run(generator, check=True, stdout=subprocess.PIPE, text=True, cwd=command.ROOT).stdout
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def main() -> None:
    """Measure all cases and print them as a table, then as JSON."""
    options = command.options(
        __doc__, cases=[*CASES], rounds=3, requests=600, clients=[8, 32], bundle=bundles.MINI, mix="mixed"
    )
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "photos")
        words = photos.make(folder, options.mix, command.SHARED_DATA)
        for number in range(options.rounds):
            for clients in options.clients:
                for name in options.cases:
                    found = measured(CASES[name], options.bundle, folder, options.requests, clients)
                    command.say(f"{number} {clients} {name}: " + json.dumps(found))
                    for key, value in found.items():
                        values[f"{name}, {clients}"][key].append(value)
    medians = {name: {key: statistics.median(column) for key, column in row.items()} for name, row in values.items()}
    heads = ("case, clients", "CPU ms an image", "images/s", "PSS MiB", "of that anonymous", "start s")
    rows = [(name, *(f"{value:.2f}" for value in row.values())) for name, row in medians.items()]
    print(words)
    command.tell(command.markdown(heads, rows), {name: dict(row) for name, row in values.items()})


if __name__ == "__main__":
    main()
