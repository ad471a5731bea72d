"""Folders as the library writes them; test_hf_dataset opens them as photos."""

import sys
from pathlib import Path

import pytest
from support.hf import make_dataset, to_hub, to_saved

from sar_train.data.hf_parts import columns, is_hf_dataset, parts
from sar_train.errors import DataError

pytest.importorskip("datasets", reason="needs the library datasets")


def test_what_is_one(tmp_path: Path) -> None:
    assert is_hf_dataset(to_saved(tmp_path / "one", make_dataset(2)))
    assert is_hf_dataset(to_saved(tmp_path / "many", {"train": make_dataset(2)}))
    assert is_hf_dataset(to_hub(tmp_path / "hub", {"train": make_dataset(2)}))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "dataset_info.json").write_text("{}")
    assert not is_hf_dataset(tmp_path / "own")


def test_rows_are_encoded_photos(tmp_path: Path) -> None:
    for root in (
        to_saved(tmp_path / "a", {"train": make_dataset(3)}),
        to_hub(tmp_path / "b", {"train": make_dataset(3)}),
    ):
        (part,) = parts(root)
        assert (part.split, part.count) == ("train", 3)
        assert columns(part.features, root) == ("image", "label")
        rows = list(part.rows("image", "label"))
        assert [row["label"] for row in rows] == [0, 1, 0]
        assert rows[0]["image"]["bytes"].startswith(b"\xff\xd8\xff")


def test_splits_of_parquet_files(tmp_path: Path) -> None:
    root = to_hub(tmp_path / "hub", {"train": make_dataset(4), "validation": make_dataset(2)}, shards=2)
    assert sorted((part.split, part.count) for part in parts(root)) == [
        ("train", 2),
        ("train", 2),
        ("validation", 1),
        ("validation", 1),
    ]
    flat = tmp_path / "flat"
    flat.mkdir()
    make_dataset(2).to_parquet(flat / "photos.parquet")
    assert [part.split for part in parts(flat)] == ["train"]
    (tmp_path / "deep" / "test").mkdir(parents=True)
    make_dataset(2).to_parquet(tmp_path / "deep" / "test" / "0000.parquet")
    assert [part.split for part in parts(tmp_path / "deep")] == ["test"]


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
        with pytest.raises(DataError, match="expected one column of images and one of labels"):
            columns(features, root)


def test_damaged_and_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = to_hub(tmp_path / "hub", {"train": make_dataset(2)})
    next((hub / "data").iterdir()).write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(parts(hub))
    saved = to_saved(tmp_path / "saved", make_dataset(2))
    (saved / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read by the library datasets"):
        list(parts(saved))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the library datasets: pip install 'sar-clip\[hf\]'"):
        list(parts(saved))
