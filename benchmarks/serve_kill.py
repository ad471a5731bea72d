"""``kill -9`` at random moments of a server that adds classes while it is read: its bank is the old one or the new one.

    python -m benchmarks.serve_kill [--kills 200] [--seconds 600] [--bundle DIR] [--seed 0]

Each round starts ``sar-serve`` on the same bank file, adds numbered names one after another while two readers list
and classify, and kills it after a random time, up to twice what a start and a first change take. Then the bank
file must load, hold exactly the first k added names, k being the number confirmed or one more, and no reader may have
seen anything but the first n. Ends with status 1 where any of this does not hold, or where no server lived long enough
to change anything.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
from PIL import Image
from support.servers import serving

from benchmarks.kills import Kills
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import default_bundle
from sar_infer.bundle.manifest import BANK

KEY = "a key"
HEADERS = {"Authorization": f"Bearer {KEY}"}


def picture() -> bytes:
    """Return a small JPEG."""
    stream = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


class Round:
    """One life of the server."""

    def __init__(self, bundle: Path, file: Path, stored: int) -> None:
        self.confirmed = stored
        self.faults: list[str] = []
        self.reads = 0
        self._bundle, self._file = bundle, file
        self._picture = picture()
        self._base = len(ClassBank.load(bundle / BANK).names)

    def live(self, seconds: float) -> None:
        """Start, read and write, and be killed after some seconds, from the start on."""
        command = [sys.executable, "-m", "sar_infer.cli.serve", "--bundle", str(self._bundle), "--port", "0"]
        command += ["--bank", str(self._file), "--no-access-log"]
        environment = {**os.environ, "SAR_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            timer = threading.Timer(seconds, process.send_signal, [signal.SIGKILL])
            timer.start()
            line = process.stderr.readline() if process.stderr else ""
            if address := re.search(r"on (http://\S+)", line):
                threads = [threading.Thread(target=work, args=(address[1],)) for work in (self._write, self._read)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            elif line:
                self.faults.append(f"does not start: {line.strip()}")
            timer.join()

    def _write(self, url: str) -> None:
        with httpx2.Client(base_url=url, headers=HEADERS) as client:
            try:
                while True:
                    answer = client.put(f"/v1/classes/{added(self.confirmed)}")
                    if answer.status_code not in (200, 201):
                        self.faults.append(f"PUT answers {answer.status_code}: {answer.text}")
                        return
                    self.confirmed += 1
            except httpx2.TransportError:
                return

    def _read(self, url: str) -> None:
        with httpx2.Client(base_url=url, headers=HEADERS) as client:
            try:
                while True:
                    last = client.get("/v1/classes", params={"offset": self._base, "limit": 1000}).json()
                    names = [entry["name"] for entry in last["classes"]]
                    if names != [added(number) for number in range(len(names))]:
                        self.faults.append(f"a reader saw {names[:3]}…")
                    answer = client.post("/v1/classify", content=self._picture, headers={"Content-Type": "image/jpeg"})
                    if answer.status_code != 200:
                        self.faults.append(f"classify answers {answer.status_code}")
                    self.reads += 1
            except httpx2.TransportError:
                return


def added(number: int) -> str:
    """Return the name of a class that is added, in turn."""
    return f"added {number:06}"


def stored_bank(file: Path, base: ClassBank) -> ClassBank:
    """Return the bank in the file; before the first class was added there is none, and the base stands."""
    return ClassBank.load(file, base=base) if file.exists() else base


def not_the_first(bank: ClassBank, base: ClassBank, confirmed: int) -> Iterator[str]:
    """Yield the faults of a bank, which should have the base's classes and of those added the first k, in order.

    k is ``confirmed`` or one more, stored before it could be confirmed.
    """
    count = len(bank.names) - len(base.names)
    if tuple(bank.names) != (*base.names, *map(added, range(count))):
        yield f"names are not the first {count}"
    if not confirmed <= count <= confirmed + 1:
        yield f"{confirmed} were confirmed, {count} are stored"


def main() -> None:
    """Print a table and JSON."""
    kills = Kills(__doc__, bundle=default_bundle())
    base, stored = ClassBank.load(kills.options.bundle / BANK), 0
    with tempfile.TemporaryDirectory() as folder:
        span = timed_put(kills.options.bundle, Path(folder) / "trial.safetensors")
        for seconds in kills.moments(span / 10, 2 * span):
            file = Path(folder) / "bank.safetensors"
            life = Round(kills.options.bundle, file, stored)
            life.live(seconds)
            kills.counts["killed before it answered"] += not life.reads
            kills.counts["puts confirmed"] += life.confirmed - stored
            kills.counts["reads meanwhile"] += life.reads
            kills.faults += life.faults
            with kills.looking():
                bank = stored_bank(file, base)
                kills.faults += not_the_first(bank, base, life.confirmed)
                stored = len(bank.names) - len(base.names)
                kills.counts["stored, killed before it was confirmed"] += stored == life.confirmed + 1
    if not kills.counts["puts confirmed"]:
        kills.faults.append("every server was killed before it changed anything")
    kills.tell()


def timed_put(bundle: Path, file: Path) -> float:
    """Return the seconds that starting a server and adding one class take here."""
    start = time.perf_counter()
    with serving("--bundle", str(bundle), "--bank", str(file), "--no-access-log", key=KEY) as server:
        httpx2.put(f"{server.url}/v1/classes/trial", headers=HEADERS, timeout=60).raise_for_status()
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
