"""``kill -9`` at random moments of a server that adds classes while it is read: its bank is the old one or the new one.

    python benchmarks/serve_kill.py [--kills 200] [--bundle DIR] [--seed 0]

Each round starts ``sar-serve`` on the same state folder, adds numbered names one after another while two readers list
and classify, and kills it after a random time, its start included. Then the bank file must load, hold exactly the
first k added names, k being the number confirmed or one more, and no reader may have seen anything but the first n.
Ends with status 1 where any of this does not hold.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx2
from PIL import Image

from sar_infer.bank import ClassBank
from sar_infer.bundle import default_bundle

KEY = "a key"
HEADERS = {"Authorization": f"Bearer {KEY}"}


def added(number: int) -> str:
    """What is added, in turn."""
    return f"added {number:06}"


def picture() -> bytes:
    """A small JPEG."""
    stream = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


class Round:
    """One life of the server."""

    def __init__(self, bundle: Path, state: Path, stored: int) -> None:
        self.confirmed = stored
        self.faults: list[str] = []
        self.reads = 0
        self._bundle, self._state = bundle, state
        self._picture = picture()
        self._base = len(ClassBank.load(bundle / "bank.safetensors").names)

    def live(self, seconds: float) -> None:
        """Start, read and write, and be killed after some seconds, from the start on."""
        command = [sys.executable, "-m", "sar_infer.server.cli", "--bundle", str(self._bundle), "--port", "0"]
        command += ["--state", str(self._state), "--no-access-log"]
        environment = {**os.environ, "SAR_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            timer = threading.Timer(seconds, process.send_signal, [signal.SIGKILL])
            timer.start()
            line = process.stderr.readline() if process.stderr else ""
            if found := re.search(r"on (http://\S+)", line):
                threads = [threading.Thread(target=work, args=(found[1],)) for work in (self._write, self._read)]
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


def check(bundle: Path, state: Path, confirmed: int) -> tuple[int, list[str]]:
    """How many names are stored, and what is wrong."""
    base = ClassBank.load(bundle / "bank.safetensors")
    file = state / "bank.safetensors"
    try:
        bank = ClassBank.load(file, base.encoder_digest) if file.exists() else base
    except Exception as error:
        return 0, [f"{type(error).__name__}: {error}"]
    count = len(bank.names) - len(base.names)
    faults = []
    if bank.names != (*base.names, *map(added, range(count))):
        faults.append(f"names are not the first {count}")
    if not confirmed <= count <= confirmed + 1:
        faults.append(f"{confirmed} were confirmed, {count} are stored")
    return count, faults


def main() -> None:
    """Print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    stored = reads = unconfirmed = before = 0
    faults: list[str] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.kills):
            life = Round(given.bundle, Path(folder), stored)
            life.live(chance.uniform(0.2, 2.0))
            count, wrong = check(given.bundle, Path(folder), life.confirmed)
            before += not life.reads
            unconfirmed += count == life.confirmed + 1
            reads += life.reads
            faults += [f"round {number}: {text}" for text in [*life.faults, *wrong]]
            stored = count
            if faults:
                break
    table = {
        "kills": number + 1,
        "killed before it answered": before,
        "stored, killed before it was confirmed": unconfirmed,
        "puts confirmed": stored - unconfirmed,
        "reads meanwhile": reads,
        "broken or lost": len(faults),
    }
    for what, value in table.items():
        print(f"{what:<42} {value:>6}")
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps({"kills": given.kills, "seed": given.seed, **table, "faults": faults, "seconds": seconds}))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
