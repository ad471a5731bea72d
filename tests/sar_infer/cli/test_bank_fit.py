"""``sar-bank fit``: statistics of a bank's own photos, from the command line, the server and a call."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.servers import local_server

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.classifiers.statistics import Statistics
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as classify
from sar_infer.errors import InputError
from sar_infer.server.settings import Settings

BANK = Path("mine.safetensors")
COLOURS = {"red": (210, 60, 50), "green": (60, 190, 70), "blue": (50, 70, 220), "iris": (140, 60, 220)}
HINT = "enough photos to fit class statistics"


def folders(root: str, count: int, seed: int, names: tuple[str, ...] = (*COLOURS,)) -> str:
    """``root/CLASS/NUMBER.png``."""
    generator = np.random.default_rng(seed)
    for name in names:
        for number in range(count):
            tint = np.clip(np.array(COLOURS[name]) + generator.normal(0, 45, 3), 0, 255)
            pixels = np.clip(tint + generator.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
            path = Path(root, name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def run(*arguments: object, code: int = 0, command=main) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def answers(*options: object) -> list[dict[str, object]]:
    done = run("held/red", "held/iris", *options, "--format", "jsonl", command=classify)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def photographed(here: Path) -> str:
    """A bank with eight photos of four classes; returns a folder of others."""
    run("add", BANK, "--photos", folders("known", 8, seed=1))
    return folders("held", 6, seed=2)


def test_it_fits_keeps_answers_by_them_and_is_taken_back(photographed: str) -> None:
    before = answers("--bank", BANK)
    said = run("fit", BANK).stdout
    assert "fitted class statistics on 32 photos of 4 classes" in said
    assert "undo: sar-bank rollback mine.safetensors --to 1" in said
    assert "classes that you add: by name" in said and "95 % intervals" in said
    bank = ClassBank.load(BANK)
    assert bank.fitted is not None
    kept = Statistics.from_tensors(bank.fitted)
    expected = Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=BANK).fit().statistics
    for name, array in expected.tensors().items():
        np.testing.assert_array_equal(kept.tensors()[name], array)
    after = answers("--bank", BANK)
    assert {p["calibration"] for answer in after for p in answer["predictions"]} == {"left-out"}
    assert {p["calibration"] for answer in before for p in answer["predictions"]} == {"none"}
    assert kept.confidence is not None
    first = after[0]["predictions"]
    assert sum(p["score"] for p in first) == pytest.approx(1, abs=1e-4)
    logits = np.array([p["logit"] for p in first])
    powers = np.exp((logits - logits.max()) / kept.confidence.temperature)
    np.testing.assert_allclose([p["score"] for p in first], powers / powers.sum(), atol=1e-5)
    run("rollback", BANK, "--to", 1)
    assert answers("--bank", BANK) == before


def test_json_says_what_the_text_says(photographed: str) -> None:
    content = json.loads(run("fit", BANK, "--format", "json").stdout)
    report = content["fit"]
    assert (content["changed"], content["undo_to"]) == (True, 1)
    assert (report["classes"], report["photos"], report["pooled_classes"]) == ([*COLOURS], 32, 0)
    assert report["alpha"] > 0 and report["temperature"] >= 1 and report["seconds"] >= 0
    assert [item["photos"] for item in report["expected"]] == [0, 1, 2, 4]
    for item in report["expected"]:
        assert 0 <= item["low"] <= item["accuracy"] <= item["high"] <= 100


def test_sets_and_unknown_need_no_held_out_photo(photographed: str) -> None:
    run("held/red", "--bank", BANK, "--coverage", "0.9", code=2, command=classify)
    run("held/red", "--bank", BANK, "--unknown", code=2, command=classify)
    run("fit", BANK)
    confidence = Statistics.from_tensors(ClassBank.load(BANK).fitted or {}).confidence
    assert confidence is not None
    counts = [8 if name in COLOURS else 0 for name in ClassBank.load(BANK).names]
    found = answers("--bank", BANK, "--coverage", "0.9", "--unknown", "--top-k", 9)
    needed = confidence.least(0.9, counts)
    assert needed is not None
    names = ClassBank.load(BANK).names
    for answer in found:
        scores = {p["label"]: p["score"] for p in answer["predictions"]}
        assert set(answer["label_set"]) == {n for n, least in zip(names, needed, strict=True) if scores[n] >= least}
        assert answer["unknown"] == (max(scores.values()) < confidence.thresholds(len(names))["score"])
    refused = run("held/red", "--bank", BANK, "--coverage", "0.7", code=2, command=classify)
    assert "coverage 0.7: this was calibrated for 0.8, 0.9, 0.95" in refused.stderr
    run("set", BANK, "grey thing", "--background")
    refused = run("held/red", "--bank", BANK, "--coverage", "0.9", code=2, command=classify)
    assert "a class is background" in refused.stderr


def test_reasons_say_what_scores_were_calibrated_on(photographed: str) -> None:
    assert "  not calibrated: " in run("held/red", "--bank", BANK, "--explain", command=classify).stdout
    run("fit", BANK)
    told = run("held/red", "--bank", BANK, "--explain", command=classify).stdout
    assert "  calibrated on classes left out in turn" in told


def test_held_out_photos_count_for_more_until_the_bank_changes(photographed: str) -> None:
    run("fit", BANK)
    run("calibrate", BANK, "--photos", folders("more", 20, seed=5))
    flags = {p["label"]: p["calibration"] for p in answers("--bank", BANK, "--top-k", 9)[0]["predictions"]}
    assert {flags[name] for name in COLOURS} == {"held-out"}
    run("add", BANK, "lime")
    flags = {p["label"]: p["calibration"] for p in answers("--bank", BANK, "--top-k", 9)[0]["predictions"]}
    assert {*flags.values()} == {"left-out"}


def test_adding_photos_says_when_it_would_pay_until_it_is_done(here: Path) -> None:
    folders("known", 4, seed=1)
    for name in ("red", "green", "blue"):
        assert HINT not in run("add", BANK, name, "--photos", f"known/{name}").stderr
    told = run("add", BANK, "iris", "--photos", "known/iris").stderr
    assert f"{HINT}, which answer better: sar-bank fit mine.safetensors" in told
    run("fit", BANK)
    folders("new", 2, seed=8)
    assert HINT not in run("add", BANK, "--photos", "new").stderr


def test_too_few_classes_are_one_line(here: Path) -> None:
    run("add", BANK, "--photos", folders("known", 4, seed=1, names=("red", "green", "blue")))
    said = run("fit", BANK, code=2).stderr
    assert "statistics need 4 classes with 2 photos or more whose rows are kept, got 3; add photos" in said
    assert len(ClassBank.load(BANK).history) == 1


def test_examples_of_four_classes_are_fitted_in_the_call(photographed: str) -> None:
    found = answers("--examples", "known", "--only")
    assert {p["calibration"] for answer in found for p in answer["predictions"]} == {"left-out"}
    classifier = Classifier.open(os.environ["SAR_BUNDLE"], "cpu")
    photos = {path.name: classifier.embed_photos(sorted(path.iterdir())) for path in sorted(Path("known").iterdir())}
    fitting = classifier.fit(photos, only=True)
    assert fitting.classes == tuple(sorted(COLOURS))
    confidence = fitting.statistics.confidence
    assert confidence is not None and confidence.others == 3
    few = folders("few", 4, seed=1, names=("red", "green", "blue"))
    assert answers("--examples", few, "--only")[0]["predictions"][0]["calibration"] == "none"
    with pytest.raises(InputError, match="4 classes"):
        classifier.fit(dict(list(photos.items())[:3]), only=True)


def test_a_server_says_it_too(photographed: str) -> None:
    run("fit", BANK)
    image = base64.b64encode(Path("held/red/0.png").read_bytes()).decode()
    settings = Settings(bundle=Path(os.environ["SAR_BUNDLE"]), bank=BANK, device="cpu", threads=1)
    with local_server(settings) as server:
        call = {"images": [image], "top_k": 9, "coverage": 0.9, "unknown": "energy"}
        answer = httpx2.post(f"{server.url}/v1/classify", json=call)
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    assert {p["calibration"] for p in result["predictions"]} == {"left-out"}
    assert isinstance(result["unknown"], bool) and isinstance(result["label_set"], list)


def test_it_needs_no_torch(photographed: str) -> None:
    program = (
        "import sys\nfor name in ('torch', 'open_clip', 'torchvision', 'onnx', 'sar_train'): sys.modules[name] = None\n"
        "from sar_infer.cli.bank import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program, "fit", str(BANK)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fitted class statistics on 32 photos of 4 classes" in done.stdout
