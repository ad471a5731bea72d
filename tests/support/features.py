"""Feature sets made by a seed, as if a tiny backbone had made them."""

from __future__ import annotations

import torch
from support.tiny import tiny_backbone
from torch.nn.functional import normalize

from sar_train.data.features import FeatureSet, Rows

NAMES = ("ant", "bee", "sea_or lake")


def rows(count: int, size: int = 32, seed: int = 0) -> Rows:
    """Unit rows around one centre a class, labels 0, 1, 2, 0, …"""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(NAMES)
    centres = torch.randn(len(NAMES), size, generator=torch.Generator().manual_seed(99))
    return Rows(normalize(centres[labels] + 0.3 * torch.randn(count, size, generator=generator), dim=-1), labels)


def feature_set() -> FeatureSet:
    """Three classes, 30 / 9 / 15 rows."""
    backbone = tiny_backbone()
    return FeatureSet(
        name="made up",
        template="a photo of a {}.",
        class_names=NAMES,
        backbone=backbone.name,
        weights_digest=backbone.weights_digest,
        preprocess=backbone.preprocess,
        published_split=True,
        train=rows(30, seed=1),
        val=rows(9, seed=2),
        test=rows(15, seed=3),
        provenance={"licence": "CC0-1.0", "source": "a seed"},
    )
