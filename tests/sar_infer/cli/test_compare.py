"""``sar-bundle compare`` on tiny bundles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.bank_commands import paint_folders
from support.bundles import write_bundle

from sar_infer.cli.bundle import main


@pytest.fixture
def folder(here: Path) -> Path:
    return Path(paint_folders("photos", 5, seed=0))


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def test_bundles_are_measured_on_the_photos_that_all_can_read(folder: Path, bundle_path: Path) -> None:
    other = write_bundle(folder.parent / "other")
    broken = next(folder.glob("*/*.png"))
    broken.write_bytes(b"no image")
    result = run(bundle_path, other, "--photos", folder, "--format", "json", code=1)
    content = json.loads(result.stdout)
    count = len([*folder.glob("*/*.png")])
    assert (content["photos"], content["classes"]) == (count - 1, len([*folder.iterdir()]))
    first, second = content["bundles"]
    assert {first["name"], second["name"]} == {bundle_path.name, "other"}
    assert first["curve"] == second["curve"]  # the same encoder twice
    assert (second["difference"]["share"], second["difference"]["enough"]) == (0, None)
    assert first["cost"]["disk_mib"] == pytest.approx(
        sum(f.stat().st_size for f in bundle_path.iterdir() if f.name != "manifest.json") / 2**20
    )
    assert first["cost"]["batch_ms"] > 0 and 20 < first["cost"]["memory_mib"] < 2000
    assert str(broken) in result.stderr
    text = run(bundle_path, "--photos", folder, code=1).stdout
    assert f"{count - 1} photos of" in text and "level" not in text


def test_a_call_that_cannot_be_carried_out_is_one_line(folder: Path, bundle_path: Path) -> None:
    for arguments, message in [
        ((bundle_path, "--photos", "none"), "none: no such file or folder"),
        (("nowhere", "--photos", folder), "nowhere: no such folder"),
        ((bundle_path, "--photos", folder, "--precision", "int8"), "precision int8: this bundle has fp32"),
        ((bundle_path, "--photos", paint_folders("few", 1, seed=0)), "two photos of most"),
    ]:
        result = run(*arguments, code=2)
        assert message in result.stderr and result.stdout == ""
