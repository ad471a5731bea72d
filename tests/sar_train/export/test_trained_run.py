"""From a run through its bundle to the run time, which answers, and is as sure, as the run was measured."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.features import Rows, altered
from support.photos import write_photo
from support.problems import BASE, CLASSES, feature_set, scattered
from support.tiny import VIT, register

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import CLASS_MODEL
from sar_infer.encoders.parity import checks
from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input
from sar_train.clip.backbone import RANDOM
from sar_train.config.run import RunConfig
from sar_train.data.dataset import SPLITS
from sar_train.data.feature_file import StoredFeatures, save_features
from sar_train.errors import ConfigError
from sar_train.export.bundle import export_bundle
from sar_train.export.source import APPROXIMATION, from_run
from sar_train.training import trainer

pytestmark = pytest.mark.slow
NEW = CLASSES[len(BASE) :]
METHODS = [
    ("coop", "learned"),
    ("coop", "handcrafted"),
    ("cocoop", "handcrafted"),
    ("dept", "learned"),
    ("coop", "learned", "switched"),
]


@functools.cache
def blurred() -> StoredFeatures:
    """Return classes that overlap, so that no method has all photos right."""
    labels = torch.arange(len(CLASSES)).repeat_interleave(40)
    rows: Rows = {split: (scattered(labels.tolist(), seed, 3.0), labels) for seed, split in enumerate(SPLITS, 1)}
    return altered(feature_set(), rows)


def photos(split: str, names: tuple[str, ...] = BASE) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels, indices into ``CLASSES``, of the photos of some classes."""
    rows, labels = blurred().plain(split).numpy(), blurred().labels(split).numpy()
    chosen = np.isin(labels, [CLASSES.index(name) for name in names])
    return rows[chosen], labels[chosen]


def trained(folder: Path, method: str, prompt: str = "learned", data: Path | None = None, **changes: Any) -> Path:
    register()
    if data is None:
        data = folder / "blobs.safetensors"
        save_features(blurred(), data)
    settings = {"shots": 4, "epochs": 2, "learning_rate": 0.005, "batch_size": 4, "prompt": prompt} | changes
    config = RunConfig(data=str(data), backbone=VIT, pretrained=RANDOM, method=method, sar=False, **settings)
    trainer.run(config, folder / "run")
    return folder / "run"


def joint_accuracy(classifier: Classifier, names: tuple[str, ...], among: tuple[str, ...]) -> float:
    """Return the accuracy in percent of the test photos of some classes among others."""
    features, labels = photos("test", names)
    best = classifier.logits(features, classifier.class_set(among, only=True))[:, : len(among)].argmax(1)
    return 100 * float(np.mean([among[column] == CLASSES[label] for column, label in zip(best, labels, strict=True)]))


@pytest.fixture(scope="module", params=METHODS, ids=" ".join)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a class model, which ranks all classes; DePT's head is not exported."""
    return trained(tmp_path_factory.mktemp("-".join(request.param)), *request.param[:2])


def switched(run: Path) -> bool:
    return "switched" in run.parent.name


@pytest.fixture(scope="module")
def bundle(run: Path) -> Path:
    source = from_run(run, text="switched" if switched(run) else "prompt")
    export_bundle(source, run.parent / "bundle", command="tests")
    return run.parent / "bundle"


def record(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "record.json").read_text("utf-8"))
    return content


# ------------------------------------------------------------------------------------------------------------ accuracy
def test_the_run_time_is_as_good_as_the_run_was_measured(run: Path, bundle: Path) -> None:
    """Base classes alone, new classes alone, and both in one ranking."""
    classifier, measured = Classifier.open(bundle), record(run)

    way = "statistics-switched" if switched(run) else "statistics"
    by_statistics = measured["other_metrics"][way]
    together = measured["open"]["other_metrics"][way]["images"]
    assert joint_accuracy(classifier, BASE, BASE) == pytest.approx(by_statistics["base_accuracy"], abs=0.01)
    assert joint_accuracy(classifier, NEW, NEW) == pytest.approx(by_statistics["new_accuracy"], abs=0.01)
    for names, key in ((BASE, "base_accuracy"), (NEW, "new_accuracy")):
        assert joint_accuracy(classifier, names, (*BASE, *NEW)) == pytest.approx(together[key], abs=0.01)


def test_the_manifest_says_what_answers(run: Path, bundle: Path) -> None:
    opened, measured = open_bundle(bundle), record(run)
    manifest, classes = opened.manifest, opened.trained
    assert classes is not None
    metrics = measured["other_metrics"]["statistics-switched" if switched(run) else "statistics"]
    assert dataclasses.asdict(manifest.quality.metrics).items() <= metrics.items()
    handcrafted = measured["statistics"]["prompt"] == "handcrafted"
    assert manifest.method == ("handcrafted" if handcrafted else measured["config"]["method"])
    assert manifest.template == ("a photo of a {}." if handcrafted or switched(run) else None)
    assert manifest.switched is switched(run)
    assert APPROXIMATION not in manifest.quality.notes
    rows = opened.bank.embeddings[[opened.bank.lookup.name(name) for name in classes.names]]
    assert rows.mean(axis=0) == pytest.approx(classes.model.text_centre, abs=1e-5)  # of the prompt that answers
    assert all(check.passed for check in checks(opened))
    noted = any(note.startswith("without the head of dept") for note in manifest.quality.notes)
    assert noted is (manifest.method == "dept")


def test_a_switched_bundle_without_a_class_model_is_as_good_as_measured(tmp_path: Path) -> None:
    run = trained(tmp_path, "coop", statistics=False, epochs=8)
    export_bundle(from_run(run, text="switched"), tmp_path / "bundle", command="tests")
    classifier, measured = Classifier.open(tmp_path / "bundle"), record(run)
    jointly = measured["open"]["other_metrics"]["switched"]["images"]
    for names, key in ((BASE, "base_accuracy"), (NEW, "new_accuracy")):
        assert joint_accuracy(classifier, names, (*BASE, *NEW)) == pytest.approx(jointly[key], abs=0.01)
    quality = classifier.bundle.manifest.quality.metrics
    assert dataclasses.asdict(quality).items() <= measured["other_metrics"]["switched"].items()
    assert jointly != measured["open"]["metrics"]["images"]


def test_a_switched_bundle_learns_for_trained_names_alone(tmp_path: Path) -> None:
    run = trained(tmp_path, "coop")
    export_bundle(from_run(run), tmp_path / "plain", command="tests")
    source = from_run(run, {name: (name,) for name in (BASE[0], "owl")}, text="switched")
    export_bundle(source, tmp_path / "switched", command="tests")
    plain, mixed = (Classifier.open(tmp_path / name) for name in ("plain", "switched"))
    hand = source.backbone.embed_names(["owl", "heron"], "a photo of a {}.").numpy()
    learned = plain.bundle.bank.embeddings[plain.bundle.bank.lookup.name(BASE[0])]
    assert mixed.bundle.bank.embeddings == pytest.approx(np.stack([learned, hand[0]]), abs=1e-5)
    assert mixed.embed_names(["owl", "heron"]) == pytest.approx(hand, abs=1e-5)
    assert len({c.bundle.manifest.encoder_digest for c in (plain, mixed)}) == 2
    assert any(note.startswith("switched: ") for note in mixed.bundle.manifest.quality.notes)
    assert all(check.passed for check in checks(mixed.bundle))
    with pytest.raises(ConfigError, match="leave --text switched out"):
        from_run(trained(tmp_path / "hand", "coop", "handcrafted"), text="switched")


def test_a_bank_with_other_classes_has_the_statistics_of_those_that_are_trained(run: Path, tmp_path: Path) -> None:
    source = from_run(run, {name: (name,) for name in (BASE[1].upper(), "owl")})
    export_bundle(source, tmp_path / "bundle", command="tests")
    whole, some = from_run(run).trained_classes(""), open_bundle(tmp_path / "bundle").trained
    assert whole is not None and some is not None
    assert tuple(some.names) == (BASE[1].upper(),)
    assert some.means.tolist() == whole.means[[1]].tolist()


def test_handcrafted_names_have_the_plain_image_encoder_though_the_method_prompts_images(tmp_path: Path) -> None:
    for seed in range(24):
        write_photo(tmp_path / "photos" / ("cat", "dog", "owl", "red car")[seed % 4] / f"{seed}.png", seed)
    run = trained(tmp_path, "maple", "handcrafted", tmp_path / "photos", shots=3, epochs=1, batch_size=2)
    export_bundle(from_run(run), tmp_path / "bundle", command="tests")
    classifier = Classifier.open(tmp_path / "bundle")
    manifest = classifier.bundle.manifest
    assert manifest.method == "handcrafted" and CLASS_MODEL in manifest.files
    photo = next((tmp_path / "photos").rglob("*.png"))
    pixels = torch.from_numpy(to_input(load_rgb(photo, manifest.preprocess.fill), manifest.preprocess)[None])
    plain = from_run(run).backbone.encode_images(pixels).numpy()
    assert classifier.embed_images(photo) == pytest.approx(plain, abs=1e-5)
