"""Opening the datasets that are known by name, with the splits that the field reports on.

Where a dataset's published split file is missing, a split of our own is drawn, and the dataset's warnings say so.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from sar_train.data import imagenet
from sar_train.data.aircraft import read_aircraft
from sar_train.data.layouts import LAYOUTS, Layout, dataset_in, find, folder_of, is_there, layout_in
from sar_train.data.own_split import own_split
from sar_train.data.photos import SPLITS, Photo, PhotoDataset, SplitOrigin
from sar_train.data.present import without_missing
from sar_train.data.split_file import Rows, read_split
from sar_train.errors import DataError

__all__ = [
    "LAYOUTS",
    "Layout",
    "Listing",
    "dataset_in",
    "find",
    "layout_in",
    "load_dataset",
    "read_listing",
    "read_split",
]


def load_dataset(
    name: str,
    root: Path,
    *,
    allow_missing: bool = False,
    whole: bool = False,
    cache_dir: Path | None = None,
) -> PhotoDataset:
    """Open a dataset by name.

    Args:
        name: such as ``caltech101``; case, hyphens and underscores do not matter.
        root: the folder that holds the dataset's folder, or that folder itself.
        allow_missing: go on with the photos that exist; classes without a training photo are left out.
        whole: to be judged on alone: only test photos, those of the published split; all photos where the split would
            be ours.
        cache_dir: where a split of our own is kept between runs.

    Raises:
        DataError: unknown name (the nearest are offered), no folder, neither a split file nor what a split of our own
            is made from, a damaged list, missing photos.
    """
    key = find(name)
    if key is None:
        raise DataError(f"unknown dataset {name!r}" + (nearest(name) or f"; the known ones: {', '.join(LAYOUTS)}"))
    layout, folder = LAYOUTS[key], folder_of(key, root)
    images = folder / layout.images
    if not is_there(key, root):
        raise DataError(
            f"dataset {key}: expected {layout.split_file or layout.images} in {root / layout.folder}, not there; "
            "get it as CoOp's DATASETS.md says, or pass the folder above it as --data-root"
        )
    listing = read_listing(key, folder, allow_missing=allow_missing, whole=whole, cache_dir=cache_dir)
    train, val, test = (
        () if whole and split != "test" else tuple(Photo(images / path, label) for path, label in listing.rows[split])
        for split in SPLITS
    )
    dataset = PhotoDataset(
        key,
        listing.class_names,
        layout.template,
        images,
        train,
        val,
        test,
        published_split=True,
        warnings=(listing.warning,) if listing.warning else (),
        split_origin=listing.origin,
    )
    if key in imagenet.KEYS:
        return dataset  # the folders themselves were listed
    return without_missing(dataset, allow_missing=allow_missing)


def nearest(name: str) -> str:
    """The end of a message on a name that is none: the datasets that may be meant, empty where none is like it."""
    near = difflib.get_close_matches(name.lower(), LAYOUTS, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(near)}?" if near else ""


@dataclass(frozen=True)
class Listing:
    """What a dataset's lists or folders say, whether the photos exist or not.

    Attributes:
        class_names: by label.
        rows: (path below the folder of photos, label) by split.
        origin: whether these are the published splits or ours.
        warning: what the user should know, or nothing.
    """

    class_names: tuple[str, ...]
    rows: Rows
    origin: SplitOrigin
    warning: str = ""


def read_listing(
    key: str, folder: Path, *, allow_missing: bool = False, whole: bool = False, cache_dir: Path | None = None
) -> Listing:
    """The classes and photos of a dataset in its folder; the arguments are those of `load_dataset`.

    Raises:
        DataError: a list is missing or damaged.
    """
    try:
        return _read_listing(key, folder, allow_missing=allow_missing, whole=whole, cache_dir=cache_dir)
    except OSError as error:
        raise DataError(f"dataset {key}: {error.filename}: cannot be read ({error.strerror})") from None


def _read_listing(key: str, folder: Path, *, allow_missing: bool, whole: bool, cache_dir: Path | None) -> Listing:
    split_file = LAYOUTS[key].split_file
    if key in imagenet.KEYS:
        names, rows, warning = imagenet.read_imagenet(key, folder, whole=whole, allow_missing=allow_missing)
        return Listing(names, rows, "published", warning)
    if key == "fgvc_aircraft":
        return Listing(*read_aircraft(folder), "published")
    if (folder / split_file).is_file():
        return Listing(*read_split(folder / split_file), "published")
    names, rows, warning = own_split(key, folder, cache_dir, whole=whole, allow_missing=allow_missing)
    return Listing(names, rows, "ours", warning)
