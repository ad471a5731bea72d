"""Thousands of mutated JPEGs, whose scans we count and libjpeg decodes: none that it starts may be missed.

    python benchmarks/jpeg_scans.py [--cases 2000] [--seed 1]

libjpeg's count comes from djpeg (Debian: libjpeg-turbo-progs). Ends with status 1 and the numbers of the files if a
scan was missed; ``mutated(random.Random("SEED NUMBER"))`` of ``tests/support/hostile_jpegs.py`` makes one again.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.hostile_jpegs import mutated, traced_scans  # noqa: E402

from sar_infer.errors import ImageError  # noqa: E402
from sar_infer.images.jpeg import count_scans  # noqa: E402


def outcome(data: bytes) -> str:
    """Return how our count of a file's scans compares with what libjpeg starts."""
    traced = traced_scans(data)
    try:
        counted = count_scans(data)
    except ImageError:
        return "refused"
    return "missed" if counted < traced else "counted exactly" if counted == traced else "counted more"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not shutil.which("djpeg"):
        print("jpeg_scans: skipped, djpeg is not installed (Debian: libjpeg-turbo-progs)")
        return
    counts: Counter[str] = Counter()
    for number in range(options.cases):
        found = outcome(mutated(random.Random(f"{options.seed} {number}")))
        counts[found] += 1
        if found == "missed":
            print(f"missed: {options.seed} {number}", flush=True)
    print(f"{options.cases} files: " + ", ".join(f"{count} {found}" for found, count in sorted(counts.items())))
    sys.exit(counts["missed"] > 0)


if __name__ == "__main__":
    main()
