"""The datasets that are known by name, with the splits that the field reports on.

A split file of KaiyangZhou/CoOp, ``split_zhou_….json``, holds ``train``, ``val`` and ``test``, each a list of ``[path,
label, class name]``. Where it is missing a split of our own is drawn, and the dataset's warnings say so. That is drawn
as in CoOp's code, with a generator that does not depend on a run's seed: datasets of class folders, and Flowers, are
split into half, a fifth and the rest of each class; elsewhere the test photos are those that the authors list, and a
fifth of each class of the others validates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sar_train.data.dataset import SPLITS, DataOptions, Dataset, Photo, Split
from sar_train.data.layouts import GUIDE, LAYOUTS
from sar_train.data.readers import author_lists, imagenet
from sar_train.data.readers.author_lists import Row, Rows, listed
from sar_train.data.readers.base import entries
from sar_train.data.splits import split_photos
from sar_train.errors import DataError

SEED = 1
NAME_FIXES: dict[str, dict[str, str]] = {
    "caltech101": {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"},
    "eurosat": {
        "AnnualCrop": "Annual Crop Land",
        "Forest": "Forest",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "River": "River",
        "SeaLake": "Sea or Lake",
    },
}
IGNORED = {"caltech101": frozenset(("BACKGROUND_Google", "Faces_easy"))}


def read_listing(key: str, folder: Path, options: DataOptions) -> Dataset:
    """Return the classes and photos of a dataset by its lists or folders; the photos need not exist.

    Args:
        key: of `LAYOUTS`.
        folder: the dataset's own.
        options: a target has the test photos of the published split, or all photos where the split would be ours.

    Raises:
        DataError: neither a split file nor the lists or folders that a split of our own is made from, or a damaged
            list.
    """
    layout = LAYOUTS[key]
    warning, split_file = "", folder / layout.split_file
    is_ours = bool(layout.split_file) and not split_file.is_file()
    splits: Mapping[Split, Sequence[Photo]]
    try:
        if key in imagenet.KEYS:
            names, splits, warning = imagenet.read_imagenet(key, folder, options)
        elif is_ours:
            names, splits, warning = _own_split(key, folder, options)
        elif layout.split_file:
            names, splits = read_split(split_file)
        else:
            names, splits = listed(folder, author_lists.LISTS[key](folder))
    except OSError as error:
        raise DataError(f"dataset {key}: {error.filename}: cannot be read ({error.strerror})") from None
    return Dataset(
        key,
        names,
        folder / layout.images,
        {"test": splits.get("test", ())} if options.target else splits,
        layout.template,
        published_split=True,
        split_origin="ours" if is_ours else "published",
        warnings=(warning,) if warning else (),
    )


def read_split(path: Path) -> tuple[tuple[str, ...], dict[Split, list[Photo]]]:
    """Return class names by label, and the photos by split, of a split file.

    Raises:
        DataError: not JSON of the expected form, a path that leaves the folder, labels with gaps, or a label with
            two names.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict) or any(not isinstance(content.get(split), list) for split in SPLITS):
        raise DataError(f"{path}: expected an object with the lists train, val and test")

    def rows(split: Split) -> Iterator[Row]:
        for number, row in enumerate(content[split]):
            line = f"{path}: {split}[{number}]"
            if not isinstance(row, list) or [type(value) for value in row] != [str, int, str]:
                raise DataError(f"{line}: expected [path, label, class name], got {row!r:.80}")
            photo, label, name = row
            yield Row(photo, label, name, line)

    return listed(path, {split: rows(split) for split in SPLITS})


def _own_split(
    key: str, folder: Path, options: DataOptions
) -> tuple[tuple[str, ...], Mapping[Split, Sequence[Photo]], str]:
    """Return class names, photos by split, and the sentence that must be shown with every result.

    Raises:
        DataError: neither class folders nor the authors' lists are there, or they cannot be used.
    """
    layout, rows_of = LAYOUTS[key], author_lists.LISTS.get(key)
    names, splits = listed(folder, rows_of(folder) if rows_of else _class_folders(key, folder / layout.images))
    photos, test = splits["train"], splits.get("test")
    if test is None and len(names) != layout.classes and not options.allow_missing:
        raise DataError(
            f"{folder / layout.images}: expected {layout.classes} classes, got {len(names)}; complete the download, or "
            "go on without them with --allow-missing"
        )
    note = " (the test photos are those that its authors list)" if test is not None else ""
    drawn: Mapping[Split, Sequence[Photo]]
    if options.target:
        drawn, note = {"test": test or photos}, note or " (all photos are tested on)"
    elif test is None:
        drawn = split_photos(photos, lambda total: (max(1, round(0.5 * total)), round(0.2 * total)), SEED)
    else:
        drawn = split_photos(photos, lambda total: (total - round(0.2 * total), round(0.2 * total)), SEED)
        drawn = {**drawn, "test": test}
    warning = f"dataset {key}: {layout.split_file} is not there, so this is our own split and not the published one"
    return names, drawn, f"{warning}{note}; results cannot be compared with papers; get the file as {GUIDE} says"


def _class_folders(key: str, images: Path) -> Rows:
    """Return the photos of a dataset with one folder for each class, in sorted order, all to train on.

    Raises:
        DataError: there is no such folder, or nothing in it.
    """
    if not images.is_dir():
        raise DataError(f"dataset {key}: expected the folder {images}, not there; see {GUIDE}")
    folders = [name for name in entries(images)[0] if name not in IGNORED.get(key, ())]
    fixes = NAME_FIXES.get(key, {})

    def rows() -> Iterator[Row]:
        for label, name in enumerate(folders):
            photos = imagenet.photo_names(images / name)
            if not photos:
                raise DataError(f"{images / name}: no photo in it; complete the download")
            yield from (Row(f"{name}/{photo}", label, fixes.get(name, name), str(images)) for photo in photos)

    if not folders:
        raise DataError(f"{images}: expected one folder per class, got none; complete the download")
    return {"train": rows()}
