"""Whatever a user names is opened, or refused in one line."""

from pathlib import Path

import pytest
import torch
from support.coop import link_photos
from support.features import feature_set
from support.photos import SHARED, needs_shared, write_folder, write_photo
from support.tiny import tiny_backbone

from sar_train.data.features import FeatureSet, save_features
from sar_train.data.image_source import ImageDataSource
from sar_train.data.images import DataOptions
from sar_train.data.own_split import NAME_FIXES
from sar_train.data.source import DataSource, open_source, to_feature_set
from sar_train.errors import DataError


def opened(spec: object, root: Path | None = None, views: int = 1, **options: object) -> DataSource:
    return open_source(str(spec), tiny_backbone(), DataOptions(root, 4, 1, views, **options))


def test_feature_file_and_demo(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_features(feature_set(), path)
    assert isinstance(opened(path), FeatureSet)
    with pytest.raises(DataError, match="sar-mini"):  # whose features the demo has
        opened("demo")
    with pytest.raises(DataError, match="weights"):
        open_source(str(path), tiny_backbone(seed=1), DataOptions())
    with pytest.raises(DataError, match="no such"):
        opened(tmp_path / "none.safetensors")


def test_folder_and_list(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", {"a": 6, "b": 6})
    source = opened(folder, views=3)
    assert source.name == "pets"
    assert source.features("train", [0]).shape == (1, 3, 32)
    (folder / "list.csv").write_text("path,label\na/00.png,x\na/01.png,x\n")
    assert opened(folder / "list.csv").class_names == ("x",)


def test_saved_features_equal_the_photos(tmp_path: Path) -> None:
    source = opened(write_folder(tmp_path / "pets", {"a": 8, "b": 8}), views=2)
    made = to_feature_set(source, {"licence": "CC0-1.0"})
    save_features(made, tmp_path / "x.safetensors")
    again = opened(tmp_path / "x.safetensors")
    assert (again.name, again.class_names, again.published_split) == ("pets", ("a", "b"), False)
    for split in ("train", "val", "test"):
        assert torch.equal(again.labels(split), source.labels(split))
        torch.testing.assert_close(again.plain(split), source.plain(split), atol=1e-3, rtol=0)
    assert to_feature_set(again) is again
    assert made.provenance == {"licence": "CC0-1.0"}


def test_unreadable_photos(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 6})
    (folder / "a" / "bad.jpg").write_bytes(b"broken")
    source = opened(folder, skip_unreadable=True)
    assert (
        "1 unreadable photo left out (all of them: sar-experiment check-data PHOTOS --all-images)"
        in source.warnings[-1]
    )
    to_feature_set(source)
    with pytest.raises(DataError, match=r"bad\.jpg.*--skip-unreadable.*check-data"):
        to_feature_set(opened(folder))


@needs_shared
def test_datasets_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "caltech101", {"a": 2})
    by_name, by_folder = opened("Caltech101", SHARED), opened(SHARED / "caltech-101")
    assert by_name.published_split
    assert len(by_name.class_names) == len(by_folder.class_names) == 100
    assert opened("caltech101").class_names == ("a",)
    assert len(opened("dtd", SHARED, allow_missing=True).class_names) == 10


def test_nothing_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cases = {
        "caltech101": "--data-root .*caltech-101",
        "caltec": "caltech101",
        "photoz": "^photoz: .*dataset$",  # nothing near it, so nothing is offered
        "nosuch/": "^nosuch/: .*dataset$",
        "no/such": "no/such: no such",
        "photo.png": "photo.png: expected",
        "none.csv": "none.csv: ",
        "none.txt": "none.txt: no such",
    }
    write_photo(tmp_path / "photo.png")
    for spec, fact in cases.items():
        with pytest.raises(DataError, match=fact):
            opened(spec)


def test_targets_have_test_photos_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets" / "photo", {"a": 6, "b": 6})
    source = open_source("pets/photo", tiny_backbone(), DataOptions(tmp_path, 4), whole=True)
    assert isinstance(source, ImageDataSource)
    assert (len(source.labels("train")), len(source.labels("val")), len(source.labels("test"))) == (0, 0, 12)
    assert source.plain("test").shape == (12, 32)
    assert source.features("train").shape == (0, 1, 32)
    assert opened(folder).split_origin == "ours"


def test_a_split_of_ours_is_said_in_feature_files_too(tmp_path: Path) -> None:
    link_photos(tmp_path / "eurosat/2750", [f"{c}/{i}.jpg" for c in NAME_FIXES["eurosat"] for i in range(10)])
    source = opened("eurosat", tmp_path)
    assert (source.published_split, source.split_origin) == (True, "ours")
    save_features(to_feature_set(source, {"licence": "MIT"}), tmp_path / "x.safetensors")
    again = opened(tmp_path / "x.safetensors")
    assert (again.published_split, again.split_origin) == (True, "ours")
    assert again.warnings == source.warnings
    assert "our own split and not the published one" in again.warnings[0]


def test_draws_are_kept_where_features_are(tmp_path: Path) -> None:
    folder, cache = write_folder(tmp_path / "pets", {"a": 9, "b": 9}), tmp_path / "cache"
    plain, kept = opened(folder), opened(folder, cache_dir=cache)
    assert kept.draw(4, 1) == kept.draw(4, 1) == plain.draw(4, 1)
    assert sorted(path.name for path in (cache / "splits").rglob("*.json")) == [
        "shot_4-seed_1.json", "split-4-seed_1.json",
    ]  # fmt: skip
    made = to_feature_set(plain)
    assert made.draw(4, 1) == plain.draw(4, 1)
    assert (made.split_origin, made.warnings) == ("given", ())
