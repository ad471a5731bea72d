"""The authors' lists, made from the published split files, give these again; and damaged ones are refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.coop import write_aircraft
from support.opened import opened
from support.photos import SHARED, needs_shared

from sar_train.data.layouts import LAYOUTS
from sar_train.data.readers.author_lists import LISTS, listed
from sar_train.data.readers.coop import read_split
from sar_train.errors import DataError

Photos = list[tuple[str, int]]


def read(key: str, folder: Path) -> Any:
    return listed(folder, LISTS[key](folder))


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_mat(path: Path, **content: Any) -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content)


def write_pets(folder: Path, names: list[str], train: Photos, test: Photos) -> None:
    for file, rows in (("trainval", train), ("test", test)):
        write(folder / f"annotations/{file}.txt", *(f"{path[:-4]} {label + 1} 1 1" for path, label in rows))


def write_ucf101(folder: Path, names: list[str], train: Photos, test: Photos) -> None:
    actions = [name.replace("_", "") for name in names]
    write(folder / "ucfTrainTestlist/classInd.txt", *(f"{i} {name}" for i, name in enumerate(actions, 1)))
    for file, rows, end in (("trainlist01", train, " 1"), ("testlist01", test, "")):
        films = [f"{actions[label]}/{path.split('/')[1][:-4]}.avi{end}" for path, label in rows]
        write(folder / f"ucfTrainTestlist/{file}.txt", *films)


def write_cars(folder: Path, names: list[str], train: Photos, test: Photos) -> None:
    makes = [f"{name[5:]} {name[:4]}" for name in names]
    write_mat(folder / "devkit/cars_meta.mat", class_names=np.array([makes], dtype=object))
    for file, rows in (("devkit/cars_train_annos.mat", train), ("cars_test_annos_withlabels.mat", test)):
        table = np.empty((1, len(rows)), dtype=[("fname", "O"), ("class", "O")])
        for i, (path, label) in enumerate(rows):
            table[0, i] = (path.split("/")[1], label + 1)
        write_mat(folder / file, annotations=table)


@needs_shared
@pytest.mark.parametrize(
    ("key", "write_lists"), [("oxford_pets", write_pets), ("ucf101", write_ucf101), ("stanford_cars", write_cars)]
)
def test_lists_with_test_photos(tmp_path: Path, key: str, write_lists: Callable[..., None]) -> None:
    names, splits = read_split(SHARED / "splits" / LAYOUTS[key].split_file)
    train = [*splits["train"], *splits["val"]]
    write_lists(tmp_path, names, train, splits["test"])
    assert read(key, tmp_path) == (names, {"train": train, "test": splits["test"]})


@needs_shared
def test_flowers(tmp_path: Path) -> None:
    names, splits = read_split(SHARED / "splits" / LAYOUTS["oxford_flowers"].split_file)
    photos = sorted(photo for of_split in splits.values() for photo in of_split)
    write_mat(tmp_path / "imagelabels.mat", labels=np.array([[label + 1 for _, label in photos]]))
    write(tmp_path / "cat_to_name.json", json.dumps({str(i): name for i, name in enumerate(names, 1)}))
    assert read("oxford_flowers", tmp_path) == (names, {"train": photos})


def test_sun397_reads_the_scene_before_the_place(tmp_path: Path) -> None:
    write(tmp_path / "ClassName.txt", "/a/abbey", "/a/apse/indoor")
    write(tmp_path / "Training_01.txt", "/a/apse/indoor/sun_1.jpg", "/a/abbey/sun_2.jpg")
    write(tmp_path / "Testing_01.txt", "/a/apse/indoor/sun_3.jpg")
    assert read("sun397", tmp_path) == (
        ("abbey", "indoor apse"),
        {"train": [("a/apse/indoor/sun_1.jpg", 1), ("a/abbey/sun_2.jpg", 0)], "test": [("a/apse/indoor/sun_3.jpg", 1)]},
    )


def test_aircraft_has_variants_in_their_order(tmp_path: Path) -> None:
    write_aircraft(tmp_path)
    dataset = opened("fgvc-aircraft", data_root=tmp_path)
    assert dataset.class_names == ("707-320", "A340-200", "DR-400 x")
    assert [photo.label for photo in dataset.photos("val")] == [0, 0, 1, 1, 2, 2]
    assert [len(dataset.photos(split)) for split in ("train", "val", "test")] == [6, 6, 6]
    assert (dataset.photos("test")[5].path, dataset.split_origin) == ("117.jpg", "published")


@pytest.mark.parametrize(
    ("key", "file", "text", "fact"),
    [
        ("fgvc_aircraft", "images_variant_val.txt", "100 Concorde\n", "line 1: .*'100 Concorde'"),
        ("fgvc_aircraft", "images_variant_test.txt", "../100 707-320\n", "line 1: .*../100"),
        ("fgvc_aircraft", "images_variant_test.txt", None, "not there"),
        ("fgvc_aircraft", "variants.txt", "a\na\n", "2 lines"),
        ("fgvc_aircraft", "variants.txt", "", "0 lines"),
        ("fgvc_aircraft", "variants.txt", "\udcff", "UTF-8"),
        ("oxford_pets", "annotations/trainval.txt", "Abyssinian_1 1 1 1\nAbyssinian_2 one", "line 2"),
        ("oxford_pets", "annotations/trainval.txt", "Abyssinian_1 2 1 1", None),
        ("sun397", "Testing_01.txt", "/z/zoo/sun_3.jpg", "line 1: .*/z/zoo"),
        ("ucf101", "ucfTrainTestlist/classInd.txt", "ApplyEyeMakeup", "line 1"),
        ("ucf101", "ucfTrainTestlist/trainlist01.txt", "Archery/v_1.avi 2", "line 1"),
        ("stanford_cars", "devkit/cars_meta.mat", None, "not there"),
        ("stanford_cars", "cars_test_annos_withlabels.mat", "no such thing", "MATLAB"),
        ("oxford_flowers", "cat_to_name.json", None, "not there"),
        ("oxford_flowers", "cat_to_name.json", '["rose"]', "object"),
        ("oxford_flowers", "imagelabels.mat", None, "not there"),
    ],
)
def test_damaged_lists(tmp_path: Path, key: str, file: str, text: str | None, fact: str | None) -> None:
    folder = write_aircraft(tmp_path)
    write_pets(folder, ["a"], [("A_1.jpg", 0)], [("A_2.jpg", 0)])
    write_ucf101(folder, ["Apply_Eye"], [("Apply_Eye/v.jpg", 0)], [("Apply_Eye/w.jpg", 0)])
    write_cars(folder, ["2012 Audi A4"], [("cars_train/1.jpg", 0)], [("cars_test/1.jpg", 0)])
    for name in ("ClassName.txt", "Training_01.txt", "Testing_01.txt"):
        write(folder / name, "/a/abbey" + "/1.jpg" * (name != "ClassName.txt"))
    write(folder / "cat_to_name.json", '{"1": "rose"}')
    if text is None:
        (folder / file).unlink(missing_ok=True)
    else:
        (folder / file).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=f"{re.escape(file)}.*{fact}" if fact else "1 labels of 2"):
        read(key, folder)


def test_labels_without_a_name_and_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cars(tmp_path, ["2012 Audi A4"], [("cars_train/1.jpg", 0)], [("cars_test/1.jpg", 1)])
    with pytest.raises(DataError, match="withlabels.mat: .*1 classes"):
        read("stanford_cars", tmp_path)
    write(tmp_path / "cat_to_name.json", '{"1": "rose"}')
    write_mat(tmp_path / "imagelabels.mat", labels=np.array([[1, 2]]))
    with pytest.raises(DataError, match="beyond the 1 names"):
        read("oxford_flowers", tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"pip install .\.\[experiment\]"):
        read("stanford_cars", tmp_path)
