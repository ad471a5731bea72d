"""The class names of the data that a user names; neither photos nor a backbone are needed for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sar_train.data.dataset import DataOptions, Dataset
from sar_train.data.layouts import LAYOUTS, find, folder_of, missing_in
from sar_train.data.opening import is_features, locate, open_dataset
from sar_train.data.readers import imagenet
from sar_train.data.readers.author_lists import lines_of
from sar_train.data.readers.coop import read_listing, read_split
from sar_train.errors import DataError

IMAGENET = "imagenet"
SAME_CLASSES = (IMAGENET, "imagenetv2", "imagenet_sketch")
"""Datasets with all of ImageNet's classes."""


def read_classes(spec: str, data_root: Path | None = None, cache_dir: Path | None = None) -> Dataset:
    """Return the dataset of anything to train on, ``demo``, a feature file, …, for its class names.

    Of a dataset known by name they come from its split file or list of names, and ImageNet's from open_clip where they
    are not below ``data_root``; it may then have no photos.

    Args:
        spec: as for training.
        data_root: the folder that holds datasets by name.
        cache_dir: where photos of packed datasets are kept between runs.

    Raises:
        DataError: nothing of that name, or data that cannot be used.
    """
    path, key = locate(spec, data_root)
    if key:
        return _known_dataset(key, path)
    if (key := find(spec)) and not path.exists():
        return _known_dataset(key, None)
    if is_features(spec):
        from sar_train.data.feature_file import load_features

        return load_features(spec).dataset
    if not path.exists():
        expected = f"expected a path, demo, or one of {', '.join(LAYOUTS)}"
        raise DataError(f"{spec}: no such file, folder or dataset; {expected}")
    return open_dataset(spec, DataOptions(data_root, shots=0, cache_dir=cache_dir, allow_missing=True))


def _known_dataset(key: str, root: Path | None) -> Dataset:
    """Read the names in the folder of a dataset known by name, which is ``root`` or below it."""
    layout, folder = LAYOUTS[key], folder_of(key, root or Path())
    names: Sequence[str] = ()
    if root and layout.split_file and (folder / layout.split_file).is_file():
        names, _ = read_split(folder / layout.split_file)
    elif root and (folder / "variants.txt").is_file():
        names = [line for _, line in lines_of(folder / "variants.txt")]
    elif key in SAME_CLASSES:
        names = _imagenet(folder if root else None)
    elif root:
        if message := missing_in(root, key):
            raise DataError(message)
        return read_listing(key, folder, DataOptions(allow_missing=True))
    else:
        raise DataError(f"dataset {key}: give with --data-root the folder that holds {layout.folder}")
    return Dataset(key, tuple(names), template=layout.template, published_split=True)


def _imagenet(folder: Path | None) -> Sequence[str]:
    """Return ImageNet's names as ``classnames.txt`` in or beside a folder has them, else as open_clip has them."""
    try:
        listing = imagenet.names_file(folder) if folder else None
    except DataError:
        listing = None
    if listing:
        return [*imagenet.read_names(listing).values()]
    from open_clip import IMAGENET_CLASSNAMES

    names: Sequence[str] = IMAGENET_CLASSNAMES
    return names
