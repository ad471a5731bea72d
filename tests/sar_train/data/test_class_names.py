"""Class names without photos or a backbone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.photos import write_folder

from sar_train.data.class_names import read_classes
from sar_train.data.dataset import DEMO
from sar_train.errors import DataError


def split_file(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = [[f"{name}/1.jpg", label, name] for label, name in enumerate(["River", "Sea_Lake"])]
    (folder / "split_zhou_EuroSAT.json").write_text(json.dumps({"train": rows, "val": [], "test": []}))


def test_the_demo_and_imagenet_are_there_without_anything() -> None:
    demo = read_classes(DEMO)
    assert (demo.name, len(demo.class_names), demo.published_split) == ("caltech101", 100, True)
    imagenet = read_classes("ImageNet")
    assert (imagenet.name, len(imagenet.class_names), imagenet.class_names[0]) == ("imagenet", 1000, "tench")


@pytest.mark.parametrize("spec", ["eurosat", "EuroSAT"])
def test_a_dataset_below_the_root(tmp_path: Path, spec: str) -> None:
    split_file(tmp_path / "eurosat")
    for root in (tmp_path, tmp_path / "eurosat"):
        found = read_classes(spec, root)
        assert (found.name, found.class_names) == ("eurosat", ("River", "Sea_Lake"))
        assert found.template == "a centered satellite photo of {}."
        assert found.published_split
    assert read_classes(str(tmp_path / "eurosat")).class_names == ("River", "Sea_Lake")


def test_imagenets_own_list_goes_before_open_clips(tmp_path: Path) -> None:
    (tmp_path / "imagenet").mkdir()
    assert read_classes("imagenet", tmp_path).class_names[0] == "tench"
    lines = [f"n{10000000 + i} thing {i}" for i in range(1000)]
    (tmp_path / "imagenet" / "classnames.txt").write_text("\n".join(lines))
    assert read_classes("imagenet", tmp_path).class_names[:2] == ("thing 0", "thing 1")
    (tmp_path / "imagenet" / "classnames.txt").write_text("n10000000 thing\n")
    with pytest.raises(DataError, match="1000"):
        read_classes("imagenet", tmp_path)


def test_aircraft_from_its_list_of_variants(tmp_path: Path) -> None:
    (tmp_path / "fgvc_aircraft").mkdir()
    (tmp_path / "fgvc_aircraft" / "variants.txt").write_text("707-320\n727-200\n")
    assert read_classes("fgvc_aircraft", tmp_path).class_names == ("707-320", "727-200")


def test_a_folder_and_a_list(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"red_fox": 2, "owl": 2})
    found = read_classes(str(root))
    assert (found.name, found.class_names, found.published_split) == ("photos", ("owl", "red_fox"), False)
    (tmp_path / "list.csv").write_text("path,label\nphotos/owl/00.png,owl\nphotos/red_fox/00.png,fox\n")
    assert read_classes(str(tmp_path / "list.csv")).class_names == ("fox", "owl")
    assert read_classes("photos", tmp_path).class_names == ("owl", "red_fox")


def test_what_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data-root"):
        read_classes("food101")
    with pytest.raises(DataError, match="split_zhou_Food101.json"):
        read_classes("food101", tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        read_classes("nowhere")
    (tmp_path / "x.txt").write_text("fox")
    with pytest.raises(DataError, match="x.txt"):
        read_classes(str(tmp_path / "x.txt"))
