"""Scenarios for a started server: steady load, and many requests while its memory is watched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.serving.servers import ROOT, Running

_REPORT = 1000
_CLIENTS = 8


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
