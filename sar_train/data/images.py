"""Labelled images on disk, whatever their layout, and the options that they are opened with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sar_train.data.progress import ProgressCallback

Split = Literal["train", "val", "test"]
SplitOrigin = Literal["published", "given", "ours"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class DataOptions:
    """How data are opened.

    Attributes:
        data_root: the folder that holds datasets by name.
        shots: K; images beyond them are held out where there is no split. 0 for as many as there are.
        seed: of the images that are held out and of the random views.
        views: V, the plain view and V - 1 random ones of each training image.
        cache_dir: where image features, draws, our own splits and the images of packed datasets are kept between runs;
            None keeps them in memory.
        tell: gets a line now and then while images are encoded.
        allow_missing: go on without the images that a published split names but that are not there.
        skip_unreadable: decode everything once and leave out images that fail, instead of stopping at the first.
    """

    data_root: Path | None = None
    shots: int = 16
    seed: int = 1
    views: int = 1
    cache_dir: Path | None = None
    tell: ProgressCallback = lambda text: None
    allow_missing: bool = False
    skip_unreadable: bool = False


@dataclass(frozen=True)
class LabelledImage:
    """One image: its path, and the place of its class in ``class_names``."""

    path: Path
    label: int


@dataclass(frozen=True)
class ImageDataset:
    """Images in three splits.

    Attributes:
        name: its name in tables and records.
        class_names: one name per label; underscores are read as spaces when a prompt is made.
        template: hand-crafted prompt with ``{}`` for the name.
        root: folder that paths are reported relative to.
        train: images that shots are drawn from.
        val: for choosing settings; may be empty.
        test: for accuracies; may be empty.
        published_split: True if these are the classes of a dataset that papers report base-to-new on; base-to-new is
            then the default.
        warnings: for the user, one line each.
        split_origin: ``published`` for the splits that papers report on, ``given`` for splits that came with the
            images, ``ours`` for splits drawn here. A dataset without training images is a target of evaluation: all
            of it is tested on.
    """

    name: str
    class_names: tuple[str, ...]
    template: str
    root: Path
    train: tuple[LabelledImage, ...]
    val: tuple[LabelledImage, ...]
    test: tuple[LabelledImage, ...]
    published_split: bool = False
    warnings: tuple[str, ...] = ()
    split_origin: SplitOrigin = "given"

    def images(self, split: Split) -> tuple[LabelledImage, ...]:
        """Return the images of one split in their order."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def relative(self, image: LabelledImage) -> str:
        """Return a path below ``root`` with forward slashes, or the whole path of an image that lies elsewhere."""
        path, root = image.path.as_posix(), self.root.as_posix().rstrip("/") + "/"
        return path.removeprefix(root)  # plain text, since a million paths may be asked for

    def keeping(self, images: Mapping[Split, Sequence[LabelledImage]], warning: str) -> ImageDataset:
        """Return the dataset with only some of its images.

        Classes that keep no training image (no test image, where nothing is trained on) are left out with all their
        images, and the remaining classes are numbered anew.

        Args:
            images: the images to keep of each split, with their present labels.
            warning: for the user; the number of classes left out is added.
        """
        kept = sorted({image.label for image in images["train" if self.train else "test"]})
        place = {label: i for i, label in enumerate(kept)}
        train, val, test = (
            tuple(LabelledImage(p.path, place[p.label]) for p in images[split] if p.label in place) for split in SPLITS
        )
        lost = len(self.class_names) - len(kept)
        return replace(
            self,
            class_names=tuple(self.class_names[label] for label in kept),
            train=train,
            val=val,
            test=test,
            warnings=(*self.warnings, warning + (f" and {lost} class{'es' * (lost > 1)}" if lost else "")),
        )
