"""Random crops of training photos for methods that encode at every step: another one of each photo in every epoch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from torch import Tensor

from sar_infer.preprocess import to_input
from sar_train.data.photo_source import PhotoSource
from sar_train.data.views import load, random_view

MOST_BYTES = 1024**3
"""Decoded photos that are kept in memory; those beyond are decoded again in each epoch."""


class Crops:
    """Random views of training photos, numbered by the epoch, so that a resumed run sees what a whole one does."""

    def __init__(self, source: PhotoSource, rows: Sequence[int], *, most_bytes: int = MOST_BYTES) -> None:
        """Decode nothing yet.

        Args:
            source: the photos, and the seed of their random views.
            rows: which of the training photos take part, in the order of the problem's rows.
            most_bytes: of decoded photos to keep.
        """
        photos = source.dataset.photos("train")
        self._source, self._photos = source, [photos[row] for row in rows]
        self._kept: dict[int, Image.Image] = {}
        self._spare = most_bytes
        self._pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))

    def __call__(self, rows: Tensor, epoch: int) -> Tensor:
        """Return (B, 3, size, size) encoder input for (B,) rows of the problem; epochs count from 1.

        Raises:
            DataError: a photo cannot be read.
        """
        return torch.stack(list(self._pool.map(lambda row: self._crop(row, epoch), rows.tolist())))

    def _crop(self, row: int, epoch: int) -> Tensor:
        source, photo = self._source, self._photos[row]
        spec = source.backbone.preprocess
        image = self._kept.get(row) or self._load(row)
        view = random_view(image, spec.size, source.dataset.relative(photo), epoch, source.seed)
        return torch.from_numpy(to_input(view, spec))

    def _load(self, row: int) -> Image.Image:
        image = load(self._photos[row].path, self._source.backbone.preprocess)
        needed = 3 * image.width * image.height
        if needed <= self._spare:
            self._spare -= needed
            self._kept[row] = image
        return image
