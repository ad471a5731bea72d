"""Findings, and the lists of known datasets."""

from __future__ import annotations

from pathlib import Path

from support.coop import link_photos, write_class_names, write_imagenet, write_split

from sar_train.data.check_known import DataFinding, check_rows, from_error, list_known
from sar_train.data.coop_layout import Listing
from sar_train.data.dataset_lists import SplitRows
from sar_train.data.layouts import LAYOUTS
from sar_train.errors import DataError


def test_the_last_part_of_a_message_says_how_to_mend() -> None:
    assert from_error("x", DataError("a; b;\n  do c")) == DataFinding("error", "x", "a; b", "do c")
    assert from_error("x", DataError("no advice")) == DataFinding("error", "x", "no advice")


def listing(train: int, val: int, test: int, names: tuple[str, ...] | None = None) -> Listing:
    names = names or tuple(f"class {i}" for i in range(47))
    rows: SplitRows = {
        split: [(f"{split}/{i}.jpg", i % len(names)) for i in range(count)]
        for split, count in (("train", train), ("val", val), ("test", test))
    }
    return Listing(names, rows, "published")


def texts(findings: list[DataFinding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.what) for finding in findings]


def test_complete() -> None:
    assert check_rows("dtd", listing(*LAYOUTS["dtd"].counts)) == []


def test_counts_and_classes() -> None:
    found = texts(check_rows("dtd", listing(2819, 1129, 1692, tuple("abc"))))
    assert found == [
        ("error", "3 classes, expected 47"),
        ("error", "2,819 photos in train, published: 2,820"),
        ("warning", "1,129 photos in val, published: 1,128"),
    ]


def test_our_split_is_counted_as_a_whole() -> None:
    ours = Listing(**{**vars(listing(3000, 1000, 1639)), "origin": "ours"})
    assert texts(check_rows("dtd", ours)) == [("error", "5,639 photos in all splits, published: 5,640")]


def test_names_that_read_the_same() -> None:
    names = ("Red_fox", "red fox", *(f"class {i}" for i in range(45)))
    (finding,) = check_rows("dtd", listing(*LAYOUTS["dtd"].counts, names))
    assert (finding.severity, finding.what) == ("error", "classes that read the same in a prompt: red fox")


def test_photos_in_two_splits_or_twice_in_one() -> None:
    x = listing(*LAYOUTS["dtd"].counts)
    x.rows["test"][0] = x.rows["train"][5]
    x.rows["val"][1] = x.rows["val"][2]
    assert texts(check_rows("dtd", x)) == [
        ("error", "1 photos are in two splits, the first is train/5.jpg (in train and test)"),
        ("warning", "1 photos are listed twice in one split, the first is val/2.jpg"),
    ]


def test_the_two_names_that_imagenet_has_twice(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path)
    found, findings = list_known("imagenet", folder)
    assert found is not None
    assert findings == []
    said = check_rows("imagenet", found)
    assert [f.severity for f in said] == ["error", "error", "ok"]
    assert said[-1].what.startswith("missile occur twice in classnames.txt, as published")
    text = (folder / "classnames.txt").read_text().replace("thing 7\n", "thing 8\n")
    (folder / "classnames.txt").write_text(text)
    found, _ = list_known("imagenet", folder)
    assert found is not None
    assert check_rows("imagenet", found)[-1].what == (
        "names that occur twice in classnames.txt: thing 8; the published list has them once"
    )


def test_everything_that_is_wrong_with_imagenet_at_once(tmp_path: Path) -> None:
    folder = write_class_names(tmp_path / "imagenet", [f"n{i:08}" for i in range(1, 992)])
    link_photos(folder / "images/val", ["ILSVRC2012_val_00000001.JPEG"])
    found, findings = list_known("imagenet", folder)
    assert found is None
    assert len(findings) == 3
    assert "expected 1000 classes sorted by id, got 991" in findings[0].what
    assert findings[1].what.endswith("images/train, not there")
    assert findings[2].what.endswith("images/val: 1 photos lie directly in it and 0 class folders")
    assert "valprep.sh" in findings[2].mend


def test_no_split_file(tmp_path: Path) -> None:
    link_photos(tmp_path / "dtd/images", [f"{c}/{i}.jpg" for c in ("dotted", "lined") for i in range(10)])
    found, findings = list_known("dtd", tmp_path / "dtd")
    assert found is not None
    assert found.origin == "ours"
    assert [f.severity for f in findings] == ["warning"]
    assert findings[0].what.startswith("split_zhou_DescribableTextures.json is not there, so this is our own split")
    assert "DATASETS.md" in findings[0].mend
    link_photos(tmp_path / "oxford_pets/images", ["beagle_1.jpg"])
    found, findings = list_known("oxford_pets", tmp_path / "oxford_pets")
    assert found is None
    assert findings[0].what == "split_zhou_OxfordPets.json is not there, and a split of our own cannot be drawn"
    assert findings[1].what.endswith("trainval.txt: not there")


def test_a_damaged_split_file(tmp_path: Path) -> None:
    write_split(tmp_path, "dtd", '{"train": [["../../etc/passwd", 0, "x"]], "val": [], "test": []}', photos=False)
    found, (finding,) = list_known("dtd", tmp_path)
    assert found is None
    assert "expected a path below the image folder, got '../../etc/passwd'" in finding.what
