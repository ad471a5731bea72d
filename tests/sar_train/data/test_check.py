"""Findings of a check of data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support.coop import link_photos, write_class_names, write_imagenet, write_split
from support.hf import make_dataset, to_saved
from support.hostile_jpegs import hidden_scans
from support.photos import SHARED, needs_shared, write_folder, write_photo

from sar_train.data.check import DataFinding, check
from sar_train.data.layouts import LAYOUTS
from sar_train.data.photos import unreadable
from sar_train.errors import DataError

NAMES = tuple(f"texture {i}" for i in range(47))
COUNTS = {"train": 4, "val": 1, "test": 2}


def write_dtd(root: Path, counts: dict[str, int], names: tuple[str, ...] = NAMES, *, photos: bool = True) -> Path:
    rows = {
        split: [[f"{label}/{split}{i}.jpg", label, name] for label, name in enumerate(names) for i in range(count)]
        for split, count in counts.items()
    }
    return write_split(root / "dtd", "dtd", rows, photos=photos)


def findings(path: Path) -> list[tuple[str, str]]:
    (checked,) = check(path).checked
    return [(finding.severity, finding.message) for finding in checked.findings]


def test_a_folder_of_datasets(tmp_path: Path) -> None:
    folder = write_dtd(tmp_path, COUNTS)
    (tmp_path / "own").mkdir()
    missing, empty, page = (folder / f"images/{label}/train0.jpg" for label in range(3))
    for path, content in ((missing, None), (empty, b""), (page, b"<html>")):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    watched: dict[str, int] = {}

    def watch(name: str, total: int) -> Callable[[int], None]:
        watched[name] = total
        return lambda done: None

    report = check(tmp_path, watch=watch)
    (dtd,) = report.checked
    assert (dtd.name, dtd.classes, dtd.counts, dtd.decoded, dtd.state) == ("dtd", 47, (188, 47, 94), 327, "error")
    messages = [finding.message for finding in dtd.findings if "published" not in finding.message]
    assert messages[:2] == [
        f"1 of 329 listed photos are not there: {missing}",
        f"1 of 329 photos have no bytes: {empty}",
    ]
    assert messages[2].startswith(f"1 of 327 photos cannot be read: {page} (")
    assert all(finding.mend for finding in dtd.findings)
    assert set(report.absent) == set(LAYOUTS) - {"dtd"}
    assert (report.others, report.usable, watched) == (("own",), False, {"dtd": 327})


def test_a_sample_is_even_and_all_images_are_all(tmp_path: Path) -> None:
    folder = write_dtd(tmp_path, {"train": 20, "val": 1, "test": 2})
    (folder / "images/46/test1.jpg").unlink()  # the last one
    (folder / "images/46/test1.jpg").write_bytes(b"broken")
    (sample,), (whole,) = check(tmp_path).checked, check(folder, all_images=True).checked
    assert (sample.decoded, whole.decoded) == (500, 47 * 23)
    assert "cannot be read" not in sample.findings[-1].message
    assert whole.findings[-1].message.startswith("1 of 1,081 photos cannot be read: ")


def test_one_by_name(tmp_path: Path) -> None:
    write_dtd(tmp_path, COUNTS)
    report = check(tmp_path, ["DescribableTextures", "food-101"])
    assert [(checked.name, checked.state) for checked in report.checked] == [("dtd", "error"), ("food101", "error")]
    assert report.checked[1].findings[0].message == f"{tmp_path / 'food-101'} is not there"
    assert report.absent == ()
    assert check(tmp_path / "dtd", ["food101"]).checked[0].state == "error"
    (tmp_path / "food-101").mkdir()
    (finding,) = check(tmp_path, ["food101"]).checked[0].findings
    expected = "expected a folder images or split_zhou_Food101.json, not there"
    assert finding.message == f"{tmp_path / 'food-101'}: {expected}"
    with pytest.raises(DataError, match="'foo'"):
        check(tmp_path, ["foo"])
    with pytest.raises(DataError, match="no such"):
        check(tmp_path / "none")


@needs_shared
def test_the_real_folder() -> None:
    report = check(SHARED)
    by_name = {checked.name: checked for checked in report.checked}
    assert (by_name["caltech101"].findings, by_name["caltech101"].counts) == ((), (4128, 1649, 2465))
    finding = by_name["dtd"].findings[0]
    assert "4,440 of 5,640 listed photos are not there, 37 folders of them altogether" in finding.message
    assert "--allow-missing" in finding.mend
    assert "pacs" in report.others


def test_own_photos(tmp_path: Path) -> None:
    own = write_folder(tmp_path / "own", {"a": 20, "b": 3})
    (report,) = check(own).checked
    assert (report.name, report.classes, report.counts, report.state) == ("own", 2, (18, 2, 3), "warning")
    assert report.findings[0].message == "1 class has fewer than 16 photos to learn from (the fewest: 3)"
    write_photo(own / "b/copy.png", seed=5)
    assert f"the first: {own / 'a/05.png'} and {own / 'b/copy.png'}; " in findings(own)[0][1]
    (own / "b/copy.png").unlink()
    bad = [own / f"a/{number:02}.png" for number in range(5)]
    for path in bad:
        path.write_bytes(b"broken")
    (report,), (whole,) = check(own).checked, check(own, all_images=True).checked
    assert report.findings[-1].message.startswith("5 of 23 photos cannot be read")
    assert [sum(str(path) in one.findings[-1].message for path in bad) for one in (report, whole)] == [3, 5]
    (own / "c").mkdir()
    (report,) = check(own).checked
    assert report.findings[0].message.startswith(f"{own}: class 'c' has no usable photo")
    assert report.findings[0].mend == "add photos, or remove the class"
    (tmp_path / "list.csv").write_text("path,label\nown/a/00.png,x\nown/a/99.png,x\n")
    assert "1 of 2 photos are missing" in findings(tmp_path / "list.csv")[0][1]
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
    saved = to_saved(tmp_path / "ok", {"train": make_dataset(4), "extra": make_dataset(2)})
    (report,) = check(saved).checked
    assert (report.classes, report.counts, report.state) == (2, (4, 0, 0), "error")
    assert "got extra" in report.findings[-1].message
    (saved / "dataset_dict.json").write_text("{")
    assert check(saved).checked[0].state == "error"


def test_the_last_part_of_a_message_says_how_to_mend() -> None:
    assert DataFinding.of_text("error", DataError("a; b;\n  do c")) == DataFinding("error", "a; b", "do c")
    assert DataFinding.of_text("error", DataError("no advice")) == DataFinding("error", "no advice")


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
    problems = unreadable([str(path) for path in (*paths, *more)], steps.append)
    assert [Path(path).name for path in problems] == ["3.jpg", "4.png", "thin.jpg", "none.jpg", "scans.jpg"]
    first, *_, last = problems.values()
    assert "truncated" in first.lower()
    assert "too many scans" in last
    assert all(reason and str(tmp_path) not in reason for reason in problems.values())
    assert sum(steps) == 8


def test_counts_of_classes_and_photos(tmp_path: Path) -> None:
    write_dtd(tmp_path, {"train": 940, "val": 377, "test": 564}, ("a", "b", "c"), photos=False)
    (tmp_path / "dtd/images").mkdir()
    assert findings(tmp_path / "dtd")[:2] == [
        ("error", "3 classes, expected 47"),
        ("warning", "1,131 photos in val, published: 1,128"),
    ]
    write_dtd(tmp_path, {"train": 60, "val": 23, "test": 36}, photos=False)
    assert findings(tmp_path / "dtd")[:1] == [("error", "1,081 photos in val, published: 1,128")]


def test_names_that_read_the_same_and_photos_that_are_listed_twice(tmp_path: Path) -> None:
    rows = [[f"{i}.jpg", i % 47, name] for i, name in enumerate(("Red_fox", "red fox", *NAMES[2:]) * 2)]
    content = {"train": rows, "val": [rows[3], rows[3]], "test": [rows[5]]}
    write_split(tmp_path / "dtd", "dtd", content, photos=False)
    (tmp_path / "dtd/images").mkdir()
    assert findings(tmp_path / "dtd")[3:6] == [
        ("error", "classes that read the same in a prompt: red fox"),
        ("error", "2 photos are in two splits, the first is 3.jpg (in train and val)"),
        ("warning", "1 photos are listed twice in one split, the first is 3.jpg"),
    ]


def test_a_split_of_ours_and_a_damaged_one(tmp_path: Path) -> None:
    link_photos(tmp_path / "dtd/images", [f"{c}/{i}.jpg" for c in ("dotted", "lined") for i in range(10)])
    (warning, *errors) = check(tmp_path / "dtd").checked[0].findings
    assert warning.message.startswith("split_zhou_DescribableTextures.json is not there, so this is our own split")
    assert "DATASETS.md" in warning.mend
    assert [error.message for error in errors] == [
        "2 classes, expected 47",
        "20 photos in all splits, published: 5,640",
    ]
    (tmp_path / "dtd/split_zhou_DescribableTextures.json").write_text(
        '{"train": [["../../x", 0, "x"]], "val": [], "test": []}'
    )
    ((_, message),) = findings(tmp_path / "dtd")
    assert "expected a path below the image folder, got '../../x'" in message
    link_photos(tmp_path / "oxford_pets/images", ["beagle_1.jpg"])
    (_, first), (_, second) = findings(tmp_path / "oxford_pets")
    assert first == "split_zhou_OxfordPets.json is not there, and a split of our own cannot be drawn"
    assert second.endswith("trainval.txt: not there")


def test_the_names_that_imagenet_has_twice(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path, train=1)
    assert findings(folder)[-1][0] == "ok"
    assert findings(folder)[-1][1].startswith("missile occur twice in classnames.txt, as published")
    text = (folder / "classnames.txt").read_text().replace("thing 7\n", "thing 8\n")
    (folder / "classnames.txt").write_text(text)
    message = "names that occur twice in classnames.txt: thing 8; the published list has them once"
    assert findings(folder)[-1] == ("warning", message)


def test_everything_that_is_wrong_with_imagenet_at_once(tmp_path: Path) -> None:
    folder = write_class_names(tmp_path / "imagenet", [f"n{i:08}" for i in range(1, 992)])
    link_photos(folder / "images/val", ["ILSVRC2012_val_00000001.JPEG"])
    first, second, third = check(folder).checked[0].findings
    assert "expected 1000 classes sorted by id, got 991" in first.message
    assert second.message.endswith("images/train, not there")
    assert third.message.endswith("images/val: 1 photos lie directly in it and 0 class folders")
    assert "valprep.sh" in third.mend
