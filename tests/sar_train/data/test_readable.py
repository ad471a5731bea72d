from pathlib import Path

import pytest
from support.photos import write_folder
from support.tiny import tiny_backbone

from sar_train.data.folder import load_folder
from sar_train.data.readable import without_unreadable
from sar_train.errors import DataError


def test_unreadable_photos_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset = load_folder(write_folder(tmp_path, {"a": 6, "b": 6}), 4, 1)
    spec = tiny_backbone().preprocess
    assert without_unreadable(dataset, spec) is dataset
    dataset.train[1].path.write_bytes(b"broken")
    dataset.test[0].path.write_bytes(dataset.test[0].path.read_bytes()[:200])
    cleaned = without_unreadable(dataset, spec)
    assert [len(cleaned.photos(split)) for split in ("train", "val", "test")] == [7, 2, 1]
    assert cleaned.warnings[-1].startswith(f"2 unreadable photos left out, the first: {dataset.train[1].path}: not an")


def test_a_class_may_be_lost_but_not_all(tmp_path: Path) -> None:
    dataset = load_folder(write_folder(tmp_path, {"a": 2, "b": 2}), 4, 1)
    dataset.train[0].path.write_bytes(b"")
    cleaned = without_unreadable(dataset, tiny_backbone().preprocess)
    assert cleaned.class_names == ("b",)
    assert "and 1 classes" in cleaned.warnings[-1]
    dataset.train[1].path.write_bytes(b"")
    with pytest.raises(DataError, match="no training photo can be read"):
        without_unreadable(dataset, tiny_backbone().preprocess)


def test_targets(tmp_path: Path) -> None:
    dataset, spec = load_folder(write_folder(tmp_path, {"a": 2, "b": 1}), 4, 1, whole=True), tiny_backbone().preprocess
    dataset.test[2].path.write_bytes(b"broken")
    cleaned = without_unreadable(dataset, spec)
    assert (cleaned.class_names, len(cleaned.test)) == (("a",), 2)
    for photo in dataset.test:
        photo.path.write_bytes(b"broken")
    with pytest.raises(DataError, match="no test photo can be read"):
        without_unreadable(dataset, spec)
