"""The authors' lists."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support.coop import write_aircraft
from support.opened import opened
from support.photos import SHARED, needs_shared

from sar_train.data.author_lists import (
    TRAINVAL_AND_TEST,
    below,
    cars,
    flowers,
    pets,
    read_aircraft,
    sun397,
    ucf101,
    words,
)
from sar_train.data.coop import read_split
from sar_train.data.layouts import LAYOUTS
from sar_train.errors import DataError


def test_paths_stay_below() -> None:
    assert below("a/b..c/1.jpg", "x") == "a/b..c/1.jpg"


def test_variants_in_their_order(tmp_path: Path) -> None:
    write_aircraft(tmp_path)
    dataset = opened("fgvc-aircraft", data_root=tmp_path)
    assert dataset.class_names == ("707-320", "A340-200", "DR-400 x")
    assert [p.label for p in dataset.photos("val")] == [0, 0, 1, 1, 2, 2]
    assert [len(dataset.photos(split)) for split in ("train", "val", "test")] == [6, 6, 6]
    assert dataset.photos("test")[5].path == "117.jpg"
    assert dataset.split_origin == "published"


@pytest.mark.parametrize(
    ("file", "text", "fact"),
    [
        ("images_variant_val.txt", "100 Concorde\n", "line 1: .*'100 Concorde'"),
        ("images_variant_test.txt", "../100 707-320\n", "line 1: .*../100"),
        ("images_variant_test.txt", None, "not there"),
        ("variants.txt", "a\na\n", "2 lines"),
        ("variants.txt", "", "0 lines"),
    ],
)
def test_bad_lists(tmp_path: Path, file: str, text: str | None, fact: str) -> None:
    folder = write_aircraft(tmp_path)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(DataError, match=f"{file}.*{fact}"):
        read_aircraft(folder)


def test_not_text(tmp_path: Path) -> None:
    (write_aircraft(tmp_path) / "variants.txt").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_aircraft(tmp_path / "fgvc_aircraft")


Known = tuple[tuple[str, ...], list[tuple[str, int]], list[tuple[str, int]]]


def published(key: str) -> Known:
    """Names, and (path, label) of trainval and test."""
    names, rows = read_split(SHARED / "splits" / LAYOUTS[key].split_file)
    return names, [*rows["train"], *rows["val"]], rows["test"]


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_cars(folder: Path, names: list[str], trainval: list[tuple[str, int]], test: list[tuple[str, int]]) -> None:
    from scipy.io import savemat

    (folder / "devkit").mkdir()
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array([names], dtype=object)})
    for file, rows in (("devkit/cars_train_annos.mat", trainval), ("cars_test_annos_withlabels.mat", test)):
        table = np.empty((1, len(rows)), dtype=[("fname", "O"), ("class", "O")])
        for i, (path, label) in enumerate(rows):
            table[0, i] = (path.split("/")[1], label + 1)
        savemat(folder / file, {"annotations": table})


@needs_shared
def test_pets(tmp_path: Path) -> None:
    known = published("oxford_pets")
    for part, rows in (("trainval", known[1]), ("test", known[2])):
        write(tmp_path / f"annotations/{part}.txt", [f"{path[:-4]} {label + 1} 1 1" for path, label in rows])
    assert pets(tmp_path) == known


@needs_shared
def test_ucf101(tmp_path: Path) -> None:
    known = published("ucf101")
    lists, plain = tmp_path / "ucfTrainTestlist", [name.replace("_", "") for name in known[0]]
    write(lists / "classInd.txt", [f"{i} {name}" for i, name in enumerate(plain, 1)])
    for part, rows in (("trainlist01", known[1]), ("testlist01", known[2])):
        films = [f"{plain[label]}/{path.split('/')[1][:-4]}.avi" for path, label in rows]
        write(lists / f"{part}.txt", [f"{f} 1" for f in films] if part == "trainlist01" else films)
    assert ucf101(tmp_path) == known


@needs_shared
def test_cars(tmp_path: Path) -> None:
    known = published("stanford_cars")
    write_cars(tmp_path, [f"{name[5:]} {name[:4]}" for name in known[0]], known[1], known[2])
    assert cars(tmp_path) == known


@needs_shared
def test_flowers(tmp_path: Path) -> None:
    from scipy.io import savemat

    names, trainval, test = published("oxford_flowers")
    labels = dict([*trainval, *test])
    ordered = sorted(labels)
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[labels[path] + 1 for path in ordered]])})
    write(tmp_path / "cat_to_name.json", [json.dumps({str(i): name for i, name in enumerate(names, 1)})])
    assert flowers(tmp_path) == (names, [(path, labels[path]) for path in ordered])


def test_sun397_reads_the_scene_before_the_place(tmp_path: Path) -> None:
    write(tmp_path / "ClassName.txt", ["/a/abbey", "/a/apse/indoor", "/c/car_interior/backseat"])
    write(tmp_path / "Training_01.txt", ["/a/apse/indoor/sun_1.jpg", "/a/abbey/sun_2.jpg"])
    write(tmp_path / "Testing_01.txt", ["/c/car_interior/backseat/sun_3.jpg"])
    names, trainval, test = sun397(tmp_path)
    assert names == ("abbey", "indoor apse", "backseat car_interior")
    assert trainval == [("a/apse/indoor/sun_1.jpg", 1), ("a/abbey/sun_2.jpg", 0)]
    assert test == [("c/car_interior/backseat/sun_3.jpg", 2)]
    write(tmp_path / "Testing_01.txt", ["/z/zoo/sun_3.jpg"])
    with pytest.raises(DataError, match="line 1: .*/z/zoo"):
        sun397(tmp_path)


def test_words() -> None:
    assert words("ApplyEyeMakeup") == "Apply_Eye_Makeup"
    assert words("TaiChi") == "Tai_Chi"


def test_bad_lines(tmp_path: Path) -> None:
    write(tmp_path / "annotations/trainval.txt", ["Abyssinian_1 1 1 1", "Abyssinian_2 one"])
    with pytest.raises(DataError, match="trainval.txt, line 2"):
        pets(tmp_path)
    write(tmp_path / "annotations/trainval.txt", ["../x/Abyssinian_1 1 1 1"])
    with pytest.raises(DataError, match="../x/Abyssinian_1"):
        pets(tmp_path)
    write(tmp_path / "annotations/trainval.txt", ["Abyssinian_1 2 1 1"])
    write(tmp_path / "annotations/test.txt", ["Abyssinian_1 2 1 1"])
    with pytest.raises(DataError, match="1 with gaps"):
        pets(tmp_path)
    write(tmp_path / "ucfTrainTestlist/classInd.txt", ["ApplyEyeMakeup"])
    with pytest.raises(DataError, match="classInd.txt, line 1"):
        ucf101(tmp_path)
    write(tmp_path / "ucfTrainTestlist/classInd.txt", ["1 ApplyEyeMakeup"])
    write(tmp_path / "ucfTrainTestlist/trainlist01.txt", ["Archery/v_1.avi 2"])
    with pytest.raises(DataError, match="trainlist01.txt, line 1"):
        ucf101(tmp_path)


def test_missing_and_damaged_files_of_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cars_meta.mat: not there"):
        cars(tmp_path)
    write_cars(tmp_path, ["Audi A4 2012"], [("cars_train/1.jpg", 0)], [("cars_test/1.jpg", 1)])
    with pytest.raises(DataError, match="withlabels.mat: .*1 classes"):
        cars(tmp_path)
    (tmp_path / "cars_test_annos_withlabels.mat").write_bytes(b"no such thing")
    with pytest.raises(DataError, match="MATLAB"):
        cars(tmp_path)
    with pytest.raises(DataError, match="cat_to_name.json: not there"):
        flowers(tmp_path)
    (tmp_path / "cat_to_name.json").write_text('["rose"]')
    with pytest.raises(DataError, match="cat_to_name.json: .*object"):
        flowers(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"sar-clip\[experiment\]"):
        cars(tmp_path)


def test_the_four_with_a_test_list() -> None:
    assert set(TRAINVAL_AND_TEST) == {"oxford_pets", "stanford_cars", "sun397", "ucf101"}
