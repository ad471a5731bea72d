"""``sar-classify one.jpg`` as a whole process against ``import torch, open_clip``: seconds and peak memory.

    python benchmarks/cold_start.py [PHOTO] [--classes FILE] [--runs 9]

The two commands take turns, so that a drifting machine slows both; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path


def spent(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MiB of one process."""
    start = time.perf_counter()
    with Path(os.devnull).open("wb") as nothing:
        pid = os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, nothing.fileno(), 1), (os.POSIX_SPAWN_DUP2, nothing.fileno(), 2)],
        )
        _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def coffee() -> Path:
    """A photo that comes with scikit-image."""
    spec = find_spec("skimage")
    return Path(spec.origin or "").parent / "data" / "coffee.png" if spec else Path("photo.jpg")


def main() -> None:
    """Print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path, nargs="?", default=coffee())
    parser.add_argument("--classes", type=Path, help="also with new class names")
    parser.add_argument("--runs", type=int, default=9)
    given = parser.parse_args()
    classify = [sys.executable, "-m", "sar_infer.cli.classify", str(given.photo)]
    commands = {"import torch, open_clip": [sys.executable, "-c", "import torch, open_clip"], "sar-classify": classify}
    if given.classes:
        commands["sar-classify --classes"] = [*classify, "--classes", str(given.classes)]
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(given.runs + 1):
        for name, command in commands.items():
            runs[name].append(spent(command))
    rows = []
    for name, values in runs.items():
        seconds, memory = (statistics.median(column) for column in zip(*values[1:], strict=True))
        rows.append(
            {
                "command": name,
                "seconds": seconds,
                "peak_mib": memory,
                "share": seconds / rows[0]["seconds"] if rows else 1.0,
            }
        )
        print(f"{name:<26} {seconds:>7.3f} s {memory:>7.0f} MiB {rows[-1]['share']:>7.2f}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
