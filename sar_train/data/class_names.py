"""The class names of the data that a user names; neither images nor a backbone are needed for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_train.data import imagenet
from sar_train.data.coop_layout import load_dataset
from sar_train.data.dataset_lists import lines_of, read_split
from sar_train.data.hf_dataset import is_hf_dataset
from sar_train.data.images import DataOptions
from sar_train.data.layouts import LAYOUTS, PHOTO, dataset_in, find, folder_of
from sar_train.data.open_images import open_images
from sar_train.errors import DataError

IMAGENET = "imagenet"
SAME_CLASSES = (IMAGENET, "imagenetv2", "imagenet_sketch")
"""Datasets with all of ImageNet's classes."""


@dataclass(frozen=True)
class ClassNames:
    """Names of a dataset's classes.

    Attributes:
        dataset: its name.
        names: by label.
        template: hand-crafted prompt with ``{}``.
        published_split: True if it comes with the splits that papers report on.
    """

    dataset: str
    names: tuple[str, ...]
    template: str = PHOTO
    published_split: bool = False


def read_class_names(spec: str, data_root: Path | None = None, cache_dir: Path | None = None) -> ClassNames:
    """Read the classes of anything to train on: ``demo``, a feature file, a list, a folder, a dataset by name.

    A dataset's names come from its split file or list of names, and ImageNet's from open_clip where they are not below
    ``data_root``.

    Args:
        spec: as for training.
        data_root: the folder that holds datasets by name.
        cache_dir: where images of packed datasets are kept between runs.

    Raises:
        DataError: nothing of that name, or data that cannot be used.
    """
    path, known = Path(spec), find(spec)
    if known and (data_root or not path.exists()):
        return _published(known, data_root)
    if path.is_dir() and (inside := dataset_in(path)):
        return _published(inside, path)
    if spec == "demo" or path.suffix.lower() == ".safetensors":
        return _of_features(spec)
    if not path.exists() and not (data_root and (data_root / path).exists()):
        expected = f"expected a path, demo, or one of {', '.join(LAYOUTS)}"
        raise DataError(f"{spec}: no such file, folder or dataset; {expected}")
    return _of_photos(spec, data_root, cache_dir)


def _published(key: str, root: Path | None) -> ClassNames:
    """Read the names in a dataset's folder, which is ``root`` or below it."""
    layout, folder = LAYOUTS[key], folder_of(key, root or Path())
    names: Sequence[str] = ()
    if root and layout.split_file and (folder / layout.split_file).is_file():
        names, _ = read_split(folder / layout.split_file)
    elif root and (folder / "variants.txt").is_file():
        names = [line for _, line in lines_of(folder / "variants.txt")]
    elif root and key in SAME_CLASSES and (listing := _listing(folder)):
        names = list(imagenet.read_names(listing).values())
    elif key in SAME_CLASSES:
        names = _imagenet()
    elif root:
        dataset = load_dataset(key, root, allow_missing=True)
        return ClassNames(key, dataset.class_names, dataset.template, published_split=dataset.published_split)
    else:
        raise DataError(f"dataset {key}: give with --data-root the folder that holds {layout.folder}")
    return ClassNames(key, tuple(names), layout.template, published_split=True)


def _listing(folder: Path) -> Path | None:
    """Return the path of ``classnames.txt``, None where there is none."""
    try:
        return imagenet.names_file(folder)
    except DataError:
        return None


def _imagenet() -> Sequence[str]:
    from open_clip import IMAGENET_CLASSNAMES

    names: Sequence[str] = IMAGENET_CLASSNAMES
    return names


def _of_features(spec: str) -> ClassNames:
    from sar_train.data.features import load_features
    from sar_train.data.source import DEMO, DEMO_FILE

    stored = load_features(DEMO_FILE if spec == DEMO else Path(spec))
    return ClassNames(stored.name, stored.class_names, stored.template, published_split=stored.published_split)


def _of_photos(spec: str, data_root: Path | None, cache_dir: Path | None) -> ClassNames:
    """Read the names of a folder or a list, opened as for training but with a cache for packed images alone."""
    packed = any(is_hf_dataset(path) for path in (Path(spec), (data_root or Path()) / spec) if path.is_dir())
    options = DataOptions(data_root, shots=0, cache_dir=cache_dir if packed else None, allow_missing=True)
    dataset = open_images(spec, options)
    return ClassNames(dataset.name, dataset.class_names, dataset.template, published_split=dataset.published_split)
