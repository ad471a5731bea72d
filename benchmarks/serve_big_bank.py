"""One change of a served bank of a million classes: how long it takes, and what other clients see meanwhile.

    python -m benchmarks.serve_big_bank [--classes 1000000] [--file FILE]

Serves a bank of random rows for the bundle that ships, adds a class, removes it, and takes that back, one after
another. Meanwhile one client asks for ``/healthz`` every 20 ms and one classifies, with pauses of 0.2 s. Printed are
the seconds of each change and of the server's CPU meanwhile, the median, the 99th percentile and the longest of the
others' answers, the same without a change, the server's memory and the load average; and what writing the file costs
without any server. ``own`` leaves out the time for which the client or the server's event loop could have run, but
other work had the cores; it is what the change itself costs the others, on a machine that is busy too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
from support.servers import serving

from benchmarks.serve_kill import HEADERS, KEY, picture
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import open_bundle
from sar_infer.storage.files import write_atomically

BLOCK = 65_536
IMAGE = {"Content-Type": "image/jpeg"}


def write(file: Path, classes: int) -> None:
    """Write a bank of random unit rows, a block at a time."""
    manifest, random = open_bundle().manifest, np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        rows = np.memmap(Path(folder) / "rows", np.float32, "w+", shape=(classes, manifest.embed_dim))
        for first in range(0, classes, BLOCK):
            shape = (min(BLOCK, classes - first), manifest.embed_dim)
            block = random.standard_normal(shape, dtype=np.float32)
            rows[first : first + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
        names = [f"class {number}" for number in range(classes)]
        ClassBank(names, np.asarray(rows), manifest.encoder_digest).save(file)


class Others:
    """Clients that ask while a change is made by the server, the process ``pid``."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self._loop = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self._stop = threading.Event()
        self.seconds: dict[str, list[float]] = {"healthz": [], "healthz own": [], "classify": []}
        self._threads = [threading.Thread(target=self._health), threading.Thread(target=self._classify)]

    def __enter__(self) -> Others:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def told(self) -> dict[str, float]:
        """Milliseconds: the median, the 99th percentile and the longest answer of each kind."""
        result: dict[str, float] = {}
        for request, seconds in self.seconds.items():
            for name, percentile in (("p50", 50), ("p99", 99), ("max", 100)):
                result[f"{request} {name} ms"] = round(1000 * float(np.percentile(seconds, percentile)))
        return result

    def _health(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=900) as client:
            while not self._stop.wait(0.02):
                waited = core_waits(self._loop)
                seconds = self._timed("healthz", lambda: client.get("/healthz"))
                self.seconds["healthz own"].append(seconds - (core_waits(self._loop) - waited))

    def _classify(self) -> None:
        image = picture()
        with httpx2.Client(base_url=self._url, timeout=900, headers={**HEADERS, **IMAGE}) as client:
            while not self._stop.wait(0.2):
                self._timed("classify", lambda: client.post("/v1/classify", content=image))

    def _timed(self, request: str, call: Callable[[], httpx2.Response]) -> float:
        start = time.perf_counter()
        answer = call()
        seconds = time.perf_counter() - start
        self.seconds[request].append(seconds)
        answer.raise_for_status()
        return seconds


def core_waits(loop: Path) -> float:
    """Seconds that this thread and the event loop's have been ready to run until now, and other work had the cores."""
    return sum(int(file.read_text().split()[1]) for file in (loop, Path("/proc/thread-self/schedstat"))) / 1e9


def plain_write(file: Path) -> None:
    """Copy the file, a piece at a time, and wait for the disk."""
    with file.open("rb") as stream:
        write_atomically(file.with_name("copy"), iter(lambda: stream.read(8 << 20), b""))
    file.with_name("copy").unlink()


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process until now, the system's for it included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load() -> dict[str, float]:
    """The load average of the last minute, this benchmark's own work included."""
    return {"load": round(os.getloadavg()[0], 1)}


def memory(pid: int) -> dict[str, int]:
    """MiB of a process now and at its peak."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    kinds = {"own MiB": "RssAnon", "mapped MiB": "RssFile", "peak MiB": "VmHWM"}
    return {name: round(int(lines[key].split()[0]) / 1024) for name, key in kinds.items()}


def main() -> None:
    """Print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1_000_000)
    parser.add_argument("--file", type=Path, help="keep the bank here, or take it from here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = options.file or Path(folder) / "big.safetensors"
        if not file.exists():
            write(file, options.classes)
        start, cpu = time.perf_counter(), time.process_time()
        plain_write(file)
        written = {"seconds": round(time.perf_counter() - start, 1), "cpu": round(time.process_time() - cpu, 1)}
        print("write      " + "   ".join(f"{name} {value:g}" for name, value in written.items()), flush=True)
        start = time.perf_counter()
        with serving("--bank", str(file), "--deadline", "900", "--no-access-log", key=KEY) as server:
            results: dict[str, dict[str, float]] = {"write": written}
            results["start"] = {"seconds": round(time.perf_counter() - start, 1)}
            with httpx2.Client(base_url=server.url, headers=HEADERS, timeout=900) as client:
                client.post("/v1/classify", content=picture(), headers=IMAGE)
                changes: dict[str, Callable[[], object]] = {
                    "no change": lambda: time.sleep(5),
                    "PUT": lambda: client.put("/v1/classes/latte%20art").raise_for_status(),
                    "DELETE": lambda: client.delete("/v1/classes/latte%20art").raise_for_status(),
                    "rollback": lambda: client.post("/v1/bank/rollback", json={"steps": 1}).raise_for_status(),
                }
                for request, change in changes.items():
                    with Others(server.url, server.process.pid) as others:
                        start, cpu = time.perf_counter(), cpu_seconds(server.process.pid)
                        change()
                        cost = {"seconds": round(time.perf_counter() - start, 1)}
                        cost["cpu"] = round(cpu_seconds(server.process.pid) - cpu, 1)
                    results[request] = {**cost, **others.told(), **memory(server.process.pid), **load()}
                    shown = (f"{name} {value:g}" for name, value in results[request].items())
                    print(f"{request:<10} " + "   ".join(shown), flush=True)
    print(json.dumps({"classes": options.classes, "cores": os.cpu_count(), **results}))


if __name__ == "__main__":
    main()
