"""From a run with class statistics to the run time, which answers as the run was measured."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from support.photos import write_photo
from support.problems import BASE, CLASSES, feature_set
from support.tiny import VIT, register

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import STATISTICS
from sar_infer.bundle_check.bundle import verify_bundle
from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input
from sar_train.clip.backbone import RANDOM
from sar_train.config.run import RunConfig
from sar_train.data.feature_file import save_features
from sar_train.export.bundle import export_bundle
from sar_train.export.source import APPROXIMATION, from_run
from sar_train.training import trainer
from sar_train.training.checkpoint import FITTED_STATISTICS, load_run, load_statistics
from sar_train.training.prompted import restore

pytestmark = pytest.mark.slow
Prompt = Literal["learned", "handcrafted"]


def trained(folder: Path, method: str, prompt: Prompt, data: str, **changes: Any) -> Path:
    register()
    given = {"shots": 4, "epochs": 2, "learning_rate": 0.005, "batch_size": 4} | changes
    config = RunConfig(
        data=data, backbone=VIT, pretrained=RANDOM, method=method, sar=False, prompt=prompt, quick=True, **given
    )
    trainer.run(config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module", params=[("coop", "learned"), ("coop", "handcrafted"), ("cocoop", "handcrafted")])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    method, prompt = request.param
    folder = tmp_path_factory.mktemp(f"{method}-{prompt}")
    save_features(feature_set(), folder / "blobs.safetensors")
    return trained(folder, method, prompt, str(folder / "blobs.safetensors"))


@pytest.fixture(scope="module")
def bundle(run: Path) -> Path:
    export_bundle(from_run(run), run.parent / "bundle", command="tests")
    return run.parent / "bundle"


def record(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "record.json").read_text("utf-8"))
    return content


def test_the_run_time_is_as_good_as_the_run_was_measured(run: Path, bundle: Path) -> None:
    """Base classes alone, new classes alone, and both in one ranking."""
    classifier, measured = Classifier.open(bundle), record(run)
    features, labels = feature_set().plain("test").numpy(), feature_set().labels("test").numpy()
    new = CLASSES[len(BASE) :]
    both = [*BASE, *new]
    expected = measured["other_metrics"]["statistics"]
    for names, key in ((list(BASE), "base_accuracy"), (list(new), "new_accuracy")):
        classes = classifier.class_set(names, only=True)
        assert classes.branch == "text+statistics"
        mine = np.array([CLASSES[label] in names for label in labels])
        logits = classifier.logits(features[mine], classes)
        right = [names[column] == CLASSES[label] for column, label in zip(logits.argmax(1), labels[mine], strict=True)]
        assert 100 * np.mean(right) == pytest.approx(expected[key], abs=0.01)
    logits = classifier.logits(features, classifier.class_set(both, only=True))
    right = np.array([both[column] == CLASSES[label] for column, label in zip(logits.argmax(1), labels, strict=True)])
    known = np.array([CLASSES[label] in BASE for label in labels])
    found = measured["open"]["other_metrics"]["statistics"]["images"]
    assert 100 * right[known].mean() == pytest.approx(found["base_accuracy"], abs=0.01)
    assert 100 * right[~known].mean() == pytest.approx(found["new_accuracy"], abs=0.01)


def test_the_manifest_says_what_answers(run: Path, bundle: Path) -> None:
    manifest, measured = open_bundle(bundle).manifest, record(run)
    assert manifest.statistics == STATISTICS
    assert dataclasses.asdict(manifest.quality.metrics).items() <= measured["other_metrics"]["statistics"].items()
    handcrafted = measured["statistics"]["prompt"] == "handcrafted"
    assert manifest.method == ("handcrafted" if handcrafted else "coop")
    assert manifest.template == ("a photo of a {}." if handcrafted else None)
    assert APPROXIMATION not in manifest.quality.notes
    if manifest.calibrated:
        assert manifest.calibrated_for == "statistics"
    assert all(finding.verdict != "moved" for finding in verify_bundle(bundle))


def test_the_prompt_is_the_one_that_the_statistics_belong_to(run: Path, bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.statistics is not None
    own = [row for name in opened.statistics.names if (row := opened.bank.lookup.name(name)) is not None]
    assert opened.bank.embeddings[own].mean(axis=0) == pytest.approx(opened.statistics.statistics.text_centre, abs=1e-5)


def test_a_bank_with_other_classes_has_the_statistics_of_those_that_are_trained(run: Path, tmp_path: Path) -> None:
    source = from_run(run, {name: (name,) for name in (BASE[1].upper(), "owl")})
    export_bundle(source, tmp_path / "bundle", command="tests")
    whole, found = from_run(run).class_statistics(""), open_bundle(tmp_path / "bundle").statistics
    assert whole is not None and found is not None
    assert tuple(found.names) == (BASE[1].upper(),)
    assert found.statistics.means.tolist() == whole.statistics.means[[1]].tolist()


def test_a_run_from_before_is_exported_alike(run: Path, tmp_path: Path) -> None:
    """Its file had the name that a bundle's has."""
    fitted = load_statistics(run)
    assert fitted is not None
    per_image = record(run)["config"]["method"] == "cocoop" and fitted.prompt == "learned"
    approximate = "mean-image" if per_image else None
    old, now = shutil.copytree(run, tmp_path / "old"), from_run(run, approximate=approximate).class_statistics("")
    (old / FITTED_STATISTICS).rename(old / "statistics.safetensors")
    before = from_run(old, approximate=approximate).class_statistics("")
    assert before is not None and now is not None
    assert before.names == now.names
    assert {name: array.tolist() for name, array in before.statistics.tensors().items()} == {
        name: array.tolist() for name, array in now.statistics.tensors().items()
    }


def test_a_run_without_them_is_exported_as_before(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    (old / FITTED_STATISTICS).unlink()
    approximate = "mean-image" if record(run)["config"]["method"] == "cocoop" else None
    source = from_run(old, approximate=approximate)
    assert (source.statistics, source.method) == (None, record(run)["config"]["method"])
    assert source.calibrated == ()  # the record's calibration is for what is gone


def test_a_head_and_statistics_do_not_mix_in_silence(tmp_path: Path) -> None:
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    told: list[str] = []
    run = trained(tmp_path, "dept", "learned", str(tmp_path / "blobs.safetensors"))
    export_bundle(from_run(run, tell=told.append), tmp_path / "bundle", command="tests")
    assert "the head answers where exactly its classes are asked, class statistics everywhere else" in told
    classifier = Classifier.open(tmp_path / "bundle")
    assert classifier.class_set().branch == "head+text"
    assert classifier.class_set(["owl"]).branch == "text+statistics"
    metrics = classifier.bundle.manifest.quality.metrics
    assert metrics.base_accuracy == record(run)["metrics"]["base_accuracy"]


def test_an_image_prompt_stays_beside_the_handcrafted_names(tmp_path: Path) -> None:
    for seed in range(24):
        write_photo(tmp_path / "photos" / ("cat", "dog", "owl", "red car")[seed % 4] / f"{seed}.png", seed)
    run = trained(tmp_path, "maple", "handcrafted", str(tmp_path / "photos"), shots=3, epochs=1, batch_size=2)
    export_bundle(from_run(run), tmp_path / "bundle", command="tests")
    classifier = Classifier.open(tmp_path / "bundle")
    manifest = classifier.bundle.manifest
    assert (manifest.method, manifest.statistics) == ("handcrafted", STATISTICS)
    photo = next((tmp_path / "photos").rglob("*.png"))
    assert classifier.classify(photo)[0].branch == "text+statistics"
    backbone = from_run(run).backbone
    pixels = torch.from_numpy(to_input(load_rgb(photo, manifest.preprocess.fill), manifest.preprocess)[None])
    learned, plain = (found.encode_images(pixels).numpy() for found in (restore(load_run(run), backbone), backbone))
    assert classifier.embed_images(photo) == pytest.approx(learned, abs=1e-5)
    assert np.abs(learned - plain).max() > 1e-4
