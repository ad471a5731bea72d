"""Start to first answer, and memory at rest, of ``sar-serve`` and of peers around the same image encoder.

    python benchmarks/server_start.py [--bundle exports/mini] [--peers PYTHON] [--runs 5]

The servers take turns; medians are printed. Starts are seen in steps of 0.02 s. The peers hold no name encoder.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from pathlib import Path

from PIL import Image

from benchmarks.serving.servers import ROOT, Candidate, ours, peers, started

_REST_SECONDS = 2.0


def measure(candidate: Candidate, bundle: Path, photo: bytes) -> tuple[float, float, float]:
    """Seconds to the first answer, then PSS and RSS in MiB of all its processes."""
    start = time.perf_counter()
    with started(candidate, bundle, photo) as running:
        seconds = time.perf_counter() - start
        time.sleep(_REST_SECONDS)
        memory = running.memory()
    return seconds, memory["pss"], memory["rss"]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "exports" / "mini")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    drawn = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((500, 375)).save(drawn, "JPEG")
    runs: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    candidates = [ours([]), *peers(given.peers)]
    obstacles = {candidate.name: candidate.obstacle() for candidate in candidates}
    for _ in range(given.runs):
        for candidate in candidates:
            if obstacles[candidate.name] is None:
                row = runs.setdefault((candidate.name, candidate.setting), [])
                row.append(measure(candidate, given.bundle, drawn.getvalue()))
    print("| server | setting | start to first answer, s | at rest, MiB (PSS) | MiB (RSS) |\n|---|---|---|---|---|")
    for (name, setting), rows in runs.items():
        seconds, pss, rss = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {setting} | {seconds:.1f} | {pss:.0f} | {rss:.0f} |")
    for name, obstacle in obstacles.items():
        if obstacle is not None:
            print(f"\n{name}: not measured ({obstacle})")


if __name__ == "__main__":
    main()
