"""Folders of the library datasets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.disk import files_of_at_most
from support.hf import encoded, make_dataset, to_hub, to_saved
from support.opened import opened

from sar_train.data.readers.hugging_face import HuggingFace, columns, shards, survey
from sar_train.errors import DataError

pytest.importorskip("datasets", reason="needs the library datasets")


@pytest.mark.parametrize("write", [to_saved, to_hub])
def test_splits_and_photos(tmp_path: Path, write) -> None:
    parts = {"train": make_dataset(8), "validation": make_dataset(2), "test": make_dataset(4)}
    root, cache = write(tmp_path / "pets", parts), tmp_path / "cache"
    dataset = opened(root, 2, 1, cache_dir=cache)
    assert (dataset.name, dataset.class_names, dataset.split_origin) == ("pets", ("cat", "dog"), "given")
    assert [len(dataset.photos(split)) for split in ("train", "val", "test")] == [8, 2, 4]
    assert (dataset.root / dataset.photos("train")[0].path).read_bytes() == encoded(0)
    assert dataset.photos("train")[0].path.endswith(".jpg")
    assert dataset.photos("train")[1].path == "train/0000002.jpg"
    with Image.open(dataset.root / dataset.photos("test")[0].path) as image:
        assert image.size == (16, 12)
    assert survey(root) == ({"train": 8, "validation": 2, "test": 4}, ("cat", "dog"))
    target = opened(root, 2, 1, target=True, cache_dir=cache)
    assert (target.photos("train"), target.photos("test")) == ((), dataset.photos("test"))


def test_unpacked_once_and_again_when_it_changes(tmp_path: Path) -> None:
    root, cache = to_saved(tmp_path / "pets", make_dataset(8, form="PNG")), tmp_path / "cache"
    dataset = opened(root, 2, 1, cache_dir=cache)
    assert {Path(p.path).suffix for p in dataset.photos("train")} == {".png"}
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


def test_labels_without_names(tmp_path: Path) -> None:
    root = to_saved(tmp_path / "pets", make_dataset(4, names=None))
    assert opened(root, 1, 1, cache_dir=tmp_path / "cache").class_names == ("0", "1")


def test_refusals(tmp_path: Path) -> None:
    root, cache = to_saved(tmp_path / "a", {"test": make_dataset(4)}), tmp_path / "cache"
    with pytest.raises(DataError, match="train, got test"):
        opened(root, 1, 1, cache_dir=cache)
    assert len(opened(root, 1, 1, target=True, cache_dir=cache).photos("test")) == 4
    with pytest.raises(DataError, match="--cache-dir"):
        opened(root, 1, 1)
    with pytest.raises(DataError, match="'extra'"):
        opened(to_saved(tmp_path / "b", {"extra": make_dataset(4)}), 1, 1, cache_dir=cache)
    (index,) = cache.rglob("index.json")
    index.write_text(json.dumps({"photos": 3}))
    with pytest.raises(DataError, match="index.json"):
        opened(root, 1, 1, target=True, cache_dir=cache)


def write_rows(root: Path, images: list[object], labels: list[object]) -> Path:
    """A Parquet file as it stands, without the library's own packing of photos."""
    datasets, parquet = pytest.importorskip("datasets"), pytest.importorskip("pyarrow.parquet")
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


def test_photos_beside_the_file(tmp_path: Path) -> None:
    root = write_rows(tmp_path / "x", [{"bytes": None, "path": "photos/1.jpg"}], [0])
    (root / "photos").mkdir()
    (root / "photos" / "1.jpg").write_bytes(encoded(3))
    target = opened(root, 1, 1, target=True, cache_dir=tmp_path / "cache")
    assert (target.root / target.photos("test")[0].path).read_bytes() == encoded(3)


def test_what_is_one(tmp_path: Path) -> None:
    assert HuggingFace().recognises(to_saved(tmp_path / "one", make_dataset(2)))
    assert HuggingFace().recognises(to_saved(tmp_path / "many", {"train": make_dataset(2)}))
    assert HuggingFace().recognises(to_hub(tmp_path / "hub", {"train": make_dataset(2)}))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "dataset_info.json").write_text("{}")
    assert not HuggingFace().recognises(tmp_path / "own")


def test_rows_are_encoded_photos(tmp_path: Path) -> None:
    for root in (
        to_saved(tmp_path / "a", {"train": make_dataset(3)}),
        to_hub(tmp_path / "b", {"train": make_dataset(3)}),
    ):
        (part,) = shards(root)
        assert (part.split, part.total) == ("train", 3)
        assert columns(part.features, root) == ("image", "label")
        rows = list(part.rows("image", "label"))
        assert [row["label"] for row in rows] == [0, 1, 0]
        assert rows[0]["image"]["bytes"].startswith(b"\xff\xd8\xff")


def test_splits_of_parquet_files(tmp_path: Path) -> None:
    root = to_hub(tmp_path / "hub", {"train": make_dataset(4), "validation": make_dataset(2)}, shards=2)
    assert sorted((part.split, part.total) for part in shards(root)) == [
        ("train", 2),
        ("train", 2),
        ("validation", 1),
        ("validation", 1),
    ]
    flat = tmp_path / "flat"
    flat.mkdir()
    make_dataset(2).to_parquet(flat / "photos.parquet")
    assert [part.split for part in shards(flat)] == ["train"]
    (tmp_path / "deep" / "test").mkdir(parents=True)
    make_dataset(2).to_parquet(tmp_path / "deep" / "test" / "0000.parquet")
    assert [part.split for part in shards(tmp_path / "deep")] == ["test"]


def test_columns() -> None:
    datasets = pytest.importorskip("datasets")
    image, label, number = datasets.Image(), datasets.ClassLabel(names=["a"]), datasets.Value("int64")
    root = Path("x")
    assert columns({"img": image, "kind": label, "id": number}, root) == ("img", "kind")
    assert columns({"image": image, "label": number}, root) == ("image", "label")
    assert columns({"img": image, "fine_label": label, "coarse_label": label}, root) == ("img", "fine_label")
    for features in (
        {"image": image},
        {"label": label},
        {"a": image, "b": image, "label": label},
        {"image": image, "p": label, "q": label},
    ):
        with pytest.raises(DataError, match=list(features)[-1]):
            columns(features, root)


def test_damaged_and_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = to_hub(tmp_path / "hub", {"train": make_dataset(2)})
    next((hub / "data").iterdir()).write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="Parquet"):
        list(shards(hub))
    saved = to_saved(tmp_path / "saved", make_dataset(2))
    (saved / "state.json").write_text("{")
    with pytest.raises(DataError, match="saved"):
        list(shards(saved))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"sar-clip\[hf\]"):
        list(shards(saved))
