"""Findings of a check of data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support.coop import link_photos, write_split
from support.hf import make_dataset, to_saved
from support.hostile_jpegs import hidden_scans
from support.photos import SHARED, needs_shared, write_folder, write_photo

from sar_train.data.check import check, even_sample, sizes, unreadable
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
    said = [finding.what for finding in dtd.findings if "published" not in finding.what]
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
    assert report.checked[1].findings[0].what == f"{tmp_path / 'food-101'} is not there"
    assert report.absent == ()
    with pytest.raises(DataError, match="'foo'"):
        check(tmp_path, ["foo"])
    with pytest.raises(DataError, match="no such"):
        check(tmp_path / "none")


def test_own_photos(tmp_path: Path) -> None:
    own = write_folder(tmp_path / "own", {"a": 20, "b": 3})
    (report,) = check(own).checked
    assert (report.name, report.classes, report.counts, report.state) == ("own", 2, (18, 2, 3), "warning")
    assert report.findings[0].what == "1 class has fewer than 16 photos to learn from (the fewest: 3)"
    write_photo(own / "b/copy.png", seed=5)
    (report,) = check(own).checked
    assert f"the first: {own / 'a/05.png'} and {own / 'b/copy.png'}; " in report.findings[0].what
    (own / "b/copy.png").unlink()
    (own / "a/00.png").write_bytes(b"broken")
    (report,) = check(own).checked
    assert report.findings[-1].what.startswith("1 of 23 photos cannot be read")
    bad = [own / f"a/{number:02}.png" for number in range(5)]
    for path in bad:
        path.write_bytes(b"broken")
    (report,), (whole,) = check(own).checked, check(own, all_images=True).checked
    assert [sum(str(path) in found.findings[-1].what for path in bad) for found in (report, whole)] == [3, 5]
    (own / "c").mkdir()
    (report,) = check(own).checked
    assert report.findings[0].what.startswith(f"{own}: class 'c' has no usable photo")
    assert report.findings[0].mend == "add photos, or remove the class"
    (tmp_path / "list.csv").write_text("path,label\nown/a/00.png,x\nown/a/99.png,x\n")
    assert "1 of 2 photos are missing" in check(tmp_path / "list.csv").checked[0].findings[0].what
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
    assert "got extra" in report.findings[-1].what
    (tmp_path / "ok/dataset_dict.json").write_text("{")
    assert check(tmp_path / "ok").checked[0].state == "error"


@needs_shared
def test_the_real_folder() -> None:
    report = check(SHARED)
    found = {checked.name: checked for checked in report.checked}
    assert found["caltech101"].findings == ()
    assert found["caltech101"].counts == (4128, 1649, 2465)
    assert "4,440 of 5,640 listed photos are not there, 37 folders of them altogether" in found["dtd"].findings[0].what
    assert "--allow-missing" in found["dtd"].findings[0].mend
    assert "pacs" in report.others


def test_an_empty_folder_of_a_known_dataset(tmp_path: Path) -> None:
    (tmp_path / "food-101").mkdir()
    (food,) = check(tmp_path).checked
    expected = "expected a folder images or split_zhou_Food101.json, not there"
    assert food.findings[0].what == f"{tmp_path / 'food-101'}: {expected}"
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
