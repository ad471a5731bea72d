"""The same small dataset in each layout of photos: two classes, ``cat`` and ``dog``, with photos in each split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from support.hf import make_dataset, to_hub, to_saved
from support.photos import write_photo

CLASSES = ("cat", "dog")
TRAIN = {"train": 4}
SPLITS = {"train": 4, "val": 2, "test": 3}
Counts = Mapping[str, int]
"""Photos of each class in each split."""


def _photos(folder: Path, counts: Counts, *, in_splits: bool) -> list[tuple[str, str, str]]:
    """Write photos into folders of classes, which may lie in folders of splits; path, class and split of each."""
    rows = [
        (f"{split}/{name}/{i:02}.png" if in_splits else f"{name}/{split}{i:02}.png", name, split)
        for split, count in counts.items()
        for name in CLASSES
        for i in range(count)
    ]
    for seed, (path, _, _) in enumerate(rows):
        write_photo(folder / path, seed)
    return rows


def _folder(folder: Path, counts: Counts) -> Path:
    _photos(folder, counts, in_splits=len(counts) > 1)
    return folder


def _list(folder: Path, counts: Counts) -> Path:
    rows = _photos(folder, counts, in_splits=False)
    (folder / "list.csv").write_text("path,label,split\n" + "".join(",".join(row) + "\n" for row in rows))
    return folder / "list.csv"


def _metadata(folder: Path, counts: Counts) -> Path:
    rows = _photos(folder, counts, in_splits=len(counts) > 1)
    (folder / "metadata.csv").write_text("file_name,label\n" + "".join(f"{path},{name}\n" for path, name, _ in rows))
    return folder


def _packed(folder: Path, counts: Counts) -> Path:
    return to_saved(folder, {split: make_dataset(2 * count) for split, count in counts.items()})


def _snapshot(folder: Path, counts: Counts) -> Path:
    return to_hub(folder, {split: make_dataset(2 * count) for split, count in counts.items()}, shards=2)


def _named_photos(folder: Path, counts: Counts) -> Path:
    for i in range(2 * counts["train"]):
        write_photo(folder / f"{CLASSES[i % 2]}_{i:02}.png", i)
    return folder


EXAMPLES: dict[str, Callable[[Path, Counts], Path]] = {
    "folder": _folder,
    "hugging-face": _packed,
    "hugging-face snapshot": _snapshot,
    "list": _list,
    "list beside photos": _metadata,
    "named-photos": _named_photos,
}
"""By the name of the reader; each writes into an empty folder and returns the path to open."""
WITHOUT_SPLITS = ("named-photos",)
"""Layouts in which all photos are there to train on."""
