"""Findings, and the check of a known dataset's lists: its classes, counts and names, and images in two splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sar_train.data import imagenet
from sar_train.data.coop_layout import Listing, read_listing
from sar_train.data.images import SPLITS
from sar_train.data.layouts import GUIDE, LAYOUTS
from sar_train.errors import DataError

TWICE_IN_IMAGENET = ("missile", "sunglasses")
"""Names that occur twice in OpenAI's list, and so in the published ``classnames.txt``."""


@dataclass(frozen=True)
class DataFinding:
    """One result of a check.

    Attributes:
        severity: ``error`` where the data cannot be used as it is, ``warning`` where results suffer or cannot be
            compared, ``ok`` for a mere note.
        dataset: its name.
        what: one line.
        mend: how to mend it; may be empty.
    """

    severity: Literal["ok", "warning", "error"]
    dataset: str
    what: str
    mend: str = ""


def from_error(dataset: str, error: Exception) -> DataFinding:
    """Return an error's message as a finding; the part after its last semicolon says how to mend it."""
    what, _, mend = " ".join(str(error).split()).rpartition("; ")
    return DataFinding("error", dataset, what, mend) if what else DataFinding("error", dataset, mend)


def list_known(key: str, folder: Path) -> tuple[Listing | None, list[DataFinding]]:
    """Read a dataset's lists and folders, None where they cannot be used, and return what is wrong with them too."""
    if key in imagenet.KEYS:
        found = [from_error(key, DataError(text)) for text in imagenet.problems(key, folder)]
        if found:
            return None, found
    try:
        listing = read_listing(key, folder, allow_missing=True)
    except (DataError, OSError) as error:
        layout, findings = LAYOUTS[key], [from_error(key, error)]
        if layout.split_file and not (folder / layout.split_file).is_file():
            what = f"{layout.split_file} is not there, and a split of our own cannot be drawn"
            findings.insert(0, DataFinding("error", key, what, f"get the file as {GUIDE} says"))
        return None, findings
    return listing, [_of_warning(key, listing)] if listing.origin == "ours" else []


def check_rows(key: str, listing: Listing) -> list[DataFinding]:
    """Compare counts with the published ones; find names that cannot be told apart and images that are listed twice."""
    return [*_counts(key, listing), *_names(key, listing), *_twice(key, listing)]


def _of_warning(key: str, listing: Listing) -> DataFinding:
    what, _, mend = listing.warning.removeprefix(f"dataset {key}: ").rpartition("; ")
    return DataFinding("warning", key, what, mend)


def _counts(key: str, listing: Listing) -> list[DataFinding]:
    layout, findings = LAYOUTS[key], []
    if len(listing.class_names) != layout.classes:
        what = f"{len(listing.class_names):,} classes, expected {layout.classes:,}"
        findings.append(DataFinding("error", key, what, "complete the download, or go on with --allow-missing"))
    counts: dict[str, int] = {split: len(listing.rows[split]) for split in SPLITS}
    expected: dict[str, int] = dict(zip(SPLITS, layout.counts, strict=True))
    if listing.origin == "ours":
        counts, expected = {"all splits": sum(counts.values())}, {"all splits": sum(layout.counts)}
    for split, count in counts.items():
        if count != expected[split]:
            lists = bool(layout.split_file) or key == "fgvc_aircraft"
            mend = f"compare the lists with {GUIDE}" if lists else "complete the download, and remove what is not of it"
            what = f"{count:,} photos in {split}, published: {expected[split]:,}"
            findings.append(DataFinding("warning" if count > expected[split] else "error", key, what, mend))
    return findings


def _names(key: str, listing: Listing) -> list[DataFinding]:
    spelt = Counter(" ".join(name.replace("_", " ").lower().split()) for name in listing.class_names)
    twice = sorted(name for name, count in spelt.items() if count > 1)
    if key not in imagenet.KEYS:
        mend = f"get the split file as {GUIDE} says"
        return (
            [DataFinding("error", key, f"classes that read the same in a prompt: {', '.join(twice)}", mend)]
            if twice
            else []
        )
    strange = [name for name in twice if name not in TWICE_IN_IMAGENET]
    if strange:
        what = f"names that occur twice in classnames.txt: {', '.join(strange)}; the published list has them once"
        return [DataFinding("warning", key, what, f"get classnames.txt as {GUIDE} says")]
    said = f"{' and '.join(twice)} occur twice in classnames.txt, as published; classes are told apart by WordNet id"
    return [DataFinding("ok", key, said)] if twice else []


def _twice(key: str, listing: Listing) -> list[DataFinding]:
    seen: dict[str, set[str]] = {}
    count: Counter[str] = Counter()
    for split in SPLITS:
        for path, _ in listing.rows[split]:
            seen.setdefault(path, set()).add(split)
            count[path] += 1
    findings = []
    shared = [path for path, splits in seen.items() if len(splits) > 1]
    if shared:
        where = " and ".join(split for split in SPLITS if split in seen[shared[0]])
        what = f"{len(shared):,} photos are in two splits, the first is {shared[0]} (in {where})"
        findings.append(DataFinding("error", key, what, f"get the split file as {GUIDE} says"))
    repeated = [path for path, number in count.items() if number > len(seen[path])]
    if repeated:
        what = f"{len(repeated):,} photos are listed twice in one split, the first is {repeated[0]}"
        findings.append(DataFinding("warning", key, what, f"get the split file as {GUIDE} says"))
    return findings
