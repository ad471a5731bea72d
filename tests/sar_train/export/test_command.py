"""``sar-export`` as it is typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.exported import moved
from support.folders import listing
from support.photos import write_folder, write_photo
from support.sound import change
from support.tiny import VIT, register, tiny_backbone

from sar_infer.artefact.bundle import open_bundle
from sar_infer.artefact.describe import describe
from sar_infer.artefact.manifest import Probe
from sar_train.cli.export import main
from sar_train.clip.backbone import RANDOM
from sar_train.training.checkpoint import Run, save_run

ROOT = Path(__file__).parents[3]
RECORD = {
    "config": {"protocol": "base-to-new", "shots": 16},
    "dataset": {"name": "caltech101"},
    "seed": 3,
    "metrics": {"base_accuracy": 80.0, "new_accuracy": 60.0, "harmonic_mean": 68.57},
    "zero_shot": {"base_accuracy": 60.7, "new_accuracy": None, "harmonic_mean": None},
}
WITHOUT = """
import sys
for name in ("torch", "torchvision", "open_clip", "timm", "onnx", "onnxscript"):
    sys.modules[name] = None
from sar_train.cli.export import main
main()
"""


def export(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)


def one_line(result: Result, code: int) -> str:
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith(("writing", "encoding", "comparing"))]
    assert line.startswith("Error: ")
    return line


def without_extra(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


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


@pytest.mark.usefixtures("ready_graphs")
def test_a_run_becomes_a_bundle(run: Path, tmp_path: Path) -> None:
    result = export(run, "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    for expected in (
        "2 classes",
        "coop + sar (0.5) on tiny-vit",
        "43 images: cosine at least",
        "same class 100.0%",
        "caltech101, base-to-new, 16 shots, seed 3",
        "80.00   60.00   68.57",
        f"sar-classify PHOTO --bundle {tmp_path}/new",
    ):
        assert expected in result.stdout
    assert "comparing with torch" in result.stderr
    assert open_bundle(tmp_path / "new").bank.names == ("ant", "big bee")


OTHER = {"base_accuracy": 70.0, "new_accuracy": 62.0, "harmonic_mean": 65.8}


@pytest.mark.usefixtures("ready_image_graph")
@pytest.mark.parametrize(
    ("method", "options", "lines"),
    [
        ("cocoop", ["--approximate", "mean-image"], ["this bundle    70.00   62.00   65.80", "per image      80.00"]),
        ("dept", [], ["this bundle    80.00   60.00   68.57", "text branch    70.00   62.00   65.80"]),
    ],
)
def test_other_ways_to_answer_stand_beside(method: str, options: list[str], lines: list[str], tmp_path: Path) -> None:
    prompted, digest = moved(method), tiny_backbone().weights_digest
    record = RECORD | {"other_metrics": {"text-branch": OTHER, "mean-image": OTHER}}
    tensors, names = prompted.method.state_dict(), prompted.trained
    (tmp_path / "run").mkdir()
    save_run(tmp_path / "run", Run(tensors, method, {}, VIT, RANDOM, digest, prompted.template, names, record=record))
    result = export(tmp_path / "run", "--out", tmp_path / "new", *options)
    assert result.exit_code == 0, result.output
    for line in lines:
        assert line in result.stdout
    assert ("note       an approximation" in result.stdout) == (method == "cocoop")
    passport = json.loads((tmp_path / "new" / "manifest.json").read_text())["passport"]
    assert list(passport["tables"]) == ["per-image" if options else "text-branch"]


@pytest.mark.usefixtures("ready_graphs")
def test_an_untuned_backbone_and_a_class_file(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    options = ("--handcrafted", "a photo of a {}.", "--backbone", VIT, "--pretrained", RANDOM, "--format", "json", "-q")
    result = export(*options, "--out", out, SAR_CLASSES=str(classes))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["digest"] == open_bundle(out).manifest.digest
    assert found["passport"]["parity"]["top1_agreement"] == 1
    assert open_bundle(out).bank.names == ("golden retriever", "red fox", "pet")
    assert "stands already on line 2" in result.stderr


@pytest.mark.usefixtures("ready_graphs")
def test_compares_on_photos(run: Path, tmp_path: Path) -> None:
    for i in range(210):
        Image.new("RGB", (9, 9), (i, 0, 99)).save(tmp_path / f"{i:03}.png")
    result = export(run, "--out", tmp_path / "new", "--photos", tmp_path, "--format", "json")
    assert json.loads(result.stdout)["passport"]["parity"]["images"] == 105


@pytest.mark.usefixtures("ready_graphs")
def test_a_failed_gate_is_one_line_and_exit_code_1(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_train.export.parity.MAX_DIFFERENCE", 0.0)
    assert "name encoder: differs from torch" in one_line(export(run, "--out", tmp_path / "new"), 1)
    assert listing(tmp_path) == ["run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a RUN folder, or --handcrafted TEMPLATE"),
        (["run", "--handcrafted", "a {}."], "expected a RUN folder, or --handcrafted TEMPLATE"),
        (["run"], "expected --out DIR"),
        (["run", "--out", "."], "exists; choose another --out, or replace it with --overwrite"),
        (["run", "--out", ".", "--overwrite"], "is not a bundle"),
        (["nothing", "--out", "new"], "nothing: expected a run folder"),
        (["run", "--out", "new", "--classes", "nothing"], "nothing: no such class file"),
        (["run", "--out", "new", "--photos", "run"], "a folder without images"),
        (["run", "--out", "new", "--backbone", "RN50"], "was trained on tiny-vit"),
        (["--handcrafted", "a {}.", "--out", "new"], "--classes FILE"),
        (
            [
                "--handcrafted",
                "a",
                "--out",
                "new",
                "--classes",
                "classes.txt",
                "--backbone",
                VIT,
                "--pretrained",
                RANDOM,
            ],
            "expected exactly one {}",
        ),
        (
            ["--handcrafted", "a {}.", "--out", "new", "--classes", "classes.txt", "--backbone", "ViT-B-23"],
            "did you mean",
        ),
        (["run", "--out", "new", "--approximate", "mean-image"], "leave --approximate out"),
        (
            ["--handcrafted", "a {}.", "--out", "new", "--classes", "classes.txt", "--approximate", "mean-image"],
            "leave --approximate out",
        ),
        (["--verify", "nothing"], "nothing: no such folder"),
    ],
)
@pytest.mark.usefixtures("run", "classes")
def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    line = one_line_after_warnings(export(*arguments))
    assert message in line
    assert listing(tmp_path) == ["classes.txt", "run"]


def one_line_after_warnings(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    return line


def test_verify_needs_no_torch(exported: Path) -> None:
    done = without_extra("--verify", exported)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{exported}: intact, and within all bounds" in done.stdout
    assert "5 bank rows made again" in done.stdout


def test_verify_on_photos_as_json(exported: Path, tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"red_fox": 2, "kitchen": 2})
    result = export("--verify", exported, "--photos", photos, "--format", "json")
    found = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, found["moved"]) == (0, "", False)
    by_what = {line["what"]: line for line in found["findings"]}
    assert by_what["probe image, cosine"]["verdict"] == "ok"
    assert by_what["accuracy, 4 photos of 2 classes of the bank"]["now"] in (0, 25, 50, 75, 100)


def test_verify_ends_with_1_where_something_moved(copy: Path) -> None:
    change(copy, probe=Probe(1, tuple(np.eye(32)[0].tolist())))
    result = export("--verify", copy)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "moved (at least 0.99999)" in result.stdout
    assert result.stdout.endswith(f"{copy}: moved beyond a bound\n")


def test_verify_refuses_what_is_damaged(copy: Path) -> None:
    (copy / "extra").write_text("")
    assert "not listed" in one_line(export("--verify", copy), 2)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    done = without_extra(tmp_path, "--out", tmp_path / "new")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "pip install 'sar-clip[train]'" in line


def test_help_shows_environment_twins() -> None:
    result = export("--help")
    assert result.exit_code == 0
    options = ("OUT", "CLASSES", "HANDCRAFTED", "PHOTOS", "APPROXIMATE", "VERIFY", "TRITON")
    for name in (f"SAR_{option}" for option in options):
        assert name in result.stdout


def photo_folder(root: Path, count: int = 44) -> Path:
    for i in range(count):
        write_photo(root / f"{i:02d}.png", i)
    return root


def test_a_bundle_gets_smaller_graphs(exported: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    loose = ("--photos", photos, "--min-agreement", "0.3", "--min-cosine", "0.9")
    result = export(exported, "--out", tmp_path / "new", "--precision", "fp16", *loose, "--format", "json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    bundle = open_bundle(tmp_path / "new")
    assert told["digest"] == bundle.manifest.digest
    assert told["precisions"]["fp16"]["image"]["file"] == "image_encoder.fp16.onnx"
    assert "fp16 images" in describe(bundle)
    out_of_reach = ("--photos", photos, "--min-cosine", "1")
    result = export(exported, "--out", tmp_path / "other", "--precision", "fp16", *out_of_reach, "--quiet")
    assert "left out (cosine on the worst" in one_line(result, 1)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("option", ["--jpeg-margin", "--min-cosine", "--min-agreement"])
def test_a_number_that_is_none_is_refused(exported: Path, tmp_path: Path, option: str) -> None:
    result = export(exported, "--out", tmp_path / "new", "--precision", "fp16", "--photos", tmp_path, option, "nan")
    assert result.exit_code == 2
    assert "expected a finite number, got nan" in result.stderr


@pytest.mark.usefixtures("ready_graphs")
def test_a_run_becomes_a_bundle_with_smaller_graphs(run: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    loose = ("--photos", photos, "--min-agreement", "0", "--min-cosine", "0.9")
    result = export(run, "--out", tmp_path / "new", "--precision", "fp16", *loose)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("bundle ")
    assert f"next       sar-classify PHOTO --bundle {tmp_path / 'new'} --precision fp16" in result.stdout
    assert set(open_bundle(tmp_path / "new").manifest.precisions) == {"fp16"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "int8"), "judged on real photos: add --photos FOLDER"),
        (("--jpeg-margin", "2"), "judged on real photos: add --photos FOLDER"),
        (("--min-cosine", "0.9"), "are bounds of --precision, which was not given"),
        ((), "a bundle, not a run; say what it should get: --precision or --jpeg-margin"),
        (("--precision", "int8", "--photos", ".", "--backbone", "sar-mini"), "leave --backbone out"),
        (("--precision", "int8", "--photos", ".", "--with-reference"), "leave --with-reference out"),
    ],
)
def test_what_a_bundle_cannot_get(exported: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in one_line(export(exported, "--out", tmp_path / "new", *arguments), 2)
    assert not (tmp_path / "new").exists()


def test_too_few_photos_to_judge_with(exported: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos", 3)
    result = export(exported, "--out", tmp_path / "new", "--precision", "int8", "--photos", photos)
    assert "3 photos that differ" in one_line(result, 2)


def test_the_photos_may_be_a_glob(exported: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    loose = ("--photos", photos / "*.png", "--min-agreement", "0", "--min-cosine", "0.9", "--quiet")
    result = export(exported, "--out", tmp_path / "new", "--precision", "fp16", *loose)
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_precision_of_the_run_time_does_not_leak_in(exported: Path, tmp_path: Path) -> None:
    result = export(exported, "--out", tmp_path / "new", SAR_PRECISION="int8")
    assert "say what it should get: --precision or --jpeg-margin" in one_line(result, 2)
    photos = photo_folder(tmp_path / "photos", 3)
    result = export(exported, "--out", tmp_path / "new", "--photos", photos, SAR_EXPORT_PRECISION="int8")
    assert "3 photos that differ" in one_line(result, 2)


def test_a_part_that_is_left_out_is_told_and_fails(exported: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    for i in range(50):
        write_photo(tmp_path / "photos" / f"large{i}.jpg", 100 + i, (200, 160))
    asked = ("--precision", "fp16", "--min-cosine", "1", "--jpeg-margin", "2", "--photos", photos, "--quiet")
    result = export(exported, "--out", tmp_path / "text", *asked)
    assert result.exit_code == 1
    assert "jpeg margin 2: " in result.stdout and "--precision fp16" not in result.stdout
    assert "fp16 image encoder: cast" in result.stdout
    assert re.search(r"^Error: left out: fp16 image encoder \(.*\); .*/text was written without$", result.stderr)
    assert open_bundle(tmp_path / "text").manifest.preprocess.jpeg_margin == 2
    result = export(exported, "--out", tmp_path / "json", *asked, "--format", "json")
    asked = json.loads(result.stdout)["asked"]
    assert (result.exit_code, [part["kept"] for part in asked]) == (1, [False, False, True])
    assert asked[0]["figures"]["samples"] > 30 and "cosine on the worst" in asked[0]["reasons"][0]


def test_too_few_photos_are_told_before_a_run_is_exported(run: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos", 3)
    result = export(run, "--out", tmp_path / "new", "--jpeg-margin", "2", "--photos", photos)
    assert "3 photos that differ" in one_line(result, 2)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("ready_graphs")
def test_a_run_whose_parts_all_fail_is_a_bundle_all_the_same(run: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    asked = ("--precision", "fp16", "--min-cosine", "1", "--jpeg-margin", "2", "--photos", photos)
    result = export(run, "--out", tmp_path / "new", *asked, "--quiet", "--format", "json")
    assert result.exit_code == 1
    assert result.stderr.rstrip().endswith(f"{tmp_path / 'new'} stays as it is")
    told, manifest = json.loads(result.stdout), open_bundle(tmp_path / "new").manifest
    assert (told["digest"], told["precisions"], manifest.precisions) == (manifest.digest, {}, {})
    assert [part["kept"] for part in told["asked"]] == [False, False, False]
    assert told["asked"][2]["figures"] is None


def test_a_run_without_calibration_is_said(run: Path, tmp_path: Path) -> None:
    counted = RECORD | {"calibration": None, "dataset": {"name": "mine", "held_out": 20}}
    (run / "record.json").write_text(json.dumps(counted), "utf-8")
    result = export(run, "--out", tmp_path / "bundle", "--quiet")
    assert result.exit_code == 0, result.output
    said = "scores are not calibrated: 20 held-out photos of the trained classes, 50 are needed"
    assert result.stdout.splitlines().count(f"note       {said}") == 1
    assert said in describe(open_bundle(tmp_path / "bundle"))


def test_a_broken_photo_is_named_with_what_to_do(run: Path, tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"a": 3})
    (photos / "a" / "broken.jpg").write_bytes(b"no image")
    line = one_line(export(run, "--out", tmp_path / "bundle", "--photos", photos, "--quiet"), 2)
    assert re.search(r"broken\.jpg: not an image .*; repair this image or remove it", line)
    assert not (tmp_path / "bundle").exists()
