"""Whatever a user names is opened, or refused in one line."""

from pathlib import Path

import pytest
import torch
from support.coop import link_photos
from support.features import feature_set
from support.photos import SHARED, needs_shared, write_folder, write_photo
from support.tiny import tiny_backbone

from sar_train.data.coop import NAME_FIXES
from sar_train.data.dataset import DataOptions
from sar_train.data.feature_file import StoredFeatures, load_features, save_features
from sar_train.data.features import Features, PhotoFeatures
from sar_train.data.open_features import open_features
from sar_train.errors import DataError


def opened(spec: object, root: Path | None = None, views: int = 1, **options: object) -> Features:
    return open_features(str(spec), tiny_backbone(), DataOptions(root, 4, 1, views, **options))


def test_feature_file_and_demo(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_features(feature_set(), path)
    assert isinstance(opened(path), StoredFeatures)
    with pytest.raises(DataError, match="sar-mini"):  # whose features the demo has
        opened("demo")
    with pytest.raises(DataError, match="weights"):
        open_features(str(path), tiny_backbone(seed=1), DataOptions())
    with pytest.raises(DataError, match="no such"):
        opened(tmp_path / "none.safetensors")


def test_folder_and_list(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", {"a": 6, "b": 6})
    features = opened(folder, views=3)
    assert features.dataset.name == "pets"
    assert features.views("train", [0]).shape == (1, 3, 32)
    (folder / "list.csv").write_text("path,label\na/00.png,x\na/01.png,x\n")
    assert opened(folder / "list.csv").dataset.class_names == ("x",)


def test_saved_features_equal_the_photos(tmp_path: Path) -> None:
    features = opened(write_folder(tmp_path / "pets", {"a": 8, "b": 8}), views=2)
    save_features(features, tmp_path / "x.safetensors", {"licence": "CC0-1.0"})
    again = opened(tmp_path / "x.safetensors")
    dataset = again.dataset
    assert (dataset.name, dataset.class_names, dataset.published_split) == ("pets", ("a", "b"), False)
    assert (dataset.split_origin, dataset.warnings) == ("given", ())
    assert again.draw(4, 1) == features.draw(4, 1)
    for split in ("train", "val", "test"):
        assert torch.equal(again.labels(split), features.labels(split))
        torch.testing.assert_close(again.plain(split), features.plain(split), atol=1e-3, rtol=0)
    save_features(again, tmp_path / "copy.safetensors", {"command": "sar-train"})
    assert load_features(tmp_path / "copy.safetensors").provenance == {"licence": "CC0-1.0", "command": "sar-train"}


def test_unreadable_photos(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 6})
    (folder / "a" / "bad.jpg").write_bytes(b"broken")
    features = opened(folder, skip_unreadable=True)
    assert (
        "1 unreadable photo left out (all of them: sar-experiment check-data PHOTOS --all-images)"
        in features.dataset.warnings[-1]
    )
    assert features.plain("train").isfinite().all()
    with pytest.raises(DataError, match=r"bad\.jpg.*--skip-unreadable.*check-data"):
        opened(folder).plain("train")


@needs_shared
def test_datasets_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "caltech101", {"a": 2})
    by_name, by_folder = opened("Caltech101", SHARED), opened(SHARED / "caltech-101")
    assert by_name.dataset.published_split
    assert len(by_name.dataset.class_names) == len(by_folder.dataset.class_names) == 100
    assert opened("caltech101").dataset.class_names == ("a",)
    assert len(opened("dtd", SHARED, allow_missing=True).dataset.class_names) == 10


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
    features = open_features("pets/photo", tiny_backbone(), DataOptions(tmp_path, 4, target=True))
    assert isinstance(features, PhotoFeatures)
    assert (len(features.labels("train")), len(features.labels("val")), len(features.labels("test"))) == (0, 0, 12)
    assert features.plain("test").shape == (12, 32)
    assert features.views("train").shape == (0, 1, 32)
    assert opened(folder).dataset.split_origin == "ours"


def test_a_split_of_ours_is_said_in_feature_files_too(tmp_path: Path) -> None:
    link_photos(tmp_path / "eurosat/2750", [f"{c}/{i}.jpg" for c in NAME_FIXES["eurosat"] for i in range(10)])
    features = opened("eurosat", tmp_path)
    assert (features.dataset.published_split, features.dataset.split_origin) == (True, "ours")
    save_features(features, tmp_path / "x.safetensors", {"licence": "MIT"})
    again = opened(tmp_path / "x.safetensors").dataset
    assert (again.published_split, again.split_origin) == (True, "ours")
    assert again.warnings == features.dataset.warnings
    assert "our own split and not the published one" in again.warnings[0]
