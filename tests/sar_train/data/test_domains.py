from pathlib import Path

import pytest
from support.coop import link_photos
from support.photos import SHARED, needs_shared

from sar_train.data.domains import MOST, domain_name, domains
from sar_train.data.folder import load_folder
from sar_train.errors import DataError


def test_the_same_classes_in_several_folders(tmp_path: Path) -> None:
    pacs = link_photos(
        tmp_path / "pacs", [f"{d}/{c}/1.jpg" for d in ("photo", "sketch") for c in ("cat", "dog", "owl")]
    )
    link_photos(pacs, ["sketch/yak/1.jpg"])
    assert domains(pacs) == ("photo", "sketch")
    assert domain_name(pacs / "photo") == "pacs/photo"
    assert load_folder(pacs / "sketch", 1, 1).name == "pacs/sketch"
    for whole in (False, True):
        with pytest.raises(
            DataError, match=r"same classes in each of photo, sketch.*give one of them, such as .*pacs.photo$"
        ):
            load_folder(pacs, 1, 1, whole=whole)


@pytest.mark.parametrize(
    "names",
    [
        ["cat/1.jpg", "dog/1.jpg"],
        ["cat/2020/1.jpg", "cat/2021/1.jpg", "dog/2020/1.jpg", "dog/2021/1.jpg"],
        ["cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg", "dog/test/1.jpg"],
        ["cat/indoor/1.jpg", "cat/outdoor/1.jpg", "cat/1.jpg", "dog/indoor/1.jpg", "dog/outdoor/1.jpg"],
        ["cat/indoor/1.jpg", "cat/outdoor/1.jpg", "cat/1.webp", "dog/indoor/1.jpg", "dog/outdoor/1.jpg"],
        ["cat/tabby/1.jpg", "cat/manx/1.jpg", "dog/beagle/1.jpg", "dog/poodle/1.jpg"],
        ["photo/cat/1.jpg", "photo/dog/1.jpg"],
        [f"{c}/{kind}/1.jpg" for c, kinds in (("cat", "xyabc"), ("dog", "xydef")) for kind in kinds],
    ],
)
def test_folders_that_are_classes(tmp_path: Path, names: list[str]) -> None:
    root = link_photos(tmp_path / "own", names)
    assert domains(root) == ()
    assert load_folder(root, 1, 1).name == "own"


def test_many_folders_are_classes(tmp_path: Path) -> None:
    root = link_photos(tmp_path, [f"c{i}/{c}/1.jpg" for i in range(MOST + 1) for c in ("x", "y")])
    assert domains(root) == ()
    assert domains(tmp_path / "none") == ()


@needs_shared
def test_pacs() -> None:
    assert domains(SHARED / "pacs") == ("cartoon", "photo", "sketch")
    dataset = load_folder(SHARED / "pacs/photo", 16, 1, whole=True)
    assert (dataset.name, len(dataset.class_names), len(dataset.test), dataset.train) == ("pacs/photo", 7, 420, ())
