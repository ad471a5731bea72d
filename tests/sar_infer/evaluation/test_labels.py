"""Photos in doubt beside their labels: line, findings, those that are new to a bank, and the page of choices."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.browser import WINDOWS, visited

from sar_infer import ClassBank, Classifier
from sar_infer import bank as banks
from sar_infer.bank import PhotoSet
from sar_infer.evaluation.labels import LabelCheck, check_new_photos, write_labels
from sar_infer.images.inputs import read_excluded

DIM = 512
NAMES = ("hat", "shoe", "</script><img src=x onerror=document.title='taken'>")
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, DIM))


def near(owners: Any, centres: Any = CENTRES) -> Any:
    rows = centres[owners] + RNG.normal(size=(len(owners), DIM)) * 0.7
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def checked(shown: Any, labels: Any, photos: Any = None, **more: Any) -> LabelCheck:
    names = [f"root/{n}.png" for n in range(len(labels))] if photos is None else photos
    return LabelCheck(NAMES, near(np.array(shown)), np.array(labels), names, **more)


RIGHT = [0] * 8 + [1] * 8 + [2] * 8
WRONG = [0] * 7 + [2] + [1] * 8 + [2] * 7 + [1]


def test_the_line_names_the_surest_photos_and_where_the_page_is() -> None:
    assert checked(RIGHT, RIGHT).line("x.html") is None
    check = checked(RIGHT, WRONG)
    assert {(one.photo, one.label, one.suggested) for one in check.issues} == {
        ("root/7.png", NAMES[2], "hat"),
        ("root/23.png", "shoe", NAMES[2]),
    }
    assert "2 of 24 photos look like another class: root/" in (check.line("x.html") or "")
    assert (check.line("x.html") or "").endswith("; page: x.html")
    both = (("a.png", "hat"), ("b.png", "shoe"))
    assert checked(RIGHT, RIGHT, twice=[both]).line("y") == "1 photo in two classes; page: y"
    assert checked(RIGHT, RIGHT, copies=[both, both]).line("y") == "2 photos in training and test; page: y"
    some = checked(RIGHT, WRONG, only=np.arange(8))
    assert [one.photo for one in some.issues] == ["root/7.png"]
    assert "1 of 8 photos looks like another class: root/7.png (like 'hat'); page" in (some.line("x") or "")


def test_findings_are_confused_pairs_and_photos_in_doubt() -> None:
    kinds = [(one.kind, one.name, one.suggestion) for one in checked(RIGHT, WRONG).findings()]
    assert sorted(kinds) == sorted([("wrong-class", NAMES[2], "hat"), ("wrong-class", "shoe", NAMES[2])])
    same = LabelCheck(NAMES, near(np.array(RIGHT), CENTRES[[0, 0, 2]]), np.array(RIGHT), [""] * 24)
    (pair,) = same.findings()
    assert (pair.kind, {pair.name, pair.suggestion}) == ("confused", {"hat", "shoe"})


@pytest.mark.parametrize("fitted", [False, True])
def test_only_new_photos_are_judged_whatever_the_bank_knows_of_the_others(fitted: bool) -> None:
    classifier = Classifier.open()
    bundle = dataclasses.replace(classifier.bundle, trained=None)
    empty = ClassBank(bundle.bank.encoder_digest, DIM, images=bundle.bank.images)
    sets = {
        name: PhotoSet.of([f"{name} {n}".encode().ljust(32) for n in range(70)], near(np.full(70, number)))
        for number, name in enumerate(("hat", "shoe"))
    }
    bank = banks.add(empty, {"hat": ("hat",), "shoe": ("shoe",)}, classifier.embed_names(["hat", "shoe"]), sets)
    if fitted:
        bank = banks.fit(bank, classifier.fit_model(bank).fitted.model.tensors())
    digests = [b"new".ljust(32), b"odd".ljust(32), sets["hat"].digests[69]]
    rows = np.concatenate([near(np.array([0, 1])), sets["hat"].rows[69:]])
    check = check_new_photos(bank, bundle, {"hat": PhotoSet.of(digests, rows)}, {("hat", digests[1]): "odd.png"})
    assert len(check.judged) == 2
    assert [(one.photo, one.label, one.suggested) for one in check.issues] == [("odd.png", "hat", "shoe")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_choices_become_a_list_and_a_script(browser: Any, tmp_path: Path, scheme: str) -> None:
    photos = []
    for number, label in enumerate(WRONG):
        folder = tmp_path / "it's" / ("hat", "shoe", "third, one")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (10 * number, 99, 99)).save(folder / f"{number}.png")
        photos.append(str(folder / f"{number}.png"))
    both = ((photos[0], "hat"), (photos[8], "shoe"))
    path = tmp_path / "page.html"
    write_labels(path, checked(RIGHT, WRONG, photos, twice=[both], copies=[both]), "Photos of x", "sar-train x")
    for settings in WINDOWS:
        with visited(browser, path, color_scheme=scheme, **settings) as page:
            assert page.title() == page.locator("h1").inner_text() == "Photos of x"
            assert page.locator("#issues > li").count() == 2
            assert page.locator("#issues .strip img").count() == 2 * 2 * 3
            assert page.locator("#save").is_disabled()
            page.locator("#issues > li", has_text="looks like hat").get_by_label("Move to hat").check()
            page.locator("#issues > li", has_text="in shoe").get_by_label("Drop").check()
            page.locator("#twice > li").get_by_label("Drop from shoe").check()
            assert page.locator("#script").is_enabled()
            page.locator("#copies > li").get_by_label("Drop from hat").check()
            page.locator("#copies > li").get_by_label("Keep both").check()
            assert page.locator("#count").inner_text() == "1 to move, 2 to drop"
            with page.expect_download() as waiting:
                page.locator("#save").click()
            listed = tmp_path / waiting.value.suggested_filename
            waiting.value.save_as(listed)
            with page.expect_download() as waiting:
                page.locator("#script").click()
            waiting.value.save_as(tmp_path / "move.sh")
    with listed.open(encoding="utf-8", newline="") as stream:
        rows = {row["photo"]: (row["class"], row["action"], row["to"]) for row in csv.DictReader(stream)}
    assert rows == {
        photos[7]: (NAMES[2], "move", "hat"),
        photos[23]: ("shoe", "drop", ""),
        photos[8]: ("shoe", "drop", ""),
    }
    assert listed.name == "labels.csv"
    assert read_excluded(listed) == {str(Path(photo).resolve()) for photo in rows}
    subprocess.run(["sh", tmp_path / "move.sh"], check=True)
    assert (tmp_path / "it's" / "hat" / "7.png").is_file()
    assert not Path(photos[7]).exists()
