"""Class statistics of whole runs, on blobs around the tiny backbone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support.features import Rows, altered, stored
from support.photos import write_folder
from support.problems import CLASSES, scattered
from support.tiny import VIT, register, tiny_backbone

from sar_infer.bundle.card import expectation
from sar_train.clip.backbone import RANDOM
from sar_train.config.run import RunConfig
from sar_train.data.dataset import SPLITS
from sar_train.data.feature_file import DEMO_FILE, load_features, save_features
from sar_train.training import trainer
from sar_train.training.checkpoint import load_statistics
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


def test_a_run_keeps_statistics_of_the_photos_it_learned_from(tmp_path: Path) -> None:
    config = settings(tmp_path)
    lines: list[str] = []
    run = trainer.run(config, tmp_path / "run", tell=lines.append)
    fitted = load_statistics(tmp_path / "run")
    assert fitted is not None
    statistics, record = fitted.statistics, run.record["statistics"]
    assert fitted.record == record
    assert run.record["open"] is None  # all classes are trained
    assert statistics.counts.tolist() == [SHOTS] * 8
    assert record["defaults"] is None
    assert record["folds"] == "learned and hand-crafted prompt"
    assert any("two folds" in line for line in lines)
    assert set(record["scores"]) == {"learned", "handcrafted"}
    best = {name: max(scores.values()) for name, scores in record["scores"].items()}
    gain = best["learned"] - best["handcrafted"]
    assert record["comparison"] == {
        **best,
        "chosen": "learned" if gain > 0.5 else "handcrafted",
        "reason": f"the learned one has to gain 0.5 points and gains {gain:.1f}",
    }
    assert record["comparison"]["chosen"] == record["prompt"]
    assert record["offsets"] == [list(pair) for pair in statistics.offsets]
    assert [item["photos"] for item in record["expected"]] == [0, 1, 2, 4]
    drawn = trainer.prepare(config).learned_rows
    rows = torch.tensor([row for row in drawn if row // 12 == 3])
    learned = scattered(torch.arange(8).repeat_interleave(12).tolist(), 1, 1.0).half().float()[rows].double()
    np.testing.assert_allclose(statistics.means[3], learned.mean(0), atol=1e-3)
    assert run.record["other_metrics"]["statistics"]["base_accuracy"] >= run.record["metrics"]["base_accuracy"]
    assert "cross-validation over 8 classes" in expectation(record)


def test_statistics_are_one_ranking_of_trained_and_new_classes(tmp_path: Path) -> None:
    run = trainer.run(settings(tmp_path, protocol="base-to-new", quick=True), tmp_path / "run")
    fitted = load_statistics(tmp_path / "run")
    assert fitted is not None
    model, labels = fitted.statistics, torch.arange(8).repeat_interleave(12)
    images = scattered(labels.tolist(), 3, 1.0).half().float()
    images = torch.nn.functional.normalize(images, dim=-1).double().numpy()
    backbone = tiny_backbone()
    rows = restore(run, backbone).embed(CLASSES).double().numpy()
    p, centre, text_centre = (np.float64(value) for value in (model.precision, model.centre, model.text_centre))
    predicted = centre + model.slope * (rows - text_centre)
    means = predicted.copy()
    means[:4] = (SHOTS * np.float64(model.means) + 2 * predicted[:4]) / (SHOTS + 2)
    g = np.array([model.offsets[-1][1]] * 4 + [0.0] * 4)
    logits = backbone.logit_scale * images @ rows.T - g
    logits += model.alpha * ((images - centre) @ p @ (means - centre).T)
    logits -= model.alpha * np.einsum("cd,de,ce->c", means - centre, p, means - centre) / 2
    right = logits.argmax(1) == labels.numpy()
    one = run.record["open"]["other_metrics"]["statistics"]["images"]
    assert one["base_accuracy"] == pytest.approx(100 * right[:48].mean())
    assert one["new_accuracy"] == pytest.approx(100 * right[48:].mean())


def test_quick_and_a_named_prompt_do_not_train_again(tmp_path: Path) -> None:
    config = settings(tmp_path)
    quick = trainer.run(dataclasses.replace(config, quick=True), tmp_path / "quick").record["statistics"]
    assert (quick["folds"], quick["prompt"], set(quick["scores"])) == (
        "hand-crafted prompt",
        "learned",
        {"handcrafted"},
    )
    assert quick["comparison"] == {
        "learned": None,
        "handcrafted": max(quick["scores"]["handcrafted"].values()),
        "chosen": "learned",
        "reason": "not compared: --quick",
    }
    fixed = trainer.run(dataclasses.replace(config, prompt="handcrafted"), tmp_path / "fixed")
    assert fixed.record["statistics"]["comparison"]["reason"] == "--prompt handcrafted was asked for"
    assert fixed.record["statistics"]["prompt"] == "handcrafted"
    assert fixed.record["statistics"]["folds"] == "hand-crafted prompt"
    learned = trainer.run(dataclasses.replace(config, prompt="learned"), tmp_path / "learned").record["statistics"]
    assert (learned["prompt"], set(learned["scores"])) == ("learned", {"learned"})
    stored = load_statistics(tmp_path / "fixed")
    assert stored is not None
    backbone = tiny_backbone()
    rows = backbone.embed_names(CLASSES, stored.template)
    np.testing.assert_allclose(stored.statistics.text_centre, rows.mean(0).numpy(), atol=1e-6)


@pytest.mark.parametrize(("classes", "shots"), [(3, 8), (8, 1)])
def test_what_cannot_be_fitted_has_the_stated_default(tmp_path: Path, classes: int, shots: int) -> None:
    run = trainer.run(settings(tmp_path, classes, shots=shots), tmp_path / "run")
    fitted = load_statistics(tmp_path / "run")
    assert fitted is not None
    assert fitted.record["defaults"]
    assert "accuracy not measured" in expectation(run.record["statistics"])
    statistics = fitted.statistics
    assert statistics.slope == 0  # so the image term of a class without photos is 0
    np.testing.assert_array_equal(statistics.precision, np.eye(len(statistics.centre)) * statistics.precision[0, 0])
    assert statistics.counts.tolist() == [shots] * classes


def test_sar_mini_has_reference_statistics_for_what_cannot_be_fitted(tmp_path: Path) -> None:
    demo = load_features(DEMO_FILE)
    rows: Rows = {}
    for split in SPLITS:
        few = demo.labels(split) < 6
        rows[split] = (demo.plain(split)[few], demo.labels(split)[few])
    path = tmp_path / "few.safetensors"
    save_features(altered(demo, rows, class_names=demo.dataset.class_names[:6]), path)
    trainer.run(RunConfig(data=str(path), protocol="all", shots=1, epochs=1, sar=False), tmp_path / "run")
    fitted = load_statistics(tmp_path / "run")
    assert fitted is not None
    assert fitted.record["defaults"]
    statistics = fitted.statistics
    assert statistics.alpha > 0
    assert statistics.slope != 0
    assert len(statistics.offsets) > 3
    assert not np.array_equal(statistics.precision, np.diag(np.diag(statistics.precision)))


@pytest.mark.parametrize("method", ["promptsrc", "cocoop"])
def test_methods_with_a_tower_or_a_prompt_for_each_image(tmp_path: Path, method: str) -> None:
    write_folder(tmp_path / "photos", dict.fromkeys(CLASSES[:5], 8))
    config = settings(tmp_path, method=method, data=str(tmp_path / "photos"), shots=4, epochs=1, batch_size=4, views=2)
    run = trainer.run(config, tmp_path / "run")
    record = run.record["statistics"]
    assert record["folds"] == ("hand-crafted prompt" if method == "promptsrc" else "learned and hand-crafted prompt")
    assert run.record["other_metrics"]["statistics"]["base_accuracy"] is not None


def test_results_keep_their_keys_where_statistics_are_as_usual(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert not {"statistics", "prompt", "quick"} & outcome_settings(config).keys()
    assert outcome_settings(dataclasses.replace(config, statistics=False))["statistics"] is False
    assert outcome_settings(dataclasses.replace(config, quick=True)) != outcome_settings(config)
