"""``sar-bundle shrink`` as it is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.folders import listing
from support.photos import write_photo

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.describe import describe
from sar_train.cli.shrink import main
from sar_train.export.precision import samples


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(44):
        write_photo(tmp_path / "photos" / f"{seed:02d}.png", seed)
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_NAMES", 100)


def shrink(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_bundle_gets_smaller_graphs(exported: Path, photos: Path, tmp_path: Path) -> None:
    options = ("--precision", "fp16", "--photos", photos / "*.png", "--min-agreement", "0.3", "--quiet")
    result = shrink(exported, "--out", tmp_path / "new", *options, "--min-cosine", "0.9", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    content = json.loads(result.stdout)
    bundle = open_bundle(tmp_path / "new")
    assert content["digest"] == bundle.manifest.digest
    assert content["precisions"]["fp16"]["image"]["file"] == "image_encoder.fp16.onnx"
    assert [(graph["kept"], graph["reasons"]) for graph in content["asked"]] == [(True, []), (True, [])]
    assert "fp16 images" in describe(bundle)
    result = shrink(exported, "--out", tmp_path / "other", *options, "--min-cosine", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"Error: .*left out \(cosine on the worst.*\n", result.stderr)
    assert listing(tmp_path) == ["new", "photos"]


def test_a_graph_that_is_left_out_is_told_and_fails(exported: Path, photos: Path, tmp_path: Path) -> None:
    bounds = ("--min-cosine", "0.99998", "--min-agreement", "0", "--photos", photos, "--quiet")
    result = shrink(exported, "--out", tmp_path / "new", "--precision", "fp16", "--precision", "int8", *bounds)
    assert result.exit_code == 1
    assert "fp16 image encoder: cast" in result.stdout
    assert "--precision fp16" in result.stdout and "--precision int8" not in result.stdout
    assert re.search(r"^Error: left out: int8 image encoder \(.*\); .*/new was written without$", result.stderr)
    assert set(open_bundle(tmp_path / "new").manifest.precisions) == {"fp16"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "new", "--photos", "few", "--min-cosine", "nan"], "expected a finite number, got nan"),
        (["--out", "new", "--photos", "few", "--min-agreement", "nan"], "expected a finite number, got nan"),
        (["--out", "new", "--photos", "nothing"], "nothing: "),
        (["--out", "new", "--photos", "few"], "3 photos that differ"),
        (["--out", "few", "--photos", "few"], "exists; choose another --out"),
    ],
)
def test_a_call_that_cannot_succeed_is_one_line(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        write_photo(tmp_path / "few" / f"{seed}.png", seed)
    result = shrink(exported, "--precision", "int8", *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert listing(tmp_path) == ["few"]
