"""The feature file that ships: what it says, and that the photos give it."""

from __future__ import annotations

import pytest
import torch
from support.opened import opened
from support.photos import SHARED, needs_shared

from sar_train.clip import backbone
from sar_train.config.run import RunConfig
from sar_train.data.feature_file import DEMO_FILE, load_features
from sar_train.data.features import PhotoFeatures
from sar_train.training.context import prepare


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
        indices = list(range(0, 2400, 300))
        cosines = (source.plain(split, indices) * shipped.plain(split, indices)).sum(1)
        assert float(cosines.min()) > 0.9999
        assert torch.equal(source.labels(split), shipped.labels(split))


def test_preparing_a_run_reads_it_and_draws_the_shots() -> None:
    context = prepare(RunConfig("demo", shots=4, novel_count=20))
    assert context.task.features.shape == (200, 1, 512)
    assert context.plan.protocol == "base-to-new"
    assert len(context.task.class_names) == 50 == len(context.plan.new)
    assert context.novel is not None
    assert context.schedule.learning_rate == pytest.approx(2e-2)
    assert not {n.lower() for n in context.novel.names} & {
        n.replace("_", " ").lower() for n in context.features.dataset.class_names
    }
