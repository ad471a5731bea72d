"""``sar-classify`` on many photos, with one BLAS thread, its own choice, against one a core, numpy's.

    python benchmarks/blas_threads.py [--photos FOLDER] [--runs 5]

The two take turns; medians of whole processes are printed. Without ``--photos`` a photo of scikit-image is classified
300 times.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

COPIES = 300


def seconds(folder: Path, threads: int) -> float:
    """Of one process."""
    command = [sys.executable, "-m", "sar_infer.cli.classify", str(folder), "--format", "jsonl"]
    start = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}
    )
    return time.perf_counter() - start


def copies(folder: Path) -> Path:
    """A folder with a photo many times."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        sys.exit("--photos FOLDER is needed: scikit-image is not installed")
    for number in range(COPIES):
        shutil.copy(Path(spec.origin).parent / "data" / "rocket.jpg", folder / f"{number}.jpg")
    return folder


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    cores = os.cpu_count() or 1
    times: dict[int, list[float]] = {1: [], cores: []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.photos or copies(Path(scratch))
        for _ in range(given.runs + 1):
            for threads, found in times.items():
                found.append(seconds(folder, threads))
    medians = {threads: statistics.median(found[1:]) for threads, found in times.items()}
    for threads, median in medians.items():
        print(f"{threads} BLAS thread{'s' if threads > 1 else ''}: {median:.2f} s")
    print(f"ratio {medians[cores] / medians[1]:.2f}, {given.photos or f'{COPIES} copies of a photo'}, {cores} cores")


if __name__ == "__main__":
    main()
