"""Check a folder of datasets, or a user's own photos, for what is missing or wrong, and say how to fix it.

Nothing here raises because of what it finds: every problem is a `DataFinding`. Folders are listed once; an even sample
of the photos is decoded, or all of them on request.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sar_infer.errors import ImageError
from sar_infer.images.load import load_rgb
from sar_train.data import imagenet
from sar_train.data.coop import read_listing
from sar_train.data.dataset import SPLITS, DataOptions, Dataset
from sar_train.data.layouts import GUIDE, LAYOUTS, dataset_in, find, folder_of, is_there
from sar_train.data.open_dataset import copied, open_dataset
from sar_train.data.readers.base import SPLIT_NAMES, reader_of
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
    classes: int | None
    counts: tuple[int, ...] | None
    decoded: int
    findings: tuple[DataFinding, ...]

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
    decoder = _Decoder(all_images, watch)
    inside = dataset_in(path) if path.is_dir() else None
    below = [key for key, layout in LAYOUTS.items() if (path / layout.folder).is_dir()]
    if names:
        return Report(path, tuple(_check_named(_key(name), path, decoder) for name in names))
    if inside:
        return Report(path, (_check_named(inside, path, decoder),))
    if below:
        absent = tuple(key for key in LAYOUTS if key not in below)
        folders = {LAYOUTS[key].folder for key in below}
        others = sorted(p.name for p in path.iterdir() if p.is_dir() and p.name not in folders and p.name[0] != ".")
        return Report(path, tuple(_check_named(key, path, decoder) for key in below), absent, tuple(others))
    domain_names = domains(path) if path.is_dir() else ()
    folders_of_photos = [path / name for name in domain_names] or [path]
    return Report(path, tuple(_check_photos(folder, decoder) for folder in folders_of_photos))


def _key(name: str) -> str:
    key = find(name)
    if key is None:
        raise DataError(f"unknown dataset {name!r}; the known ones: {', '.join(LAYOUTS)}")
    return key


def _check_named(key: str, root: Path, decoder: _Decoder) -> Checked:
    """Check a dataset of `LAYOUTS`."""
    layout, folder = LAYOUTS[key], folder_of(key, root)
    if not is_there(key, root):
        expected = f"a folder {layout.images or 'cars_train'}" + (f" or {layout.split_file}" * bool(layout.split_file))
        text = f"{root / layout.folder} is not there" if folder == root else f"{folder}: expected {expected}, not there"
        finding = DataFinding("error", text, f"get it as {GUIDE} says")
        return Checked(key, root / layout.folder, None, None, 0, (finding,))
    dataset, findings = listing(key, folder)
    if dataset is None:
        return Checked(key, folder, None, None, 0, tuple(findings))
    findings += check_listing(dataset)
    return _checked(dataset, folder, findings, decoder)


def listing(key: str, folder: Path) -> tuple[Dataset | None, list[DataFinding]]:
    """Read a dataset's lists and folders.

    Returns:
        The dataset, whose photos need not exist, None where they cannot be used, and what is wrong with them.
    """
    if key in imagenet.KEYS and (problems := imagenet.problems(key, folder)):
        return None, [DataFinding.of_text("error", text) for text in problems]
    try:
        dataset = read_listing(key, folder, DataOptions(allow_missing=True))
    except (DataError, OSError) as error:
        layout, findings = LAYOUTS[key], [DataFinding.of_text("error", error)]
        if layout.split_file and not (folder / layout.split_file).is_file():
            text = f"{layout.split_file} is not there, and a split of our own cannot be drawn"
            findings.insert(0, DataFinding("error", text, f"get the file as {GUIDE} says"))
        return None, findings
    warnings = [text.removeprefix(f"dataset {key}: ") for text in dataset.warnings if dataset.split_origin == "ours"]
    return dataset, [DataFinding.of_text("warning", text) for text in warnings]


def check_listing(dataset: Dataset) -> list[DataFinding]:
    """Compare counts with the published ones; find names that cannot be told apart and photos that are listed twice.

    Args:
        dataset: one that is known by name; its photos need not exist.
    """
    return [*_counts(dataset), *_names(dataset), *_twice(dataset)]


def _counts(dataset: Dataset) -> list[DataFinding]:
    key, layout, findings = dataset.name, LAYOUTS[dataset.name], []
    if len(dataset.class_names) != layout.classes:
        text = f"{len(dataset.class_names):,} classes, expected {layout.classes:,}"
        findings.append(DataFinding("error", text, "complete the download, or go on with --allow-missing"))
    counts: dict[str, int] = {split: len(dataset.photos(split)) for split in SPLITS}
    expected: dict[str, int] = dict(zip(SPLITS, layout.counts, strict=True))
    if dataset.split_origin == "ours":
        counts, expected = {"all splits": sum(counts.values())}, {"all splits": sum(layout.counts)}
    for split, count in counts.items():
        if count != expected[split]:
            lists = bool(layout.split_file) or key == "fgvc_aircraft"
            mend = f"compare the lists with {GUIDE}" if lists else "complete the download, and remove what is not of it"
            text = f"{count:,} photos in {split}, published: {expected[split]:,}"
            findings.append(DataFinding("warning" if count > expected[split] else "error", text, mend))
    return findings


def _names(dataset: Dataset) -> list[DataFinding]:
    spelt = Counter(" ".join(name.replace("_", " ").lower().split()) for name in dataset.class_names)
    twice = sorted(name for name, count in spelt.items() if count > 1)
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


def _check_photos(path: Path, decoder: _Decoder) -> Checked:
    """Check a user's own folder or list."""
    name = path.resolve().name
    only_test = path.is_dir() and [p.name.lower() for p in path.iterdir() if p.is_dir()] == ["test"]
    try:
        if isinstance(reader_of(path), HuggingFace):
            return _check_packed(name, path)
        dataset = open_dataset(str(path), DataOptions(shots=SHOTS, target=only_test))
    except (DataError, OSError) as error:
        return Checked(name, path, None, None, 0, (DataFinding.of_text("error", error),))
    findings = [DataFinding("warning", warning) for warning in dataset.warnings]
    if dataset.split_origin == "ours":
        text = f"no test split: with {SHOTS} shots this is what is learned from, validated and tested on"
        findings.append(DataFinding("ok", text))
    return _checked(dataset, path, findings, decoder)


def _check_packed(name: str, path: Path) -> Checked:
    rows, names = survey(path)
    counts: Counter[str] = Counter()
    for split, count in rows.items():
        counts[SPLIT_NAMES.get(split.lower(), split)] += count
    findings = [DataFinding("ok", "packed by the library datasets: its photos are unpacked, and looked at, when used")]
    if unknown := sorted(set(counts) - set(SPLITS)):
        text = f"expected splits called train, validation and test, got {', '.join(unknown)}"
        findings.append(DataFinding("error", text, "rename the split, or save it as one of these"))
    return Checked(name, path, len(names) or None, tuple(counts[split] for split in SPLITS), 0, tuple(findings))


def _checked(dataset: Dataset, folder: Path, findings: list[DataFinding], decoder: _Decoder) -> Checked:
    """Look for the photos of a dataset, decode some, and add what is wrong with them to other findings."""
    root = str(dataset.root)  # text, for a million photos
    photos = (photo.path for split in SPLITS for photo in dataset.photos(split))
    paths = list(dict.fromkeys(os.path.join(root, path) for path in photos))  # noqa: PTH118
    decoded, bad = decoder.findings(dataset.name, paths)
    counts = tuple(len(dataset.photos(split)) for split in SPLITS)
    return Checked(dataset.name, folder, len(dataset.class_names), counts, decoded, (*findings, *bad))


def check_dataset(dataset: Dataset, *, watch: Watch = unwatched) -> Checked:
    """Check a dataset that was opened: copies in two splits, its warnings, and a sample of 500 photos that is decoded.

    Args:
        dataset: the dataset.
        watch: for progress.
    """
    findings = [DataFinding.of_text("warning", warning) for warning in dataset.warnings]
    if copies := copied(dataset):
        one, other = copies[0]
        count = "1 photo is" if len(copies) == 1 else f"{len(copies):,} photos are"
        text = f"{count} in two splits, the first: {one} and {other}"
        findings.append(DataFinding("warning", text, "remove it from one of them; results look better than they are"))
    return _checked(dataset, dataset.root, findings, _Decoder(all_images=False, watch=watch))


@dataclass(frozen=True)
class _Decoder:
    """Decodes photos: all, or a sample of each dataset."""

    all_images: bool
    watch: Watch

    def findings(self, name: str, paths: Sequence[str]) -> tuple[int, list[DataFinding]]:
        """Look for the files, decode some, and return how many were decoded and what is wrong with them."""
        findings: list[DataFinding] = []
        bytes_of = dict(zip(paths, sizes(paths), strict=True))
        missing, empty, files = (
            [path for path, size in bytes_of.items() if test(size)]
            for test in (lambda size: size is None, lambda size: size == 0, bool)
        )
        if missing:
            advice = "" if len(missing) == len(paths) else ", or go on without them with --allow-missing"
            missing_folders = {os.path.dirname(path) for path in missing} - {os.path.dirname(path) for path in files}  # noqa: PTH120
            folders = f", {len(missing_folders)} folders of them altogether" if len(missing_folders) > 1 else ""
            text = f"{len(missing):,} of {len(paths):,} listed photos are not there{folders}: {_first(missing)}"
            findings.append(DataFinding("error", text, f"complete the download{advice}"))
        if empty:
            text = f"{len(empty):,} of {len(paths):,} photos have no bytes: {_first(empty)}"
            findings.append(DataFinding("error", text, "download them again; a full disk leaves such files"))
        chosen = files if self.all_images else even_sample(files, SAMPLE)
        if bad := unreadable(chosen, self.watch(name, len(chosen))):
            sample = "" if len(chosen) == len(files) else f" (--all-images looks at all {len(files):,})"
            named = _first([path for path, _ in bad], len(bad) if self.all_images else FIRST)
            text = f"{len(bad):,} of {len(chosen):,} photos cannot be read{sample}: {named} ({bad[0][1]})"
            mend = "download them again, or leave them out with --skip-unreadable"
            findings.append(DataFinding("error", text, mend))
        return len(chosen), findings


def _first(paths: Sequence[str], count: int = FIRST) -> str:
    return ", ".join(paths[:count]) + (", …" if len(paths) > count else "")


def sizes(paths: Sequence[str]) -> list[int | None]:
    """Return the size of each file in bytes, None for a missing one; every folder is listed once."""
    split = [os.path.split(path) for path in paths]
    names: dict[str, set[str]] = {}
    for folder, name in split:
        names.setdefault(folder, set()).add(name)
    sizes_of: dict[tuple[str, str], int] = {}
    for folder, of_folder in names.items():
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in of_folder and entry.is_file():
                    sizes_of[folder, entry.name] = entry.stat().st_size
    return [sizes_of.get(file) for file in split]


def even_sample(paths: Sequence[str], count: int) -> Sequence[str]:
    """Return ``count`` paths at equal steps, all of them where there are fewer."""
    return paths if len(paths) <= count else [paths[i * len(paths) // count] for i in range(count)]


def unreadable(paths: Sequence[str], advance: Callable[[int], None] = lambda done: None) -> list[tuple[str, str]]:
    """Return the photos that cannot be decoded, each with the reason, in order; JPEGs are decoded at an eighth.

    Args:
        paths: of the photos.
        advance: takes how many photos have been decoded since the last call.
    """

    def problem(path: str) -> str:
        try:
            load_rgb(path, least=1)
        except (ImageError, MemoryError) as error:
            return " ".join(str(error).split()).replace(path, Path(path).name) or type(error).__name__
        return ""

    bad = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for path, text in zip(paths, pool.map(problem, paths), strict=True):
            advance(1)
            if text:
                bad.append((path, text))
    return bad
