"""Features of a dataset under a backbone, as training reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sar_infer.bundle.manifest import Preprocess
from sar_train.data.dataset import Dataset, Split
from sar_train.data.splits import Shots, few_shot


class Features(ABC):
    """Unit float32 features of a dataset's photos.

    Attributes:
        dataset: the photos with their classes and splits.
        backbone_name: of the backbone that made the features.
        weights_digest: of that backbone (`Backbone.weights_digest`).
        preprocess: how photos are prepared for it.
        provenance: licence, source and the like, as text by name.
    """

    dataset: Dataset
    backbone_name: str
    weights_digest: str
    preprocess: Preprocess
    provenance: Mapping[str, str]

    def labels(self, split: Split) -> Tensor:
        """Return (N,) int64 labels of all photos of a split."""
        return torch.tensor([photo.label for photo in self.dataset.photos(split)], dtype=torch.long)

    def draw(self, shots: int, seed: int) -> Shots:
        """Draw training and validation rows as CoOp does."""
        train, val = ([photo.label for photo in self.dataset.photos(split)] for split in ("train", "val"))
        return few_shot(train, val, shots, seed)

    @abstractmethod
    def plain(self, split: Split, rows: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, D) features of the plain views of some photos of a split, or of all for None.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """

    def views(self, split: Split, rows: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, V, D) features of some photos of a split, or of all for None; the plain view is the first.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """
        return self.plain(split, rows)[:, None]
