"""Labelled photos on disk, however they were laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
SplitOrigin = Literal["published", "given", "ours"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
TEMPLATE = "a photo of a {}."
"""For photos of which nothing else is known."""


@dataclass(frozen=True)
class Photo:
    """One photo: where it lies, and the place of its class in ``class_names``."""

    path: Path
    label: int


@dataclass(frozen=True)
class PhotoDataset:
    """Photos in three splits.

    Attributes:
        name: what tables and records call it.
        class_names: one name per label; underscores are read as spaces when a prompt is made.
        template: hand-crafted prompt with ``{}`` for the name.
        root: folder that photo paths are reported relative to.
        train: what shots are drawn from.
        val: for choosing settings; may be empty.
        test: for accuracies; may be empty.
        published_split: whether these are the classes of a dataset that papers report base-to-new on, so that this is
            what is run by default.
        warnings: what the user should know, one line each.
        split_origin: whether the splits are those that papers report on, came with the photos, or were drawn here.
            A dataset without training photos is a target of evaluation: all of it is tested on.
    """

    name: str
    class_names: tuple[str, ...]
    template: str
    root: Path
    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    test: tuple[Photo, ...]
    published_split: bool = False
    warnings: tuple[str, ...] = ()
    split_origin: SplitOrigin = "given"

    def photos(self, split: Split) -> tuple[Photo, ...]:
        """The photos of one split, in their order."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def relative(self, photo: Photo) -> str:
        """A photo's path below ``root`` with forward slashes, or the whole path when it lies elsewhere."""
        path, root = photo.path.as_posix(), self.root.as_posix().rstrip("/") + "/"
        return path.removeprefix(root)  # text, since a million paths are asked for

    def keeping(self, photos: Mapping[Split, Sequence[Photo]], warning: str) -> PhotoDataset:
        """The dataset with some of its photos only.

        Classes that keep no training photo (no test photo, where nothing is trained on) are left out with all their
        photos, and labels close up.

        Args:
            photos: what to keep of each split, with the labels as they are now.
            warning: what to tell the user; the number of classes left out is added.
        """
        kept = sorted({photo.label for photo in photos["train" if self.train else "test"]})
        place = {label: i for i, label in enumerate(kept)}
        train, val, test = (
            tuple(Photo(p.path, place[p.label]) for p in photos[split] if p.label in place) for split in SPLITS
        )
        lost = len(self.class_names) - len(kept)
        return replace(
            self,
            class_names=tuple(self.class_names[label] for label in kept),
            train=train,
            val=val,
            test=test,
            warnings=(*self.warnings, warning + (f" and {lost} classes" if lost else "")),
        )
