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


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return write_blobs(tmp_path_factory.mktemp("blobs"))


def test_each_dataset_is_measured_once(config: RunConfig) -> None:
    told: list[str] = []
    jobs = [job(config, seed=seed, method=method) for seed in (1, 2) for method in ("coop", "kgcoop")]
    (entry,) = survey(jobs, told.append)
    assert entry["dataset"]["name"] == "blobs"
    assert entry["zero_shot"]["harmonic_mean"] is not None
    assert sum("zero-shot on" in text for text in told) == 1
    assert sum("photos to learn from" in text for text in told) == 1  # the same for every seed
    assert sum("opening" in text for text in told) == 2


def test_a_known_figure_that_is_missed_stops_before_training(tmp_path: Path) -> None:
    """The demo's features, a few of them under the label of another class."""
    demo = load_features(DEMO_FILE)
    labels = demo.labels("test").clone()
    labels[::50] = labels[::50].roll(1)
    save_features(altered(demo, {"test": (demo.plain("test"), labels)}), tmp_path / "x.safetensors")
    wrong = job(RunConfig(str(tmp_path / "x.safetensors"), protocol="base-to-new"))
    told: list[str] = []
    (entry,) = survey([wrong], told.append, strict=False)
    check = entry["zero_shot_check"]
    assert (check["ok"], "TOO LOW" in told[-1]) == (False, True)
    assert -4 < check["difference"] < -0.5
    with pytest.raises(DataError, match=f"{-check['difference']:.2f} points below"):
        survey([wrong], lambda text: None)


def test_sar_minis_own_figure_is_reached_by_the_demo() -> None:
    told: list[str] = []
    (entry,) = survey([job(RunConfig("demo", protocol="base-to-new"))], told.append)
    assert entry["zero_shot_check"]["ok"] is True
    assert "as it should be" in told[-1]


def test_data_that_cannot_be_opened_are_named(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        survey([job(config, data=str(tmp_path / "gone" / "photos"))], lambda text: None)


def test_known_figures_are_compared_whatever_the_protocol() -> None:
    (entry,) = survey([job(RunConfig("demo", protocol="all"))], lambda text: None)
    assert entry["zero_shot"]["new_accuracy"] is None
    assert entry["zero_shot_check"]["ok"] is True


def test_every_template_is_measured(config: RunConfig) -> None:
    told: list[str] = []
    entries = survey([job(config), job(config, template="{} photo.")], told.append)
    assert len(entries) == 2
    assert sum("zero-shot on" in text for text in told) == 2


def test_targets_are_opened_before_anything_trains(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sketsh"):
        survey([job(config, targets=(str(tmp_path / "pacs" / "sketsh"),))], lambda text: None)
    told: list[str] = []
    survey([job(config, targets=(str(write_folder(tmp_path / "sketch", {"fox": 2, "boat": 1})),))], told.append)
    assert any(line.endswith("sketch: 2 classes, 3 photos") for line in told)
