"""Thousands of hostile requests against a real ``sar-serve``: what it answers, and what it is like afterwards.

    python -m benchmarks.serving_fuzz [--cases 6000] [--seed 0] [--clients 8] [--workers 0] [--megabytes 64]

Damaged and lying pictures by every protocol, broken HTTP, odd class names, clients that hang up. A first round, every
hostile picture and request that the tests know, warms the server up; then its memory and open files are measured. Ends
with status 1, and says what it found, where an answer was a fault (any 5xx but 503, 504 and 507), had no known form or
never came, where the log has a traceback, the server died or is not ready, open files grew by more than a few, or
memory by more than the megabytes given from the first quarter of the time to the last. The server's class sets may
take 64 MiB. Its allocator is told to give back what is free, so that what is lost shows; set MALLOC_ARENA_MAX and
MALLOC_MMAP_THRESHOLD_ yourself to measure another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from support import hostile, hostile_requests
from support.hostile_requests import Answer, request, talk
from support.servers import Server, serving

from benchmarks import command
from benchmarks.fuzz_cases import case

MIB = 2**20
DOCUMENTED = {503, 504, 507}
MOST_NEW_FILES = 10
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(MIB), "MALLOC_TRIM_THRESHOLD_": str(MIB)}


class Record:
    """Outcomes of the requests."""

    def __init__(self) -> None:
        self.statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.slowest: defaultdict[str, float] = defaultdict(float)
        self.faults: list[str] = []

    def add(self, kind: str, case: object, answer: Answer | None) -> None:
        """One answer; 0 stands for a connection closed without one."""
        self.statuses[kind][answer.status if answer else 0] += 1
        if answer is None:
            return
        self.slowest[kind] = max(self.slowest[kind], answer.seconds)
        if answer.status >= 500 and answer.status not in DOCUMENTED:
            self.faults.append(f"{kind} {case}: {answer.status} {answer.body[:300]!r}")
        if b"Traceback" in answer.body:
            self.faults.append(f"{kind} {case}: a traceback in the answer")
        told = answer.status >= 400 and not answer.headers.get("content-type", "").startswith("text/plain")
        if told and answer.body and not {"code", "error"} & set(json.loads(answer.body)):
            self.faults.append(f"{kind} {case}: an error of no known form: {answer.body[:300]!r}")

    def show(self) -> None:
        """A table by kind."""
        rows = [
            (
                kind,
                counts.total(),
                f"{self.slowest[kind]:.2f}",
                ", ".join(f"{s}: {n}" for s, n in sorted(counts.items())),
            )
            for kind, counts in self.statuses.items()
        ]
        print(command.markdown(("kind", "cases", "slowest, s", "statuses (0: none)"), rows))


class Watch:
    """Memory and open files of a process over time; one sample each quarter of a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.memory: list[float] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.25):
            self.memory.append(self._process.memory_info().rss / MIB)

    def files(self) -> int:
        """Open now."""
        return int(self._process.num_fds())

    def quarters(self) -> list[float]:
        """Median memory of each quarter of the time, in MiB."""
        step = max(1, len(self.memory) // 4)
        return [statistics.median(self.memory[i * step : (i + 1) * step] or [float("nan")]) for i in range(4)]


def warm_up(server: Server, record: Record) -> None:
    """Every hostile picture and request that the tests know."""
    for label, (data, status) in hostile.corpus().items():
        answer = talk(server.port, request(body=data))
        record.add("known picture", label, answer)
        if answer is None or answer.status != status:
            record.faults.append(f"known picture {label}: {answer and answer.status}, expected {status}")
    for label, (data, statuses) in hostile_requests.wire().items():
        answer = talk(server.port, data)
        record.add("known request", label, answer)
        if (answer.status if answer else 0) not in statuses:
            record.faults.append(f"known request {label}: {answer and answer.status}, expected {sorted(statuses)}")


def run(server: Server, record: Record, seed: int, number: int) -> None:
    """One case."""
    kind, data = case(seed, number)
    patience = 0.5 if kind == "damaged HTTP" else 20  # what lacks its end waits for it
    try:
        record.add(kind, number, talk(server.port, data, patience, end=kind == "hangs up"))
    except TimeoutError:
        if kind == "damaged HTTP":
            record.add(kind, number, None)
            return
        record.faults.append(f"{kind} {number}: no answer")
    except Exception as error:  # an answer that cannot be read is a finding
        record.faults.append(f"{kind} {number}: {error!r}")


def attack(server: Server, record: Record, options: argparse.Namespace) -> None:
    """The warm-up and all cases; prints what became of memory and files."""
    start = time.monotonic()
    warm_up(server, record)
    with ThreadPoolExecutor(options.clients) as clients:
        list(clients.map(lambda number: run(server, record, options.seed, -1 - number), range(500)))
        time.sleep(1)
        with Watch(server.process.pid) as watch:
            files = watch.files()
            list(clients.map(lambda number: run(server, record, options.seed, number), range(options.cases)))
    time.sleep(1)
    left, quarters = watch.files(), watch.quarters()
    ready = talk(server.port, request(b"/readyz", method=b"GET"))
    if ready is None or ready.status != 200:
        record.faults.append("not ready afterwards")
    if not quarters[3] - quarters[0] <= options.megabytes:
        record.faults.append("memory grew")
    if left > files + MOST_NEW_FILES:
        record.faults.append("open files grew")
    if "Traceback" in (log := server.log.read_text()):
        record.faults.append("a traceback in the log:\n" + log[log.index("Traceback") :][:3000])
    total = sum(counts.total() for counts in record.statuses.values())
    print(f"{total} cases in {time.monotonic() - start:.0f} s")
    shown = ", ".join(f"{quarter:.0f}" for quarter in quarters)
    print(f"memory in MiB, median of each quarter after the warm-up: {shown}")
    print(f"most memory ever, in MiB: {peak_memory(server.process.pid):.0f}")
    print(f"open files after the warm-up {files}, at the end {left}")


def main() -> None:
    """Attack, and tell."""
    options = command.options(
        __doc__,
        cases=6000,
        seed=0,
        clients=8,
        workers=(0, "of sar-serve; memory is then that of its front"),
        megabytes=(64.0, "from the first quarter to the last"),
    )
    warnings.filterwarnings("ignore", module="PIL")
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
    record = Record()
    print(f"Python {platform.python_version()}, seed {options.seed}, {options.clients} clients")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--bank", f"{folder}/bank.safetensors", "--workers", str(options.workers)]
        with serving(*arguments, key="k") as server:
            attack(server, record, options)
    record.show()
    print(f"{len(record.faults)} faults")
    command.end(record.faults, 50)


def peak_memory(pid: int) -> float:
    """The most that a process has had in memory, in MiB; NaN where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


if __name__ == "__main__":
    main()
