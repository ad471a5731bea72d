"""Lists of photos that the authors of the known datasets published.

FGVCAircraft has a published split of its own. The lists of OxfordPets, Cars, Flowers, SUN397 and UCF101 are read only
where CoOp's split file is missing; names are made as CoOp makes them. There are photos to test on where the authors
list some. A list that is missing or has a bad line, which is named, is a DataError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sar_infer.errors import install
from sar_train.data.dataset import SPLITS, Photo, Split
from sar_train.data.layouts import GUIDE
from sar_train.data.readers.base import lines_of
from sar_train.errors import DataError

T = TypeVar("T")


class Row(NamedTuple):
    """A photo in a list: its path below the folder of photos, its label and class name, and the line for messages."""

    path: str
    label: int
    class_name: str
    line: str


Rows = Mapping[Split, Iterator[Row]]


def listed(source: Path, rows: Rows) -> tuple[tuple[str, ...], dict[Split, list[Photo]]]:
    """Return class names by label, and photos by split.

    Args:
        source: of the rows, for messages.
        rows: of each split.

    Raises:
        DataError: a path that leaves the folder of photos, a label with two names, or one without a training photo.
    """
    names: dict[int, str] = {}
    splits: dict[Split, list[Photo]] = {}
    for split, of_split in rows.items():
        photos = splits[split] = []
        for path, label, name, line in of_split:
            if path.startswith("/") or ".." in path.split("/") or "\\" in path or "\0" in path:
                raise DataError(f"{line}: expected a path below the image folder, got {path!r:.80}")
            if names.setdefault(label, name) != name:
                raise DataError(f"{line}: label {label} has two names, {names[label]!r} and {name!r}")
            photos.append(Photo(path, label))
    trained = {photo.label for photo in splits["train"]}
    if not trained or trained != set(range(len(names))):
        raise DataError(
            f"{source}: expected training photos for labels 0 to C - 1, got {len(trained)} labels of {len(names)}"
        )
    return tuple(names[label] for label in range(len(names))), splits


def _rows(path: Path, expected: str, parse: Callable[[str], tuple[str, int, str] | None]) -> Iterator[Row]:
    """Yield the rows of a list; ``parse`` gives path, label and name of a line, None if it is not as ``expected``."""
    for number, line in lines_of(path):
        parsed = parse(line)
        if parsed is None:
            raise DataError(f"{path}, line {number}: expected {expected}, got {line!r:.60}")
        yield Row(*parsed, f"{path}, line {number}")


def aircraft(folder: Path) -> Rows:
    """Read the names in ``variants.txt`` and the photos of each split in ``images_variant_SPLIT.txt``."""
    names = [name for _, name in lines_of(folder / "variants.txt")]
    labels = {name: label for label, name in enumerate(names)}
    if len(labels) != len(names) or not names:
        raise DataError(f"{folder / 'variants.txt'}: expected one variant a line, each once, got {len(names)} lines")

    def parse(line: str) -> tuple[str, int, str] | None:
        photo, _, name = line.partition(" ")
        return (f"{photo}.jpg", labels[name], name) if name in labels else None

    expected = "a number and a variant of variants.txt"
    return {split: _rows(folder / f"images_variant_{split}.txt", expected, parse) for split in SPLITS}


def pets(folder: Path) -> Rows:
    """Read names and photos from ``annotations/trainval.txt`` and ``annotations/test.txt``."""

    def parse(line: str) -> tuple[str, int, str] | None:
        match = re.fullmatch(r"((\S+)_\d+) (\d+) \d+ \d+", line)
        return (f"{match[1]}.jpg", int(match[3]) - 1, match[2].lower()) if match else None

    lists, expected = folder / "annotations", "a line such as 'Abyssinian_100 1 1 1'"
    return {"train": _rows(lists / "trainval.txt", expected, parse), "test": _rows(lists / "test.txt", expected, parse)}


def sun397(folder: Path) -> Rows:
    """Read ``ClassName.txt``, with the parts of its paths reversed, ``Training_01.txt`` and ``Testing_01.txt``."""
    labels = {line.strip("/"): label for label, (_, line) in enumerate(lines_of(folder / "ClassName.txt"))}

    def parse(line: str) -> tuple[str, int, str] | None:
        photo = line.removeprefix("/")
        scene = photo.rpartition("/")[0]
        return (photo, labels[scene], " ".join(reversed(scene.split("/")[1:]))) if scene in labels else None

    expected = "a line such as '/a/abbey/sun_aaalbzqrimafwbiv.jpg, of a class in ClassName.txt'"
    train, test = (_rows(folder / f"{name}_01.txt", expected, parse) for name in ("Training", "Testing"))
    return {"train": train, "test": test}


def ucf101(folder: Path) -> Rows:
    """Read ``classInd.txt``, with the words of its names apart, ``trainlist01.txt`` and ``testlist01.txt``."""
    lists = folder / "ucfTrainTestlist"

    def parse_class(line: str) -> tuple[str, int, str] | None:
        match = re.fullmatch(r"(\d+) (\w+)", line)
        return ("", int(match[1]) - 1, match[2]) if match else None

    classes = _rows(lists / "classInd.txt", "a line such as '1 ApplyEyeMakeup'", parse_class)
    labels = {row.class_name: row.label for row in classes}

    def parse(line: str) -> tuple[str, int, str] | None:
        match = re.match(r"(\w+)/(\S+)\.avi(?:\s|$)", line)
        if match is None or match[1] not in labels:
            return None
        name = "_".join(re.findall(r"[A-Z][^A-Z]*", match[1]))
        return f"{name}/{match[2]}.jpg", labels[match[1]], name

    expected = "a line such as 'ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1'"
    train, test = (_rows(lists / f"{name}list01.txt", expected, parse) for name in ("train", "test"))
    return {"train": train, "test": test}


def cars(folder: Path) -> Rows:
    """Read the names of ``devkit/cars_meta.mat``, with the year first, and the two annotation files."""
    names = _mat(folder / "devkit" / "cars_meta.mat", "class_names", lambda name: str(name[0]).rpartition(" "))

    def rows(path: Path, images: str) -> Iterator[Row]:
        for photo, label in _mat(path, "annotations", lambda row: (str(row["fname"][0]), int(row["class"][0, 0]) - 1)):
            if not 0 <= label < len(names):
                raise DataError(f"{path}: a label is not in cars_meta.mat, which has {len(names)} classes")
            make, _, year = names[label]
            yield Row(f"{images}/{photo}", label, f"{year} {make}", str(path))

    return {
        "train": rows(folder / "devkit" / "cars_train_annos.mat", "cars_train"),
        "test": rows(folder / "cars_test_annos_withlabels.mat", "cars_test"),
    }


def flowers(folder: Path) -> Rows:
    """Read names from ``cat_to_name.json`` and labels from ``imagelabels.mat``; no list of test photos is in use."""
    path, labels_path = folder / "cat_to_name.json", folder / "imagelabels.mat"
    text = "\n".join(line for _, line in lines_of(path))
    try:
        names = {int(number): str(name) for number, name in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON object of names by number ({error})") from None
    numbers = _mat(labels_path, "labels", int)
    if not set(numbers) <= set(names):
        raise DataError(f"{labels_path}: labels beyond the {len(names)} names of cat_to_name.json")
    photos = enumerate(numbers, 1)
    return {"train": (Row(f"image_{i:05}.jpg", n - 1, names[n], f"{labels_path}, {i}") for i, n in photos)}


LISTS: dict[str, Callable[[Path], Rows]] = {
    "fgvc_aircraft": aircraft,
    "oxford_flowers": flowers,
    "oxford_pets": pets,
    "stanford_cars": cars,
    "sun397": sun397,
    "ucf101": ucf101,
}


def _mat(path: Path, key: str, convert: Callable[[Any], T]) -> list[T]:
    """Read the first row of a MATLAB array with scipy, entry by entry."""
    if not path.is_file():
        raise DataError(f"{path}: not there; it contains the labels; get it as {GUIDE} says")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError(
            f"{path}: reading it needs scipy: {install('experiment')}, or get the published split file"
        ) from None
    try:
        return [convert(entry) for entry in loadmat(path)[key][0]]
    except Exception as error:  # scipy raises almost anything on a damaged file
        raise DataError(f"{path}: cannot be read as a MATLAB file with {key} ({error})") from None
