"""Lists that the authors of the known datasets published.

FGVCAircraft has a published split of its own. The lists of OxfordPets, Cars, Flowers, SUN397 and UCF101 are read only
where CoOp's split file is missing; names are made as CoOp makes them. All paths are relative to the folder of the
photos.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from sar_train.data.dataset import SPLITS, Photo, Split
from sar_train.data.layouts import GUIDE
from sar_train.errors import DataError

T = TypeVar("T")


def below(path: str, line: str) -> str:
    """Return the path itself, after checking that it stays below the folder it is relative to.

    Raises:
        DataError: absolute, or with ``..`` in it; ``line`` says where it was read.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise DataError(f"{line}: expected a path below the image folder, got {path!r:.80}")
    return path


def lines_of(path: Path) -> list[tuple[int, str]]:
    """Return (number, text) of the lines of a list that are not empty.

    Raises:
        DataError: it is not there, or not text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: not there; it comes with the dataset, see {GUIDE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _photos(path: Path, expected: str, parse: Callable[[str], tuple[str, int | None]]) -> list[Photo]:
    """Read a list whose lines ``parse`` turns into a path and a label, None for a line that is not as ``expected``."""
    photos = []
    for number, line in lines_of(path):
        photo, label = parse(line)
        if label is None:
            raise DataError(f"{path}, line {number}: expected {expected}, got {line!r:.60}")
        photos.append(Photo(below(photo, f"{path}, line {number}"), label))
    return photos


def read_aircraft(folder: Path) -> tuple[tuple[str, ...], dict[Split, list[Photo]]]:
    """Return the class names, which are the variants, and the photos by split.

    Raises:
        DataError: a list is missing or has a bad line (its number is named).
    """
    names = tuple(name for _, name in lines_of(folder / "variants.txt"))
    labels = {name: label for label, name in enumerate(names)}
    if len(labels) != len(names) or not names:
        raise DataError(f"{folder / 'variants.txt'}: expected one variant a line, each once, got {len(names)} lines")

    def parse(line: str) -> tuple[str, int | None]:
        photo, _, name = line.partition(" ")
        return f"{photo}.jpg", labels.get(name)

    expected = "a number and a variant of variants.txt"
    return names, {split: _photos(folder / f"images_variant_{split}.txt", expected, parse) for split in SPLITS}


def pets(folder: Path) -> tuple[tuple[str, ...], list[Photo], list[Photo]]:
    """Read names, trainval and test from ``annotations/trainval.txt`` and ``annotations/test.txt``.

    Raises:
        DataError: as all of this module: a list is missing or has a bad line.
    """
    names: dict[int, str] = {}

    def parse(line: str) -> tuple[str, int | None]:
        match = re.fullmatch(r"(\S+)_\d+ (\d+) \d+ \d+", line)
        if match is None:
            return "", None
        label = int(match[2]) - 1
        names[label] = match[1].lower()
        return line.split(maxsplit=1)[0] + ".jpg", label

    trainval, test = (
        _photos(folder / "annotations" / f"{name}.txt", "a line such as 'Abyssinian_100 1 1 1'", parse)
        for name in ("trainval", "test")
    )
    return _closed(names, folder), trainval, test


def sun397(folder: Path) -> tuple[tuple[str, ...], list[Photo], list[Photo]]:
    """Read ``ClassName.txt``, with the parts of its paths reversed, ``Training_01.txt`` and ``Testing_01.txt``."""
    labels = {line.strip("/"): label for label, (_, line) in enumerate(lines_of(folder / "ClassName.txt"))}

    def parse(line: str) -> tuple[str, int | None]:
        photo = line.removeprefix("/")
        return photo, labels.get(photo.rpartition("/")[0])

    expected = "a line such as '/a/abbey/sun_aaalbzqrimafwbiv.jpg, of a class in ClassName.txt'"
    trainval, test = (_photos(folder / f"{name}.txt", expected, parse) for name in ("Training_01", "Testing_01"))
    return tuple(" ".join(reversed(name.split("/")[1:])) for name in labels), trainval, test


def ucf101(folder: Path) -> tuple[tuple[str, ...], list[Photo], list[Photo]]:
    """Read ``classInd.txt``, with the words of its names apart, ``trainlist01.txt`` and ``testlist01.txt``."""
    lists = folder / "ucfTrainTestlist"
    labels: dict[str, int] = {}
    for number, line in lines_of(lists / "classInd.txt"):
        match = re.fullmatch(r"(\d+) (\w+)", line)
        if match is None:
            path = lists / "classInd.txt"
            raise DataError(f"{path}, line {number}: expected a line such as '1 ApplyEyeMakeup', got {line!r:.60}")
        labels[match[2]] = int(match[1]) - 1

    def parse(line: str) -> tuple[str, int | None]:
        action, _, film = line.split(maxsplit=1)[0].partition("/")
        return f"{words(action)}/{film.removesuffix('.avi')}.jpg", labels.get(action) if film.endswith(".avi") else None

    expected = "a line such as 'ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1'"
    trainval, test = (_photos(lists / f"{name}.txt", expected, parse) for name in ("trainlist01", "testlist01"))
    return _closed({label: words(name) for name, label in labels.items()}, folder), trainval, test


def words(camel: str) -> str:
    """Return ``ApplyEyeMakeup`` as ``Apply_Eye_Makeup``."""
    return "_".join(re.findall(r"[A-Z][^A-Z]*", camel))


def cars(folder: Path) -> tuple[tuple[str, ...], list[Photo], list[Photo]]:
    """Read the names of ``devkit/cars_meta.mat``, with the year first, and the two annotation files."""

    def year_first(name: Any) -> str:
        rest, _, year = str(name[0]).rpartition(" ")
        return f"{year} {rest}"

    def photos(path: Path, images: str) -> list[Photo]:
        rows = _mat(path, "annotations", lambda entry: (str(entry["fname"][0]), int(entry["class"][0, 0]) - 1))
        if any(not 0 <= label < len(names) for _, label in rows):
            raise DataError(f"{path}: a label is not in cars_meta.mat, which has {len(names)} classes")
        return [Photo(below(f"{images}/{photo}", str(path)), label) for photo, label in rows]

    names = tuple(_mat(folder / "devkit" / "cars_meta.mat", "class_names", year_first))
    trainval = photos(folder / "devkit" / "cars_train_annos.mat", "cars_train")
    return names, trainval, photos(folder / "cars_test_annos_withlabels.mat", "cars_test")


def flowers(folder: Path) -> tuple[tuple[str, ...], list[Photo]]:
    """Read names from ``cat_to_name.json`` and labels from ``imagelabels.mat``; no list of test photos is in use."""
    path = folder / "cat_to_name.json"
    try:
        names = {int(number) - 1: str(name) for number, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        raise DataError(f"{path}: not there; get it as {GUIDE} says") from None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON object of names by number ({error})") from None
    labels = _mat(folder / "imagelabels.mat", "labels", lambda label: int(label) - 1)
    if not set(labels) <= set(names):
        raise DataError(f"{folder / 'imagelabels.mat'}: labels beyond the {len(names)} names of cat_to_name.json")
    return _closed(names, folder), [Photo(f"image_{number:05}.jpg", label) for number, label in enumerate(labels, 1)]


TRAINVAL_AND_TEST: dict[str, Callable[[Path], tuple[tuple[str, ...], list[Photo], list[Photo]]]] = {
    "oxford_pets": pets,
    "stanford_cars": cars,
    "sun397": sun397,
    "ucf101": ucf101,
}


def _mat(path: Path, key: str, convert: Callable[[Any], T]) -> list[T]:
    """Read the first row of a MATLAB array with scipy, entry by entry."""
    if not path.is_file():
        raise DataError(f"{path}: not there; it holds the labels, get it as {GUIDE} says")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError(
            f"{path}: reading it needs scipy: pip install 'sar-clip[experiment]', or get the published split file"
        ) from None
    try:
        return [convert(entry) for entry in loadmat(path)[key][0]]
    except Exception as error:  # scipy raises almost anything on a damaged file
        raise DataError(f"{path}: cannot be read as a MATLAB file with {key} ({error})") from None


def _closed(names: dict[int, str], folder: Path) -> tuple[str, ...]:
    if not names or set(names) != set(range(len(names))):
        raise DataError(f"{folder}: expected labels 1 to C in its lists, got {len(names)} with gaps")
    return tuple(names[label] for label in range(len(names)))
