"""Telling domains from classes: in PACS' layout, ``DOMAIN/CLASS/*.jpg``, every domain holds the same classes."""

from __future__ import annotations

import os
from pathlib import Path

from sar_infer.images.formats import has_image_suffix

MOST = 100
"""A folder with more folders than this holds classes, not domains."""
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "images"))


def domains(root: Path) -> tuple[str, ...]:
    """Names of the domains in a folder, sorted; empty where its folders are classes.

    They are domains where there are two or more, none holds a photo directly, and they have two or more folders each,
    mostly the same ones. Numbers, dates and names of splits do not count as classes, so that photos of a class that
    are sorted by year or split are not mistaken.
    """
    names = _folders(root)[0]
    if not 2 <= len(names) <= MOST:
        return ()
    inner: list[set[str]] = []
    for name in names:
        folders, files = _folders(root / name)
        classes = {folder for folder in folders if any(map(str.isalpha, folder)) and folder.lower() not in _SPLITS}
        if any(map(has_image_suffix, files)):
            return ()
        inner.append(classes)
    common, every = set.intersection(*inner), set.union(*inner)
    return tuple(names) if len(common) >= 2 and 2 * len(common) >= len(every) else ()


def domain_name(folder: Path) -> str:
    """What a dataset is called after its folder: ``pacs/photo`` for a domain, else the folder's own name."""
    whole = folder.resolve()
    return f"{whole.parent.name}/{whole.name}" if whole.name in domains(whole.parent) else whole.name


def _folders(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted, hidden ones left out."""
    found: tuple[list[str], list[str]] = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith((".", "__")):
                    found[0 if entry.is_dir() else 1].append(entry.name)
    except OSError:
        return [], []
    return sorted(found[0]), sorted(found[1])
