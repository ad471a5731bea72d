"""Labelled photos as people name them: a folder, photos with labels, or photos by class."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from sar_infer.errors import InputError
from sar_infer.images.inputs import expand, folders
from sar_infer.images.load import ImageSource
from sar_infer.images.sources import several

Labelled = str | os.PathLike[str] | Iterable[ImageSource] | Mapping[str, ImageSource | Iterable[ImageSource]]
"""A folder with one folder for each class; photos, which labels go with; or photos, or a folder of them, by class."""


def by_class(
    photos: Labelled, labels: Sequence[str] | None = None, lookup: Callable[[str], object] = lambda _: None
) -> dict[str, list[ImageSource]]:
    """Return photos by class.

    Args:
        photos: See ``Labelled``.
        labels: The class of each photo, in order, for photos that do not say it.
        lookup: Returns None if no class has this name, as ``folders`` takes it.

    Raises:
        InputError: A folder is missing or has no folder for each class, there is not one label for each photo, or a
            label is no text.
    """
    if labels is not None:
        images, labels = [*several(photos)], [*labels]
        if len(images) != len(labels):
            raise InputError(f"expected a label for each photo, got {len(labels):,} for {len(images):,}")
        labelled: dict[str, list[ImageSource]] = {}
        for image, label in zip(images, labels, strict=True):
            labelled.setdefault(_text(label), []).append(image)
        return labelled
    if isinstance(photos, Mapping):
        return {_text(name): unfolded(of_class) for name, of_class in photos.items()}
    if isinstance(photos, str | os.PathLike):
        return {name: [*files] for name, files in folders(os.fspath(photos), lookup=lookup).items()}
    raise InputError(
        "photos without labels: expected fit(photos, labels), a folder of class folders, or {class: photos}"
    )


def _text(label: object) -> str:
    """Return a label; InputError if it is no text."""
    if not isinstance(label, str):
        raise InputError(f"label {label!r:.80}: expected the name of a class as text, which the encoder reads")
    return str(label)


def unfolded(images: ImageSource | Iterable[ImageSource]) -> list[Any]:
    """Return images; of a single folder, all images below it."""
    return expand([os.fspath(images)]) if is_folder(images) else [*several(images)]


def is_folder(images: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return True for the path of a folder."""
    return isinstance(images, str | os.PathLike) and Path(images).is_dir()
