"""Datasets in CoOp's layouts, made of hard links to one tiny photo."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from sar_train.data.layouts import LAYOUTS

IDS = tuple(f"n{number:08}" for number in range(1, 1001))


def link_photos(folder: Path, names: Iterable[str]) -> Path:
    """A tiny JPEG under each of these names below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny = folder / ".tiny.jpg"
    if not tiny.exists():
        Image.new("RGB", (8, 8), (90, 120, 60)).save(tiny)
    made = {folder}
    for name in names:
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        os.link(tiny, path)
    return folder


def write_split(folder: Path, key: str, content: Any, *, photos: bool = True) -> Path:
    """A dataset's split file, and the photos that it lists."""
    layout = LAYOUTS[key]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / layout.split_file).write_text(content if isinstance(content, str) else json.dumps(content))
    if photos:
        link_photos(folder / layout.images, dict.fromkeys(row[0] for rows in content.values() for row in rows))
    return folder


def write_class_names(folder: Path, ids: Iterable[str] = IDS) -> Path:
    """``classnames.txt``; the 20th and the 30th name are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{wnid} {'missile' if number in (20, 30) else f'thing {number}'}\n" for number, wnid in enumerate(ids, 1)]
    (folder / "classnames.txt").write_text("".join(lines))
    return folder


def write_imagenet(root: Path, ids: Iterable[str] = IDS, train: int = 2, val: int = 1) -> Path:
    """ImageNet with some photos of each class."""
    folder, ids = write_class_names(root / "imagenet"), tuple(ids)
    link_photos(folder / "images/train", [f"{wnid}/{wnid}_{i}.JPEG" for wnid in ids for i in range(train)])
    link_photos(folder / "images/val", [f"{wnid}/ILSVRC2012_val_{i}{wnid}.JPEG" for wnid in ids for i in range(val)])
    return folder


def write_aircraft(root: Path) -> Path:
    """FGVCAircraft with three variants and two photos of each in each split."""
    folder, names = root / "fgvc_aircraft", ("707-320", "A340-200", "DR-400 x")
    photos = iter(range(100, 200))
    link_photos(folder / "images", [f"{number}.jpg" for number in range(100, 118)])
    (folder / "variants.txt").write_text("".join(f"{name}\n" for name in names))
    for split in ("train", "val", "test"):
        rows = [f"{next(photos)} {name}\n" for name in names for _ in range(2)]
        (folder / f"images_variant_{split}.txt").write_text("".join(rows))
    return folder
