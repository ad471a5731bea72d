"""``kill -9`` of random worker processes of a server under load: every request is answered, and rightly.

    python -m benchmarks.worker_kill [--kills 200] [--seconds 600] [--workers 2] [--clients 4] [--bundle DIR] [--seed 0]

Clients send photos without a pause, half of them one at a time, half of them four in a request. A random worker is
killed after a random time, as soon as all are ready and the requests of the last kill are answered: an image that meets
two kills is taken for their cause. Every answer must come within a minute, have status 200, and give each photo the
scores that the library gives it alone. Ends with status 1 where one does not, where a dead worker is not replaced, or
where no kill met a batch.
"""

from __future__ import annotations

import base64
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from support.servers import Server, serving, workers

from benchmarks.kills import Kills
from sar_infer import Classifier
from sar_infer.bundle.bundle import default_bundle

PHOTOS = Path(__file__).parents[1] / "examples" / "clothes" / "test"
PATIENCE = 60.0
"""Seconds for an answer, and for a worker to be replaced."""
CLOSE = 1e-4
"""Between the score of a photo in a batch, whose order of sums is another, and alone."""
Scores = dict[str, float]


class Load:
    """Clients, and what they met.

    Args:
        url: Of the server.
        bundle: The bundle that it serves.
        clients: How many.

    Attributes:
        faults: What was wrong.
        counts: Answers and photos.
        longest: The longest wait for an answer, in seconds.
    """

    def __init__(self, url: str, bundle: Path, clients: int) -> None:
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.longest = 0.0
        self._url, self._clients = url, clients
        self._stop = threading.Event()
        self._lock = threading.Lock()
        paths = sorted(PHOTOS.glob("*/*.jpg"))[::10]
        self._photos = [path.read_bytes() for path in paths]
        self._expected = [
            {p.label: p.score for p in r.predictions} for r in Classifier.open(bundle, device="cpu").classify(paths)
        ]
        self._pool = ThreadPoolExecutor(clients)
        self._asked = [float("inf")] * clients

    def __enter__(self) -> Load:
        for number in range(self._clients):
            self._pool.submit(self._ask, number)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def answered(self, moment: float) -> bool:
        """Return True if all requests that began before a moment have their answer."""
        return min(self._asked) > moment

    def _ask(self, number: int) -> None:
        chance, size = random.Random(number), 1 if number % 2 else 4
        with httpx2.Client(base_url=self._url, timeout=PATIENCE) as client:
            while not (self._stop.is_set() or self.faults):
                chosen = [chance.randrange(len(self._photos)) for _ in range(size)]
                self._asked[number] = start = time.perf_counter()
                try:
                    answer = client.post("/v1/classify", **self._body(chosen))
                    fault = self._wrong(answer, chosen)
                except Exception as error:  # whatever it is, there was no answer
                    fault = f"no answer: {type(error).__name__}: {error}"
                with self._lock:
                    self.longest = max(self.longest, time.perf_counter() - start)
                    self.counts["answers"] += 1
                    self.counts["photos"] += size
                    self.faults += [fault] * bool(fault)

    def _body(self, chosen: list[int]) -> dict[str, Any]:
        if len(chosen) == 1:
            return {"content": self._photos[chosen[0]], "headers": {"Content-Type": "image/jpeg"}}
        return {"json": {"images": [base64.b64encode(self._photos[n]).decode() for n in chosen]}}

    def _wrong(self, answer: httpx2.Response, chosen: list[int]) -> str:
        """Return what is wrong with an answer, or nothing if it is right."""
        if answer.status_code != 200:
            return f"status {answer.status_code}: {answer.text}"
        for number, result in zip(chosen, answer.json()["results"], strict=True):
            if result["error"] is not None:
                return f"a photo was refused: {result['error']}"
            scores = {p["label"]: p["score"] for p in result["predictions"]}
            expected = self._expected[number]
            if scores.keys() != expected.keys() or any(abs(scores[k] - expected[k]) > CLOSE for k in scores):
                return f"expected {expected}, got {scores}"
        return ""


def over(server: Server, load: Load, victim: int, count: int) -> bool:
    """Wait until all workers are ready and no request that met the kill waits; False after twice the patience."""
    killed = time.perf_counter()
    while (
        victim in workers(server.process.pid)
        or metric(server, "sar_workers") != count
        or not (load.answered(killed) or load.faults)
    ):
        if time.perf_counter() - killed > 2 * PATIENCE:
            return False
        time.sleep(0.02)
    return True


def metric(server: Server, name: str) -> float:
    """The value of a metric; 0 where the server does not tell it."""
    match = re.search(
        rf"^{re.escape(name)} (\S+)$", httpx2.get(f"{server.url}/metrics", timeout=PATIENCE).text, re.MULTILINE
    )
    return float(match[1]) if match else 0.0


def main() -> None:
    """Print a table and JSON."""
    kills = Kills(
        __doc__,
        bundle={"type": Path, "default": default_bundle()},
        workers={"type": int, "default": 2},
        clients={"type": int, "default": 4},
    )
    bundle, count = kills.options.bundle, kills.options.workers
    chance = random.Random(kills.options.seed)
    options = ["--bundle", str(bundle), "--workers", str(count), "--deadline", str(PATIENCE), "--no-access-log"]
    with serving(*options) as server:
        with Load(server.url, bundle, kills.options.clients) as load:
            for seconds in kills.moments(0, 0.5):
                time.sleep(seconds)
                victim = chance.choice(workers(server.process.pid))
                os.kill(victim, signal.SIGKILL)
                if not over(server, load, victim, count):
                    kills.faults.append(f"a worker was not replaced within {2 * PATIENCE:g} s")
                kills.faults += load.faults
        with kills.looking():
            kills.counts["met a batch"] = round(metric(server, 'sar_worker_deaths_total{reason="crash"}'))
    kills.counts += load.counts
    kills.counts["longest wait, ms"] = round(1000 * load.longest)
    kills.faults = load.faults or kills.faults
    if not kills.counts["met a batch"]:
        kills.faults.append("no kill met a batch")
    kills.tell()


if __name__ == "__main__":
    main()
