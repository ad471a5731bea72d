"""Whatever a user names is opened, or refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from support.coop import link_photos, write_split
from support.features import feature_set
from support.layouts import EXAMPLES, SPLITS
from support.opened import counts, opened
from support.photos import SHARED, needs_shared, write_folder, write_photo
from support.tiny import tiny_backbone

from sar_train.data.dataset import DataOptions
from sar_train.data.feature_file import StoredFeatures, load_features, save_features
from sar_train.data.features import Features
from sar_train.data.opening import missing, open_features, read_class_names
from sar_train.data.readers.coop import NAME_FIXES
from sar_train.errors import DataError


def features_of(spec: object, root: Path | None = None, views: int = 1, **options: object) -> Features:
    return open_features(str(spec), tiny_backbone(), DataOptions(root, 4, 1, views, **options))


def test_a_folder_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    for domain in ("photo", "sketch"):
        write_folder(root / "pacs" / domain, {"cat": 4, "dog": 4})
    (root / "list.csv").write_text("path,label\npacs/photo/cat/00.png,x\npacs/photo/cat/01.png,x\n")
    assert opened("pacs/photo", 2, 1, data_root=root).name == "pacs/photo"
    assert opened("list.csv", 2, 1, data_root=root).class_names == ("x",)
    write_folder(tmp_path / "pacs/photo", {"owl": 2})
    assert opened("pacs/photo", 2, 1, data_root=root).class_names == ("owl",)  # what exists goes first


@needs_shared
def test_datasets_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "caltech101", {"a": 2})
    assert len(features_of("Caltech101", SHARED).dataset.class_names) == 100
    assert features_of("caltech101").dataset.class_names == ("a",)
    with pytest.raises(DataError, match="cartoon, photo, sketch"):
        opened("pacs", 16, 1, data_root=SHARED)
    assert counts(opened("pacs/photo", data_root=SHARED, target=True)) == [(0, 0, 60)] * 7


def test_nothing_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "photo.png")
    for spec, fact in {
        "caltech101": "--data-root .*caltech-101",
        "caltec": "caltech101",
        "photoz": "^photoz: .*dataset$",  # nothing near it, so nothing is offered
        "nosuch/": "^nosuch/: .*dataset$",
        "no/such": "no/such: no such",
        "photo.png": "photo.png: expected",
        "none.csv": "none.csv: no such",
        "none.safetensors": "no such feature file",
    }.items():
        with pytest.raises(DataError, match=fact):
            features_of(spec)
        assert re.search(fact, missing(spec, None))
    with pytest.raises(DataError, match="no/such: .*, nor in data"):
        features_of("no/such", Path("data"))


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        (("red_fox", "Red fox"), "'Red fox' and 'red_fox'"),
        (("caf\u00e9", "cafe\u0301"), "the same"),  # one letter, or an e and an accent
        (("a", "b\udcff"), r"'b\\udcff'"),
        (("a", "b\n"), r"'b\\n'"),
    ],
)
def test_names_that_no_prompt_can_hold(tmp_path: Path, names: tuple[str, ...], fact: str) -> None:
    write_folder(tmp_path, dict.fromkeys(names, 1))
    with pytest.raises(DataError, match=fact):
        opened(tmp_path)


def test_unreadable_photos_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = EXAMPLES["folder"](tmp_path / "pets", SPLITS)
    broken, cut = folder / "train/cat/01.png", folder / "test/dog/00.png"
    broken.write_bytes(b"broken")
    cut.write_bytes(cut.read_bytes()[:200])
    dataset = features_of(folder, skip_unreadable=True).dataset
    assert counts(dataset) == [(3, 2, 3), (4, 2, 2)]
    assert dataset.warnings[-1].startswith(f"2 unreadable photos left out, the first: {cut}: cannot be read: ")
    with pytest.raises(DataError, match=r"cat/01\.png.*--skip-unreadable"):
        features_of(folder).plain("train")
    for path in folder.glob("train/cat/*"):
        path.write_bytes(b"")
    dataset = features_of(folder, skip_unreadable=True).dataset
    assert (dataset.class_names, counts(dataset)) == (("dog",), [(4, 2, 2)])
    assert "5 unreadable photos left out" in dataset.warnings[-1]
    assert " and 1 class" in dataset.warnings[-1]
    for path in folder.glob("*/dog/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no training photo can be read"):
        features_of(folder, skip_unreadable=True)
    target = features_of(folder, target=True, skip_unreadable=True).dataset
    assert (target.class_names, len(target.photos("test"))) == (("cat",), 3)
    for path in folder.glob("test/cat/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no test photo can be read"):
        features_of(folder, target=True, skip_unreadable=True)


def test_a_feature_file_and_the_demo(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_features(feature_set(), path)
    assert isinstance(features_of(path), StoredFeatures)
    with pytest.raises(DataError, match="sar-mini"):  # whose features the demo has
        features_of("demo")
    with pytest.raises(DataError, match="weights"):
        open_features(str(path), tiny_backbone(seed=1), DataOptions())


def test_saved_features_equal_the_photos(tmp_path: Path) -> None:
    features = features_of(write_folder(tmp_path / "pets", {"a": 8, "b": 8}), views=2)
    assert features.views("train", [0]).shape == (1, 2, 32)
    save_features(features, tmp_path / "x.safetensors", {"licence": "CC0-1.0"})
    again = features_of(tmp_path / "x.safetensors")
    dataset = again.dataset
    assert (dataset.name, dataset.class_names, dataset.published_split) == ("pets", ("a", "b"), False)
    assert (dataset.split_origin, dataset.warnings) == ("given", ())
    assert again.draw(4, 1) == features.draw(4, 1)
    for split in ("train", "val", "test"):
        assert torch.equal(again.labels(split), features.labels(split))
        torch.testing.assert_close(again.plain(split), features.plain(split), atol=1e-3, rtol=0)
    save_features(again, tmp_path / "copy.safetensors", {"command": "sar-train"})
    assert load_features(tmp_path / "copy.safetensors").provenance == {"licence": "CC0-1.0", "command": "sar-train"}


def test_a_split_of_ours_is_said_in_feature_files_too(tmp_path: Path) -> None:
    link_photos(tmp_path / "eurosat/2750", [f"{c}/{i}.jpg" for c in NAME_FIXES["eurosat"] for i in range(10)])
    features = features_of("eurosat", tmp_path)
    save_features(features, tmp_path / "x.safetensors", {"licence": "MIT"})
    dataset = features_of(tmp_path / "x.safetensors").dataset
    assert (dataset.published_split, dataset.split_origin) == (True, "ours")
    assert dataset.warnings == features.dataset.warnings != ()


def test_class_names_without_photos(tmp_path: Path) -> None:
    assert len(read_class_names("demo")) == 100
    assert read_class_names("ImageNet")[0] == "tench"
    content = {"train": [["River/1.jpg", 0, "River"], ["Sea/1.jpg", 1, "Sea_Lake"]], "val": [], "test": []}
    folder = write_split(tmp_path / "eurosat", "eurosat", content, photos=False)
    assert read_class_names("EuroSAT", tmp_path) == read_class_names(str(folder)) == ("River", "Sea_Lake")
    (tmp_path / "imagenet").mkdir()
    assert read_class_names("imagenet", tmp_path)[0] == "tench"
    names = tmp_path / "imagenet" / "classnames.txt"
    names.write_text("\n".join(f"n{10000000 + i} thing {i}" for i in range(1000)))
    assert read_class_names("imagenet", tmp_path)[:2] == ("thing 0", "thing 1")
    assert read_class_names(str(write_folder(tmp_path / "photos", {"red_fox": 2, "owl": 2}))) == ("owl", "red_fox")
    for spec, root, fact in (
        ("food101", None, "--data-root"),
        ("food101", tmp_path, "split_zhou_Food101.json"),
        ("nowhere", None, "nowhere"),
    ):
        with pytest.raises(DataError, match=fact):
            read_class_names(spec, root)
