"""The check of data and zero-shot before training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from support.blobs import write_blobs
from support.features import altered
from support.jobs import job
from support.photos import write_folder

from sar_train.config.run import RunConfig
from sar_train.data.feature_file import DEMO_FILE, load_features, save_features
from sar_train.errors import DataError
from sar_train.experiment.survey import check_zero_shot, survey

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
    assert (check["difference"], check["ok"]) == (pytest.approx(difference), ok)
    assert check["expected"] == {"base_accuracy": 96.84, "new_accuracy": 94.00}
    assert check["source"]


@pytest.mark.parametrize(
    ("settings", "record"),
    [
        ({"pretrained": "laion2b_s34b_b88k"}, entry(1, 1)),
        ({"backbone": "ViT-L-14"}, entry(1, 1)),
        ({"template": "{}"}, entry(1, 1)),
        ({"base_classes": "deal:1"}, entry(1, 1)),
        ({"allow_missing": True}, entry(1, 1)),
        ({"skip_unreadable": True}, entry(1, 1)),
        ({}, entry(1, None)),
        ({}, entry(1, 1, split_origin="ours")),
        ({}, entry(1, 1, judged_on="val")),
        ({}, entry(1, 1, name="products")),
    ],
)
def test_other_weights_or_data_have_no_known_figure(settings: dict[str, Any], record: dict[str, Any]) -> None:
    assert check_zero_shot(dataclasses.replace(REAL, **settings), record) is None


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return write_blobs(tmp_path_factory.mktemp("blobs"))


def test_each_dataset_and_template_is_measured_once(config: RunConfig) -> None:
    lines: list[str] = []
    jobs = [job(config, seed=seed, method=method) for seed in (1, 2) for method in ("coop", "kgcoop")]
    first, second = survey([*jobs, job(config, template="{} photo.")], lines.append)
    assert first["dataset"]["name"] == second["dataset"]["name"] == "blobs"
    assert first["zero_shot"]["harmonic_mean"] is not None
    assert sum("zero-shot on" in text for text in lines) == 2
    assert sum("photos to learn from" in text for text in lines) == 1  # the same for every seed
    assert sum("opening" in text for text in lines) == 3


def test_a_known_figure_that_is_missed_stops_before_training(tmp_path: Path) -> None:
    """The demo's features, a few of them under the label of another class."""
    demo = load_features(DEMO_FILE)
    labels = demo.labels("test").clone()
    labels[::50] = labels[::50].roll(1)
    save_features(altered(demo, {"test": (demo.plain("test"), labels)}), tmp_path / "x.safetensors")
    wrong = job(RunConfig(str(tmp_path / "x.safetensors"), protocol="base-to-new"))
    lines: list[str] = []
    (measured,) = survey([wrong], lines.append, strict=False)
    check = measured["zero_shot_check"]
    assert (check["ok"], "TOO LOW" in lines[-1]) == (False, True)
    assert -4 < check["difference"] < -0.5
    with pytest.raises(DataError, match=f"{-check['difference']:.2f} points below"):
        survey([wrong], lines.append)


@pytest.mark.parametrize("protocol", ["base-to-new", "all"])
def test_sar_minis_own_figure_is_reached_by_the_demo_whatever_the_protocol(protocol: str) -> None:
    lines: list[str] = []
    (measured,) = survey([job(RunConfig("demo", protocol=protocol))], lines.append)
    assert (measured["zero_shot"]["new_accuracy"] is None) == (protocol == "all")
    assert measured["zero_shot_check"]["ok"] is True
    assert "as it should be" in lines[-1]


def test_data_and_targets_are_opened_before_anything_trains(config: RunConfig, tmp_path: Path) -> None:
    lines: list[str] = []
    for wrong in (job(config, data=str(tmp_path / "gone")), job(config, targets=(str(tmp_path / "pacs" / "gone"),))):
        with pytest.raises(DataError, match="gone"):
            survey([wrong], lines.append)
    survey([job(config, targets=(str(write_folder(tmp_path / "sketch", {"fox": 2, "boat": 1})),))], lines.append)
    assert any(line.endswith("sketch: 2 classes, 3 photos") for line in lines)
