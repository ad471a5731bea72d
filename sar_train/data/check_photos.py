"""What is wrong with photo files: found without a network, quickly, and never by raising."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sar_infer.errors import ImageError
from sar_infer.images.load import load_rgb

SAMPLE = 500
Advance = Callable[[int], None]
"""Told how many photos have been looked at since."""


def sizes(paths: Sequence[str]) -> list[int | None]:
    """Size of each file in bytes, None where there is none; every folder is listed once."""
    places = [os.path.split(path) for path in paths]
    wanted: dict[str, set[str]] = {}
    for folder, name in places:
        wanted.setdefault(folder, set()).add(name)
    found: dict[str, dict[str, int]] = {}
    for folder, names in wanted.items():
        found[folder] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name in names and entry.is_file():
                        found[folder][entry.name] = entry.stat().st_size
        except OSError:
            continue
    return [found[folder].get(name) for folder, name in places]


def even_sample(paths: Sequence[str], count: int) -> list[str]:
    """``count`` paths with equal steps between them, all of them where there are fewer."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i * len(paths) // count] for i in range(count)]


def unreadable(paths: Sequence[str], advance: Advance = lambda done: None) -> list[tuple[str, str]]:
    """Photos that cannot be decoded, each with the reason, in the order given; JPEGs are decoded at an eighth."""

    def problem(path: str) -> str:
        try:
            load_rgb(path, least=1)
        except (ImageError, MemoryError) as error:
            return " ".join(str(error).split()).replace(path, Path(path).name) or type(error).__name__
        return ""

    found = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for path, text in zip(paths, pool.map(problem, paths), strict=True):
            advance(1)
            if text:
                found.append((path, text))
    return found
