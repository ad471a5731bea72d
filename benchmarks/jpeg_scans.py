"""Thousands of mutated JPEGs, whose scans we count and libjpeg decodes: none that it starts may be missed.

    python -m benchmarks.jpeg_scans [--cases 2000] [--seed 1]

libjpeg's count comes from djpeg (Debian: libjpeg-turbo-progs). Ends with status 1 and the numbers of the files if a
scan was missed; ``mutated(random.Random("SEED NUMBER"))`` of ``tests/support/hostile_jpegs.py`` makes one again.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter

from benchmarks import command
from sar_infer.errors import ImageError
from sar_infer.images.jpeg import count_scans


def outcome(data: bytes) -> str:
    """Return how our count of a file's scans compares with what libjpeg starts."""
    from support.hostile_jpegs import traced_scans

    traced = traced_scans(data)
    try:
        counted = count_scans(data)
    except ImageError:
        return "refused"
    return "missed" if counted < traced else "counted exactly" if counted == traced else "counted more"


def main() -> None:
    """Compare and print."""
    from support.hostile_jpegs import mutated

    options = command.options(__doc__, cases=2000, seed=1)
    if not shutil.which("djpeg"):
        print("jpeg_scans: skipped, djpeg is not installed (Debian: libjpeg-turbo-progs)")
        return
    numbers = {n: outcome(mutated(random.Random(f"{options.seed} {n}"))) for n in range(options.cases)}
    rows = sorted(Counter(numbers.values()).items())
    command.tell(command.markdown(("outcome", "files"), rows), dict(rows))
    command.end([f"missed: {options.seed} {number}" for number, how in numbers.items() if how == "missed"])


if __name__ == "__main__":
    main()
