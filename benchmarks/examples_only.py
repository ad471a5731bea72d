"""The shortest way: the bundle that ships and a folder of example photos, without PyTorch and without training.

    python benchmarks/examples_only.py [EXAMPLES [TEST]] [--rounds 3]

Runs ``sar-classify TEST/CLASS/*.jpg --examples EXAMPLES --only``, for the classes of EXAMPLES, as a user does, and
prints the share of right answers, and the median seconds and mean processor time of the whole process. By default
EXAMPLES is ``examples/clothes/train``, and TEST the folder ``test`` beside EXAMPLES.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def classify(examples: Path, photos: list[Path]) -> tuple[float, int]:
    """Return the seconds of one process, and how many photos get the class of their folder."""
    command = [
        *(Path(sys.executable).parent / "sar-classify", *photos, "--examples", examples, "--only"),
        *("--top-k", "1", "--format", "jsonl", "--bundle", ROOT / "exports" / "mini"),
    ]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    right = [row["predictions"][0]["label"] == Path(row["image"]).parent.name.replace("_", " ") for row in rows]
    return seconds, sum(right)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="?", type=Path, default=ROOT / "examples" / "clothes" / "train")
    parser.add_argument("test", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    test = given.test or given.examples.parent / "test"
    names = sorted(path.name for path in given.examples.iterdir() if path.is_dir())
    photos = [photo for name in names for photo in sorted((test / name).glob("*.jpg"))]
    learned = sum(1 for name in names for _ in (given.examples / name).glob("*.jpg"))
    rounds = [classify(given.examples, photos) for _ in range(given.rounds)]
    seconds = statistics.median(seconds for seconds, _ in rounds)
    right = rounds[0][1]
    print(f"{len(names)} classes, {learned} example photos, {len(photos)} test photos, {os.cpu_count()} cores")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = (used.ru_utime + used.ru_stime) / given.rounds
    print(f"{100 * right / len(photos):.1f} % right; {seconds:.1f} s the whole process, {busy:.1f} s of processor time")


if __name__ == "__main__":
    main()
