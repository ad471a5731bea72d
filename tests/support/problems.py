"""Small learning problems: features scattered around class embeddings of the tiny backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from support.tiny import tiny_backbone
from torch import Tensor
from torch.nn.functional import normalize

from sar_train.data.features import FeatureSet, Rows

CLASSES = ("cat", "dog", "sea lake", "red car", "green tree", "tall house", "apple", "chair")
TEMPLATE = "a photo of a {}."


def scattered(labels: Sequence[int], seed: int, spread: float = 0.4) -> Tensor:
    """(N, D) unit rows around a direction of each label's own, far from the text embeddings."""
    rng = torch.Generator().manual_seed(99)
    size = tiny_backbone().embed_dim
    centres = normalize(torch.randn(len(CLASSES), size, generator=rng), dim=-1)
    noise = torch.randn(len(labels), size, generator=torch.Generator().manual_seed(seed))
    return normalize(centres[torch.tensor(labels)] + spread * noise / size**0.5, dim=-1)


def feature_set(per_class: int = 12) -> FeatureSet:
    """Eight classes, ``per_class`` photos each in every split, published split."""
    backbone = tiny_backbone()
    labels = [label for label in range(len(CLASSES)) for _ in range(per_class)]
    train, val, test = (Rows(scattered(labels, seed), torch.tensor(labels)) for seed in (1, 2, 3))
    return FeatureSet(
        dataset="blobs",
        template=TEMPLATE,
        class_names=CLASSES,
        backbone=backbone.name,
        weights_digest=backbone.weights_digest,
        preprocess=backbone.preprocess,
        published_split=True,
        train=train,
        val=val,
        test=test,
    )
