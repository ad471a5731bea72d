"""Check a folder of datasets, or a user's own images, for what is missing or wrong, and say how to fix it.

Nothing here raises because of what it finds: every problem is a `DataFinding`. Folders are listed once; an even sample
of the images is decoded, or all of them on request.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sar_infer.errors import ImageError
from sar_infer.images.load import load_rgb
from sar_train.data import hf_dataset
from sar_train.data.check_known import DataFinding, check_rows, from_error, list_known
from sar_train.data.folder import SPLIT_FOLDERS, domains
from sar_train.data.images import SPLITS, DataOptions
from sar_train.data.layouts import GUIDE, LAYOUTS, dataset_in, find, folder_of, is_there
from sar_train.data.open_images import open_images
from sar_train.errors import DataError

CheckState = Literal["ok", "warning", "error"]
Watch = Callable[[str, int], Callable[[int], None]]
"""Takes a dataset's name and the number of images to decode; returns a callback for how many more are done."""
FIRST = 3
SHOTS = 16
SAMPLE = 500
Advance = Callable[[int], None]
"""Takes how many images have been decoded since the last call."""


@dataclass(frozen=True)
class Checked:
    """One dataset.

    Attributes:
        name: its name in commands.
        folder: its folder.
        classes: their number; None if unknown.
        counts: images in train, val and test; None if unknown.
        decoded: how many images were decoded.
        findings: all that is wrong, or worth knowing.
    """

    name: str
    folder: Path
    classes: int | None
    counts: tuple[int, int, int] | None
    decoded: int
    findings: tuple[DataFinding, ...]

    @property
    def state(self) -> CheckState:
        """Return the worst severity of the findings."""
        found = {finding.severity for finding in self.findings}
        return "error" if "error" in found else "warning" if "warning" in found else "ok"


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        place: the path that was given.
        checked: the datasets.
        absent: known datasets that are not there, where a folder of datasets was given.
        others: folders beside them that were not checked.
    """

    place: Path
    checked: tuple[Checked, ...]
    absent: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Return True if no dataset has an error."""
        return all(checked.state != "error" for checked in self.checked)


def _unwatched(name: str, total: int) -> Callable[[int], None]:  # noqa: ARG001
    return lambda done: None


def check(place: Path, names: Sequence[str] = (), *, all_images: bool = False, watch: Watch = _unwatched) -> Report:
    """Check the data at a path.

    Args:
        place: a folder of datasets, one dataset's folder, a folder of domains, or a user's own folder or list.
        names: check these datasets of ``place`` and no others.
        all_images: decode every image, not only a sample of 500 of each dataset.
        watch: for progress.

    Raises:
        DataError: ``place`` does not exist, or a name is unknown.
    """
    if not place.exists():
        raise DataError(f"{place}: no such file or folder")
    inside = dataset_in(place) if place.is_dir() else None
    below = [key for key, layout in LAYOUTS.items() if (place / layout.folder).is_dir()]
    if names:
        return Report(place, tuple(_known(_key(name), place, all_images, watch) for name in names))
    if inside:
        return Report(place, (_known(inside, place, all_images, watch),))
    if below:
        absent = tuple(key for key in LAYOUTS if key not in below)
        folders = {LAYOUTS[key].folder for key in below}
        others = sorted(p.name for p in place.iterdir() if p.is_dir() and p.name not in folders and p.name[0] != ".")
        return Report(place, tuple(_known(key, place, all_images, watch) for key in below), absent, tuple(others))
    found = domains(place) if place.is_dir() else ()
    if found:
        return Report(place, tuple(_own(place / name, all_images, watch) for name in found))
    return Report(place, (_own(place, all_images, watch),))


def _key(name: str) -> str:
    key = find(name)
    if key is None:
        raise DataError(f"unknown dataset {name!r}; the known ones: {', '.join(LAYOUTS)}")
    return key


def _known(key: str, root: Path, all_images: bool, watch: Watch) -> Checked:
    """Check a dataset of the table."""
    layout, folder = LAYOUTS[key], folder_of(key, root)
    if not is_there(key, root):
        expected = f"a folder {layout.images or 'cars_train'}" + (f" or {layout.split_file}" * bool(layout.split_file))
        what = f"{root / layout.folder} is not there" if folder == root else f"{folder}: expected {expected}, not there"
        finding = DataFinding("error", key, what, f"get it as {GUIDE} says")
        return Checked(key, root / layout.folder, None, None, 0, (finding,))
    listing, findings = list_known(key, folder)
    if listing is None:
        return Checked(key, folder, None, None, 0, tuple(findings))
    counts = [len(listing.rows[split]) for split in SPLITS]
    findings += check_rows(key, listing)
    images = os.path.join(folder, layout.images, "")  # noqa: PTH118 - text, for a million photos
    paths = list(dict.fromkeys(images + path for split in SPLITS for path, _ in listing.rows[split]))
    decoded = _photos(key, paths, all_images, watch, findings)
    return Checked(key, folder, len(listing.class_names), (counts[0], counts[1], counts[2]), decoded, tuple(findings))


def _own(place: Path, all_images: bool, watch: Watch) -> Checked:
    """Check a user's own folder or list."""
    name = place.resolve().name
    findings: list[DataFinding] = []
    try:
        if place.is_dir() and hf_dataset.is_hf_dataset(place):
            return _packed(name, place)
        dataset = open_images(str(place), DataOptions(shots=SHOTS), whole=_only_test(place))
    except (DataError, OSError) as error:
        return Checked(name, place, None, None, 0, (from_error(name, error),))
    findings += [DataFinding("warning", dataset.name, warning) for warning in dataset.warnings]
    counts = len(dataset.train), len(dataset.val), len(dataset.test)
    if dataset.split_origin == "ours":
        text = f"no test split: with {SHOTS} shots this is what is learned from, validated and tested on"
        findings.append(DataFinding("ok", dataset.name, text))
    paths = [str(photo.path) for split in SPLITS for photo in dataset.images(split)]
    decoded = _photos(dataset.name, paths, all_images, watch, findings)
    return Checked(dataset.name, place, len(dataset.class_names), counts, decoded, tuple(findings))


def _only_test(place: Path) -> bool:
    """Return True if a folder contains only a folder ``test``, so that it is a target of evaluation."""
    return place.is_dir() and [p.name.lower() for p in place.iterdir() if p.is_dir()] == ["test"]


def _packed(name: str, place: Path) -> Checked:
    rows, names = hf_dataset.survey(place)
    parts: Counter[str] = Counter()
    for split, count in rows.items():
        parts[SPLIT_FOLDERS.get(split.lower(), split)] += count
    unknown = sorted(set(parts) - set(SPLITS))
    findings = [
        DataFinding("ok", name, "packed by the library datasets: its photos are unpacked, and looked at, when used")
    ]
    if unknown:
        text = f"expected splits called train, validation and test, got {', '.join(unknown)}"
        findings.append(DataFinding("error", name, text, "rename the split, or save it as one of these"))
    counts = parts["train"], parts["val"], parts["test"]
    return Checked(name, place, len(names) or None, counts, 0, tuple(findings))


def _photos(name: str, paths: Sequence[str], all_images: bool, watch: Watch, findings: list[DataFinding]) -> int:
    """Look for the files, decode some, add to the findings, and return how many were decoded."""
    found = sizes(paths)
    missing = [path for path, size in zip(paths, found, strict=True) if size is None]
    empty = [path for path, size in zip(paths, found, strict=True) if size == 0]
    there = [path for path, size in zip(paths, found, strict=True) if size]
    if missing:
        advice = "" if len(missing) == len(paths) else ", or go on without them with --allow-missing"
        gone = {os.path.dirname(path) for path in missing} - {os.path.dirname(path) for path in there}  # noqa: PTH120
        folders = f", {len(gone)} folders of them altogether" if len(gone) > 1 else ""
        text = f"{len(missing):,} of {len(paths):,} listed photos are not there{folders}: {_first(missing)}"
        findings.append(DataFinding("error", name, text, f"complete the download{advice}"))
    if empty:
        text = f"{len(empty):,} of {len(paths):,} photos have no bytes: {_first(empty)}"
        findings.append(DataFinding("error", name, text, "download them again; a full disk leaves such files"))
    chosen = there if all_images else even_sample(there, SAMPLE)
    bad = unreadable(chosen, watch(name, len(chosen)))
    if bad:
        sample = "" if len(chosen) == len(there) else f" (--all-images looks at all {len(there):,})"
        named = len(bad) if all_images else FIRST
        which = f"{_first([path for path, _ in bad], named)} ({bad[0][1]})"
        text = f"{len(bad):,} of {len(chosen):,} photos cannot be read{sample}: {which}"
        findings.append(
            DataFinding("error", name, text, "download them again, or leave them out with --skip-unreadable")
        )
    return len(chosen)


def _first(paths: Sequence[str], count: int = FIRST) -> str:
    return ", ".join(paths[:count]) + (", …" if len(paths) > count else "")


def sizes(paths: Sequence[str]) -> list[int | None]:
    """Return the size of each file in bytes, None for a missing one; every folder is listed once."""
    places = [os.path.split(path) for path in paths]
    wanted: dict[str, set[str]] = {}
    for folder, name in places:
        wanted.setdefault(folder, set()).add(name)
    found: dict[str, dict[str, int]] = {}
    for folder, names in wanted.items():
        found[folder] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name in names and entry.is_file():
                        found[folder][entry.name] = entry.stat().st_size
        except OSError:
            continue
    return [found[folder].get(name) for folder, name in places]


def even_sample(paths: Sequence[str], count: int) -> list[str]:
    """Return ``count`` paths at equal steps, all of them where there are fewer."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i * len(paths) // count] for i in range(count)]


def unreadable(paths: Sequence[str], advance: Advance = lambda done: None) -> list[tuple[str, str]]:
    """Return the images that cannot be decoded, each with the reason, in order; JPEGs are decoded at an eighth."""

    def problem(path: str) -> str:
        try:
            load_rgb(path, least=1)
        except (ImageError, MemoryError) as error:
            return " ".join(str(error).split()).replace(path, Path(path).name) or type(error).__name__
        return ""

    found = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for path, text in zip(paths, pool.map(problem, paths), strict=True):
            advance(1)
            if text:
                found.append((path, text))
    return found
