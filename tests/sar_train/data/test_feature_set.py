from dataclasses import replace
from typing import Any

import pytest
import torch
from support.features import feature_set, rows
from support.tiny import tiny_backbone

from sar_train.data.feature_set import Rows
from sar_train.errors import DataError


def test_a_sound_set() -> None:
    features = feature_set()
    assert features.rows("val") is features.val
    empty = replace(features, val=Rows(torch.empty(0, 32), torch.empty(0, dtype=torch.long)))
    assert len(empty.val.labels) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ()}, "no class names"),
        ({"class_names": ("a", "b")}, "train: expected labels 0 to 1, got 0 to 2"),
        ({"template": "a photo"}, "expected exactly one {}"),
        ({"train": rows(0)}, "no training rows"),
        ({"test": rows(6, size=16)}, r"test: expected \(6, 32\) features, got \(6, 16\)"),
        ({"val": Rows(rows(6).features, rows(5).labels)}, r"val: expected \(5, 32\) features, got \(6, 32\)"),
        ({"val": Rows(rows(3).features, torch.tensor([0, 1, -1]))}, "val: expected labels 0 to 2, got -1 to 1"),
        ({"test": Rows(rows(3).features * 2, rows(3).labels)}, "test: .* unit length, row 0 has length 2"),
        ({"test": Rows(rows(3).features * float("nan"), rows(3).labels)}, "test: .* row 0 has length nan"),
    ],
)
def test_what_cannot_be_built(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(feature_set(), **change)


def test_of_another_backbone() -> None:
    backbone, other = tiny_backbone(), tiny_backbone(seed=1)
    features = feature_set()
    features.require(backbone)
    with pytest.raises(DataError) as caught:
        features.require(other)
    assert backbone.weights_digest in str(caught.value)
    assert other.weights_digest in str(caught.value)
    with pytest.raises(DataError, match="tiny-vit expects"):
        replace(features, preprocess=replace(features.preprocess, fill=7)).require(backbone)
