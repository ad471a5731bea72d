"""Set-up errors show before training: zero-shot against known figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sar_train.config.run import RunConfig
from sar_train.experiment.known import check_zero_shot

REAL = RunConfig("caltech101", backbone="ViT-B-16-quickgelu", pretrained="openai")


def entry(base: float, new: float | None, **changes: Any) -> dict[str, Any]:
    dataset = {"name": "caltech101", "judged_on": "test", "split_origin": "published"} | changes
    return {"dataset": dataset, "zero_shot": {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": 0.0}}


@pytest.mark.parametrize(
    ("base", "new", "difference", "ok"),
    [
        (96.84, 94.00, 0.0, True),
        (96.64, 94.00, -0.2, True),
        (96.63, 94.00, -0.21, False),
        (97.90, 93.70, -0.3, False),
        (99.0, 99.0, 2.16, True),
    ],
)
def test_more_than_a_fifth_of_a_point_below_is_an_error(base: float, new: float, difference: float, ok: bool) -> None:
    check = check_zero_shot(REAL, entry(base, new))
    assert check is not None
    assert check["difference"] == pytest.approx(difference)
    assert check["ok"] is ok
    assert check["expected"] == {"base_accuracy": 96.84, "new_accuracy": 94.00}
    assert check["source"]


@pytest.mark.parametrize(
    ("config", "record"),
    [
        (dataclasses.replace(REAL, pretrained="laion2b_s34b_b88k"), entry(1, 1)),
        (dataclasses.replace(REAL, backbone="ViT-L-14"), entry(1, 1)),
        (dataclasses.replace(REAL, template="{}"), entry(1, 1)),
        (dataclasses.replace(REAL, allow_missing=True), entry(1, 1)),
        (dataclasses.replace(REAL, skip_unreadable=True), entry(1, 1)),
        (REAL, entry(1, None)),
        (REAL, entry(1, 1, split_origin="ours")),
        (REAL, entry(1, 1, judged_on="val")),
        (REAL, entry(1, 1, name="products")),
    ],
)
def test_other_weights_or_data_have_no_known_figure(config: RunConfig, record: dict[str, Any]) -> None:
    assert check_zero_shot(config, record) is None
