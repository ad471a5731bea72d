"""The servers under test: how each is started and set, what it costs, how it is stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 180


class NotStartedError(Exception):
    """A server did not come up."""


@dataclass(frozen=True)
class Candidate:
    """One server in one setting.

    Attributes:
        name: Ours, or the peer's.
        setting: In words, for the table.
        command: Without the port.
        path: Where it takes photos.
        needs: Module that its interpreter must have.
        environment: Settings of a peer, handed over as ``BENCH_…``.
    """

    name: str
    setting: str
    command: tuple[str, ...]
    path: str
    needs: str
    environment: dict[str, str] = field(default_factory=dict)

    def obstacle(self) -> str | None:
        """Why it cannot be measured here; None where it can."""
        command = [self.command[0], "-c", f"import {self.needs}"]
        probe = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        return None if probe.returncode == 0 else (probe.stderr.strip().splitlines() or ["no reason options"])[-1]


def ours(arguments: list[str]) -> Candidate:
    """`sar-serve`, with more arguments if any; the bundle is handed over when it starts."""
    command = (sys.executable, "-m", "sar_infer.cli.serve", *arguments)
    return Candidate("sar-serve", " ".join(arguments) or "defaults", command, "/v1/classify", "sar_infer.cli.serve")


def peers(python: str) -> list[Candidate]:
    """LitServe and mosec, each in the settings that may be best on few cores."""
    litserve = [
        ("1 worker × all cores, batch 16, 5 ms", {"WORKERS": "1", "THREADS": "0", "BATCH": "16"}),
        ("2 workers × 1 thread, batch 8, 5 ms", {"WORKERS": "2", "THREADS": "1", "BATCH": "8"}),
        ("2 workers × 1 thread, no batching", {"WORKERS": "2", "THREADS": "1", "BATCH": "1"}),
        ("2 workers × 1 thread, batch 8, 5 ms, ZeroMQ", {"WORKERS": "2", "THREADS": "1", "FAST_QUEUE": "1"}),
    ]
    mosec = [
        ("2 decoders, 1 encoder × all cores, batch 16, 5 ms", {"STAGES": "2", "THREADS": "0", "BATCH": "16"}),
        ("2 workers × 1 thread, batch 8, 5 ms", {"THREADS": "1", "BATCH": "8"}),
        ("2 workers × 1 thread, no batching", {"THREADS": "1", "BATCH": "1"}),
    ]
    module = "benchmarks.serving.peers"
    return [
        Candidate("LitServe", words, (python, "-m", f"{module}.litserve_app"), "/predict", "litserve", environment)
        for words, environment in litserve
    ] + [
        Candidate(
            "mosec",
            words,
            (python, "-m", f"{module}.mosec_app", "--address", "127.0.0.1", "--timeout", "60000"),
            "/inference",
            "mosec",
            environment,
        )
        for words, environment in mosec
    ]


class Running:
    """A started server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, path: str) -> None:
        self.port = port
        self.path = path
        self._process = psutil.Process(process.pid)

    def cpu(self) -> float:
        """CPU seconds so far, of all its processes."""
        return sum(sum(p.cpu_times()[:2]) for p in self.processes())

    def memory(self) -> dict[str, float]:
        """MiB of all its processes: ``rss``, which counts shared pages in each, and ``pss``, which shares them out."""
        full = [p.memory_full_info() for p in self.processes()]
        return {"rss": sum(m.rss for m in full) / 2**20, "pss": sum(m.pss for m in full) / 2**20}

    def anonymous(self) -> float:
        """MiB of all its processes that no file backs; what they share is counted once."""
        rollups = [Path(f"/proc/{p.pid}/smaps_rollup").read_text() for p in self.processes()]
        return sum(int(text.split("Pss_Anon:")[1].split()[0]) for text in rollups) / 2**10

    def processes(self) -> list[psutil.Process]:
        """Return all its processes."""
        return [self._process, *self._process.children(recursive=True)]


@contextlib.contextmanager
def started(candidate: Candidate, bundle: Path, photo: bytes) -> Iterator[Running]:
    """Start it, wait until it classifies a photo, stop it with its children.

    Raises:
        NotStartedError: it never classified one; what it printed is on stderr.
    """
    port = _free_port()
    command = [*candidate.command, "--port", str(port)]
    if candidate.name == "sar-serve":
        command += ["--bundle", str(bundle)]
    handed = {f"BENCH_{key}": value for key, value in candidate.environment.items()}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "BENCH_BUNDLE": str(bundle.resolve())} | handed
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(process, port, candidate.path, photo)
            yield Running(process, port, candidate.path)
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-3000:], file=sys.stderr)
            raise
        finally:
            _stop(process)


def post(port: int, path: str, photo: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, photo, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _wait(process: subprocess.Popen[bytes], port: int, path: str, photo: bytes) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if post(port, path, photo)[0] == 200:
                return
        time.sleep(0.02)
    raise NotStartedError(f"it did not come up (exit status {process.poll()})")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
