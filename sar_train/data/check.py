"""Check a folder of datasets, or a user's own photos, for what is missing or wrong, and say how to fix it.

Nothing here raises because of what it finds: every problem is a `DataFinding`. Folders are listed once; an even sample
of the photos is decoded, or all of them on request.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sar_train.data.dataset import SPLITS, DataOptions, Dataset, spelling
from sar_train.data.layouts import GUIDE, LAYOUTS, dataset_in, find, folder_of, is_there
from sar_train.data.opening import open_dataset
from sar_train.data.photos import files_at, same_bytes, unreadable
from sar_train.data.readers import imagenet
from sar_train.data.readers.base import SPLIT_NAMES, reader_of
from sar_train.data.readers.coop import read_listing
from sar_train.data.readers.folder import domains
from sar_train.data.readers.hugging_face import HuggingFace, survey
from sar_train.errors import DataError

CheckState = Literal["ok", "warning", "error"]
Watch = Callable[[str, int], Callable[[int], None]]
"""Takes a dataset's name and the number of photos to decode; returns a callback for how many more are done."""
FIRST = 3
SHOTS = 16
SAMPLE = 500
TWICE_IN_IMAGENET = ("missile", "sunglasses")
"""Names that occur twice in OpenAI's list, and so in the published ``classnames.txt``."""


@dataclass(frozen=True)
class DataFinding:
    """One result of a check.

    Attributes:
        severity: ``error`` where the data cannot be used as it is, ``warning`` where results suffer or cannot be
            compared, ``ok`` for a mere note.
        message: one line.
        mend: how to mend it; may be empty.
    """

    severity: CheckState
    message: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {"severity": self.severity, "what": self.message, "mend": self.mend}

    @classmethod
    def of_text(cls, severity: CheckState, text: object) -> DataFinding:
        """Split a message after its last semicolon, where it says how to mend it."""
        message, _, mend = " ".join(str(text).split()).rpartition("; ")
        return cls(severity, message, mend) if message else cls(severity, mend)


@dataclass(frozen=True)
class Checked:
    """One dataset.

    Attributes:
        name: its name in commands.
        folder: its folder.
        classes: their number; None if unknown.
        counts: photos in train, val and test; None if unknown.
        decoded: how many photos were decoded.
        findings: all that is wrong, or worth knowing.
    """

    name: str
    folder: Path
    classes: int | None = None
    counts: tuple[int, ...] | None = None
    decoded: int = 0
    findings: tuple[DataFinding, ...] = ()

    @property
    def state(self) -> CheckState:
        """Return the worst severity of the findings."""
        severities = {finding.severity for finding in self.findings}
        return "error" if "error" in severities else "warning" if "warning" in severities else "ok"


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        path: the one that was given.
        checked: the datasets.
        absent: known datasets that are not there, where a folder of datasets was given.
        others: folders beside them that were not checked.
    """

    path: Path
    checked: tuple[Checked, ...]
    absent: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Return True if no dataset has an error."""
        return all(checked.state != "error" for checked in self.checked)


def unwatched(name: str, total: int) -> Callable[[int], None]:  # noqa: ARG001
    """Show no progress."""
    return lambda done: None


def check(path: Path, names: Sequence[str] = (), *, all_images: bool = False, watch: Watch = unwatched) -> Report:
    """Check the data at a path.

    Args:
        path: a folder of datasets, one dataset's folder, a folder of domains, or a user's own folder or list.
        names: check these datasets of the folder and no others.
        all_images: decode every photo, not only a sample of 500 of each dataset.
        watch: for progress.

    Raises:
        DataError: the path does not exist, or a name is unknown.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    look = _Look(watch, all_images)
    below = [key for key, layout in LAYOUTS.items() if (path / layout.folder).is_dir()]
    if names:
        return Report(path, tuple(_check_known(_key(name), path, look) for name in names))
    if path.is_dir() and (inside := dataset_in(path)):
        return Report(path, (_check_known(inside, path, look),))
    if below:
        absent = tuple(key for key in LAYOUTS if key not in below)
        folders = {LAYOUTS[key].folder for key in below}
        others = sorted(p.name for p in path.iterdir() if p.is_dir() and p.name not in folders and p.name[0] != ".")
        return Report(path, tuple(_check_known(key, path, look) for key in below), absent, tuple(others))
    folders_of_photos = [path / name for name in domains(path)] if path.is_dir() else []
    return Report(path, tuple(_check_photos(folder, look) for folder in folders_of_photos or [path]))


def check_dataset(dataset: Dataset, *, watch: Watch = unwatched) -> Checked:
    """Check a dataset that was opened: copies in two splits, its warnings, and a sample of 500 photos that is decoded.

    Args:
        dataset: the dataset.
        watch: for progress.
    """
    findings = [DataFinding.of_text("warning", warning) for warning in dataset.warnings]
    splits = {dataset.root / photo.path: split for split in SPLITS for photo in dataset.photos(split)}
    if copies := same_bytes(splits):
        one, other = copies[0]
        count = "1 photo is" if len(copies) == 1 else f"{len(copies):,} photos are"
        text = f"{count} in two splits, the first: {one} and {other}"
        findings.append(DataFinding("warning", text, "remove it from one of them; results look better than they are"))
    return _Look(watch)(dataset, dataset.root, findings)


def _key(name: str) -> str:
    key = find(name)
    if key is None:
        raise DataError(f"unknown dataset {name!r}; the known ones: {', '.join(LAYOUTS)}")
    return key


def _check_known(key: str, root: Path, look: _Look) -> Checked:
    """Check a dataset of `LAYOUTS`."""
    layout, folder = LAYOUTS[key], folder_of(key, root)
    findings: list[DataFinding] = []
    if not is_there(key, root):
        expected = f"a folder {layout.images or 'cars_train'}" + (f" or {layout.split_file}" * bool(layout.split_file))
        text = f"{root / layout.folder} is not there" if folder == root else f"{folder}: expected {expected}, not there"
        findings.append(DataFinding("error", text, f"get it as {GUIDE} says"))
        return Checked(key, root / layout.folder, findings=tuple(findings))
    try:
        dataset = read_listing(key, folder, DataOptions(allow_missing=True))
    except (DataError, OSError) as error:
        if layout.split_file and not (folder / layout.split_file).is_file():
            text = f"{layout.split_file} is not there, and a split of our own cannot be drawn"
            findings.append(DataFinding("error", text, f"get the file as {GUIDE} says"))
        problems = imagenet.problems(key, folder) if key in imagenet.KEYS else []
        findings += [DataFinding.of_text("error", text) for text in problems or [str(error)]]
        return Checked(key, folder, findings=tuple(findings))
    if dataset.split_origin == "ours":
        texts = [text.removeprefix(f"dataset {key}: ") for text in dataset.warnings]
        findings += [DataFinding.of_text("warning", text) for text in texts]
    return look(dataset, folder, [*findings, *_counts(dataset), *_names(dataset), *_twice(dataset)])


def _counts(dataset: Dataset) -> list[DataFinding]:
    """Compare the numbers of classes and photos with the published ones."""
    key, layout, findings = dataset.name, LAYOUTS[dataset.name], []
    if len(dataset.class_names) != layout.classes:
        text = f"{len(dataset.class_names):,} classes, expected {layout.classes:,}"
        findings.append(DataFinding("error", text, "complete the download, or go on with --allow-missing"))
    counts: dict[str, int] = {split: len(dataset.photos(split)) for split in SPLITS}
    expected: dict[str, int] = dict(zip(SPLITS, layout.counts, strict=True))
    if dataset.split_origin == "ours":
        counts, expected = {"all splits": sum(counts.values())}, {"all splits": sum(layout.counts)}
    lists = bool(layout.split_file) or key == "fgvc_aircraft"
    mend = f"compare the lists with {GUIDE}" if lists else "complete the download, and remove what is not of it"
    for split, count in counts.items():
        if count != expected[split]:
            text = f"{count:,} photos in {split}, published: {expected[split]:,}"
            findings.append(DataFinding("warning" if count > expected[split] else "error", text, mend))
    return findings


def _names(dataset: Dataset) -> list[DataFinding]:
    """Look for class names that cannot be told apart."""
    counts = Counter(map(spelling, dataset.class_names))
    twice = sorted(name for name, count in counts.items() if count > 1)
    if not twice:
        return []
    if dataset.name not in imagenet.KEYS:
        text = f"classes that read the same in a prompt: {', '.join(twice)}"
        return [DataFinding("error", text, f"get the split file as {GUIDE} says")]
    if unexpected := [name for name in twice if name not in TWICE_IN_IMAGENET]:
        text = f"names that occur twice in classnames.txt: {', '.join(unexpected)}; the published list has them once"
        return [DataFinding("warning", text, f"get classnames.txt as {GUIDE} says")]
    text = f"{' and '.join(twice)} occur twice in classnames.txt, as published; classes are told apart by WordNet id"
    return [DataFinding("ok", text)]


def _twice(dataset: Dataset) -> list[DataFinding]:
    """Look for photos that are listed twice."""
    splits_of: dict[str, list[str]] = {}
    for split in SPLITS:
        for photo in dataset.photos(split):
            splits_of.setdefault(photo.path, []).append(split)
    mend = f"get the split file as {GUIDE} says"
    shared = [path for path, splits in splits_of.items() if len(set(splits)) > 1]
    repeated = [path for path, splits in splits_of.items() if len(splits) > len(set(splits))]
    findings = []
    if shared:
        splits = " and ".join(dict.fromkeys(splits_of[shared[0]]))
        text = f"{len(shared):,} photos are in two splits, the first is {shared[0]} (in {splits})"
        findings.append(DataFinding("error", text, mend))
    if repeated:
        text = f"{len(repeated):,} photos are listed twice in one split, the first is {repeated[0]}"
        findings.append(DataFinding("warning", text, mend))
    return findings


def _check_photos(path: Path, look: _Look) -> Checked:
    """Check a user's own folder or list."""
    name = path.resolve().name
    only_test = path.is_dir() and [p.name.lower() for p in path.iterdir() if p.is_dir()] == ["test"]
    try:
        if isinstance(reader_of(path), HuggingFace):
            return _check_packed(name, path)
        dataset = open_dataset(str(path), DataOptions(shots=SHOTS, target=only_test))
    except (DataError, OSError) as error:
        return Checked(name, path, findings=(DataFinding.of_text("error", error),))
    findings = [DataFinding("warning", warning) for warning in dataset.warnings]
    if dataset.split_origin == "ours":
        text = f"no test split: with {SHOTS} shots this is what is learned from, validated and tested on"
        findings.append(DataFinding("ok", text))
    return look(dataset, path, findings)


def _check_packed(name: str, path: Path) -> Checked:
    """Check a folder of the library datasets, without unpacking its photos."""
    rows, names = survey(path)
    counts: Counter[str] = Counter()
    for split, count in rows.items():
        counts[SPLIT_NAMES.get(split.lower(), split)] += count
    findings = [DataFinding("ok", "packed by the library datasets: its photos are unpacked, and looked at, when used")]
    if unknown := sorted(set(counts) - set(SPLITS)):
        text = f"expected splits called train, validation and test, got {', '.join(unknown)}"
        findings.append(DataFinding("error", text, "rename the split, or save it as one of these"))
    return Checked(name, path, len(names) or None, tuple(counts[split] for split in SPLITS), 0, tuple(findings))


@dataclass(frozen=True)
class _Look:
    """A look at the photos of datasets, of which all or a sample are decoded."""

    watch: Watch
    all_images: bool = False

    def __call__(self, dataset: Dataset, folder: Path, findings: list[DataFinding]) -> Checked:
        """Look for the photos of a dataset, decode some, and add what is wrong with them to other findings."""
        root = str(dataset.root)  # text, for a million photos
        photos = (photo.path for split in SPLITS for photo in dataset.photos(split))
        paths = list(dict.fromkeys(os.path.join(root, path) for path in photos))  # noqa: PTH118
        files, wrong = _present(paths)
        chosen = files if self.all_images else _even_sample(files)
        if bad := unreadable(chosen, self.watch(dataset.name, len(chosen))):
            sample = "" if len(chosen) == len(files) else f" (--all-images looks at all {len(files):,})"
            named = _first([*bad], len(bad) if self.all_images else FIRST)
            text = (
                f"{len(bad):,} of {len(chosen):,} photos cannot be read{sample}: {named} ({next(iter(bad.values()))})"
            )
            mend = "download them again, or leave them out with --skip-unreadable"
            wrong.append(DataFinding("error", text, mend))
        counts = tuple(len(dataset.photos(split)) for split in SPLITS)
        return Checked(dataset.name, folder, len(dataset.class_names), counts, len(chosen), (*findings, *wrong))


def _present(paths: Sequence[str]) -> tuple[list[str], list[DataFinding]]:
    """Return the paths of files with content, and what is wrong with the others."""
    sizes = {path: file and file.stat().st_size for path, file in zip(paths, files_at(paths), strict=True)}
    files = [path for path, size in sizes.items() if size]
    findings = []
    if missing := [path for path, size in sizes.items() if size is None]:
        advice = "" if len(missing) == len(paths) else ", or go on without them with --allow-missing"
        missing_folders = {os.path.dirname(path) for path in missing} - {os.path.dirname(path) for path in files}  # noqa: PTH120
        folders = f", {len(missing_folders)} folders of them altogether" if len(missing_folders) > 1 else ""
        text = f"{len(missing):,} of {len(paths):,} listed photos are not there{folders}: {_first(missing)}"
        findings.append(DataFinding("error", text, f"complete the download{advice}"))
    if empty := [path for path, size in sizes.items() if size == 0]:
        text = f"{len(empty):,} of {len(paths):,} photos have no bytes: {_first(empty)}"
        findings.append(DataFinding("error", text, "download them again; a full disk leaves such files"))
    return files, findings


def _even_sample(paths: Sequence[str]) -> Sequence[str]:
    """Return `SAMPLE` paths at equal steps, all of them where there are fewer."""
    return paths if len(paths) <= SAMPLE else [paths[i * len(paths) // SAMPLE] for i in range(SAMPLE)]


def _first(paths: Sequence[str], count: int = FIRST) -> str:
    """Return the first few paths for a message."""
    return ", ".join(paths[:count]) + (", …" if len(paths) > count else "")
