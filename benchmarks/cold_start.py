"""``sar-classify one.jpg`` as a whole process against ``import torch, open_clip``: seconds and peak memory.

    python -m benchmarks.cold_start [--photo FILE] [--classes FILE] [--runs 9]

The commands take turns, so that a drifting machine slows all; medians are printed.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks import command


def spent(arguments: list[str], memory: list[float]) -> float:
    """Return the wall seconds of one process, and add its peak MiB to ``memory``."""
    start = time.perf_counter()
    with Path(os.devnull).open("wb") as nothing:
        redirect = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), stream) for stream in (1, 2)]
        pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=redirect)
        _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed with status {status}")
    memory.append(usage.ru_maxrss / 1024)
    return time.perf_counter() - start


def coffee() -> Path:
    """Return a photo that comes with scikit-image."""
    spec = find_spec("skimage")
    return Path(spec.origin or "").parent / "data" / "coffee.png" if spec else Path("photo.jpg")


def main() -> None:
    """Measure and print."""
    options = command.options(__doc__, photo=coffee(), classes=(Path, "also with new class names"), runs=9)
    classify = [sys.executable, "-m", "sar_infer.cli.classify", str(options.photo)]
    commands = {"import torch, open_clip": [sys.executable, "-c", "import torch, open_clip"], "sar-classify": classify}
    if options.classes:
        commands["sar-classify --classes"] = [*classify, "--classes", str(options.classes)]
    memory: dict[str, list[float]] = {name: [] for name in commands}

    def way(name: str) -> Callable[[], float]:
        return lambda: spent(commands[name], memory[name])

    seconds = command.take_turns({name: way(name) for name in commands}, options.runs)
    rows = [
        {"command": name, "seconds": statistics.median(seconds[name]), "peak_mib": statistics.median(memory[name][1:])}
        for name in commands
    ]
    for row in rows:
        row["share"] = row["seconds"] / rows[0]["seconds"]  # type: ignore[operator]
    shown = [(r["command"], f"{r['seconds']:.3f}", f"{r['peak_mib']:.0f}", f"{r['share']:.2f}") for r in rows]
    command.tell(command.markdown(("command", "seconds", "peak MiB", "share"), shown), rows)


if __name__ == "__main__":
    main()
