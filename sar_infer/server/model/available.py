"""How much memory this process may have, and how much of that images may take."""

from __future__ import annotations

import os
from pathlib import Path

from sar_infer.server.settings import Settings

_MIB = 2**20
_LEAST = 64 * _MIB
_FILES = {"": "memory.max", "memory": "memory.limit_in_bytes"}
"""With a cgroup's limit, by the controller that /proc/self/cgroup names: version 2, and version 1."""


def memory_limit(root: Path = Path("/")) -> tuple[int, bool]:
    """Find the bytes that this process may have before it is ended.

    Args:
        root: Where /proc and /sys are.

    Returns:
        The least limit of its cgroups (version 1 or 2), else the machine's memory; and whether it is a cgroup's.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for path in _limit_files(root) if (limit := _number(path)) is not None and limit < machine]
    return min(limits, default=machine), bool(limits)


def bodies_limit(body_bytes: int) -> int:
    """Bytes of request bodies that may be in memory at once: a sixteenth of it, since parsing doubles them."""
    return max(2 * body_bytes, min(32 * body_bytes, memory_limit()[0] // 16))


def decode_memory(settings: Settings) -> int:
    """Bytes for images that are being decoded: what is left when the model has been opened and warmed.

    An eighth of all memory stays free for batches, threads and what the allocator cannot give back. Where no cgroup
    limits this process, others share the machine, and images have no more than half of it.
    """
    if settings.decode_memory is not None:
        return settings.decode_memory
    limit, ours = memory_limit()
    left = limit - _resident() - 2 * bodies_limit(settings.limits.body_bytes) - limit // 8
    return max(_LEAST, left if ours else min(left, limit // 2))


def _limit_files(root: Path) -> list[Path]:
    """Files that may hold a limit, in the cgroups of this process and all above; inside a container some are absent."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        for controller, name in _FILES.items():
            if controller in controllers.split(","):
                top = root / "sys/fs/cgroup" / controller
                folder = top / inside.lstrip("/")
                found += [folder / name for folder in (folder, *folder.parents) if folder.is_relative_to(top)]
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max", or not there
        return None


def _resident() -> int:
    """Bytes that this process has now; 0 where that cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
