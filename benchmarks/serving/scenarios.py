"""Scenarios for a started server: steady load, many requests while its memory is watched, too many requests."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.serving.servers import ROOT, Running, post

_REPORT = 1000
_CLIENTS = 8
_OVERLOAD = 10
"""A flood asks for so many times the capacity."""
_NORMAL = 2.0
"""A lone request is normal again when it takes at most so many times its median before the flood."""


def steady(
    server: Running, photos: Path, clients: int, seconds: float, warm: float, labels: list[str], banks: int = 0
) -> dict[str, Any]:
    """Closed loop; adds the server's and all others' CPU seconds in the same window, and answers that went astray."""
    arguments = ["--clients", str(clients), "--seconds", str(seconds), "--warm", str(warm), "--banks", str(banks)]
    marks = []
    for line in _lines("load", server, photos, arguments):
        if line in ("start", "stop"):
            marks.append((server.cpu(), _busy()))
    result: dict[str, Any] = json.loads(line)
    (server_start, busy_start), (server_stop, busy_stop) = marks
    result["server_cpu"] = server_stop - server_start
    result["others_cpu"] = busy_stop - busy_start - result["server_cpu"] - result["client_cpu"]
    result["memory"] = server.memory()
    answers = result.pop("labels")
    result["checked"], result["astray"] = len(answers), sum(labels[asked] != label for asked, label in answers)
    result["rate"] = result["images"] / result["wall"]
    result["rate_without_client"] = result["images"] / (result["wall"] - result["client_cpu"] / psutil.cpu_count())
    return result


def memory(server: Running, photos: Path, count: int) -> dict[str, Any]:
    """MiB of the server after every thousand of ``count`` requests, and its slope once a fifth of them is over."""
    at, rss = [0], [server.memory()["rss"]]
    for line in _lines(
        "load", server, photos, ["--clients", str(_CLIENTS), "--requests", str(count), "--report", "1000"]
    ):
        if line.startswith("at "):
            at.append(int(line.split()[1]))
            rss.append(server.memory()["rss"])
    result = json.loads(line)
    settled = [index for index, done in enumerate(at) if done >= count / 5]
    slope = np.polyfit([at[index] for index in settled], [rss[index] for index in settled], 1)[0] * _REPORT
    return {
        "requests": count,
        "clients": _CLIENTS,
        "rss": rss,
        "first": rss[0],
        "settled": rss[settled[0]],
        "last": rss[-1],
        "slope_mib_per_1000": float(slope),
        "statuses": result["statuses"],
        "errors": result["errors"],
    }


def overload(server: Running, photos: Path, seconds: float, labels: list[str]) -> dict[str, Any]:
    """Ten times the capacity for ``seconds``, with ``/healthz`` watched, then how soon a lone request is normal."""
    photo = min(photos.glob("*.jpg")).read_bytes()
    alone = statistics.median(_timed(server, photo) for _ in range(30))
    capacity = steady(server, photos, 32, min(10.0, seconds), 2.0, labels)["rate"]
    before = server.memory()
    command = [sys.executable, "-m", "benchmarks.serving.watch", "--port", str(server.port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watch:
        arguments = ["--rate", str(_OVERLOAD * capacity), "--seconds", str(seconds)]
        recovery = float("nan")
        for line in _lines("flood", server, photos, arguments):
            if line == "stop":
                recovery = _recovery(server, photo, _NORMAL * alone)
        flood = json.loads(line)
        watch.send_signal(signal.SIGTERM)
        health = json.loads(watch.communicate(timeout=30)[0].splitlines()[-1])
    return {
        "capacity": capacity,
        "times": _OVERLOAD,
        "flood": flood,
        "healthz": health,
        "alone_ms": 1000 * alone,
        "recovery_ms": 1000 * recovery,
        "alone_after_ms": 1000 * statistics.median(_timed(server, photo) for _ in range(30)),
        "memory_before": before,
        "memory_after": server.memory(),
    }


def _recovery(server: Running, photo: bytes, normal: float) -> float:
    """Seconds until the end of the first lone request that is answered in ``normal`` seconds; at most a minute."""
    start = time.perf_counter()
    while time.perf_counter() - start < 60:
        if _timed(server, photo) <= normal:
            return time.perf_counter() - start
        time.sleep(0.01)
    return float("inf")


def _timed(server: Running, photo: bytes) -> float:
    """Seconds of one request; infinite where it is refused."""
    start = time.perf_counter()
    try:
        status, _ = post(server.port, server.path, photo)
    except OSError:
        return float("inf")
    return time.perf_counter() - start if status == 200 else float("inf")


def _lines(program: str, server: Running, photos: Path, arguments: list[str]) -> Iterator[str]:
    """Yield the lines that a load generator prints."""
    command = [sys.executable, "-m", f"benchmarks.serving.{program}", "--port", str(server.port), "--path", server.path]
    command += ["--photos", str(photos), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            yield line.strip()
    if process.returncode:
        raise SystemExit(f"{program} failed with status {process.returncode}")


def _busy() -> float:
    """CPU seconds that the whole machine has spent."""
    times = psutil.cpu_times()
    return float(sum(times[:3]) + sum(getattr(times, name, 0.0) for name in ("irq", "softirq", "steal")))
