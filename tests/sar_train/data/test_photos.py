"""Looking at photos: those that cannot be decoded, and copies in two splits."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image
from support.hostile_jpegs import hidden_scans
from support.opened import opened
from support.photos import write_folder, write_photo

from sar_train.data.photos import SAMPLE, check_dataset, unreadable


def test_unreadable(tmp_path: Path) -> None:
    paths = [
        write_photo(tmp_path / f"{i}.{form}", i, (90, 80)) for i, form in enumerate(("png", "jpg", "gif", "jpg", "png"))
    ]
    paths[3].write_bytes(paths[3].read_bytes()[:400])
    paths[4].write_bytes(b"<html>not found</html>")
    Image.new("RGB", (4000, 2)).save(tmp_path / "thin.jpg")
    (tmp_path / "scans.jpg").write_bytes(hidden_scans(4000, 500))
    more = [tmp_path / name for name in ("thin.jpg", "none.jpg", "scans.jpg")]
    problems = unreadable([str(path) for path in (*paths, *more)])
    assert [Path(path).name for path in problems] == ["3.jpg", "4.png", "thin.jpg", "none.jpg", "scans.jpg"]
    first, *_, last = problems.values()
    assert "truncated" in first.lower()
    assert "too many scans" in last
    assert all(reason and str(tmp_path) not in reason for reason in problems.values())


def test_a_check_of_a_dataset(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own/train", {"a": 20, "b": 20}).parent
    write_photo(root / "test/a/0.png", seed=500)
    write_photo(root / "test/b/0.png", seed=501)
    assert check_dataset(opened(root)) == (42, [], [])
    shutil.copy(root / "train/a/00.png", root / "test/a/copy.png")
    (root / "test/b/bad.png").write_bytes(b"broken")
    decoded, (copy, bad), copies = check_dataset(opened(root))
    assert decoded == 44
    assert copies == [(root / "train/a/00.png", root / "test/a/copy.png")]
    assert copy["severity"] == "warning"
    assert (
        f"1 photo is in two splits, the first: {root / 'train/a/00.png'} and {root / 'test/a/copy.png'}" in copy["what"]
    )
    assert bad["severity"] == "error"
    assert f"1 of 44 photos cannot be read, the first: {root / 'test/b/bad.png'}" in bad["what"]


def test_of_many_photos_an_even_sample_is_decoded(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own", {"a": SAMPLE // 2 + 10, "b": SAMPLE // 2 + 10})
    assert check_dataset(opened(root))[0] == SAMPLE
