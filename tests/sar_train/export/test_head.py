from __future__ import annotations

import numpy as np
import pytest
import torch
from support.exported import moved

from sar_train.export.source import ExportSource
from sar_train.methods.base import methods

TRAINED = ("cat", "sea_lake", "Red car")
ALL = {"dog": ("dog",), "CAT": ("cat",), "red car": ("red car",), "sea lake": ("sea lake",)}


def test_every_trained_class_stands_in_the_bank_for_itself() -> None:
    assert ExportSource(moved("dept", names=TRAINED), ALL, "dept").head_names == ("CAT", "sea lake", "red car")


@pytest.mark.parametrize(
    ("names", "phrases"),
    [
        (TRAINED, {name: ALL[name] for name in ("CAT", "red car")}),
        (TRAINED, ALL | {"red car": ("car",)}),
        (TRAINED, ALL | {"red car": ("red car", "car")}),
        (("cat", "Cat", "sea lake"), ALL),
    ],
)
def test_otherwise_there_is_no_head(names: tuple[str, ...], phrases: dict[str, tuple[str, ...]]) -> None:
    source = ExportSource(moved("dept", names=names), phrases, "dept")
    assert (source.head_names, source.head("e" * 64)) == ((), None)


@pytest.mark.parametrize("name", sorted(set(methods.entries) - {"dept"}))
def test_a_method_without_a_head(name: str) -> None:
    source = ExportSource(moved(name, names=TRAINED), ALL, name)
    assert (source.head_names, source.head("e" * 64)) == ((), None)


def test_its_logits_are_those_of_the_layers_that_were_trained() -> None:
    prompted = moved("dept", names=TRAINED, mix=0.6, feature_length=7.0)
    method, head = prompted.method, ExportSource(prompted, ALL, "dept").head("e" * 64)
    assert head is not None
    assert (head.names, head.mix, head.encoder_digest) == (("CAT", "sea lake", "red car"), 0.6, "e" * 64)
    features = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    seen = method.linear(method.scale["image"] * 7.0 * features + method.shift["image"])
    np.testing.assert_allclose(head.logits(features.numpy()), seen, atol=1e-5)
