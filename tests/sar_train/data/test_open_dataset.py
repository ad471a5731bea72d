"""What a user's word for photos means."""

from pathlib import Path

import pytest
from support.coop import IDS, link_photos, write_aircraft, write_class_names, write_imagenet
from support.hf import make_dataset, to_saved
from support.opened import opened
from support.photos import SHARED, needs_shared, write_folder, write_photo

from sar_train.data.open_dataset import missing
from sar_train.errors import DataError


def test_a_folder_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for domain in ("photo", "sketch"):
        write_folder(tmp_path / "data/pacs" / domain, {"cat": 4, "dog": 4})
    (tmp_path / "data/list.csv").write_text("path,label\npacs/photo/cat/00.png,x\npacs/photo/cat/01.png,x\n")
    assert opened("pacs/photo", 2, 1, data_root=tmp_path / "data").name == "pacs/photo"
    assert opened("list.csv", 2, 1, data_root=tmp_path / "data").class_names == ("x",)
    with pytest.raises(DataError, match="photo, sketch"):
        opened("pacs", 2, 1, data_root=tmp_path / "data")
    write_folder(tmp_path / "pacs/photo", {"owl": 2})
    assert opened("pacs/photo", 2, 1, data_root=tmp_path / "data").class_names == ("owl",)  # what exists goes first
    with pytest.raises(DataError, match="pacs/none.*data"):
        opened("pacs/none", 2, 1, data_root=tmp_path / "data")


def test_layouts_of_hugging_face(tmp_path: Path) -> None:
    write_photo(tmp_path / "meta/1.png")
    write_photo(tmp_path / "meta/2.png")
    (tmp_path / "meta/metadata.csv").write_text("file_name,label\n1.png,a\n2.png,a\n")
    assert opened(tmp_path / "meta", 1, 1).class_names == ("a",)
    pytest.importorskip("datasets", reason="needs the library datasets")
    packed = to_saved(tmp_path / "packed", {"train": make_dataset(4), "test": make_dataset(2)})
    assert len(opened(packed, 1, 1, cache_dir=tmp_path / "cache").photos("test")) == 2
    assert (
        len(opened("packed", 1, 1, data_root=tmp_path, target=True, cache_dir=tmp_path / "cache").photos("test")) == 2
    )


def test_known_folders_are_told_from_own_ones(tmp_path: Path) -> None:
    write_aircraft(tmp_path)
    assert opened(tmp_path / "fgvc_aircraft", 1, 1).name == "fgvc_aircraft"
    assert opened("aircraft", 1, 1, data_root=tmp_path, target=True).photos("train") == ()


def test_targets_cannot_be_learned_from(tmp_path: Path) -> None:
    folder = write_class_names(tmp_path / "imagenet-adversarial")
    link_photos(folder / "imagenet-a", [f"{wnid}/0.jpg" for wnid in IDS[:200]])
    for spec, root in (("imagenet-a", tmp_path), (str(folder), None)):
        with pytest.raises(DataError, match="imagenet_a.*only test"):
            opened(spec, 16, 1, data_root=root)
        assert len(opened(spec, 16, 1, data_root=root, target=True).photos("test")) == 200


def test_imagenet_through_the_front_door(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path)
    assert len(opened(folder, 1, 1).photos("train")) == 2000


def test_what_is_missing_is_said_without_opening_anything(tmp_path: Path) -> None:
    write_folder(tmp_path / "pacs/photo", {"cat": 1})
    assert missing("demo", None) == missing("pacs/photo", tmp_path) == missing(str(tmp_path / "pacs"), None) == ""
    assert "pacs/sketch: no such file or folder, nor in" in missing("pacs/sketch", tmp_path)
    assert "gone.safetensors: no such feature file" in missing("gone.safetensors", tmp_path)
    assert "give with --data-root the folder that holds eurosat" in missing("EuroSAT", None)
    folder = tmp_path / "eurosat"
    folder.mkdir()
    assert "expected split_zhou_EuroSAT.json in" in missing("EuroSAT", tmp_path)
    (folder / "split_zhou_EuroSAT.json").write_text("{}")
    assert missing("eurosat", tmp_path) == (
        f"dataset eurosat: expected the folder {folder / '2750'}, not there; complete the download"
    )
    (folder / "2750").mkdir()
    assert missing("eurosat", tmp_path) == missing(str(folder), None) == ""
    with pytest.raises(DataError, match="eurosat"):
        missing("eurosad", tmp_path)


@needs_shared
def test_real_domains() -> None:
    target = opened("pacs/sketch", 16, 1, data_root=SHARED, target=True)
    assert (target.name, len(target.photos("test")), target.split_origin) == ("pacs/sketch", 420, "ours")
    assert len(opened("pacs/sketch", 16, 1, data_root=SHARED).photos("train")) == 112
    with pytest.raises(DataError, match="cartoon, photo, sketch"):
        opened("pacs", 16, 1, data_root=SHARED)


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
