"""Ten thousand banks behind one encoder, against the same server with one bank; both take turns.

    python -m benchmarks.fleet [--banks 10000] [--fitted 1000] [--clients 32] [--memory 128]

Each bank has ten classes: of ``--fitted`` banks with a class model, of the others by name. Every request asks for
another bank, by Zipf's law. One label in 20 is checked against the bank that was asked for.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.serving import photos, scenarios, servers
from benchmarks.serving.servers import Candidate, Running, ours
from sar_infer import ClassBank, Classifier
from sar_infer.bank.file import FORMAT, VERSION, checksum, encoded
from sar_infer.bank.steps import Log
from sar_infer.storage.tensor_file import file_pieces

CLOTHES = command.ROOT / "examples" / "clothes"
TOGETHER = 10
"""Banks that one image is ranked for."""
_LIMITS = {
    "images a second, of one bank's": (0.95, False),
    "p99, of one bank's": (1.3, True),
    "MiB over one bank's and the limit": (50.0, True),
    "seconds to start, more than one bank": (1.0, True),
    f"seconds for {TOGETHER} banks, of one's": (1.15, True),
}
"""The limit of each figure, and True if it is an upper one."""


def make(folder: Path, classifier: Classifier, count: int, fitted: int) -> None:
    """Write banks named by number; the names of their classes end in it."""
    of_class = {f.name: sorted(f.iterdir()) for part in ("train", "added") for f in (CLOTHES / part).iterdir()}
    kinds = [classifier.create(of_class), classifier.create(classes=sorted(of_class))]
    for number in range(count):
        of_names = number * fitted // count == (number - 1) * fitted // count and number > 0
        write(folder / f"{number}.safetensors", kinds[of_names], number)


def write(path: Path, bank: ClassBank, number: int) -> None:
    """Write a bank with a number behind each name, without waiting for the disk."""
    entries = {key: entry._replace(name=f"{entry.name} {number}") for key, entry in bank.entries.items()}
    tensors: dict[str, Any] = {}
    content = encoded(bank.replaced(log=Log(folded={**entries, **bank.records})), tensors)
    tensors["json"] = np.frombuffer(json.dumps(content).encode(), np.uint8)
    metadata = {"format": FORMAT, "version": str(VERSION), "digest": checksum(tensors)}
    path.write_bytes(b"".join(file_pieces(tensors, metadata)))


def starts(candidates: list[Candidate], bundle: Path, photo: bytes, rounds: int) -> list[float]:
    """Return the median seconds to the first answer of each."""
    seconds: list[list[float]] = [[] for _ in candidates]
    for _ in range(rounds):
        for candidate, own in zip(candidates, seconds, strict=True):
            start = time.perf_counter()
            with servers.started(candidate, bundle, photo):
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in seconds]


def measure(options: argparse.Namespace, root: Path) -> dict[str, float]:
    """Return the figures of `_LIMITS`."""
    bundle, pictures, folder = options.bundle.resolve(), root / "photos", root / "banks"
    command.say(photos.make(pictures, "mixed", command.SHARED_DATA))
    photo = min(pictures.glob("*.jpg")).read_bytes()
    folder.mkdir()
    make(folder, Classifier.open(bundle, "cpu", threads=1), options.banks, options.fitted)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    command.say(f"{options.banks} banks, {size:.0f} MiB")
    alone = ours(["--bank", str(folder / "0.safetensors")])
    fleet = ours(["--banks", str(folder), "--set", f"banks-memory={options.memory}"])
    fleet = dataclasses.replace(fleet, path=f"{fleet.path}?bank=0")
    first, then = starts([alone, fleet], bundle, photo, options.rounds)
    with servers.started(alone, bundle, photo) as one, servers.started(fleet, bundle, photo) as many:
        rates, tails = [], []
        for _ in range(options.rounds):
            single = load(one, pictures, options, ["0"] * 60)
            many.path = one.path
            several = load(many, pictures, options, [str(number) for number in range(options.banks)], options.banks)
            rates.append(several["rate"] / single["rate"])
            tails.append(several["latency_ms"]["p99"] / single["latency_ms"]["p99"])
        more = many.memory()["pss"] - one.memory()["pss"] - options.memory
        seconds = []
        for _ in range(options.rounds):
            rounds = []
            for count in (1, TOGETHER):
                many.path = f"{one.path}?" + "&".join(f"bank={number}" for number in range(count))
                rounds.append(timed(many, photo, options.images))
            seconds.append(rounds[1] / rounds[0])
    values = statistics.median(rates), statistics.median(tails), more, then - first, statistics.median(seconds)
    return dict(zip(_LIMITS, values, strict=True))


def load(
    server: Running, pictures: Path, options: argparse.Namespace, labels: list[str], banks: int = 0
) -> dict[str, Any]:
    """Return what a closed loop measures, and say it; labels are only those of the fleet."""
    result = scenarios.steady(server, pictures, options.clients, options.seconds, 3.0, labels, banks)
    half, tail = (result["latency_ms"][share] for share in ("p50", "p99"))
    cpu, memory = 1000 * result["server_cpu"] / result["images"], result["memory"]["pss"]
    kind = "many banks" if banks else "one bank"
    command.say(
        f"  {kind}: {result['rate']:.1f} images/s, p50 {half:.0f} ms, p99 {tail:.0f} ms, "
        f"{cpu:.1f} CPU ms an image, {memory:.0f} MiB, others {result['others_cpu'] / result['wall']:.0%}"
    )
    if result["errors"] or (banks and result["astray"]):
        sys.exit(f"{result['statuses']}, {result['astray']} of {result['checked']} answers are of another bank")
    return result


def timed(server: Running, photo: bytes, count: int) -> float:
    """Return the median seconds of a lone request."""

    def once() -> None:
        status, body = servers.post(server.port, server.path, photo)
        if status != 200:
            sys.exit(body.decode())

    return command.median_seconds(once, count)


def main() -> None:
    """Measure and print."""
    options = command.options(
        __doc__,
        bundle=command.MINI,
        banks=10_000,
        fitted=1000,
        clients=32,
        seconds=(12.0, "of each measurement"),
        rounds=4,
        images=(100, "lone requests for one bank, and for ten"),
        memory=(128, "MiB for open banks"),
        out=command.RESULTS / "fleet.md",
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no server is left behind
    with tempfile.TemporaryDirectory() as root:
        values = measure(options, Path(root))
    rows, faults = [], []
    for name, value in values.items():
        limit, most = _LIMITS[name]
        rows.append((name, f"{value:.2f}", f"{'at most' if most else 'at least'} {limit:g}"))
        if (value > limit) if most else (value < limit):
            faults.append(f"{name}: {value:.2f}")
    words = f"{options.banks:,} banks, {options.fitted:,} of them fitted, {options.clients} clients"
    command.tell(f"{words}\n\n{command.markdown(('figure', 'measured', 'expected'), rows)}", values, options.out)
    command.end(faults)


if __name__ == "__main__":
    main()
