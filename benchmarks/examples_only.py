"""The shortest way: the bundle that ships and a folder of example photos, without PyTorch and without training.

    python -m benchmarks.examples_only [--examples FOLDER] [--test FOLDER] [--rounds 3]

Runs ``sar-classify TEST/CLASS/*.jpg --examples EXAMPLES --only``, for the classes of the examples, as a user does, and
prints the share of right answers, and the median seconds and mean processor time of the whole process. By default the
examples are ``examples/clothes/train``, and the test photos the folder ``test`` beside them.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import command


def classify(examples: Path, photos: list[Path]) -> tuple[float, int]:
    """Return the seconds of one process, and how many photos get the class of their folder."""
    program = Path(sys.executable).parent / "sar-classify"
    options = ["--only", "--top-k", "1", "--format", "jsonl", "--bundle", str(command.MINI)]
    arguments: list[str | Path] = [program, *photos, "--examples", examples, *options]
    started = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    right = [row["predictions"][0]["label"] == Path(row["image"]).parent.name.replace("_", " ") for row in rows]
    return seconds, sum(right)


def main() -> None:
    """Measure and print."""
    options = command.options(__doc__, examples=command.ROOT / "examples" / "clothes" / "train", test=Path, rounds=3)
    test = options.test or options.examples.parent / "test"
    names = sorted(path.name for path in options.examples.iterdir() if path.is_dir())
    photos = [photo for name in names for photo in sorted((test / name).glob("*.jpg"))]
    learned = sum(1 for name in names for _ in (options.examples / name).glob("*.jpg"))
    rounds = [classify(options.examples, photos) for _ in range(options.rounds)]
    seconds = statistics.median(seconds for seconds, _ in rounds)
    right = rounds[0][1]
    print(f"{len(names)} classes, {learned} example photos, {len(photos)} test photos, {os.cpu_count()} cores")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = (used.ru_utime + used.ru_stime) / options.rounds
    print(f"{100 * right / len(photos):.1f} % right; {seconds:.1f} s the whole process, {busy:.1f} s of processor time")


if __name__ == "__main__":
    main()
