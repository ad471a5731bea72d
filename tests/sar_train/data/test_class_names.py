"""Class names without photos or a backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.coop import write_split
from support.photos import write_folder

from sar_train.data.class_names import read_classes
from sar_train.data.dataset import DEMO
from sar_train.errors import DataError

ROWS = [[f"{name}/1.jpg", label, name] for label, name in enumerate(["River", "Sea_Lake"])]


def test_the_demo_and_imagenet_are_there_without_anything() -> None:
    demo, imagenet = read_classes(DEMO), read_classes("ImageNet")
    assert (demo.name, len(demo.class_names), demo.published_split) == ("caltech101", 100, True)
    assert (imagenet.name, len(imagenet.class_names), imagenet.class_names[0]) == ("imagenet", 1000, "tench")


@pytest.mark.parametrize("spec", ["eurosat", "EuroSAT"])
def test_a_dataset_below_the_root_needs_its_split_file_alone(tmp_path: Path, spec: str) -> None:
    folder = write_split(tmp_path / "eurosat", "eurosat", {"train": ROWS, "val": [], "test": []}, photos=False)
    dataset = read_classes(spec, tmp_path)
    assert dataset == read_classes(spec, folder) == read_classes(str(folder))
    assert (dataset.name, dataset.class_names, dataset.published_split) == ("eurosat", ("River", "Sea_Lake"), True)
    assert dataset.template == "a centered satellite photo of {}."


def test_lists_of_names_go_before_open_clips(tmp_path: Path) -> None:
    for name in ("imagenet", "fgvc_aircraft"):
        (tmp_path / name).mkdir()
    assert read_classes("imagenet", tmp_path).class_names[0] == "tench"
    names = tmp_path / "imagenet" / "classnames.txt"
    names.write_text("\n".join(f"n{10000000 + i} thing {i}" for i in range(1000)))
    assert read_classes("imagenet", tmp_path).class_names[:2] == ("thing 0", "thing 1")
    names.write_text("n10000000 thing\n")
    with pytest.raises(DataError, match="1000"):
        read_classes("imagenet", tmp_path)
    (tmp_path / "fgvc_aircraft" / "variants.txt").write_text("707-320\n727-200\n")
    assert read_classes("fgvc_aircraft", tmp_path).class_names == ("707-320", "727-200")


def test_a_folder_and_a_list(tmp_path: Path) -> None:
    dataset = read_classes(str(write_folder(tmp_path / "photos", {"red_fox": 2, "owl": 2})))
    assert (dataset.name, dataset.class_names, dataset.published_split) == ("photos", ("owl", "red_fox"), False)
    (tmp_path / "list.csv").write_text("path,label\nphotos/owl/00.png,owl\nphotos/red_fox/00.png,fox\n")
    assert read_classes(str(tmp_path / "list.csv")).class_names == ("fox", "owl")
    assert read_classes("photos", tmp_path).class_names == ("owl", "red_fox")


def test_what_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("fox")
    for spec, root, fact in (
        ("food101", None, "--data-root"),
        ("food101", tmp_path, "split_zhou_Food101.json"),
        ("nowhere", None, "nowhere"),
        (str(tmp_path / "x.txt"), None, "x.txt"),
    ):
        with pytest.raises(DataError, match=fact):
            read_classes(spec, root)
