"""Stored features made by a seed, as if a tiny backbone had made them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from support.tiny import tiny_backbone
from torch import Tensor
from torch.nn.functional import normalize

from sar_train.data.dataset import Dataset, Split
from sar_train.data.feature_file import StoredFeatures, labelled

NAMES = ("ant", "bee", "sea_or lake")
Rows = Mapping[Split, tuple[Tensor, Tensor]]
"""(N, D) features and (N,) labels of each split."""


def stored(rows: Rows, name: str, class_names: tuple[str, ...], provenance: Mapping[str, str] | None = None) -> Any:
    """Features with a published split, made by the tiny backbone."""
    backbone = tiny_backbone()
    splits = labelled({split: labels for split, (_, labels) in rows.items()})
    dataset = Dataset(name, class_names, splits=splits, published_split=True, split_origin="published")
    features = {split: rows for split, (rows, _) in rows.items()}
    about = backbone.name, backbone.weights_digest, backbone.preprocess
    return StoredFeatures(dataset, *about, features, provenance or {})


def altered(features: StoredFeatures, rows: Rows | None = None, **changes: Any) -> StoredFeatures:
    """The same features with other rows of some splits, or other class names or template."""
    rows = rows or {}
    splits = {**features.dataset.splits, **labelled({split: labels for split, (_, labels) in rows.items()})}
    dataset = dataclasses.replace(features.dataset, splits=splits, **changes)
    return dataclasses.replace(
        features, dataset=dataset, rows={**features.rows, **{split: rows for split, (rows, _) in rows.items()}}
    )


class Labelled(NamedTuple):
    """(N, D) features and (N,) labels."""

    features: Tensor
    labels: Tensor


def rows(count: int, size: int = 32, seed: int = 0) -> Labelled:
    """Unit rows around one centre a class, labels 0, 1, 2, 0, …"""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(NAMES)
    centres = torch.randn(len(NAMES), size, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(count, size, generator=generator)
    return Labelled(normalize(centres[labels] + 0.3 * noise, dim=-1), labels)


def feature_set() -> StoredFeatures:
    """Three classes, 30 / 9 / 15 rows."""
    splits: Rows = {"train": rows(30, seed=1), "val": rows(9, seed=2), "test": rows(15, seed=3)}
    return stored(splits, "made up", NAMES, {"licence": "CC0-1.0", "source": "a seed"})
