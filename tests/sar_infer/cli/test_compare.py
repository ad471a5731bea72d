"""``sar-bundle compare`` on tiny bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from support.bank_commands import Command, paint_folders
from support.browser import WINDOWS, visited
from support.bundles import image_weight, write_bundle

from sar_infer import Classifier
from sar_infer.cli.bank import main as bank
from sar_infer.cli.bundle import main
from sar_infer.encoders.cache import photo_cache

run, create_or_evaluate = Command(main.commands["compare"]), Command(bank)


@pytest.fixture
def folder(here: Path) -> Path:
    photo_cache._values.clear()
    return Path(paint_folders("photos", 5, seed=0))


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


def test_embeddings_are_kept_and_shared_with_create(folder: Path, bundle_path: Path) -> None:
    words = (bundle_path, "--photos", folder, "--cache", "cache", "--format", "json")
    with pytest.MonkeyPatch.context() as patch:
        encode = Classifier.embed_inputs
        calls: list[int] = []
        patch.setattr(Classifier, "embed_inputs", lambda self, some: calls.append(len(some)) or encode(self, some))
        first = [one["curve"] for one in json.loads(run(*words).stdout)["bundles"]]
        assert sum(calls) == len([*folder.glob("*/*.png")])
        photo_cache._values.clear()
        assert [one["curve"] for one in json.loads(run(*words).stdout)["bundles"]] == first
        create_or_evaluate("create", "b.safetensors", "--photos", folder, "--cache", "cache")
        assert sum(calls) == len([*folder.glob("*/*.png")])
    (path,) = Path("cache").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:99])
    photo_cache._values.clear()
    assert f"{path}: not embeddings" in run(*words, code=2).stderr
    path.unlink()
    assert "not a folder" in run(*words[:-3], folder / "red" / "0.png", code=2).stderr


def test_an_interrupt_keeps_what_is_there(folder: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = Classifier.embed_inputs, list[int]()

    def interrupted(self: Classifier, images: list[Any]) -> Any:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, images)

    monkeypatch.setattr(Classifier, "embed_inputs", interrupted)
    run(bundle_path, "--photos", folder, "--cache", "cache", code=130)
    (path,) = Path("cache").iterdir()
    assert len(load_file(path)["rows"]) == calls[0] == 16


def test_the_page_shows_photos_that_only_one_gets_right(
    browser: Any, folder: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.bundles.image_weight", lambda: image_weight() * np.float32([[1], [0.01], [0.01]]))
    other = write_bundle(folder.parent / "other")
    run(bundle_path, other, "--photos", folder, "--html", "page.html")
    for settings in WINDOWS:
        with visited(browser, Path("page.html"), **settings) as page:
            assert page.locator("#bundles tbody tr").count() == page.locator("#costs tbody tr").count() == 2
            assert page.locator("#speed circle").count() == 2
            assert page.locator("#curves polyline.estimate").count() == 2
            assert page.locator("#sides img").count() > 0


def test_several_are_evaluated_as_by_a_bank_of_the_same_photos(folder: Path, bundle_path: Path) -> None:
    first, second = sorted(folder.iterdir())[:2]
    halves = [np.asarray(Image.open(one / "0.png")) for one in (first, second)]
    Image.fromarray(np.concatenate(halves, 1)).save("pair.png")
    Path("labels.csv").write_text(f"path,labels\npair.png,{first.name}|{second.name}\n")
    words = ("--several", "labels.csv", "--html", "page.html")
    (of,) = run.report(bundle_path, "--photos", folder, *words)["bundles"]
    create_or_evaluate("create", "b.safetensors", "--photos", folder)
    expected = create_or_evaluate.report("evaluate", "b.safetensors", "--photos", "labels.csv", "--several")
    assert of["several"] == {key: expected.get(key) for key in of["several"]} | {"photos": 1}
    assert of["several"]["recall"]["of"] == 2
    assert "several" in Path("page.html").read_text()
    assert "1 other photos" in run(bundle_path, "--photos", folder, *words).stdout


def test_a_call_that_cannot_be_carried_out_is_one_line(folder: Path, bundle_path: Path) -> None:
    for arguments, message in [
        ((bundle_path, "--photos", "none"), "none: no such file or folder"),
        (("nowhere", "--photos", folder), "nowhere: no such folder"),
        ((bundle_path, "--photos", folder, "--precision", "int8"), "precision int8: this bundle has fp32"),
        ((bundle_path, "--photos", paint_folders("few", 1, seed=0)), "two photos of most"),
    ]:
        assert message in run.refused(*arguments)
