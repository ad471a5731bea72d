"""Inputs of a vision transformer's first block for the views of the shots: what no image prompt changes.

They are made once and kept while they fit into memory; beyond that, photos are decoded and embedded again as they are
drawn, which gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sar_train.data.photo_source import PhotoSource
from sar_train.towers.image import ImageTower

MOST_BYTES = 4 * 1024**3


class Patches:
    """Patches of training photos, by row and view.

    Args:
        source: the photos.
        rows: which of the training photos take part, in the order of the problem's rows.
        tower: embeds them.
        most_bytes: what may be kept in memory.
    """

    def __init__(
        self, source: PhotoSource, rows: Sequence[int], tower: ImageTower, *, most_bytes: int = MOST_BYTES
    ) -> None:
        self._source, self._rows = source, list(rows)
        device = source.backbone.device
        self._embed = lambda pixels: tower.embed(pixels.to(device)).cpu()  # kept beside the photos, not on a GPU
        one = self._source.map_pixels("train", self._rows[:1], self._embed, views=1)
        needed = one[0].numel() * one.element_size() * len(self._rows) * source.views
        self._kept: Tensor | None = None
        if needed <= most_bytes:
            self._kept = source.map_pixels("train", self._rows, self._embed, views=source.views)

    def __call__(self, rows: Tensor, views: Tensor) -> Tensor:
        """(B, T, W) for (B,) rows of the problem and (B,) views."""
        if self._kept is not None:
            return self._kept[rows, views]
        made = [
            self._source.map_pixels("train", [self._rows[row]], self._embed, views=[view])[0]
            for row, view in zip(rows.tolist(), views.tolist(), strict=True)
        ]
        return torch.cat(made)
