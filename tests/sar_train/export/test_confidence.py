"""From a run's record through the manifest to the run time, whose scores keep what the bundle says of them."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from support.features import Rows, altered
from support.problems import BASE, CLASSES, feature_set, scattered
from support.tiny import VIT, register

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.describe import describe
from sar_infer.classifiers.scores import expected_calibration_error
from sar_infer.results import DecisionOptions
from sar_train.clip import backbone
from sar_train.clip.backbone import RANDOM
from sar_train.config.run import RunConfig
from sar_train.data.dataset import SPLITS
from sar_train.data.feature_file import StoredFeatures, save_features
from sar_train.errors import RunError
from sar_train.export.bundle import export_bundle
from sar_train.export.source import NOT_CALIBRATED, from_run
from sar_train.training import trainer

pytestmark = pytest.mark.slow


@functools.cache
def blurred() -> StoredFeatures:
    """Return classes that overlap, so that no method has all photos right."""
    labels = torch.arange(len(CLASSES)).repeat_interleave(40)
    rows: Rows = {split: (scattered(labels.tolist(), seed, 3.0), labels) for seed, split in enumerate(SPLITS, 1)}
    return altered(feature_set(), rows)


def trained(method: str, folder: Path, prompt: Literal["learned", "handcrafted"] = "learned") -> Path:
    register()
    save_features(blurred(), folder / "blobs.safetensors")
    config = RunConfig(
        data=str(folder / "blobs.safetensors"), backbone=VIT, pretrained=RANDOM, method=method, sar=False, shots=4,
        epochs=2, learning_rate=0.005, batch_size=4, prompt=prompt, quick=True,
    )  # fmt: skip
    trainer.run(config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module", params=[("coop", "learned"), ("dept", "learned"), ("dept", "handcrafted")])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With class statistics, which answer unless a head does: of DePT with its own prompt."""
    method, prompt = request.param
    return trained(method, tmp_path_factory.mktemp(method), prompt)


@pytest.fixture(scope="module")
def bundle(run: Path) -> Path:
    export_bundle(from_run(run), run.parent / "bundle", command="tests")
    return run.parent / "bundle"


def record(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "record.json").read_text("utf-8"))
    return content


def rows(split: str, base: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels of the photos of base or of new classes."""
    rows, labels = blurred().plain(split), blurred().labels(split)
    chosen = (labels < len(BASE)) == base
    return rows[chosen].numpy(), labels[chosen].numpy()


def test_scores_at_run_time_have_the_calibration_error_of_the_bundle(run: Path, bundle: Path) -> None:
    classifier = Classifier.open(bundle)
    manifest, classes = classifier.bundle.manifest, classifier.class_set()
    measured = manifest.quality.calibration
    assert measured is not None
    assert (measured.fitted_on, measured.measured_on, measured.cross_fitted) == (160, 160, False)
    assert manifest.temperature == record(run)["calibration"]["temperature"]
    assert manifest.calibrated == BASE
    features, labels = rows("test")
    results = list(classifier.decide(classes, len(BASE))(features))
    scores = np.array([[{p.label: p.score for p in r.predictions}[n] for n in classes.names] for r in results])
    assert all(p.calibration == "held-out" for result in results for p in result.predictions)
    assert expected_calibration_error(scores.astype(float), labels) == pytest.approx(measured.error_after, abs=1e-3)


def test_sets_at_run_time_have_the_coverage_of_the_bundle(bundle: Path) -> None:
    classifier = Classifier.open(bundle)
    classes = classifier.class_set(BASE[::-1], only=True)
    measured = classifier.bundle.manifest.quality.calibration
    assert measured is not None
    features, labels = rows("test")
    for coverage in (0.8, 0.9, 0.95):
        decide = classifier.decide(classes, 1, DecisionOptions(coverage=coverage))
        sets = [result.label_set or () for result in decide(features)]
        held = np.mean([CLASSES[label] in found for label, found in zip(labels, sets, strict=True)])
        assert held == pytest.approx(measured.coverage[f"{coverage:g}"], abs=0.01)
        assert np.mean([*map(len, sets)]) == pytest.approx(measured.set_size[f"{coverage:g}"], abs=0.02)


@pytest.mark.parametrize("kind", ["score", "energy"])
def test_photos_that_it_was_fitted_on_are_known_but_for_one_in_twenty(bundle: Path, kind: Any) -> None:
    classifier = Classifier.open(bundle)
    decide = classifier.decide(classifier.class_set(), 1, DecisionOptions(unknown=kind))
    assert np.mean([result.unknown for result in decide(rows("val")[0])]) == pytest.approx(0.05, abs=0.01)


def test_known_and_new_photos_are_told_apart_as_the_bundle_says(bundle: Path) -> None:
    classifier = Classifier.open(bundle)
    measured = classifier.bundle.manifest.quality.calibration
    assert measured is not None
    decide = classifier.decide(classifier.class_set(), 1, DecisionOptions(explain=True))
    known, new = (list(decide(rows("test", base)[0])) for base in (True, False))
    for kind, of in (("score", lambda r: r.predictions[0].score), ("energy", lambda r: -r.explanation.energy)):
        ahead = np.mean([(of(a) > of(b)) + (of(a) == of(b)) / 2 for a in known for b in new])
        assert ahead == pytest.approx(measured.unknown_auroc[kind], abs=0.002)


def test_what_a_user_is_shown(bundle: Path) -> None:
    opened = open_bundle(bundle)
    shown = describe(opened)
    assert f"temperature   {opened.manifest.temperature:.3f}, for {len(BASE)} classes" in shown
    assert re.search(r"fitted on 160 photos; error \(ECE\) .*, on 160 photos", shown)
    assert ("did not help" in shown) == (opened.manifest.temperature == 1)


def test_with_another_bank_there_is_no_calibration_and_a_note_says_so(run: Path) -> None:
    lines: list[str] = []
    source = from_run(run, {name: (name,) for name in (*BASE[1:], "owl")}, tell=lines.append)
    assert (source.confidence, source.calibrated, source.quality.calibration) == (None, (), None)
    assert NOT_CALIBRATED in source.quality.notes
    assert NOT_CALIBRATED in lines


def test_a_larger_bank_keeps_the_calibration_of_the_trained_classes(run: Path) -> None:
    source = from_run(run, {name.upper(): (name,) for name in (*CLASSES,)})
    assert source.calibrated == tuple(name.upper() for name in BASE)


def test_an_older_run_is_exported_as_before(run: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "prompts.safetensors").write_bytes((run / "prompts.safetensors").read_bytes())
    content = record(run)
    del content["calibration"]
    (old / "record.json").write_text(json.dumps(content), "utf-8")
    source = from_run(old)
    assert (source.confidence, source.quality.calibration, source.quality.notes) == (None, None, ())
    (old / "record.json").write_text(json.dumps(content | {"calibration": {"measured": {}}}), "utf-8")
    with pytest.raises(RunError, match="calibration"):
        from_run(old)


def test_logits_with_a_bias_have_the_energy_of_the_run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = backbone.load

    def biased(*given: Any, **options: Any) -> Any:
        loaded = load(*given, **options)
        loaded.model.logit_bias = torch.tensor(-3.0)
        return loaded

    monkeypatch.setattr(backbone, "load", biased)
    run = trained("coop", tmp_path)
    export_bundle(from_run(run), tmp_path / "bundle", command="tests")
    classifier = Classifier.open(tmp_path / "bundle")
    assert classifier.bundle.manifest.logit_bias == -3.0
    decide = classifier.decide(classifier.class_set(), 1, DecisionOptions(unknown="energy"))
    assert np.mean([result.unknown for result in decide(rows("val")[0])]) == pytest.approx(0.05, abs=0.01)
