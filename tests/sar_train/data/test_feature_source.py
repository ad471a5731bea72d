import torch
from support.features import feature_set

from sar_train.data.feature_source import FeatureSource
from sar_train.data.source import Source


def test_reads_rows_in_the_order_asked_for() -> None:
    features = feature_set()
    source: Source = FeatureSource(features)
    assert (source.name, source.class_names, source.template) == ("made up", features.class_names, "a photo of a {}.")
    assert source.published_split
    assert source.warnings == ()
    assert source.paths("train") is None
    assert torch.equal(source.labels("test"), features.test.labels)
    assert source.features("train").shape == (30, 1, 32)
    for indices in ([4, 2, 2], (4, 2, 2), torch.tensor([4, 2, 2])):
        assert torch.equal(source.features("train", indices)[:, 0], features.train.features[[4, 2, 2]])
        assert torch.equal(source.plain("train", indices), features.train.features[[4, 2, 2]])
    assert source.features("val", []).shape == (0, 1, 32)
