"""Looking at photos on the disk: which are missing, which cannot be decoded, and which lie there twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sar_infer.errors import ImageError, InputError
from sar_infer.images.inputs import left_out_line, read_excluded
from sar_infer.images.load import load_rgb
from sar_train.data.dataset import SPLITS, Dataset, Photo, Split
from sar_train.errors import DataError

SAMPLE = 500
"""Photos that are decoded to check a dataset; of more, as many at even steps."""
MOST_COMPARED = 20_000
"""Photos among which the same one is looked for twice; among more, almost every size occurs twice."""


def unreadable(paths: Sequence[str]) -> dict[str, str]:
    """Return the photos that cannot be decoded, in order, each with the reason; JPEGs are decoded at an eighth."""

    def problem(path: str) -> str:
        try:
            load_rgb(path, least=1)
        except (ImageError, MemoryError) as error:
            return " ".join(str(error).split()).replace(path, Path(path).name) or type(error).__name__
        return ""

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return {path: text for path, text in zip(paths, pool.map(problem, paths), strict=True) if text}


def same_bytes(groups: Mapping[Path, Hashable]) -> list[tuple[Path, Path]]:
    """Return pairs of files with the same bytes in different groups; files of a size that one group has are not read.

    Args:
        groups: the group of each file, such as its class; of more than `MOST_COMPARED` files none is read.
    """
    by_size: dict[int, list[Path]] = {}
    for file in groups if len(groups) <= MOST_COMPARED else ():
        with contextlib.suppress(OSError):
            by_size.setdefault(file.stat().st_size, []).append(file)
    first: dict[bytes, Path] = {}
    pairs = []
    for size, files in by_size.items():
        for file in files if size and len({groups[file] for file in files}) > 1 else ():
            with contextlib.suppress(OSError):
                other = first.setdefault(hashlib.sha256(file.read_bytes()).digest(), file)
                if groups[other] != groups[file]:
                    pairs.append((other, file))
    return pairs


def check_dataset(dataset: Dataset) -> tuple[int, list[dict[str, str]], list[tuple[Path, Path]]]:
    """Look for what is wrong with an opened dataset: its warnings, copies in two splits, photos that cannot be decoded.

    Args:
        dataset: the dataset, of which an even sample is decoded.

    Returns:
        How many photos were decoded, the problems: ``severity`` (``error`` or ``warning``) and ``what``, one line, and
        pairs of copies in two splits.
    """
    problems = [("warning", warning) for warning in dataset.warnings]
    splits = {dataset.root / photo.path: split for split in SPLITS for photo in dataset.photos(split)}
    if copies := same_bytes(splits):
        one, other = copies[0]
        count = "1 photo is" if len(copies) == 1 else f"{len(copies):,} photos are"
        advice = "remove it from one of them; results look better than they are"
        problems.append(("warning", f"{count} in two splits, the first: {one} and {other}; {advice}"))
    paths = list(map(str, splits))
    chosen = paths if len(paths) <= SAMPLE else [paths[i * len(paths) // SAMPLE] for i in range(SAMPLE)]
    if bad := unreadable(chosen):
        path, reason = next(iter(bad.items()))
        text = f"{len(bad):,} of {len(chosen):,} photos cannot be read, the first: {path} ({reason})"
        problems.append(("error", f"{text}; replace them, or leave them out with --skip-unreadable"))
    return len(chosen), [{"severity": severity, "what": what} for severity, what in problems], copies


def without_missing(dataset: Dataset, *, allow_missing: bool) -> Dataset:
    """Return the dataset itself if every photo exists, else only with the photos that exist.

    Args:
        dataset: with photos that a list names.
        allow_missing: go on with the rest; classes without a photo to train on (to test on, where nothing is trained
            on) are left out.

    Raises:
        DataError: photos are missing; the message counts them, names the first and says how to go on.
    """
    use: Split = "train" if dataset.photos("train") else "test"
    listed = [path for split in dataset.splits for path in _paths(dataset, split)]
    missing = {path for path in listed if not os.path.isfile(path)}  # noqa: PTH113
    if not missing:
        return dataset
    count = sum(path in missing for path in listed)
    if not allow_missing or missing.issuperset(_paths(dataset, use)):
        advice = "" if count == len(listed) else ", or go on without them with --allow-missing"
        first = next(path for path in listed if path in missing)
        raise DataError(
            f"dataset {dataset.name}: {count} of {len(listed)} photos are missing, the first is {first}; "
            f"complete the download{advice}"
        )
    return _without(dataset, missing, f"dataset {dataset.name}: went on without {count} of {len(listed)} photos")


def without_excluded(dataset: Dataset, exclude: Path | None) -> Dataset:
    """Return the dataset without the photos of a list, with a warning that counts them.

    Raises:
        DataError: the list cannot be read.
    """
    try:
        excluded = read_excluded(exclude)
    except InputError as error:
        raise DataError(f"--exclude {error}") from None
    if not excluded:
        return dataset
    names = {os.path.basename(path) for path in excluded}  # noqa: PTH119 - there may be a million photos
    paths = [path for split in dataset.splits for path in _paths(dataset, split)]
    bad = {path for path in paths if os.path.basename(path) in names and os.path.realpath(path) in excluded}  # noqa: PTH119
    return _without(dataset, bad, left_out_line(exclude, excluded, {os.path.realpath(path) for path in bad}))


def without_unreadable(dataset: Dataset) -> Dataset:
    """Decode every photo once and drop those that fail, with a warning that counts them and names the first.

    Raises:
        DataError: no training photo is left, or no test photo where nothing is trained on.
    """
    use: Split = "train" if dataset.photos("train") else "test"
    problems = unreadable([path for split in dataset.splits for path in _paths(dataset, split)])
    if not problems:
        return dataset
    first = ": ".join(next(iter(problems.items())))
    if problems.keys() >= set(_paths(dataset, use)):
        word = "training" if use == "train" else use
        raise DataError(f"dataset {dataset.name}: no {word} photo can be read, the first: {first}")
    count = "1 unreadable photo" if len(problems) == 1 else f"{len(problems)} unreadable photos"
    return _without(dataset, set(problems), f"{count} left out, the first: {first}")


def _paths(dataset: Dataset, split: Split) -> list[str]:
    """Return the whole path of each photo of a split, as text, since there may be a million."""
    root = str(dataset.root)
    return [os.path.join(root, photo.path) for photo in dataset.photos(split)]  # noqa: PTH118


def _without(dataset: Dataset, bad: set[str], warning: str) -> Dataset:
    """Return the dataset without the photos at some paths.

    Classes that keep no training photo (no test photo, where nothing is trained on) are left out with all their
    photos, and the remaining classes are numbered anew.
    """
    photos = {
        split: [one for one, path in zip(of_split, _paths(dataset, split), strict=True) if path not in bad]
        for split, of_split in dataset.splits.items()
    }
    labels = sorted({photo.label for photo in photos["train" if dataset.photos("train") else "test"]})
    numbers = {label: number for number, label in enumerate(labels)}
    if lost := len(dataset.class_names) - len(labels):
        warning += f" and {lost} class{'es' * (lost > 1)}"
    return replace(
        dataset,
        class_names=tuple(dataset.class_names[label] for label in labels),
        splits={
            split: tuple(Photo(path, numbers[label]) for path, label in of_split if label in numbers)
            for split, of_split in photos.items()
        },
        warnings=(*dataset.warnings, warning),
    )
