"""A dataset: photos and their classes in three splits, whatever the layout that they have on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from sar_train.data.progress import ProgressCallback

Split = Literal["train", "val", "test"]
SplitOrigin = Literal["published", "given", "ours"]
DEMO = "demo"
"""The word for the features that ship."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")
TEMPLATE = "a photo of a {}."
"""The hand-crafted prompt where a dataset has none of its own."""


@dataclass(frozen=True)
class DataOptions:
    """Options for opening data.

    Attributes:
        data_root: the folder that holds datasets by name.
        shots: K; photos beyond them are held out where there is no split. 0 for as many as there are.
        seed: of the photos that are held out and of the random views.
        views: V, the plain view and V - 1 random ones of each training photo.
        cache_dir: where features and the photos of packed datasets are kept between runs; with None, features stay in
            memory.
        tell: gets a line now and then while photos are encoded.
        allow_missing: go on without the photos that a published split names but that are not there.
        skip_unreadable: decode everything once and leave out photos that fail, instead of stopping at the first.
        exclude: a list of photos to leave out.
        target: open only test photos, those of the data's own test split, or all photos where it has none: what
            cross-dataset and domain generalisation evaluate on.
    """

    data_root: Path | None = None
    shots: int = 16
    seed: int = 1
    views: int = 1
    cache_dir: Path | None = None
    tell: ProgressCallback = lambda text: None
    allow_missing: bool = False
    skip_unreadable: bool = False
    exclude: Path | None = None
    target: bool = False


class Photo(NamedTuple):
    """One photo.

    Attributes:
        path: below the dataset's root, with forward slashes; the whole path of a photo that lies elsewhere.
        label: the place of its class in ``class_names``.
    """

    path: str
    label: int


@dataclass(frozen=True)
class Dataset:
    """Photos in up to three splits.

    Attributes:
        name: its name in tables and records.
        class_names: C names by label; underscores are read as spaces when a prompt is made.
        root: folder that paths are relative to.
        splits: the photos of each split that there is. Shots are drawn from ``train``, settings are chosen on ``val``,
            accuracies are measured on ``test``.
        template: hand-crafted prompt with ``{}`` for the name.
        published_split: True if these are the classes of a dataset that papers report base-to-new on; base-to-new is
            then the default.
        split_origin: ``published`` for the splits that papers report on, ``given`` for splits that came with the
            photos, ``ours`` for splits drawn here.
        warnings: for the user, one line each.
        twice: pairs of photos of the same content in two classes.
    """

    name: str
    class_names: tuple[str, ...]
    root: Path = Path()
    splits: Mapping[Split, Sequence[Photo]] = field(default_factory=dict)
    template: str = TEMPLATE
    published_split: bool = False
    split_origin: SplitOrigin = "given"
    warnings: tuple[str, ...] = ()
    twice: Sequence[tuple[Path, Path]] = ()

    @classmethod
    def from_paths(
        cls, name: str, root: Path, paths: Mapping[Split, Mapping[str, Sequence[Path]]], warnings: tuple[str, ...] = ()
    ) -> Dataset:
        """Make a dataset of paths by split and class name; the classes are sorted by name.

        Args:
            name: of the dataset.
            root: folder that paths become relative to.
            paths: of each split that there is; a class without photos counts as a class.
            warnings: for the user.
        """
        class_names = tuple(sorted({name for classes in paths.values() for name in classes}))
        prefix = root.as_posix().rstrip("/") + "/"  # plain text, since there may be a million paths
        splits = {
            split: tuple(
                Photo(path.as_posix().removeprefix(prefix), label)
                for label, class_name in enumerate(class_names)
                for path in classes.get(class_name, ())
            )
            for split, classes in paths.items()
        }
        return cls(name, class_names, root, splits, warnings=warnings)

    def photos(self, split: Split) -> Sequence[Photo]:
        """Return the photos of one split in their order; none where there is no such split."""
        return self.splits.get(split, ())


def first_names(class_names: Sequence[str]) -> str:
    """Return the first three of some class names, quoted, for a message."""
    return ", ".join(map(repr, class_names[:3])) + ", …" * (len(class_names) > 3)
