"""Findings of a check of data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support.coop import link_photos, write_class_names, write_imagenet, write_split
from support.hf import make_dataset, to_saved
from support.hostile_jpegs import hidden_scans
from support.photos import SHARED, needs_shared, write_folder, write_photo

from sar_train.data.check import DataFinding, check, check_listing, even_sample, listing, sizes, unreadable
from sar_train.data.dataset import Dataset, Photo
from sar_train.data.layouts import LAYOUTS
from sar_train.errors import DataError


def write_dtd(root: Path, per_class: int = 4) -> Path:
    names = [f"texture {i}" for i in range(47)]
    rows = {
        split: [[f"{name}/{split}{i}.jpg", label, name] for label, name in enumerate(names) for i in range(count)]
        for split, count in (("train", per_class), ("val", 1), ("test", 2))
    }
    return write_split(root / "dtd", "dtd", rows)


def test_a_folder_of_datasets(tmp_path: Path) -> None:
    folder = write_dtd(tmp_path)
    (tmp_path / "own").mkdir()
    (folder / "images/texture 0/train0.jpg").unlink()
    bad = folder / "images/texture 1/train0.jpg"
    bad.unlink()
    bad.write_bytes(b"")
    bad = folder / "images/texture 2/train0.jpg"
    bad.unlink()
    bad.write_bytes(b"<html>")
    seen: dict[str, int] = {}

    def watch(name: str, total: int) -> Callable[[int], None]:
        seen[name] = total
        return lambda done: None

    report = check(tmp_path, watch=watch)
    (dtd,) = report.checked
    assert (dtd.name, dtd.classes, dtd.counts, dtd.decoded, dtd.state) == ("dtd", 47, (188, 47, 94), 327, "error")
    said = [finding.message for finding in dtd.findings if "published" not in finding.message]
    assert said[0] == f"1 of 329 listed photos are not there: {folder / 'images/texture 0/train0.jpg'}"
    assert said[1] == f"1 of 329 photos have no bytes: {folder / 'images/texture 1/train0.jpg'}"
    assert said[2].startswith(f"1 of 327 photos cannot be read: {folder / 'images/texture 2/train0.jpg'} (")
    assert all(finding.mend for finding in dtd.findings)
    assert set(report.absent) == set(LAYOUTS) - {"dtd"}
    assert report.others == ("own",)
    assert not report.usable
    assert seen == {"dtd": 327}


def test_a_sample_is_even_and_all_images_are_all(tmp_path: Path) -> None:
    write_dtd(tmp_path, per_class=20)
    assert check(tmp_path).checked[0].decoded == 500
    assert check(tmp_path / "dtd", all_images=True).checked[0].decoded == 47 * 23


def test_one_by_name(tmp_path: Path) -> None:
    write_dtd(tmp_path)
    report = check(tmp_path, ["DescribableTextures", "food-101"])
    assert [(checked.name, checked.state) for checked in report.checked] == [("dtd", "error"), ("food101", "error")]
    assert report.checked[1].findings[0].message == f"{tmp_path / 'food-101'} is not there"
    assert report.absent == ()
    with pytest.raises(DataError, match="'foo'"):
        check(tmp_path, ["foo"])
    with pytest.raises(DataError, match="no such"):
        check(tmp_path / "none")


def test_own_photos(tmp_path: Path) -> None:
    own = write_folder(tmp_path / "own", {"a": 20, "b": 3})
    (report,) = check(own).checked
    assert (report.name, report.classes, report.counts, report.state) == ("own", 2, (18, 2, 3), "warning")
    assert report.findings[0].message == "1 class has fewer than 16 photos to learn from (the fewest: 3)"
    write_photo(own / "b/copy.png", seed=5)
    (report,) = check(own).checked
    assert f"the first: {own / 'a/05.png'} and {own / 'b/copy.png'}; " in report.findings[0].message
    (own / "b/copy.png").unlink()
    (own / "a/00.png").write_bytes(b"broken")
    (report,) = check(own).checked
    assert report.findings[-1].message.startswith("1 of 23 photos cannot be read")
    bad = [own / f"a/{number:02}.png" for number in range(5)]
    for path in bad:
        path.write_bytes(b"broken")
    (report,), (whole,) = check(own).checked, check(own, all_images=True).checked
    assert [sum(str(path) in found.findings[-1].message for path in bad) for found in (report, whole)] == [3, 5]
    (own / "c").mkdir()
    (report,) = check(own).checked
    assert report.findings[0].message.startswith(f"{own}: class 'c' has no usable photo")
    assert report.findings[0].mend == "add photos, or remove the class"
    (tmp_path / "list.csv").write_text("path,label\nown/a/00.png,x\nown/a/99.png,x\n")
    assert "1 of 2 photos are missing" in check(tmp_path / "list.csv").checked[0].findings[0].message
    (report,) = check(write_folder(tmp_path / "target/test", {"a": 2}).parent).checked
    assert (report.counts, report.state) == ((0, 0, 2), "ok")
    (tmp_path / "empty").mkdir()
    assert check(tmp_path / "empty").checked[0].state == "error"


def test_every_domain(tmp_path: Path) -> None:
    root = tmp_path / "pacs"
    for domain in "xy":
        write_folder(root / domain, {"cat": 20, "dog": 20})
    assert [(c.name, c.classes, c.state) for c in check(root).checked] == [("pacs/x", 2, "ok"), ("pacs/y", 2, "ok")]


def test_packed_photos(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the library datasets")
    (report,) = check(to_saved(tmp_path / "ok", {"train": make_dataset(4), "validation": make_dataset(2)})).checked
    assert (report.classes, report.counts, report.state) == (2, (4, 2, 0), "ok")
    (report,) = check(to_saved(tmp_path / "odd", {"train": make_dataset(4), "extra": make_dataset(2)})).checked
    assert "got extra" in report.findings[-1].message
    (tmp_path / "ok/dataset_dict.json").write_text("{")
    assert check(tmp_path / "ok").checked[0].state == "error"


@needs_shared
def test_the_real_folder() -> None:
    report = check(SHARED)
    found = {checked.name: checked for checked in report.checked}
    assert found["caltech101"].findings == ()
    assert found["caltech101"].counts == (4128, 1649, 2465)
    finding = found["dtd"].findings[0]
    assert "4,440 of 5,640 listed photos are not there, 37 folders of them altogether" in finding.message
    assert "--allow-missing" in finding.mend
    assert "pacs" in report.others


def test_an_empty_folder_of_a_known_dataset(tmp_path: Path) -> None:
    (tmp_path / "food-101").mkdir()
    (food,) = check(tmp_path).checked
    expected = "expected a folder images or split_zhou_Food101.json, not there"
    assert food.findings[0].message == f"{tmp_path / 'food-101'}: {expected}"
    assert check(write_dtd(tmp_path), ["food101"]).checked[0].state == "error"


def test_sizes(tmp_path: Path) -> None:
    link_photos(tmp_path, ["a/1.jpg", "b/1.jpg"])
    (tmp_path / "a/empty.jpg").write_bytes(b"")
    (tmp_path / "a/folder.jpg").mkdir()
    names = ["b/1.jpg", "a/empty.jpg", "a/none.jpg", "c/1.jpg", "a/folder.jpg"]
    found = sizes([str(tmp_path / name) for name in names])
    assert found == [(tmp_path / "b/1.jpg").stat().st_size, 0, None, None, None]


def test_even_sample() -> None:
    paths = list("0123456789")
    assert even_sample(paths, 20) == paths
    assert even_sample(paths, 4) == ["0", "2", "5", "7"]
    assert even_sample([], 4) == []


def test_unreadable(tmp_path: Path) -> None:
    paths = [
        write_photo(tmp_path / f"{i}.{form}", i, (90, 80)) for i, form in enumerate(("png", "jpg", "gif", "jpg", "png"))
    ]
    paths[3].write_bytes(paths[3].read_bytes()[:400])
    paths[4].write_bytes(b"<html>not found</html>")
    Image.new("RGB", (4000, 2)).save(tmp_path / "thin.jpg")
    (tmp_path / "scans.jpg").write_bytes(hidden_scans(4000, 500))
    steps: list[int] = []
    more = [tmp_path / name for name in ("thin.jpg", "none.jpg", "scans.jpg")]
    found = unreadable([str(path) for path in (*paths, *more)], steps.append)
    assert [Path(path).name for path, _ in found] == ["3.jpg", "4.png", "thin.jpg", "none.jpg", "scans.jpg"]
    assert "too many scans" in found[-1][1]
    assert "truncated" in found[0][1].lower()
    assert all(reason and str(tmp_path) not in reason for _, reason in found)
    assert sum(steps) == 8


def test_the_last_part_of_a_message_says_how_to_mend() -> None:
    assert DataFinding.of_text("error", DataError("a; b;\n  do c")) == DataFinding("error", "a; b", "do c")
    assert DataFinding.of_text("error", DataError("no advice")) == DataFinding("error", "no advice")


def listed(train: int, val: int, test: int, names: tuple[str, ...] | None = None) -> Dataset:
    names = names or tuple(f"class {i}" for i in range(47))
    splits = {
        split: [Photo(f"{split}/{i}.jpg", i % len(names)) for i in range(count)]
        for split, count in (("train", train), ("val", val), ("test", test))
    }
    return Dataset("dtd", names, splits=splits, split_origin="published")


def texts(findings: list[DataFinding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.message) for finding in findings]


def test_complete() -> None:
    assert check_listing(listed(*LAYOUTS["dtd"].counts)) == []


def test_counts_and_classes() -> None:
    found = texts(check_listing(listed(2819, 1129, 1692, tuple("abc"))))
    assert found == [
        ("error", "3 classes, expected 47"),
        ("error", "2,819 photos in train, published: 2,820"),
        ("warning", "1,129 photos in val, published: 1,128"),
    ]


def test_our_split_is_counted_as_a_whole() -> None:
    ours = dataclasses.replace(listed(3000, 1000, 1639), split_origin="ours")
    assert texts(check_listing(ours)) == [("error", "5,639 photos in all splits, published: 5,640")]


def test_names_that_read_the_same() -> None:
    names = ("Red_fox", "red fox", *(f"class {i}" for i in range(45)))
    (finding,) = check_listing(listed(*LAYOUTS["dtd"].counts, names))
    assert (finding.severity, finding.message) == ("error", "classes that read the same in a prompt: red fox")


def test_photos_in_two_splits_or_twice_in_one() -> None:
    x = listed(*LAYOUTS["dtd"].counts)
    x.splits["test"][0] = x.splits["train"][5]
    x.splits["val"][1] = x.splits["val"][2]
    assert texts(check_listing(x)) == [
        ("error", "1 photos are in two splits, the first is train/5.jpg (in train and test)"),
        ("warning", "1 photos are listed twice in one split, the first is val/2.jpg"),
    ]


def test_the_two_names_that_imagenet_has_twice(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path)
    found, findings = listing("imagenet", folder)
    assert found is not None
    assert findings == []
    said = check_listing(found)
    assert [f.severity for f in said] == ["error", "error", "ok"]
    assert said[-1].message.startswith("missile occur twice in classnames.txt, as published")
    text = (folder / "classnames.txt").read_text().replace("thing 7\n", "thing 8\n")
    (folder / "classnames.txt").write_text(text)
    found, _ = listing("imagenet", folder)
    assert found is not None
    assert check_listing(found)[-1].message == (
        "names that occur twice in classnames.txt: thing 8; the published list has them once"
    )


def test_everything_that_is_wrong_with_imagenet_at_once(tmp_path: Path) -> None:
    folder = write_class_names(tmp_path / "imagenet", [f"n{i:08}" for i in range(1, 992)])
    link_photos(folder / "images/val", ["ILSVRC2012_val_00000001.JPEG"])
    found, findings = listing("imagenet", folder)
    assert found is None
    assert len(findings) == 3
    assert "expected 1000 classes sorted by id, got 991" in findings[0].message
    assert findings[1].message.endswith("images/train, not there")
    assert findings[2].message.endswith("images/val: 1 photos lie directly in it and 0 class folders")
    assert "valprep.sh" in findings[2].mend


def test_no_split_file(tmp_path: Path) -> None:
    link_photos(tmp_path / "dtd/images", [f"{c}/{i}.jpg" for c in ("dotted", "lined") for i in range(10)])
    found, findings = listing("dtd", tmp_path / "dtd")
    assert found is not None
    assert found.split_origin == "ours"
    assert [f.severity for f in findings] == ["warning"]
    assert findings[0].message.startswith("split_zhou_DescribableTextures.json is not there, so this is our own split")
    assert "DATASETS.md" in findings[0].mend
    link_photos(tmp_path / "oxford_pets/images", ["beagle_1.jpg"])
    found, findings = listing("oxford_pets", tmp_path / "oxford_pets")
    assert found is None
    assert findings[0].message == "split_zhou_OxfordPets.json is not there, and a split of our own cannot be drawn"
    assert findings[1].message.endswith("trainval.txt: not there")


def test_a_damaged_split_file(tmp_path: Path) -> None:
    write_split(tmp_path, "dtd", '{"train": [["../../etc/passwd", 0, "x"]], "val": [], "test": []}', photos=False)
    found, (finding,) = listing("dtd", tmp_path)
    assert found is None
    assert "expected a path below the image folder, got '../../etc/passwd'" in finding.message
