"""Bulk runs of ``sar-classify``: rates from file to row, exactness under ``kill -9``, and what 100 million images cost.

    python benchmarks/bulk.py [--bundle DIR …] [--photos FOLDER] [--images 2000] [--json benchmarks/results/bulk.json]
    python benchmarks/bulk.py --kills 30
    python benchmarks/bulk.py --value 1024
    python benchmarks/bulk.py --cost benchmarks/results/bulk.json [--core-hour-price 0.04] [--gpu-hour-price 3.0]

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
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
MINI = ROOT / "exports" / "mini"
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


def photos(given: Path | None) -> list[Path]:
    """Photos to classify."""
    if given is None and (sample := ROOT.parent / "shared" / "data" / "imagenet_sample").is_dir():
        given = sample
    if given is None:
        spec = find_spec("skimage")
        if spec is None or spec.origin is None:
            sys.exit("--photos FOLDER is needed: scikit-image is not installed")
        given = Path(spec.origin).parent / "data"
    return sorted(path for path in given.iterdir() if path.suffix in (".jpg", ".png"))


def run(*arguments: str | Path) -> dict[str, Any]:
    """The summary of a run into a new folder."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        done = subprocess.run(
            [*COMMAND, *map(str, arguments), "--out", str(out)], capture_output=True, text=True, check=False
        )
        if done.returncode > 1:
            sys.exit(done.stderr)
        summary: dict[str, Any] = json.loads((out / "_SUCCESS.json").read_text())["summary"]
        return summary


def milliseconds(bundle: Path, precision: Any, some: list[Path]) -> dict[str, float]:
    """CPU time of one thread an image: from a file to the encoder's input, through the encoder, to the ranking."""
    from sar_infer import Classifier
    from sar_infer.images.prefetch import decode_image

    classifier = Classifier.open(bundle, threads=1, precision=precision)
    classifier.start()
    decide, found = classifier.decide(classifier.class_set(), 5), {}
    start = time.process_time()
    pixels = [decode_image(path, classifier.bundle.manifest.preprocess) for path in some]
    found["decode"] = time.process_time() - start
    start = time.process_time()
    rows = [classifier.encode(pixels[i : i + 4]) for i in range(0, len(pixels), 4)]
    found["encode"] = time.process_time() - start
    start = time.process_time()
    for some_rows in rows:
        list(decide(some_rows))
    found["rank"] = time.process_time() - start
    return {phase: round(1000 * seconds / len(some), 3) for phase, seconds in found.items()}


def measure(bundles: list[Path], some: list[Path], images: int, target: Path | None) -> None:
    """Print, and perhaps keep, rates of every form of every bundle with one process and with one a core."""
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "images": images, "encoders": {}}
    with tempfile.TemporaryDirectory() as scratch:
        names, files = Path(scratch) / "all.txt", Path(scratch)
        names.write_text("\n".join(str(path) for path in islice(cycle(some), images)))
        for number in range(4):
            share = list(islice(cycle(some), number, images, 4))
            with tarfile.open(files / f"{number}.tar", "w") as tar:
                for index, path in enumerate(share):
                    tar.add(path, f"{index:06}{path.suffix}")
            _write_parquet(files / f"{number}.parquet", [path.read_bytes() for path in share])
        for bundle in bundles:
            manifest = json.loads((bundle / "manifest.json").read_text())
            for precision in ("fp32", *manifest["precisions"]):
                encoder = f"{manifest['backbone']} {precision}"
                result = found["encoders"][encoder] = {"milliseconds": milliseconds(bundle, precision, some[:200])}
                result["rates"] = {}
                for workers in sorted({1, found["cores"]}):
                    sources = {"list": names, "tars": files / "{0..3}.tar", "parquet": files / "{0..3}.parquet"}
                    for kind, source in sources.items():
                        options = ("--bundle", bundle, "--precision", precision, "--workers", str(workers))
                        rate = result["rates"][f"{kind}, {workers}"] = run(source, *options)["rate"]
                        print(f"{encoder:<14} {kind:<7}, {workers} processes: {rate:8.1f} images a second", flush=True)
                print(f"{encoder:<14} {result['milliseconds']}")
    if target is not None:
        target.write_text(json.dumps(found, indent=2) + "\n")


def kill_often(kills: int, some: list[Path]) -> None:
    """One run, killed at random points and resumed, against one that nobody disturbed."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        names, outs = Path(scratch) / "all.txt", [Path(scratch) / name for name in ("killed", "undisturbed")]
        names.write_text("\n".join(str(path) for path in islice(cycle(some), 40 * kills)))
        commands = [[*COMMAND, str(names), "--piece-size", "16", "--resume", "--out", str(out)] for out in outs]
        for _ in range(kills):
            process = subprocess.Popen(commands[0], stderr=subprocess.DEVNULL)
            time.sleep(1 + 2 * chance.random())
            process.kill()
            process.wait()
        for command in commands:
            subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
        rows = [[row for part in sorted(out.glob("part-*")) for row in _parquet(part)] for out in outs]
    keys = [row["key"] for row in rows[0]]
    same = keys == [str(path) for path in islice(cycle(some), 40 * kills)]
    print(f"{kills} kills: {len(keys)} rows, each input once: {same}, same as undisturbed: {rows[0] == rows[1]}")
    sys.exit(not (same and rows[0] == rows[1]))


def large_value(mebibytes: int, some: list[Path]) -> None:
    """A value of this size between two photos in a Parquet file: time, memory, and what becomes of each row."""
    with tempfile.TemporaryDirectory() as scratch:
        file, out = Path(scratch) / "large.parquet", Path(scratch) / "out.jsonl"
        first, last = (path.read_bytes() for path in some[:2])
        _write_parquet(file, [first, os.urandom(2**20) * mebibytes, last])
        command = [sys.executable, "-c", WATCH, *COMMAND, str(file), "--out", str(out), "--workers", "1"]
        seconds, kibibytes = map(float, subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split())
        print(f"{mebibytes} MiB: {seconds:.0f} s in all, {kibibytes / 2**20:.1f} GiB in the process that reads")
        for line in out.read_text().splitlines():
            row = json.loads(line)
            print(f"row {row['key'].rpartition('#')[2]}: {row['error'] or row['label']}")


def _write_parquet(path: Path, images: list[bytes]) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": images}), path, row_group_size=100)


def _parquet(part: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(part).to_pylist()
    return rows


def cost(given: argparse.Namespace) -> None:
    """Print what docs/bulk.md says of costs, prices at a GPU hour and core hours for what feeds it."""
    found = json.loads(given.cost.read_text())
    count, cores = given.count, found["cores"]
    price = given.core_hour_price
    print(f"| encoder | images a second, {cores} cores | a core | core hours | at {price} each | on 64 cores |")
    print("|---|---|---|---|---|---|")
    for encoder, result in found["encoders"].items():
        rate = result["rates"][f"list, {cores}"]
        hours = count / (rate / cores) / 3600
        days = hours / 64 / 24
        print(
            f"| {encoder} | {rate:.1f} | {rate / cores:.1f} | {hours:,.0f} | {hours * price:,.0f} | {days:.1f} days |"
        )
    share, of_gpu = given.utilisation, given.gpu_hour_price
    print(
        f"\n| encoder | an H100 at {share:.0%} of its peak (reckoned) | cores that decode for it | hours | together |"
    )
    print("|---|---|---|---|---|")
    for encoder, result in found["encoders"].items():
        backbone, precision = encoder.split()
        if backbone in OPERATIONS and precision == "fp32":
            rate = H100_PEAK * share / OPERATIONS[backbone]
            feeding = math.ceil(rate * (result["milliseconds"]["decode"] + result["milliseconds"]["rank"]) / 1000)
            hours = count / rate / 3600
            together = hours * (of_gpu + feeding * price)
            print(f"| {backbone} | {rate:,.0f} a second | {feeding:,} | {hours:,.1f} | {together:,.0f} |")


def main() -> None:
    """Measure, kill, or reckon."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--value", type=int, metavar="MIB")
    parser.add_argument("--cost", type=Path, metavar="JSON")
    parser.add_argument("--count", type=int, default=100_000_000)
    parser.add_argument("--core-hour-price", type=float, default=0.04)
    parser.add_argument("--gpu-hour-price", type=float, default=3.0)
    parser.add_argument("--utilisation", type=float, default=0.3)
    given = parser.parse_args()
    if given.cost:
        cost(given)
    elif given.kills:
        kill_often(given.kills, photos(given.photos))
    elif given.value:
        large_value(given.value, photos(given.photos))
    else:
        measure(given.bundle or [MINI], photos(given.photos), given.images, given.json)


if __name__ == "__main__":
    main()
