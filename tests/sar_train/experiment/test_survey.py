"""Before anything trains: zero-shot is measured, shown and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.blobs import write_blobs
from support.jobs import job
from support.photos import write_folder

from sar_train.config.run import RunConfig
from sar_train.errors import DataError
from sar_train.experiment import known
from sar_train.experiment.survey import survey
from sar_train.report.published import Known


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


def test_a_known_figure_that_is_missed_stops_before_training(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = survey([job(config)], lambda text: None)
    base, new = entry["zero_shot"]["base_accuracy"], entry["zero_shot"]["new_accuracy"]
    monkeypatch.setattr(known, "known_zero_shot", lambda *_: Known(base + 0.5, new, "a paper"))
    with pytest.raises(DataError, match=r"set-up error: zero-shot .* 0.50 points below .* \(a paper; "):
        survey([job(config)], lambda text: None)
    told: list[str] = []
    (entry,) = survey([job(config)], told.append, strict=False)
    assert entry["zero_shot_check"]["ok"] is False
    assert "TOO LOW" in told[-1]
    monkeypatch.setattr(known, "known_zero_shot", lambda *_: Known(base, new, "a paper"))
    assert survey([job(config)], told.append)[0]["zero_shot_check"]["ok"] is True
    assert "as it should be" in told[-1]


def test_sar_minis_own_figure_is_reached_by_the_demo() -> None:
    (entry,) = survey([job(RunConfig("demo", protocol="base-to-new"))], lambda text: None)
    assert entry["zero_shot_check"]["ok"] is True


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
    assert told[-1].endswith("sketch: 2 classes, 3 photos")
