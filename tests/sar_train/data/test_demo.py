"""The feature file that ships: what it says, and that the photos give it."""

from __future__ import annotations

import torch
from support.opened import opened
from support.photos import SHARED, needs_shared

from sar_train.clip import backbone
from sar_train.data.feature_file import DEMO_FILE, load_features
from sar_train.data.features import PhotoFeatures


def test_the_demo_is_caltech101_with_its_published_split() -> None:
    features = load_features(DEMO_FILE)
    features.require(backbone.load("sar-mini"))
    dataset = features.dataset
    assert (dataset.name, len(dataset.class_names), dataset.published_split) == ("caltech101", 100, True)
    assert [len(features.labels(split)) for split in ("train", "val", "test")] == [4128, 1649, 2465]
    assert DEMO_FILE.stat().st_size < 10e6
    assert "CC BY 4.0" in features.provenance["licence"]


@needs_shared
def test_the_photos_give_these_features() -> None:
    shipped = load_features(DEMO_FILE)
    source = PhotoFeatures(opened("caltech101", data_root=SHARED), backbone.load("sar-mini"))
    for split in ("train", "test"):
        rows = list(range(0, 2400, 300))
        cosines = (source.plain(split, rows) * shipped.plain(split, rows)).sum(1)
        assert float(cosines.min()) > 0.9999
        assert torch.equal(source.labels(split), shipped.labels(split))
