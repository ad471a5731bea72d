"""The class model of whole runs, and which trainings they make, on blobs around the tiny backbone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support.features import Rows, stored
from support.photos import write_folder
from support.problems import CLASSES, scattered
from support.tiny import VIT, register, tiny_backbone
from support.trained import by_hand

from sar_infer.bundle.card import expectation
from sar_infer.class_model.model import USUAL
from sar_train.clip.backbone import RANDOM
from sar_train.config.run import RunConfig
from sar_train.data.dataset import SPLITS
from sar_train.data.feature_file import save_features
from sar_train.data.progress import ProgressCallback
from sar_train.errors import DivergedError
from sar_train.export.source import from_run
from sar_train.training import fitting, trainer
from sar_train.training.checkpoint import load_class_model
from sar_train.training.context import RunContext
from sar_train.training.identity import outcome_settings
from sar_train.training.prompted import restore

SHOTS = 8


@pytest.fixture(autouse=True)
def tiny() -> None:
    register()


def settings(folder: Path, classes: int = 8, **changes: object) -> RunConfig:
    """Settings for a run on blobs of the first classes."""
    labels = torch.arange(classes).repeat_interleave(12)
    rows: Rows = {split: (scattered(labels.tolist(), seed, 1.0), labels) for seed, split in enumerate(SPLITS, 1)}
    path = folder / f"blobs{classes}.safetensors"
    save_features(stored(rows, "blobs", CLASSES[:classes]), path)
    plain = RunConfig(
        data=str(path),
        backbone=VIT,
        pretrained=RANDOM,
        sar=False,
        shots=SHOTS,
        epochs=3,
        learning_rate=0.005,
        batch_size=8,
        protocol="all",
    )
    return dataclasses.replace(plain, **changes)


@pytest.mark.parametrize("learned", [False, True])
def test_only_the_prompt_that_is_used_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learned: bool
) -> None:
    """Text rows under the learned prompt are replaced by noise, or by the means of the photos."""
    train_halves = fitting.train_halves

    def replaced(context: RunContext, tell: ProgressCallback) -> tuple[np.ndarray, ...]:
        rows = np.random.default_rng(0).normal(size=train_halves(context, tell)[0].shape)
        if learned:
            labels, features = context.task.labels.numpy(), context.task.features[:, 0].numpy()
            rows = np.array([features[labels == label].mean(0) for label in range(len(rows))], np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows, rows.copy()

    monkeypatch.setattr(fitting, "train_halves", replaced)
    lines: list[str] = []
    run = trainer.run(settings(tmp_path), tmp_path / "run", tell=lines.append)
    fitted = load_class_model(tmp_path / "run")
    assert fitted is not None
    record = run.record["statistics"]
    comparison = record["comparison"]
    assert fitted.record == record
    assert fitted.prompt == comparison["chosen"] == record["prompt"] == ("learned" if learned else "handcrafted")
    gain = comparison["learned"] - comparison["handcrafted"]
    assert f"gains {gain:.1f} points" in comparison["reason"]
    assert (gain > float(comparison["reason"].split()[-1])) is learned
    kinds = [line.partition("  ")[2] for line in lines if line.startswith("epoch 3/3")]
    assert [kind.startswith("of half") for kind in kinds] == [True, True, *([False] if learned else [])]
    (said,) = (line for line in lines if line.startswith("class model, hand-crafted prompt: expected accuracy"))
    assert lines.index(said) < next(number for number, line in enumerate(lines) if line.startswith("epoch"))
    assert (record["trained"], len(run.record["history"])) == (learned, 3 if learned else 0)
    if not learned:
        assert run.record["metrics"] == run.record["zero_shot"]
    source = from_run(tmp_path / "run")
    assert source.method == ("coop" if learned else "handcrafted")
    rows = source.prompted.embed(CLASSES).numpy()
    np.testing.assert_allclose(fitted.model.text_centre, rows.mean(0), atol=1e-5)
    assert source.quality.metrics.base_accuracy == run.record["other_metrics"]["statistics"]["base_accuracy"]
    classes = source.trained_classes("digest")
    assert classes is not None
    assert tuple(classes.names) == tuple(CLASSES)


def test_a_run_has_the_class_model_of_the_photos_it_learned_from(tmp_path: Path) -> None:
    config = settings(tmp_path, prompt="handcrafted")
    run = trainer.run(config, tmp_path / "run")
    fitted = load_class_model(tmp_path / "run")
    assert fitted is not None
    record = run.record["statistics"]
    assert (fitted.record, run.record["open"], record["defaults"]) == (record, None, None)
    assert fitted.counts.tolist() == [SHOTS] * 8
    assert (record["rivals"], [item["photos"] for item in record["expected"]]) == (7, [0, 1, 2, 4])
    assert "among 8, and of classes that you add" in expectation(record)
    assert "among 15 (cross-validation)" in expectation(record)
    unknown = record["unknown"]
    assert [[*one.values()] for one in unknown["thresholds"]] == fitted.model.unknown.tolist()
    assert 0 < unknown["false_alarms"] < 8 < unknown["rejected"]
    assert unknown["auroc"] > 0.6
    drawn = trainer.prepare(config).learned_rows
    rows = torch.tensor([row for row in drawn if row // 12 == 3])
    learned = scattered(torch.arange(8).repeat_interleave(12).tolist(), 1, 1.0).half().float()[rows].double()
    np.testing.assert_allclose(fitted.means[3], learned.mean(0), atol=1e-3)


def test_trained_and_new_classes_are_one_ranking(tmp_path: Path) -> None:
    """Where new classes are tested the method is trained, whichever prompt the class model takes."""
    run = trainer.run(settings(tmp_path, protocol="base-to-new"), tmp_path / "run")
    assert len(run.record["history"]) == 3
    learned = trainer.run(settings(tmp_path, protocol="base-to-new", prompt="learned"), tmp_path / "learned")
    fitted = load_class_model(tmp_path / "learned")
    assert fitted is not None
    assert fitted.prompt == "learned"
    labels = torch.arange(8).repeat_interleave(12)
    images = torch.nn.functional.normalize(scattered(labels.tolist(), 3, 1.0).half().float(), dim=-1).numpy()
    rows = restore(learned, tiny_backbone()).embed(CLASSES).numpy()
    photos = {column: (SHOTS * np.float64(fitted.means[column]), float(SHOTS), True) for column in range(4)}
    right = by_hand(fitted.model, images, rows, photos)[:, :-1].argmax(1) == labels.numpy()
    one = learned.record["open"]["other_metrics"]["statistics"]["images"]
    assert one["base_accuracy"] == pytest.approx(100 * right[:48].mean())
    assert one["new_accuracy"] == pytest.approx(100 * right[48:].mean())


@pytest.mark.parametrize(
    ("changes", "prompt", "epochs", "why"),
    [
        ({"prompt": "learned"}, "learned", 3, "--prompt learned"),
        ({"prompt": "handcrafted"}, "handcrafted", 0, "--prompt handcrafted"),
        ({"classes": 3}, "learned", 3, "not compared: 3 classes, fewer than 4"),
    ],
)
def test_what_is_not_compared_trains_once_or_never(
    tmp_path: Path, changes: dict[str, int], prompt: str, epochs: int, why: str
) -> None:
    lines: list[str] = []
    run = trainer.run(settings(tmp_path, **changes), tmp_path / "run", tell=lines.append)
    comparison = run.record["statistics"]["comparison"]
    assert comparison == {"learned": None, "handcrafted": None, "chosen": prompt, "reason": why}
    assert len(run.record["history"]) == sum(line.startswith("epoch") for line in lines) == epochs


def test_tables_of_methods_train_the_method(tmp_path: Path) -> None:
    config = settings(tmp_path, prompt="handcrafted")
    run = trainer.run(config, tmp_path / "run", for_tables=True)
    assert (len(run.record["history"]), run.record["statistics"]["prompt"]) == (3, "handcrafted")
    assert from_run(tmp_path / "run").method == "handcrafted"


def test_halves_are_not_trained_again_by_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = fitting.compare
    monkeypatch.setattr(fitting, "compare", lambda *a: dataclasses.replace(compare(*a), prompt="learned"))
    config, out = settings(tmp_path), tmp_path / "run"

    def interrupt(line: str) -> None:
        if line.startswith("epoch 1/3  ") and "half" not in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(config, out, tell=interrupt)
    lines: list[str] = []
    resumed = trainer.run(config, out, tell=lines.append)
    whole = trainer.run(config, tmp_path / "whole")
    assert not any("half" in line for line in lines if line.startswith("epoch"))
    assert resumed.record["statistics"] == whole.record["statistics"]
    assert torch.equal(resumed.tensors["context"], whole.tensors["context"])


def test_halves_that_fail_are_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DivergedError("diverged")

    monkeypatch.setattr(fitting, "train_halves", fail)
    comparison = trainer.run(settings(tmp_path), tmp_path / "run").record["statistics"]["comparison"]
    assert (comparison["chosen"], comparison["learned"]) == ("learned", None)


@pytest.mark.parametrize(("classes", "shots"), [(3, 8), (8, 1)])
def test_what_cannot_be_fitted_has_the_usual_weights(tmp_path: Path, classes: int, shots: int) -> None:
    run = trainer.run(settings(tmp_path, classes, shots=shots), tmp_path / "run")
    fitted = load_class_model(tmp_path / "run")
    assert fitted is not None
    assert fitted.record["defaults"]
    assert fitted.record["unknown"]["auroc"] is None
    assert "accuracy not measured" in expectation(run.record["statistics"])
    np.testing.assert_allclose(fitted.model.weights, USUAL)
    assert fitted.counts.tolist() == [shots] * classes


@pytest.mark.parametrize("method", ["promptsrc", "cocoop"])
def test_methods_with_a_tower_or_a_prompt_for_each_image(tmp_path: Path, method: str) -> None:
    write_folder(tmp_path / "photos", dict.fromkeys(CLASSES[:5], 8))
    config = settings(tmp_path, method=method, data=str(tmp_path / "photos"), shots=4, epochs=1, batch_size=4, views=2)
    run = trainer.run(config, tmp_path / "run")
    assert (run.record["statistics"]["comparison"]["learned"] is None) is (method == "promptsrc")
    assert run.record["other_metrics"]["statistics"]["base_accuracy"] is not None


def test_results_keep_their_keys_where_statistics_are_as_usual(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert not {"statistics", "prompt"} & outcome_settings(config).keys()
    assert outcome_settings(dataclasses.replace(config, statistics=False))["statistics"] is False
    assert outcome_settings(dataclasses.replace(config, prompt="learned")) != outcome_settings(config)
