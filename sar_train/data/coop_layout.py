"""Opening datasets by name, with the splits that the field reports on.

Where a dataset's published split file is missing, a split of our own is drawn, and the dataset's warnings say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sar_train.data import imagenet
from sar_train.data.dataset_lists import SplitRows, read_aircraft, read_split
from sar_train.data.images import SPLITS, ImageDataset, LabelledImage, SplitOrigin
from sar_train.data.layouts import LAYOUTS, find, folder_of, missing_in, nearest
from sar_train.data.own_split import own_split
from sar_train.data.usable import without_missing
from sar_train.errors import DataError


def load_dataset(
    name: str,
    root: Path,
    *,
    allow_missing: bool = False,
    whole: bool = False,
    cache_dir: Path | None = None,
) -> ImageDataset:
    """Open a dataset by name.

    Args:
        name: such as ``caltech101``; case, hyphens and underscores do not matter.
        root: the folder that holds the dataset's folder, or that folder itself.
        allow_missing: go on with the images that exist; classes without a training image are left out.
        whole: True for a target of evaluation: only the test images of the published split, or all images where the
            split would be ours.
        cache_dir: where a split of our own is kept between runs.

    Raises:
        DataError: unknown name (the nearest are offered), no folder, neither a split file nor the lists or folders
            that a split of our own is made from, a damaged list, missing images.
    """
    key = find(name)
    if key is None:
        raise DataError(f"unknown dataset {name!r}" + (nearest(name) or f"; the known ones: {', '.join(LAYOUTS)}"))
    layout, folder = LAYOUTS[key], folder_of(key, root)
    images = folder / layout.images
    if missing := missing_in(root, key):
        raise DataError(missing)
    listing = read_listing(key, folder, allow_missing=allow_missing, whole=whole, cache_dir=cache_dir)
    train, val, test = (
        ()
        if whole and split != "test"
        else tuple(LabelledImage(images / path, label) for path, label in listing.rows[split])
        for split in SPLITS
    )
    dataset = ImageDataset(
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
        return dataset  # its rows come from the folders themselves, so none can be missing
    return without_missing(dataset, allow_missing=allow_missing)


@dataclass(frozen=True)
class Listing:
    """Classes and images of a dataset by its lists or folders; the images need not exist.

    Attributes:
        class_names: by label.
        rows: (path below the folder of images, label) by split.
        origin: ``published`` or ``ours``.
        warning: for the user; may be empty.
    """

    class_names: tuple[str, ...]
    rows: SplitRows
    origin: SplitOrigin
    warning: str = ""


def read_listing(
    key: str, folder: Path, *, allow_missing: bool = False, whole: bool = False, cache_dir: Path | None = None
) -> Listing:
    """Read the classes and images of a dataset in its folder; the arguments are those of `load_dataset`.

    Raises:
        DataError: a list is missing or damaged.
    """
    split_file = LAYOUTS[key].split_file
    try:
        if key in imagenet.KEYS:
            names, rows, warning = imagenet.read_imagenet(key, folder, whole=whole, allow_missing=allow_missing)
            return Listing(names, rows, "published", warning)
        if key == "fgvc_aircraft":
            return Listing(*read_aircraft(folder), "published")
        if (folder / split_file).is_file():
            return Listing(*read_split(folder / split_file), "published")
        names, rows, warning = own_split(key, folder, cache_dir, whole=whole, allow_missing=allow_missing)
        return Listing(names, rows, "ours", warning)
    except OSError as error:
        raise DataError(f"dataset {key}: {error.filename}: cannot be read ({error.strerror})") from None
