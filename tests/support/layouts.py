"""A small example of each layout of photos: two classes, four photos each, ``cat`` and ``dog``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.hf import make_dataset, to_saved
from support.photos import write_folder, write_photo

CLASSES = ("cat", "dog")


def _list(folder: Path) -> Path:
    write_folder(folder, dict.fromkeys(CLASSES, 4))
    rows = [f"{name}/{i:02}.png,{name}\n" for name in CLASSES for i in range(4)]
    (folder / "list.csv").write_text("path,label\n" + "".join(rows))
    return folder / "list.csv"


def _metadata(folder: Path) -> Path:
    write_folder(folder, dict.fromkeys(CLASSES, 4))
    rows = [f"{name}/{i:02}.png,{name}\n" for name in CLASSES for i in range(4)]
    (folder / "metadata.csv").write_text("file_name,label\n" + "".join(rows))
    return folder


def _named_photos(folder: Path) -> Path:
    for number, name in enumerate(CLASSES):
        for i in range(4):
            write_photo(folder / f"{name}_{i:02}.png", 4 * number + i)
    return folder


EXAMPLES: dict[str, Callable[[Path], Path]] = {
    "folder": lambda folder: write_folder(folder, dict.fromkeys(CLASSES, 4)),
    "hugging-face": lambda folder: to_saved(folder, make_dataset(8)),
    "list": _list,
    "metadata": _metadata,
    "named-photos": _named_photos,
}
"""By the name of the reader; each is written below an empty folder, and the path to open is returned."""
