"""Start to first answer, and memory at rest, of ``sar-serve`` and of peers around the same image encoder.

    python -m benchmarks.server_start [--bundle exports/mini] [--peers PYTHON] [--runs 5]

The servers take turns; medians are printed. Starts are seen in steps of 0.02 s. The peers hold no name encoder.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from pathlib import Path

from PIL import Image

from benchmarks import command
from benchmarks.serving.servers import Candidate, ours, peers, started

_REST_SECONDS = 2.0


def measure(candidate: Candidate, bundle: Path, photo: bytes) -> tuple[float, float, float]:
    """Return the seconds to the first answer, then PSS and RSS in MiB of all its processes."""
    start = time.perf_counter()
    with started(candidate, bundle, photo) as running:
        seconds = time.perf_counter() - start
        time.sleep(_REST_SECONDS)
        memory = running.memory()
    return seconds, memory["pss"], memory["rss"]


def main() -> None:
    """Measure and print."""
    options = command.options(
        __doc__, bundle=command.MINI, peers=(sys.executable, "interpreter that has the peers"), runs=5
    )
    drawn = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((500, 375)).save(drawn, "JPEG")
    runs: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    candidates = [ours([]), *peers(options.peers)]
    obstacles = {candidate.name: candidate.obstacle() for candidate in candidates}
    for _ in range(options.runs):
        for candidate in candidates:
            if obstacles[candidate.name] is None:
                row = runs.setdefault((candidate.name, candidate.setting), [])
                row.append(measure(candidate, options.bundle, drawn.getvalue()))
    medians = {key: [statistics.median(column) for column in zip(*rows, strict=True)] for key, rows in runs.items()}
    heads = ("server", "setting", "start to first answer, s", "at rest, MiB (PSS)", "MiB (RSS)")
    rows = [(*key, f"{seconds:.1f}", f"{pss:.0f}", f"{rss:.0f}") for key, (seconds, pss, rss) in medians.items()]
    missing = [f"{name}: not measured ({obstacle})" for name, obstacle in obstacles.items() if obstacle is not None]
    results = [
        dict(zip(("server", "setting", "seconds", "pss", "rss"), (*k, *v), strict=True)) for k, v in medians.items()
    ]
    command.tell("\n\n".join([command.markdown(heads, rows), *missing]), results)


if __name__ == "__main__":
    main()
