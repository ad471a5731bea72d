"""Folders of the library datasets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.disk import files_of_at_most
from support.hf import encoded, make_dataset, to_hub, to_saved
from support.opened import opened

from sar_train.data.dataset import DataOptions
from sar_train.data.readers.hugging_face import HuggingFace
from sar_train.errors import DataError

datasets = pytest.importorskip("datasets", reason="needs the library datasets")


@pytest.mark.parametrize("write", [to_saved, to_hub])
def test_photos_are_unpacked_unchanged(tmp_path: Path, write) -> None:
    root = write(tmp_path / "pets", {"train": make_dataset(100), "validation": make_dataset(2, form="PNG")})
    dataset = opened(root, 2, 1, cache_dir=tmp_path / "cache")
    assert [photo.path for photo in dataset.photos("train")[:2]] == ["train/0000000.jpg", "train/0000002.jpg"]
    by_path = {photo.path: photo for photo in dataset.photos("train")}
    for i in range(100):
        path = f"train/{i:07}.jpg"
        assert (dataset.root / path).read_bytes() == encoded(i)
        assert by_path[path].label == i % 2
    assert {Path(photo.path).suffix for photo in dataset.photos("test")} == {".png"}


def test_unpacked_once_and_again_when_it_changes(tmp_path: Path) -> None:
    root, cache = to_saved(tmp_path / "pets", make_dataset(8)), tmp_path / "cache"
    dataset = opened(root, 2, 1, cache_dir=cache)
    (index,) = cache.rglob("index.json")
    before = index.stat()
    assert opened(root, 2, 1, cache_dir=cache) == dataset
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(list((cache / "huggingface").iterdir())) == 1
    to_saved(tmp_path / "more", make_dataset(10)).rename(tmp_path / "moved")
    root.rename(tmp_path / "old")
    (tmp_path / "moved").rename(root)
    assert len(opened(root, 2, 1, target=True, cache_dir=cache).photos("test")) == 10


def test_a_disk_that_fills_up_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    root, cache = to_saved(tmp_path / "pets", make_dataset(4)), tmp_path / "cache"
    with files_of_at_most(len(encoded(2)) - 1), pytest.raises(DataError, match="File too large"):
        opened(root, 2, 1, cache_dir=cache)
    assert list((cache / "huggingface").iterdir()) == []
    assert len(opened(root, 2, 1, target=True, cache_dir=cache).photos("test")) == 4


def test_refusals(tmp_path: Path) -> None:
    root, cache = to_saved(tmp_path / "a", {"train": make_dataset(4)}), tmp_path / "cache"
    with pytest.raises(DataError, match="--cache-dir"):
        opened(root, 1, 1)
    with pytest.raises(DataError, match="'extra'"):
        opened(to_saved(tmp_path / "b", {"extra": make_dataset(4)}), 1, 1, cache_dir=cache)
    opened(root, 1, 1, cache_dir=cache)
    (index,) = cache.rglob("index.json")
    index.write_text(json.dumps({"photos": 3}))
    with pytest.raises(DataError, match="index.json"):
        opened(root, 1, 1, cache_dir=cache)


def write_rows(root: Path, images: list[object], labels: list[object]) -> Path:
    """A Parquet file as it stands, without the library's own packing of photos."""
    parquet = pytest.importorskip("pyarrow.parquet")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    dataset = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    (root / "data").mkdir(parents=True)
    parquet.write_table(dataset.data.table, root / "data" / "train-00000-of-00001.parquet")
    return root


@pytest.mark.parametrize(
    ("image", "label", "fact"),
    [
        ({"bytes": None, "path": "none.jpg"}, 0, "'none.jpg'"),
        (None, 0, r"\(None\)"),
        ({"bytes": None, "path": "../secret"}, 0, "'../secret'"),
        ({"bytes": b"x", "path": None}, None, "label None"),
    ],
)
def test_photos_and_labels_that_are_missing(tmp_path: Path, image: object, label: object, fact: str) -> None:
    (tmp_path / "secret").write_text("not for the cache")
    root = write_rows(tmp_path / "x", [image], [label])
    with pytest.raises(DataError, match=f"photo 0 of train .*{fact}"):
        opened(root, 1, 1, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache" / "huggingface").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "split"), [("photos.parquet", "train"), ("test/0000.parquet", "test"), ("data/val-x.parquet", "val")]
)
def test_the_split_of_a_parquet_file(tmp_path: Path, path: str, split: str) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    make_dataset(2).to_parquet(tmp_path / path)
    dataset = HuggingFace().read(tmp_path, DataOptions(cache_dir=tmp_path / "cache"))
    assert {name: len(photos) for name, photos in dataset.splits.items()} == {split: 2}


@pytest.mark.parametrize(
    ("columns", "fact"),
    [
        ({"img": "photo", "kind": "class", "id": "number"}, None),
        ({"image": "photo", "label": "number"}, None),
        ({"img": "photo", "fine_label": "class", "coarse_label": "class"}, None),
        ({"image": "photo"}, r"got image \(Image\)"),
        ({"label": "class"}, r"got label \(ClassLabel\)"),
        ({"a": "photo", "b": "photo", "label": "class"}, r"b \(Image\)"),
        ({"image": "photo", "p": "class", "q": "class"}, r"q \(ClassLabel\)"),
    ],
)
def test_columns(tmp_path: Path, columns: dict[str, str], fact: str | None) -> None:
    kinds = {"photo": datasets.Image(), "class": datasets.ClassLabel(names=["a"]), "number": datasets.Value("int64")}
    values = {"photo": [{"bytes": encoded(1), "path": None}], "class": [0], "number": [0]}
    features = datasets.Features({name: kinds[kind] for name, kind in columns.items()})
    content = {name: values[kind] for name, kind in columns.items()}
    root = to_saved(tmp_path / "x", datasets.Dataset.from_dict(content, features=features))
    if fact is None:
        dataset = opened(root, target=True, cache_dir=tmp_path / "cache")
        assert dataset.photos("test") == (("train/0000000.jpg", 0),)
        assert dataset.class_names == ("a" if "class" in columns.values() else "0",)
    else:
        with pytest.raises(DataError, match=fact):
            opened(root, cache_dir=tmp_path / "cache")


def test_damaged_and_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    hub = to_hub(tmp_path / "hub", {"train": make_dataset(2)})
    next((hub / "data").iterdir()).write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="Parquet"):
        opened(hub, cache_dir=cache)
    saved = to_saved(tmp_path / "saved", make_dataset(2))
    (saved / "state.json").write_text("{")
    with pytest.raises(DataError, match="saved"):
        opened(saved, cache_dir=cache)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install .\.\[hf\]"):
        opened(saved, cache_dir=cache)
