"""``sar-bundle shrink`` as it is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.photos import write_photo

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.describe import describe
from sar_train.cli.shrink import main


def shrink(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)


def one_line(result: Result, code: int) -> str:
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def photo_folder(root: Path, count: int = 44) -> Path:
    for i in range(count):
        write_photo(root / f"{i:02d}.png", i)
    return root


def test_a_bundle_gets_smaller_graphs(exported: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    loose = ("--photos", photos, "--min-agreement", "0.3", "--min-cosine", "0.9")
    result = shrink(exported, "--out", tmp_path / "new", "--precision", "fp16", *loose, "--format", "json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    bundle = open_bundle(tmp_path / "new")
    assert told["digest"] == bundle.manifest.digest
    assert told["precisions"]["fp16"]["image"]["file"] == "image_encoder.fp16.onnx"
    assert "fp16 images" in describe(bundle)
    out_of_reach = ("--photos", photos, "--min-cosine", "1")
    result = shrink(exported, "--out", tmp_path / "other", "--precision", "fp16", *out_of_reach, "--quiet")
    assert "left out (cosine on the worst" in one_line(result, 1)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("option", ["--min-cosine", "--min-agreement"])
def test_a_number_that_is_none_is_refused(exported: Path, tmp_path: Path, option: str) -> None:
    result = shrink(exported, "--out", tmp_path / "new", "--precision", "fp16", "--photos", tmp_path, option, "nan")
    assert result.exit_code == 2
    assert "expected a finite number, got nan" in result.stderr


def test_photos_that_are_not_there(exported: Path, tmp_path: Path) -> None:
    result = shrink(exported, "--out", tmp_path / "new", "--photos", "nothing", "--precision", "int8")
    assert "nothing: " in one_line(result, 2)
    assert not (tmp_path / "new").exists()


def test_a_bundle_that_is_there_is_not_replaced_unasked(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    result = shrink(exported, "--out", tmp_path / "there", "--precision", "int8", "--photos", tmp_path)
    assert "exists; choose another --out" in one_line(result, 2)


def test_too_few_photos_to_judge_with(exported: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos", 3)
    result = shrink(exported, "--out", tmp_path / "new", "--precision", "int8", "--photos", photos)
    assert "3 photos that differ" in one_line(result, 2)


def test_the_photos_may_be_a_glob(exported: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    loose = ("--photos", photos / "*.png", "--min-agreement", "0", "--min-cosine", "0.9", "--quiet")
    result = shrink(exported, "--out", tmp_path / "new", "--precision", "fp16", *loose)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_part_that_is_left_out_is_told_and_fails(exported: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    bounds = ("--min-cosine", "0.99998", "--min-agreement", "0")
    asked = ("--precision", "fp16", "--precision", "int8", *bounds, "--photos", photos, "--quiet")
    result = shrink(exported, "--out", tmp_path / "text", *asked)
    assert result.exit_code == 1
    assert "fp16 image encoder: cast" in result.stdout
    assert "--precision fp16" in result.stdout and "--precision int8" not in result.stdout
    assert re.search(r"^Error: left out: int8 image encoder \(.*\); .*/text was written without$", result.stderr)
    assert set(open_bundle(tmp_path / "text").manifest.precisions) == {"fp16"}
    result = shrink(exported, "--out", tmp_path / "json", *asked, "--format", "json")
    asked = json.loads(result.stdout)["asked"]
    assert (result.exit_code, [graph["kept"] for graph in asked]) == (1, [True, True, False, False])
    assert asked[2]["figures"]["samples"] > 15 and "cosine on the worst" in asked[2]["reasons"][0]
