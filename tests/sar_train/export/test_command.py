"""``sar-export`` as it is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.folders import listing
from support.hub import TOKEN, serve_hub, use
from support.photos import write_folder
from support.terminals import terminal
from support.tiny import VIT, register, tiny_backbone

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.encoders.parity import checks
from sar_infer.errors import InputError
from sar_train.cli.export import main
from sar_train.clip.backbone import RANDOM
from sar_train.export import parity
from sar_train.training.checkpoint import Run, save_run

RECORD = {
    "config": {"protocol": "base-to-new", "shots": 16, "template": "a picture of a {}."},
    "dataset": {"name": "caltech101", "photos": 32, "held_out": 9},
    "seed": 3,
    "metrics": {"base_accuracy": 80.0, "new_accuracy": 60.0, "harmonic_mean": 68.57},
    "zero_shot": {"base_accuracy": 60.7, "new_accuracy": None, "harmonic_mean": None},
    "other_metrics": {},
    "per_class_counts": {"base": {"ant": 4, "big_bee": 5}, "new": None},
    "calibration": None,
}


def export(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)


def one_line(result: Result, code: int) -> str:
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith(("writing", "encoding", "comparing"))]
    assert line.startswith("Error: ")
    return line


@pytest.fixture(autouse=True)
def _tiny() -> None:
    register()


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("golden retriever\nred_fox\npet = tabby cat | small dog\nRed_Fox\n")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    context = tiny_backbone().handcrafted("a photo of a {}.").context
    path = tmp_path / "run"
    path.mkdir()
    digest = tiny_backbone().weights_digest
    tensors = {"context": context}
    save_run(path, Run(tensors, "coop", {}, VIT, RANDOM, digest, "", ("ant", "big_bee"), {"sar": 0.5}, RECORD))
    return path


def test_a_bundle_is_pushed_to_a_hub(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--out", tmp_path / "new", "--push", "me/new", "--quiet")
    with serve_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch, TOKEN)
        result = export(run, *options)
        assert (result.exit_code, result.stderr) == (0, "")
        location = f"hf://me/new@{hub.repositories['me/new'].refs['main']}"
        assert re.search(rf"^pushed +{location}$", result.stdout, re.MULTILINE)
        assert result.stdout.endswith(f"sar-classify PHOTO --bundle {location}\n")
        assert open_bundle(location).manifest == open_bundle(tmp_path / "new").manifest
        pushed = json.loads(export(run, *options, "--overwrite", "--format", "json").stdout)["pushed"]
        assert pushed == f"hf://me/new@{hub.repositories['me/new'].refs['main']}"


def test_uploads_show_bars_on_a_terminal_alone(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [str(run), "--out", str(tmp_path / "new"), "--overwrite", "--push", "me/new"]
    with serve_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch, TOKEN)
        with terminal() as output:
            main(arguments, standalone_mode=False)
        assert re.search(r"name_encoder\.onnx: 100%\|.+\|", "".join(output))
        hub.repositories.clear()
        assert "%" not in export(*arguments).stderr
        assert "name_encoder.onnx" in hub.repositories["me/new"].files


def test_nothing_is_exported_that_cannot_be_pushed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        for name, message in (("new", "expected USER/NAME, got 'new'"), ("me/new", "there is no token for the hub")):
            assert message in one_line(export(run, "--out", tmp_path / "new", "--push", name), 2)
    assert not (tmp_path / "new").exists()


def test_a_run_becomes_a_bundle(run: Path, tmp_path: Path) -> None:
    result = export(run, "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    for expected in (
        "2: ant, big bee",
        "coop with sar 0.5",
        "tiny-vit",
        "43 images: cosine to torch at least",
        "same class 100.0%",
        "caltech101, base-to-new, 32 photos learned",
        "base 80.0 %, new 60.0 %, harmonic mean 68.6 %",
        f"sar-classify PHOTO --bundle {tmp_path}/new",
    ):
        assert expected in result.stdout
    assert "comparing with torch" in result.stderr
    assert open_bundle(tmp_path / "new").bank.names == ("ant", "big bee")


def test_a_switched_bundle_shows_the_prompt_of_added_names(run: Path, tmp_path: Path) -> None:
    result = export(run, "--out", tmp_path / "new", "--text", "switched")
    assert result.exit_code == 0, result.output
    assert re.search(r"^added names +a picture of a \{\}\.$", result.stdout, re.MULTILINE)
    assert "switched: the learned prompt embeds the trained classes" in result.stdout
    assert "this bundle   base 80.0 %" in result.stdout  # new ones by the hand-crafted prompt, not measured here


def test_an_untuned_backbone_and_a_class_file(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    options = ("--handcrafted", "a photo of a {}.", "--backbone", VIT, "--pretrained", RANDOM, "--format", "json", "-q")
    result = export(*options, "--out", out, SAR_EXPORT_CLASSES=str(classes))
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["digest"] == open_bundle(out).manifest.digest
    assert content["quality"]["parity"]["top1_agreement"] == 1
    assert open_bundle(out).bank.names == ("golden retriever", "red fox", "pet")
    assert "is already on line 2" in result.stderr


def test_a_bundle_without_class_names(tmp_path: Path) -> None:
    """Every further command works once there are names; without any, the error names the options that add them."""
    out, photo, names = tmp_path / "new", tmp_path / "1.png", tmp_path / "names.txt"
    Image.new("RGB", (9, 9), (200, 0, 99)).save(photo)
    names.write_text("red fox\npet\n", "utf-8")
    result = export("--handcrafted", "a {}.", "--backbone", VIT, "--pretrained", RANDOM, "-q", "--out", out)
    assert result.exit_code == 0, result.output
    assert "sar-classify PHOTO --classes NAMES" in result.stdout
    bundle = open_bundle(out)
    assert (bundle.bank.names, bundle.manifest.quality.parity and bundle.manifest.quality.parity.names) == ((), 73)
    assert all(check.passed for check in checks(bundle))
    classifier = Classifier(bundle, device="cpu")
    with pytest.raises(InputError, match="--classes FILE"):
        classifier.classify(photo)
    (result,) = classifier.classify([photo], classes=["red fox", "pet"])
    assert {prediction.label for prediction in result.predictions} == {"red fox", "pet"}
    assert classifier.add("red fox").bank.names == ("red fox",)


def test_compares_on_photos(run: Path, tmp_path: Path) -> None:
    for i in range(210):
        Image.new("RGB", (9, 9), (i, 0, 99)).save(tmp_path / f"{i:03}.png")
    result = export(run, "--out", tmp_path / "new", "--photos", tmp_path, "--format", "json")
    assert json.loads(result.stdout)["quality"]["parity"]["images"] == 105


def test_a_failed_gate_is_one_line_and_exit_code_1(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "MAX_DIFFERENCE", 0.0)
    assert "name_encoder.onnx, difference to torch" in one_line(export(run, "--out", tmp_path / "new"), 1)
    assert listing(tmp_path) == ["run"]


NEW = ("--out", "new", "--classes", "classes.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a RUN folder, or --handcrafted TEMPLATE"),
        (["run", "--handcrafted", "a {}."], "expected a RUN folder, or --handcrafted TEMPLATE"),
        (["run"], "no folder for the bundle"),
        (["run", "--out", "."], "exists; choose another --out, or replace it with --overwrite"),
        (["run", "--out", ".", "--overwrite"], "is not a bundle"),
        (["nothing", "--out", "new"], "nothing: expected a run folder"),
        (["run", "--out", "new", "--classes", "nothing"], "nothing: no such class file"),
        (["run", "--out", "new", "--photos", "run"], "a folder without images"),
        (["run", "--out", "new", "--backbone", "RN50"], "was trained on tiny-vit"),
        (["--handcrafted", "a {}.", *NEW, "--backbone", "ViT-B-23"], "did you mean"),
        (["--handcrafted", "a", *NEW, "--backbone", VIT, "--pretrained", RANDOM], "expected exactly one {}"),
        (["--handcrafted", "a {}.", *NEW, "--approximate", "mean-image"], "leave --approximate out"),
        (["run", "--out", "new", "--approximate", "mean-image"], "leave --approximate out"),
        (["--handcrafted", "a {}.", *NEW, "--text", "switched"], "leave --text out"),
    ],
)
@pytest.mark.usefixtures("run", "classes")
def test_a_call_that_cannot_succeed_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = export(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    assert message in line
    assert listing(tmp_path) == ["classes.txt", "run"]


def test_a_bundle_in_place_of_a_run(exported: Path, tmp_path: Path) -> None:
    line = one_line(export(exported, "--out", tmp_path / "new"), 2)
    assert f"{exported}: a bundle, not a run; sar-bundle works on it" in line


def test_a_broken_photo_is_named_with_what_to_do(run: Path, tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"a": 3})
    (photos / "a" / "broken.jpg").write_bytes(b"no image")
    result = export(run, "--out", tmp_path / "bundle", "--photos", photos)
    line = one_line(result, 2)
    assert result.stderr.splitlines() == [line]  # nothing was encoded or written before
    assert re.search(r"broken\.jpg: not an image .*; repair this image or remove it", line)
    assert not (tmp_path / "bundle").exists()
