"""One run's values."""

from __future__ import annotations

from pathlib import Path

from support.results import result

from sar_train.report.result import Result, differing_settings


def of(**values: object) -> Result:
    return Result(Path("x.json"), 0.0, result(**values))  # type: ignore[arg-type]


def test_settings_are_flat_and_without_what_is_said_elsewhere() -> None:
    found = of(name="coop+sar").settings
    assert found["epochs"] == 10
    assert found["coop.n_ctx"] == 4
    assert found["sar.weight"] == 0.3
    assert not {"seed", "schedule", "data_root"} & set(found)


def test_without_sar_its_settings_mean_nothing() -> None:
    assert of(settings={"novel_count": 400}).identity() == of(settings={"novel_count": 64}).identity()
    with_sar = (of(name="coop+sar", settings={"novel_count": count}).identity() for count in (400, 64))
    assert len(set(with_sar)) == 2


def test_a_weights_file_is_named_without_its_folder() -> None:
    assert of(settings={"pretrained": "/home/me/weights.pt"}).backbone == "sar-mini (weights.pt)"
    assert of().backbone == "sar-mini"


def test_the_folder_of_a_sweep_is_that_above_the_datasets() -> None:
    def at(path: str, **values: object) -> str:
        return Result(Path(path), 0.0, result(**values)).folder.as_posix()  # type: ignore[arg-type]

    assert at("ablation/caltech101/x.json") == at("ablation/x.json") == "ablation"
    assert at("ablation/domains-photo/x.json", dataset="domains/photo") == "ablation"
    assert at("caltech101/x.json") == at("x.json") == "."


def test_differing_settings() -> None:
    assert differing_settings([of(), of(settings={"epochs": 20})]) == ["epochs"]
    assert differing_settings([of(), of(seed=2)]) == []


def test_missing_parts_are_none() -> None:
    assert of(code=None).code == "unknown"
    assert of()["no such key"] is None
