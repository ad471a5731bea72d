"""``sar-bank calibrate``: what it fits, against an independent reference, and where it holds."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from support.bundles import BANK_NAMES, write_bundle
from support.servers import local_server
from support.trained import example_statistics

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.bank.learned import BankCalibration
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as classify
from sar_infer.errors import BankError, InputError
from sar_infer.server.settings import Settings

BANK = Path("mine.safetensors")
COLOURS = {"red": (210, 60, 50), "green": (60, 190, 70), "blue": (50, 70, 220), "iris": (140, 60, 220)}
OWN = (*BANK_NAMES, "iris")
COVERED = ("red", "green", "blue", "iris")


def paint(path: Path, colour: tuple[int, int, int], generator: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tint = np.clip(np.array(colour) + generator.normal(0, 45, 3), 0, 255)
    noise = generator.normal(0, 8, (32, 32, 3))
    Image.fromarray(np.clip(tint + noise, 0, 255).astype(np.uint8)).save(path)


def folders(root: str, count: int, seed: int, wrong: float = 0.0) -> str:
    """``root/CLASS/NUMBER.png``; some of the photos show another class."""
    generator = np.random.default_rng(seed)
    for name in COVERED:
        for number in range(count):
            shown = generator.choice(COVERED) if generator.random() < wrong else name
            paint(Path(root, name, f"{number}.png"), COLOURS[str(shown)], generator)
    return root


def run(*arguments: object, code: int = 0, command=main) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def calibrated(here: Path) -> str:
    """A bank with photos of four classes, calibrated on others; returns their folder."""
    run("add", BANK, "--photos", folders("known", 3, seed=1))
    run("calibrate", BANK, "--photos", folders("held", 20, seed=2, wrong=0.2))
    return "held"


def held_out(root: str, bank: ClassBank | None = None) -> tuple[Classifier, np.ndarray, np.ndarray]:
    """Return an open classifier, logits that no calibration takes part in, and labels."""
    bank = ClassBank.load(BANK) if bank is None else bank
    classifier = Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=bank)
    rows = [classifier.embed_images(sorted(Path(root, name).iterdir())) for name in COVERED]
    labels = np.repeat([bank.index[name] for name in COVERED], [len(part) for part in rows])
    plain = classifier.class_set(bank=bank.without_calibration())
    return classifier, classifier.logits(np.concatenate(rows), plain).astype(np.float64), labels


def test_it_fits_the_likeliest_temperature_and_answers_by_it(calibrated: str) -> None:
    classifier, logits, labels = held_out(calibrated)

    def loss(log_heat: float) -> float:
        return -float(log_softmax(logits / np.exp(log_heat), axis=1)[np.arange(len(labels)), labels].mean())

    heat = float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x))
    own = ClassBank.load(BANK).calibration
    assert own is not None
    assert own.temperature == pytest.approx(heat, rel=1e-4)
    probabilities = np.exp(log_softmax(logits / heat, axis=1))
    true = np.sort(probabilities[np.arange(len(labels)), labels])
    assert own.conformal["0.9"] == pytest.approx(true[len(true) - int(np.ceil(0.9 * (len(true) + 1)))], rel=1e-3)
    assert own.thresholds["score"] == pytest.approx(np.sort(probabilities.max(axis=1))[int(0.05 * len(true))], rel=1e-3)
    found = classifier.classify(sorted(Path(calibrated, "red").iterdir()), top_k=9, unknown="score")
    for image, row in zip(found, probabilities, strict=False):
        scores = {prediction.label: prediction.score for prediction in image.predictions}
        assert scores == pytest.approx(dict(zip(OWN, row, strict=True)), rel=1e-3, abs=1e-6)
        assert {p.label for p in image.predictions if p.calibration == "held-out"} == {*COVERED}
        assert image.unknown == (row.max() < own.thresholds["score"])


def test_it_says_what_was_fitted_and_measured(here: Path) -> None:
    run("add", BANK, "--photos", folders("known", 3, seed=1))
    held = folders("held", 20, seed=2, wrong=0.2)
    found = json.loads(run("calibrate", BANK, "--photos", held, "--format", "json").stdout)
    assert (found["calibrated"], found["measured"]["fitted_on"]) == ([*COVERED], 80)
    assert 0.8 <= found["measured"]["coverage"]["0.9"] <= 1
    shutil.copy("known/red/0.png", "held/red/known.png")
    assert "left out 1 photo, such as held/red/known.png" in run("calibrate", BANK, "--photos", held).stderr
    Path("held/red/known.png").unlink()
    _, logits, labels = held_out(held)
    right, added = logits.argmax(axis=1) == labels, labels == OWN.index("iris")
    expected = {"all": right.mean(), "bundle": right[~added].mean(), "added": right[added].mean()}
    assert found["measured"]["accuracy"] == pytest.approx(expected)
    assert len({*expected.values()}) == 3
    assert found["measured"]["nll_after"] <= found["measured"]["nll_before"]
    said = run("calibrate", BANK, "--photos", held).stdout
    assert "calibrated on 80 photos of 4 classes" in said
    assert f"accuracy {expected['all']:.1%}, of the bundle's classes {expected['bundle']:.1%}, of added" in said
    assert ClassBank.verify(BANK).calibration is not None
    assert [step.action for step in ClassBank.load(BANK).history][:2] == ["add", "calibrate"]


def flags(*more: object) -> set[bool]:
    """Return True if any class that has held-out photos is calibrated."""
    done = run("held/red/0.png", "--bank", BANK, "--top-k", 9, "--format", "jsonl", *more, command=classify)
    return {p["calibration"] == "held-out" for p in json.loads(done.stdout)["predictions"] if p["label"] in COVERED}


def test_it_holds_until_the_classes_change_and_again_when_that_is_rolled_back(calibrated: str) -> None:
    assert flags() == {True}
    said = run("add", BANK, "rust").stderr
    assert "not calibrated any more" in said
    assert flags() == {False}
    assert "not calibrated any more" not in run("add", BANK, "lime").stderr
    run("rollback", BANK, "--to", 2)
    assert flags() == {True}
    run("add", BANK, "iris", "--photos", "held/iris")
    assert flags() == {False}
    run("rollback", BANK, "--to", 2)
    assert "not calibrated any more" in run("set", BANK, "grey thing", "--background").stderr
    assert flags() == {False}
    assert "not calibrated any more" not in run("set", BANK, "grey thing", "--foreground").stderr
    assert "not calibrated any more" not in run("alias", BANK, "red", "crimson").stderr
    assert flags() == {True}


def test_a_correction_keeps_the_threshold_for_unknown_but_no_prediction_set(calibrated: str) -> None:
    own = ClassBank.load(BANK).calibration

    def answered() -> tuple[bool | None, float]:
        more = ("--bank", BANK, "--unknown", "--format", "jsonl")
        found = json.loads(run("held/red/0.png", *more, command=classify).stdout)
        return found["unknown"], found["predictions"][0]["score"]

    before = answered()
    assert "--photos PHOTOS" in run("rename", BANK, "iris", "violet").stderr
    assert answered() == before  # neither the rows nor the temperature have changed
    run("rollback", BANK, "--to", 2)
    run("add", BANK, "red", "--photos", "held/red/1.png")
    _, logits, _ = held_out("held")
    unknown, score = answered()
    assert score == pytest.approx(np.exp(log_softmax(logits[0] / own.temperature)).max(), rel=1e-4)
    assert unknown == (score < own.thresholds["score"])
    said = run("held/red/0.png", "--bank", BANK, "--coverage", 0.9, code=2, command=classify).stderr
    assert "changed since it was calibrated" in said


def test_prediction_sets_are_for_the_classes_that_it_was_fitted_on(calibrated: str) -> None:
    classifier = Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=BANK)
    images = [path for name in COVERED for path in sorted(Path(calibrated, name).iterdir())]
    with pytest.raises(InputError, match="4 classes"):  # there is no photo of the fifth
        classifier.classify(images, coverage=0.9)
    run("remove", BANK, "grey thing")
    run("calibrate", BANK, "--photos", calibrated)
    classifier, _, labels = held_out(calibrated)
    found = classifier.classify(images, coverage=0.9)
    names = [ClassBank.load(BANK).names[label] for label in labels]
    share = np.mean([name in (image.label_set or ()) for name, image in zip(names, found, strict=True)])
    assert 0.9 <= share < 1


def test_a_photo_of_the_call_takes_the_flag_of_its_class_alone(calibrated: str) -> None:
    classifier = Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=BANK)
    more = classifier.embed_photos("held/iris/0.png")
    decide = classifier.decide(classifier.class_set(["teal"], photos={"IRIS": more}), 9)
    (result,) = decide(classifier.embed_images("held/red/0.png"))
    assert {p.label for p in result.predictions if p.calibration == "held-out"} == {"red", "green", "blue"}


def test_a_served_bank_is_calibrated_until_a_class_is_put(calibrated: str) -> None:
    settings = Settings(bundle=Path(os.environ["SAR_BUNDLE"]), bank=BANK, key="k" * 20, device="cpu", threads=1)
    key = {"Authorization": f"Bearer {'k' * 20}"}
    with local_server(settings) as local, httpx2.Client(base_url=local.url) as client:

        def found() -> dict[str, bool]:
            answer = client.post(
                "/v1/classify", json={"images": [image()], "top_k": 9, "unknown": "score"}, headers=key
            )
            assert answer.status_code == 200, answer.text
            return {p["label"]: p["calibration"] == "held-out" for p in answer.json()["results"][0]["predictions"]}

        assert {label for label, flag in found().items() if flag} == {*COVERED}
        put = client.put("/v1/classes/teal", json={}, headers=key)
        assert put.status_code in (200, 201), put.text
        assert {*found().values()} == {False}  # and clients that ask for unknown are still answered


def image() -> str:
    return base64.b64encode(Path("held/red/0.png").read_bytes()).decode()


@pytest.fixture
def with_statistics(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SAR_BUNDLE", str(write_bundle(here / "bundle", trained=example_statistics())))
    yield here


def test_it_is_bound_to_the_model_and_to_the_offset(with_statistics: Path) -> None:
    run("add", BANK, "--photos", folders("known", 30, seed=1))
    run("calibrate", BANK, "--photos", folders("held", 20, seed=2, wrong=0.2))
    assert ClassBank.load(BANK).calibration.branch == "statistics"
    assert (flags(), flags("--offset", 1.5)) == ({True}, {False})
    write_bundle(Path("other"), trained=example_statistics(alpha=0.2))
    assert flags("--bundle", "other") == {False}


def test_a_frozen_bundle_keeps_a_calibration_that_holds(calibrated: str) -> None:
    bundle = open_bundle(Path(os.environ["SAR_BUNDLE"]))
    freeze(bundle, ClassBank.load(BANK), Path("frozen"))
    (before,), (after,) = (
        Classifier.open(path, "cpu", bank=bank).classify("held/red/0.png", top_k=9)
        for path, bank in ((bundle.path, BANK), (Path("frozen"), None))
    )
    assert {p.label for p in after.predictions if p.calibration == "held-out"} == {*COVERED}
    assert after.predictions == before.predictions
    run("add", BANK, "rust")
    freeze(bundle, ClassBank.load(BANK), Path("later"))
    (now,), (later,) = (
        Classifier.open(path, "cpu", bank=bank).classify("held/red/0.png", top_k=9, unknown="score")
        for path, bank in ((bundle.path, BANK), (Path("later"), None))
    )
    assert (later.predictions, later.unknown) == (now.predictions, now.unknown)
    assert not any(prediction.calibration == "held-out" for prediction in later.predictions)


# -------------------------------------------------------------------------------------------------------------- refused
def refused(*arguments: object) -> str:
    before = BANK.read_bytes()
    result = run(*arguments, code=2)
    assert (result.stdout, BANK.read_bytes()) == ("", before)
    return result.stderr.splitlines()[-1]


def test_what_cannot_be_used_is_refused_and_nothing_changes(here: Path) -> None:
    run("add", BANK, "--photos", folders("known", 3, seed=1))
    assert "expected 50 or more" in refused("calibrate", BANK, "--photos", folders("few", 2, seed=3))
    assert "expected 50 or more" in refused("calibrate", BANK, "--photos", "known")  # all of them are counted
    held = folders("held", 20, seed=2)
    shutil.copytree("held/red", "held/salmon")
    assert "salmon" in refused("calibrate", BANK, "--photos", held)
    shutil.rmtree("held/salmon")
    run("set", BANK, "blue", "--background")
    assert "background" in refused("calibrate", BANK, "--photos", held)
    assert "one folder for each class" in refused("calibrate", BANK, "--photos", "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"thresholds": {"score": 0.5}},
        {"conformal": {"0.9": 2.0}},
        {"calibrated": ("red", "red")},
    ],
)
def test_unsound_numbers_are_refused(change: dict[str, object]) -> None:
    sound = BankCalibration("d", "m", "text", ("red",), (), 1.0, {"score": 0.5, "energy": -1.0}, {"0.9": 0.1}, {})
    with pytest.raises(BankError):
        replace(sound, **change)


def test_a_changed_number_in_the_file_is_found(calibrated: str) -> None:
    content = BANK.read_bytes()
    before = content.index(b'\\"temperature\\":') + len(b'\\"temperature\\":')
    BANK.write_bytes(
        content[:before] + (b"2" if content[before : before + 1] != b"2" else b"3") + content[before + 1 :]
    )
    with pytest.raises(BankError):
        ClassBank.load(BANK)


def test_with_class_statistics_the_distance_gets_a_threshold_too(here: Path) -> None:
    write_bundle(here / "trained", trained=example_statistics(BANK_NAMES))
    held = folders("held", 20, seed=2, wrong=0.2)
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
