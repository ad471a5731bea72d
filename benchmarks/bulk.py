"""Bulk runs of ``sar-classify``: rates from file to row, exactness under ``kill -9``, and what 100 million images cost.

    python -m benchmarks.bulk [--bundle DIR DIR] [--photos FOLDER] [--images 2000] [--out benchmarks/results/bulk.json]
    python -m benchmarks.bulk --kills 30
    python -m benchmarks.bulk --value 1024
    python -m benchmarks.bulk --cost benchmarks/results/bulk.json [--core-hour-price 0.04] [--gpu-hour-price 3.0]

Rates are of whole processes, their start included, over a list that names the photos again and again, and over the same
photos as tar shards and Parquet files; milliseconds an image are CPU time of one thread. Prices are examples: put in
yours. Nothing here ran on a GPU: its rate is reckoned from the network's operations and the chip's published peak, at
an assumed share.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks import command

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMAND = [sys.executable, "-m", "sar_infer.cli.classify"]
OPERATIONS = {"ViT-B-32": 8.8e9, "ViT-B-16": 35.1e9}
"""Floating-point operations of the image tower, two a multiply-add, by open_clip's model profiles. Not of sar-mini:
memory bounds its depthwise convolutions, not operations."""
H100_PEAK = 989e12
"""Dense float16 operations a second of an H100 SXM, from NVIDIA's data sheet."""

WATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:])
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Run a command and print seconds and the KiB of its largest process; this one's own would count as a child's too."""


def run(*arguments: str | Path) -> dict[str, Any]:
    """Return the summary of a run into a new folder."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        done = subprocess.run(
            [*COMMAND, *map(str, arguments), "--out", str(out)], capture_output=True, text=True, check=False
        )
        if done.returncode > 1:
            sys.exit(done.stderr)
        summary: dict[str, Any] = json.loads((out / "_SUCCESS.json").read_text())["summary"]
        return summary


def milliseconds(bundle: Path, precision: Any, paths: list[Path]) -> dict[str, float]:
    """Return the CPU time of one thread an image: file to the encoder's input, encoder, ranking."""
    from sar_infer import Classifier
    from sar_infer.images.prefetch import decode_image

    classifier = Classifier.open(bundle, threads=1, precision=precision)
    classifier.start()
    decide, seconds = classifier.decide(classifier.class_set(), 5), {}
    start = time.process_time()
    pixels = [decode_image(path, classifier.bundle.manifest.preprocess) for path in paths]
    seconds["decode"] = time.process_time() - start
    start = time.process_time()
    rows = [classifier.encode(pixels[i : i + 4]) for i in range(0, len(pixels), 4)]
    seconds["encode"] = time.process_time() - start
    start = time.process_time()
    for batch in rows:
        list(decide(batch))
    seconds["rank"] = time.process_time() - start
    return {phase: round(1000 * total / len(paths), 3) for phase, total in seconds.items()}


def measure(bundles: list[Path], paths: list[Path], images: int, out: Path | None) -> None:
    """Print rates of every form of every bundle with one process and with one a core."""
    results: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "images": images, "encoders": {}}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        names, files = Path(scratch) / "all.txt", Path(scratch)
        names.write_text("\n".join(str(path) for path in islice(cycle(paths), images)))
        for number in range(4):
            share = list(islice(cycle(paths), number, images, 4))
            with tarfile.open(files / f"{number}.tar", "w") as tar:
                for index, path in enumerate(share):
                    tar.add(path, f"{index:06}{path.suffix}")
            _write_parquet(files / f"{number}.parquet", [path.read_bytes() for path in share])
        for bundle in bundles:
            manifest = json.loads((bundle / "manifest.json").read_text())
            for precision in ("fp32", *manifest["precisions"]):
                encoder = f"{manifest['backbone']} {precision}"
                result = {"milliseconds": milliseconds(bundle, precision, paths[:200]), "rates": {}}
                results["encoders"][encoder] = result
                for workers in sorted({1, results["cores"]}):
                    sources = {"list": names, "tars": files / "{0..3}.tar", "parquet": files / "{0..3}.parquet"}
                    for kind, source in sources.items():
                        arguments = ("--bundle", bundle, "--precision", precision, "--workers", str(workers))
                        rate = result["rates"][f"{kind}, {workers}"] = run(source, *arguments)["rate"]
                        rows.append((encoder, kind, workers, f"{rate:.1f}", *result["milliseconds"].values()))
                        command.say(f"{encoder}, {kind}, {workers} processes: {rate:.1f} images a second")
    heads = ("encoder", "source", "processes", "images a second", "ms to decode", "to encode", "to rank")
    command.tell(command.markdown(heads, rows), results, out)


def kill_often(kills: int, paths: list[Path]) -> None:
    """One run, killed at random points and resumed, against one that nobody disturbed."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        names, outs = Path(scratch) / "all.txt", [Path(scratch) / name for name in ("killed", "undisturbed")]
        names.write_text("\n".join(str(path) for path in islice(cycle(paths), 40 * kills)))
        runs = [[*COMMAND, str(names), "--piece-size", "16", "--resume", "--out", str(out)] for out in outs]
        for _ in range(kills):
            process = subprocess.Popen(runs[0], stderr=subprocess.DEVNULL)
            time.sleep(1 + 2 * chance.random())
            process.kill()
            process.wait()
        for arguments in runs:
            subprocess.run(arguments, stderr=subprocess.DEVNULL, check=False)
        rows = [[row for piece in sorted(out.glob("part-*")) for row in _parquet(piece)] for out in outs]
    keys = [row["key"] for row in rows[0]]
    same = keys == [str(path) for path in islice(cycle(paths), 40 * kills)]
    print(f"{kills} kills: {len(keys)} rows, each input once: {same}, same as undisturbed: {rows[0] == rows[1]}")
    sys.exit(not (same and rows[0] == rows[1]))


def large_value(mebibytes: int, paths: list[Path]) -> None:
    """Print time, memory and the outcome of each row of a Parquet file with a value of this size between two photos."""
    with tempfile.TemporaryDirectory() as scratch:
        file, out = Path(scratch) / "large.parquet", Path(scratch) / "out.jsonl"
        first, last = (path.read_bytes() for path in paths[:2])
        _write_parquet(file, [first, os.urandom(2**20) * mebibytes, last])
        arguments = [sys.executable, "-c", WATCH, *COMMAND, str(file), "--out", str(out), "--workers", "1"]
        seconds, kibibytes = map(float, subprocess.run(arguments, stdout=subprocess.PIPE, check=True).stdout.split())
        print(f"{mebibytes} MiB: {seconds:.0f} s in all, {kibibytes / 2**20:.1f} GiB in the process that reads")
        for line in out.read_text().splitlines():
            row = json.loads(line)
            print(f"row {row['key'].rpartition('#')[2]}: {row['error'] or row['label']}")


def _write_parquet(path: Path, images: list[bytes]) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": images}), path, row_group_size=100)


def _parquet(piece: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(piece).to_pylist()
    return rows


def cost(options: argparse.Namespace) -> None:
    """Print what docs/bulk.md says of costs: core hours, and a GPU's hours with those of the cores that feed it."""
    results = json.loads(options.cost.read_text())
    count, cores, price = options.count, results["cores"], options.core_hour_price
    rows = []
    for encoder, result in results["encoders"].items():
        rate = result["rates"][f"list, {cores}"]
        hours = count / (rate / cores) / 3600
        costs = f"{hours:,.0f}", f"{hours * price:,.0f}", f"{hours / 64 / 24:.1f} days"
        rows.append((encoder, f"{rate:.1f}", f"{rate / cores:.1f}", *costs))
    heads = ("encoder", f"images a second, {cores} cores", "a core", "core hours", f"at {price} each", "on 64 cores")
    print(command.markdown(heads, rows))
    accelerated = []
    for encoder, result in results["encoders"].items():
        backbone, precision = encoder.split()
        if backbone in OPERATIONS and precision == "fp32":
            rate = H100_PEAK * options.utilisation / OPERATIONS[backbone]
            feeding = math.ceil(rate * (result["milliseconds"]["decode"] + result["milliseconds"]["rank"]) / 1000)
            hours = count / rate / 3600
            together = hours * (options.gpu_hour_price + feeding * price)
            accelerated.append((backbone, f"{rate:,.0f} a second", f"{feeding:,}", f"{hours:,.1f}", f"{together:,.0f}"))
    of_peak = f"an H100 at {options.utilisation:.0%} of its peak (reckoned)"
    print("\n" + command.markdown(("encoder", of_peak, "cores that decode for it", "hours", "together"), accelerated))


def main() -> None:
    """Measure, kill, or reckon."""
    options = command.options(
        __doc__,
        bundle=[command.MINI],
        photos=Path,
        images=2000,
        out=Path,
        kills=int,
        value=(int, "MiB of one value"),
        cost=(Path, "what --out wrote"),
        count=100_000_000,
        core_hour_price=0.04,
        gpu_hour_price=3.0,
        utilisation=0.3,
    )
    if options.cost:
        cost(options)
        return
    paths = sorted(p for p in (options.photos or command.sample_photos()).iterdir() if p.suffix in (".jpg", ".png"))
    if options.kills:
        kill_often(options.kills, paths)
    elif options.value:
        large_value(options.value, paths)
    else:
        measure(options.bundle, paths, options.images, options.out)


if __name__ == "__main__":
    main()
