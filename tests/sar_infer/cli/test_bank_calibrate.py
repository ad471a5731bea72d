"""``sar-bank calibrate``: what it fits, against an independent reference, and where it holds."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path

import httpx2
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from support.bank_commands import BANK, COLOURS, Command, paint_folders, working_in
from support.bundles import BANK_NAMES, write_bundle
from support.servers import local_server
from support.trained import example_statistics

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.bank import calibrate as edit
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as sar_classify
from sar_infer.errors import InputError
from sar_infer.server.settings import Settings

run, classify = Command(main), Command(sar_classify)
NAMES = (*BANK_NAMES, "iris")
STALE = "not calibrated any more"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Path:
    """A folder with a bank that has photos of four classes and is calibrated on others, some of them mislabelled."""
    with working_in(tmp_path_factory.mktemp("prepared"), bundle_path) as folder:
        run("add", BANK, "--photos", paint_folders("labelled", 3, seed=1))
        run("calibrate", BANK, "--photos", paint_folders("held", 20, seed=2, wrong=0.2))
    return folder


@pytest.fixture
def calibrated(prepared: Path, here: Path) -> str:
    """Copy the bank and all photos here; return the folder of those that it was calibrated on."""
    shutil.copytree(prepared, here, dirs_exist_ok=True)
    return "held"


def held_out(root: str, bank: ClassBank | None = None) -> tuple[Classifier, np.ndarray, np.ndarray]:
    """Return an open classifier, logits that no calibration takes part in, and labels."""
    bank = ClassBank.load(BANK) if bank is None else bank
    classifier = Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=bank)
    rows = [classifier.embed_images(sorted(Path(root, name).iterdir())) for name in COLOURS]
    labels = np.repeat([bank.lookup.find(name) for name in COLOURS], [len(photos) for photos in rows])
    plain = classifier.class_set(bank=edit(bank, None))
    return classifier, classifier.logits(np.concatenate(rows), plain).astype(np.float64), labels


def test_it_fits_the_likeliest_temperature_and_answers_by_it(calibrated: str) -> None:
    classifier, logits, labels = held_out(calibrated)

    def loss(log_heat: float) -> float:
        return -float(log_softmax(logits / np.exp(log_heat), axis=1)[np.arange(len(labels)), labels].mean())

    heat = float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x))
    calibration = ClassBank.load(BANK).calibration
    assert calibration is not None
    assert calibration.temperature == pytest.approx(heat, rel=1e-4)
    probabilities = np.exp(log_softmax(logits / heat, axis=1))
    true = np.sort(probabilities[np.arange(len(labels)), labels])
    assert calibration.conformal["0.9"] == pytest.approx(
        true[len(true) - int(np.ceil(0.9 * (len(true) + 1)))], rel=1e-3
    )
    assert calibration.thresholds["score"] == pytest.approx(
        np.sort(probabilities.max(axis=1))[int(0.05 * len(true))], rel=1e-3
    )
    images = classifier.classify(sorted(Path(calibrated, "red").iterdir()), top_k=9, unknown="score")
    for image, row in zip(images, probabilities, strict=False):
        scores = {prediction.label: prediction.score for prediction in image.predictions}
        assert scores == pytest.approx(dict(zip(NAMES, row, strict=True)), rel=1e-3, abs=1e-6)
        assert {p.label for p in image.predictions if p.calibration == "held-out"} == {*COLOURS}
        assert image.unknown == (row.max() < calibration.thresholds["score"])


def test_it_says_what_was_fitted_and_measured(calibrated: str) -> None:
    fitted = run.report("calibrate", BANK, "--photos", calibrated)
    assert (fitted["calibrated"], fitted["measured"]["fitted_on"]) == ([*COLOURS], 80)
    assert 0.8 <= fitted["measured"]["coverage"]["0.9"] <= 1
    assert fitted["measured"]["nll_after"] <= fitted["measured"]["nll_before"]
    _, logits, labels = held_out(calibrated)
    right, added = logits.argmax(axis=1) == labels, labels == NAMES.index("iris")
    expected = {"all": right.mean(), "bundle": right[~added].mean(), "added": right[added].mean()}
    assert fitted["measured"]["accuracy"] == pytest.approx(expected)
    assert len({*expected.values()}) == 3
    shutil.copy("labelled/red/0.png", "held/red/twice.png")
    result = run("calibrate", BANK, "--photos", calibrated)
    assert "left out 1 photo, such as held/red/twice.png" in result.stderr
    assert "calibrated on 80 photos of 4 classes" in result.stdout
    shares = f"accuracy {expected['all']:.1%}, of the bundle's classes {expected['bundle']:.1%}, of added"
    assert shares in result.stdout
    assert [step.action for step in ClassBank.load(BANK).history] == ["add", *["calibrate"] * 3]


def flags(*more: object) -> set[bool]:
    """Return True if any class that has held-out photos is calibrated."""
    (image,) = classify.answers("held/red/0.png", "--bank", BANK, "--top-k", 9, *more)
    return {p["calibration"] == "held-out" for p in image["predictions"] if p["label"] in COLOURS}


def test_it_holds_until_the_classes_change_and_again_when_that_is_rolled_back(calibrated: str) -> None:
    assert flags() == {True}
    assert STALE in run("add", BANK, "rust").stderr
    assert flags() == {False}
    assert STALE not in run("add", BANK, "lime").stderr
    run("rollback", BANK, "--to", 2)
    assert flags() == {True}
    run("add", BANK, "iris", "--photos", "held/iris")
    assert flags() == {False}
    run("rollback", BANK, "--to", 2)
    assert STALE in run("set", BANK, "grey thing", "--background").stderr
    assert flags() == {False}
    assert STALE not in run("set", BANK, "grey thing", "--foreground").stderr
    assert STALE not in run("set", BANK, "red", "--alias", "crimson").stderr
    assert flags() == {True}


def test_a_correction_keeps_the_threshold_for_unknown_but_no_prediction_set(calibrated: str) -> None:
    calibration = ClassBank.load(BANK).calibration

    def answered() -> tuple[bool | None, float]:
        (image,) = classify.answers("held/red/0.png", "--bank", BANK, "--unknown")
        return image["unknown"], image["predictions"][0]["score"]

    before = answered()
    assert "--photos PHOTOS" in run("rename", BANK, "iris", "violet").stderr
    assert answered() == before  # neither the rows nor the temperature have changed
    run("rollback", BANK, "--to", 2)
    run("add", BANK, "red", "--photos", "held/red/1.png")
    _, logits, _ = held_out("held")
    unknown, score = answered()
    assert score == pytest.approx(np.exp(log_softmax(logits[0] / calibration.temperature)).max(), rel=1e-4)
    assert unknown == (score < calibration.thresholds["score"])
    line = classify("held/red/0.png", "--bank", BANK, "--coverage", 0.9, code=2).stderr
    assert "changed since it was calibrated" in line


def test_prediction_sets_are_for_the_classes_that_it_was_fitted_on(calibrated: str) -> None:
    with pytest.raises(InputError, match="4 classes"):  # there is no photo of the fifth
        Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=BANK).classify("held/red", coverage=0.9)
    run("remove", BANK, "grey thing")
    run("calibrate", BANK, "--photos", calibrated)
    images = classify.answers("held", "--bank", BANK, "--coverage", 0.9)
    assert 0.9 <= np.mean([Path(image["image"]).parent.name in image["label_set"] for image in images]) < 1


def test_a_served_bank_is_calibrated_until_a_class_is_put(calibrated: str) -> None:
    settings = Settings(bundle=Path(os.environ["SAR_BUNDLE"]), bank=BANK, key="k" * 20, device="cpu", threads=1)
    image = base64.b64encode(Path("held/red/0.png").read_bytes()).decode()
    call = {"images": [image], "top_k": 9, "unknown": "score"}
    headers = {"Authorization": f"Bearer {'k' * 20}"}
    with local_server(settings) as local, httpx2.Client(base_url=local.url, headers=headers) as client:

        def calibrated_labels() -> set[str]:
            answer = client.post("/v1/classify", json=call)
            assert answer.status_code == 200, answer.text
            predictions = answer.json()["results"][0]["predictions"]
            return {p["label"] for p in predictions if p["calibration"] == "held-out"}

        assert calibrated_labels() == {*COLOURS}
        assert client.put("/v1/classes/teal", json={}).status_code == 201
        assert calibrated_labels() == set()  # and clients that ask for unknown are still answered


def test_it_is_bound_to_the_model_and_to_the_offset(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_BUNDLE", str(write_bundle(here / "bundle", trained=example_statistics())))
    run("add", BANK, "--photos", paint_folders("labelled", 30, seed=1))
    run("calibrate", BANK, "--photos", paint_folders("held", 20, seed=2, wrong=0.2))
    assert ClassBank.load(BANK).calibration.branch == "statistics"
    assert (flags(), flags("--offset", 1.5)) == ({True}, {False})
    write_bundle(Path("other"), trained=example_statistics(alpha=0.2))
    assert flags("--bundle", "other") == {False}


@pytest.mark.parametrize("held", [True, False])
def test_a_frozen_bundle_answers_as_its_bank_did(calibrated: str, held: bool) -> None:
    if not held:
        run("add", BANK, "rust")
    bundle = open_bundle(Path(os.environ["SAR_BUNDLE"]))
    freeze(bundle, ClassBank.load(BANK), Path("frozen"))
    (before,), (after,) = (
        Classifier.open(path, "cpu", bank=bank).classify("held/red/0.png", top_k=9, unknown="score")
        for path, bank in ((bundle.path, BANK), (Path("frozen"), None))
    )
    assert [(p.label, p.calibration) for p in after.predictions] == [
        (p.label, p.calibration) for p in before.predictions
    ]
    assert [p.score for p in after.predictions] == pytest.approx(
        [p.score for p in before.predictions]
    )  # rows may round
    assert after.unknown == before.unknown
    assert {p.label for p in after.predictions if p.calibration == "held-out"} == {*(COLOURS if held else ())}


def test_unusable_photos_are_refused_and_nothing_changes(calibrated: str) -> None:
    assert "expected 50 or more" in run.refused("calibrate", BANK, "--photos", paint_folders("few", 2, seed=3))
    assert "expected 50 or more" in run.refused("calibrate", BANK, "--photos", "labelled")  # all of them are counted
    assert "nowhere: no such file or folder" in run.refused("calibrate", BANK, "--photos", "nowhere")
    shutil.copytree("held/red", "held/salmon")
    assert "salmon" in run.refused("calibrate", BANK, "--photos", "held")
    shutil.rmtree("held/salmon")
    run("set", BANK, "blue", "--background")
    assert "background" in run.refused("calibrate", BANK, "--photos", "held")


def test_with_class_statistics_the_distance_gets_a_threshold_too(here: Path) -> None:
    write_bundle(here / "trained", trained=example_statistics(BANK_NAMES))
    held = paint_folders("held", 20, seed=2, wrong=0.2)
    run("add", BANK, "iris", "--bundle", "trained")
    result = run("calibrate", BANK, "--photos", held, "--bundle", "trained")
    classifier = Classifier.open("trained", bank=BANK)
    classes = classifier.class_set()
    rows = classifier.embed_images(sorted(str(path) for path in Path(held).rglob("*.png")))
    best = classifier.logits(rows, classes).argmax(axis=1)
    model = example_statistics(BANK_NAMES).statistics
    text = classes.rows(best)
    means = model.centre + model.slope * (text.astype(np.float64) - model.text_centre)
    for row, column in enumerate(best.tolist()):
        if classes.names[column] in BANK_NAMES:
            number = BANK_NAMES.index(classes.names[column])
            photos = model.counts[number]
            means[row] = (photos * model.means[number] + model.prior * means[row]) / (photos + model.prior)
    apart = rows - means
    distances = np.sort(((apart @ model.precision.astype(np.float64)) * apart).sum(axis=1))
    expected = distances[len(distances) - 1 - int(0.05 * len(distances))]  # 95 % lie no further
    fitted = ClassBank.load(BANK, base=open_bundle("trained").bank).calibration
    assert fitted is not None
    assert fitted.thresholds["distance"] == pytest.approx(expected, rel=1e-4)
    assert f"or above distance {expected:.1f}" in result.stdout
    decided = classifier.classify(sorted(str(path) for path in Path(held).rglob("*.png")), unknown="auto")
    assert sum(bool(one.unknown) for one in decided) == int((distances > expected * (1 + 1e-6)).sum()) == 4
