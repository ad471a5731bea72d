"""Authors' own lists, written again from the published splits: read, they give the same photos, labels and names."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support.photos import SHARED, needs_shared

from sar_train.data.author_lists import TRAINVAL_AND_TEST, cars, flowers, pets, sun397, ucf101, words
from sar_train.data.layouts import LAYOUTS
from sar_train.data.split_file import read_split
from sar_train.errors import DataError

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
    with pytest.raises(DataError, match="line 1: expected a line such as '/a/abbey"):
        sun397(tmp_path)


def test_words() -> None:
    assert words("ApplyEyeMakeup") == "Apply_Eye_Makeup"
    assert words("TaiChi") == "Tai_Chi"


def test_bad_lines(tmp_path: Path) -> None:
    write(tmp_path / "annotations/trainval.txt", ["Abyssinian_1 1 1 1", "Abyssinian_2 one"])
    with pytest.raises(DataError, match=r"trainval\.txt, line 2: expected a line such as 'Abyssinian_100 1 1 1', got"):
        pets(tmp_path)
    write(tmp_path / "annotations/trainval.txt", ["../x/Abyssinian_1 1 1 1"])
    with pytest.raises(DataError, match="expected a path below the image folder"):
        pets(tmp_path)
    write(tmp_path / "annotations/trainval.txt", ["Abyssinian_1 2 1 1"])
    write(tmp_path / "annotations/test.txt", ["Abyssinian_1 2 1 1"])
    with pytest.raises(DataError, match="expected labels 1 to C"):
        pets(tmp_path)
    write(tmp_path / "ucfTrainTestlist/classInd.txt", ["ApplyEyeMakeup"])
    with pytest.raises(DataError, match=r"classInd\.txt, line 1: expected a line such as '1 ApplyEyeMakeup'"):
        ucf101(tmp_path)
    write(tmp_path / "ucfTrainTestlist/classInd.txt", ["1 ApplyEyeMakeup"])
    write(tmp_path / "ucfTrainTestlist/trainlist01.txt", ["Archery/v_1.avi 2"])
    with pytest.raises(DataError, match=r"trainlist01\.txt, line 1"):
        ucf101(tmp_path)


def test_missing_and_damaged_files_of_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"cars_meta\.mat: not there; it holds the labels, get it as CoOp's"):
        cars(tmp_path)
    write_cars(tmp_path, ["Audi A4 2012"], [("cars_train/1.jpg", 0)], [("cars_test/1.jpg", 1)])
    with pytest.raises(DataError, match=r"withlabels\.mat: a label is not in cars_meta\.mat, which has 1 classes"):
        cars(tmp_path)
    (tmp_path / "cars_test_annos_withlabels.mat").write_bytes(b"no such thing")
    with pytest.raises(DataError, match="cannot be read as a MATLAB file with annotations"):
        cars(tmp_path)
    with pytest.raises(DataError, match=r"cat_to_name\.json: not there"):
        flowers(tmp_path)
    (tmp_path / "cat_to_name.json").write_text('["rose"]')
    with pytest.raises(DataError, match="expected a JSON object of names by number"):
        flowers(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(
        DataError, match=r"needs scipy: pip install 'sar-clip\[experiment\]', or get the published split"
    ):
        cars(tmp_path)


def test_the_four_with_a_test_list() -> None:
    assert set(TRAINVAL_AND_TEST) == {"oxford_pets", "stanford_cars", "sun397", "ucf101"}
