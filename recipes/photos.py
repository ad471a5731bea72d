"""The photos that `sar-mini-vit` is taught with, as feature maps of its frozen stem; nothing here reads a label."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sar_infer.bundle.manifest import Preprocess
from sar_infer.images.formats import has_image_suffix
from sar_train.clip.mini.stem import CHANNELS, Stem
from sar_train.data import views
from sar_train.data.layouts import LAYOUTS, dataset_in
from sar_train.data.readers.coop import read_split
from sar_train.errors import DataError


def usable(root: Path) -> list[Path]:
    """List all photos below a folder in sorted order, without the test photos of published splits.

    A folder that holds one of CoOp's split files gives the photos that the file lists under train and val and no
    others; any other folder gives all of its photos.

    Raises:
        DataError: there is none.
    """
    paths = sorted(_below(root))
    if not paths:
        raise DataError(f"{root}: expected photos in it or below it, found none")
    return paths


def _below(folder: Path) -> Iterator[Path]:
    key = dataset_in(folder)
    if key:
        layout = LAYOUTS[key]
        _, rows = read_split(folder / layout.split_file)
        listed = (folder / layout.images / path for split in ("train", "val") for path, _ in rows[split])
        yield from (path for path in listed if path.is_file())
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry)
        elif has_image_suffix(entry.name):
            yield entry


@torch.no_grad()
def maps(
    stem: Stem,
    photos: Sequence[Path],
    root: Path,
    spec: Preprocess,
    *,
    n_views: int,
    seed: int,
    report: Callable[[int], None] = lambda photo: None,
) -> Tensor:
    """Compute feature maps (N * V, 112, 16, 16) in float16 of the plain view and of random crops, 57 kB each.

    Args:
        stem: gives the maps, in bfloat16 autocast.
        photos: N files below ``root``.
        root: what the random crops take the names of photos to be relative to.
        spec: the preprocessing.
        n_views: V; the first is the plain view.
        seed: of the random crops.
        report: called with the number of each photo.
    """
    stem = stem.to(memory_format=torch.channels_last)
    side = spec.size // 16
    maps = torch.empty(len(photos) * n_views, CHANNELS, side, side, dtype=torch.float16)
    for i, photo in enumerate(photos):
        name = photo.relative_to(root).as_posix()
        pixels = torch.from_numpy(views.pixels(photo, spec, name, range(n_views), seed))
        with torch.autocast("cpu", torch.bfloat16):
            rows = stem.maps(pixels.contiguous(memory_format=torch.channels_last))
        maps[i * n_views : (i + 1) * n_views] = rows
        report(i)
    return maps


def kept(file: Path | None, key: str, make: Callable[[], Tensor]) -> Tensor:
    """Return the maps of ``make``, cached in a file under a key; without a file nothing is kept."""
    if file and file.is_file():
        with safe_open(file, "pt") as stored:
            if (stored.metadata() or {}).get("key") == key:
                maps: Tensor = stored.get_tensor("maps")
                return maps
    made = make()
    if file:
        save_file({"maps": made}, file, {"key": key})
    return made


def key(photos: Sequence[Path], root: Path, *settings: object) -> str:
    """Digest the names and sizes of photos, and whatever else their maps depend on."""
    lines = [f"{photo.relative_to(root).as_posix()} {photo.stat().st_size}" for photo in photos]
    return hashlib.sha256("\n".join([*map(str, settings), *lines]).encode(errors="surrogateescape")).hexdigest()
