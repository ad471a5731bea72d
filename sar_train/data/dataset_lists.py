"""Lists that come with the known datasets: CoOp's split files, and what the datasets' authors published.

A split file holds ``train``, ``val`` and ``test``, each a list of ``[path, label, class name]``. FGVCAircraft has a
published split of its own. The authors' lists of OxfordPets, Cars, Flowers, SUN397 and UCF101 are read only where
CoOp's split file is missing; names are made as CoOp makes them. All paths are relative to the folder of the images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from sar_train.data.images import SPLITS, Split
from sar_train.data.layouts import GUIDE
from sar_train.errors import DataError

SplitRows = dict[Split, list[tuple[str, int]]]
"""(path below the folder of the images, label) by split."""
T = TypeVar("T")
Listed = list[tuple[str, int]]
"""(path below the folder of the images, label)."""


def read_split(path: Path) -> tuple[tuple[str, ...], SplitRows]:
    """Return class names by label, and (relative path, label) of every image by split.

    Raises:
        DataError: not JSON of the expected form, a path that leaves the folder, labels with gaps, or a label with
            two names.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict) or any(not isinstance(content.get(split), list) for split in SPLITS):
        raise DataError(f"{path}: expected an object with the lists train, val and test")
    names: dict[int, str] = {}
    rows: SplitRows = {}
    for split in SPLITS:
        rows[split] = [_read_row(row, names, f"{path}: {split}[{i}]") for i, row in enumerate(content[split])]
    trained = {label for _, label in rows["train"]}
    if not trained or trained != set(range(len(names))):
        raise DataError(
            f"{path}: expected training photos for labels 0 to C - 1, got {len(trained)} labels of {len(names)}"
        )
    return tuple(names[label] for label in range(len(names))), rows


def below(path: str, where: str) -> str:
    """Return the path itself, after checking that it stays below the folder it is relative to.

    Raises:
        DataError: absolute, or with ``..`` in it.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise DataError(f"{where}: expected a path below the image folder, got {path!r:.80}")
    return path


def _read_row(row: Any, names: dict[int, str], where: str) -> tuple[str, int]:
    if not isinstance(row, list) or [type(value) for value in row] != [str, int, str]:
        raise DataError(f"{where}: expected [path, label, class name], got {row!r:.80}")
    path, label, name = row
    if names.setdefault(label, name) != name:
        raise DataError(f"{where}: label {label} has two names, {names[label]!r} and {name!r}")
    return below(path, where), label


def read_aircraft(folder: Path) -> tuple[tuple[str, ...], SplitRows]:
    """Return the class names, which are the variants, and (path below ``images``, label) by split.

    Raises:
        DataError: a list is missing or has a bad line (its number is named).
    """
    names = tuple(name for _, name in lines_of(folder / "variants.txt"))
    places = {name: label for label, name in enumerate(names)}
    if len(places) != len(names) or not names:
        raise DataError(f"{folder / 'variants.txt'}: expected one variant a line, each once, got {len(names)} lines")
    rows: SplitRows = {}
    for split in SPLITS:
        path = folder / f"images_variant_{split}.txt"
        rows[split] = []
        for number, line in lines_of(path):
            photo, _, name = line.partition(" ")
            if name not in places:
                where = f"{path}, line {number}"
                raise DataError(f"{where}: expected a number and a variant of variants.txt, got {line!r:.60}")
            rows[split].append((below(f"{photo}.jpg", f"{path}, line {number}"), places[name]))
    return names, rows


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


def pets(folder: Path) -> tuple[tuple[str, ...], Listed, Listed]:
    """Read names, trainval and test from ``annotations/trainval.txt`` and ``annotations/test.txt``.

    Raises:
        DataError: as all of this module: a list is missing or has a bad line.
    """
    names: dict[int, str] = {}
    parts = []
    for part in ("trainval", "test"):
        path, rows = folder / "annotations" / f"{part}.txt", []
        for number, line in lines_of(path):
            match = re.fullmatch(r"(\S+)_\d+ (\d+) \d+ \d+", line)
            if match is None:
                raise _bad(path, number, "Abyssinian_100 1 1 1", line)
            label = int(match[2]) - 1
            names[label] = match[1].lower()
            rows.append((below(line.split()[0] + ".jpg", f"{path}, line {number}"), label))
        parts.append(rows)
    return _closed(names, folder), parts[0], parts[1]


def sun397(folder: Path) -> tuple[tuple[str, ...], Listed, Listed]:
    """Read ``ClassName.txt``, with the parts of its paths reversed, ``Training_01.txt`` and ``Testing_01.txt``."""
    classes = {line.strip("/"): label for label, (_, line) in enumerate(lines_of(folder / "ClassName.txt"))}
    names = tuple(" ".join(reversed(name.split("/")[1:])) for name in classes)
    parts = []
    for part in ("Training_01", "Testing_01"):
        path, rows = folder / f"{part}.txt", []
        for number, line in lines_of(path):
            photo = line.removeprefix("/")
            label = classes.get(photo.rpartition("/")[0])
            if label is None:
                raise _bad(path, number, "/a/abbey/sun_aaalbzqrimafwbiv.jpg, of a class in ClassName.txt", line)
            rows.append((below(photo, f"{path}, line {number}"), label))
        parts.append(rows)
    return names, parts[0], parts[1]


def ucf101(folder: Path) -> tuple[tuple[str, ...], Listed, Listed]:
    """Read ``classInd.txt``, with the words of its names apart, ``trainlist01.txt`` and ``testlist01.txt``."""
    lists = folder / "ucfTrainTestlist"
    classes: dict[str, int] = {}
    for number, line in lines_of(lists / "classInd.txt"):
        match = re.fullmatch(r"(\d+) (\w+)", line)
        if match is None:
            raise _bad(lists / "classInd.txt", number, "1 ApplyEyeMakeup", line)
        classes[match[2]] = int(match[1]) - 1
    parts = []
    for part in ("trainlist01", "testlist01"):
        path, rows = lists / f"{part}.txt", []
        for number, line in lines_of(path):
            action, _, film = line.split()[0].partition("/")
            if action not in classes or not film.endswith(".avi"):
                raise _bad(path, number, "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", line)
            photo = f"{words(action)}/{film.removesuffix('.avi')}.jpg"
            rows.append((below(photo, f"{path}, line {number}"), classes[action]))
        parts.append(rows)
    return _closed({label: words(name) for name, label in classes.items()}, folder), parts[0], parts[1]


def words(camel: str) -> str:
    """Return ``ApplyEyeMakeup`` as ``Apply_Eye_Makeup``."""
    return "_".join(re.findall(r"[A-Z][^A-Z]*", camel))


def cars(folder: Path) -> tuple[tuple[str, ...], Listed, Listed]:
    """Read the names of ``devkit/cars_meta.mat``, with the year first, and the two annotation files."""

    def year_first(name: Any) -> str:
        rest, _, year = str(name[0]).rpartition(" ")
        return f"{year} {rest}"

    def row(entry: Any) -> tuple[str, int]:
        return str(entry["fname"][0]), int(entry["class"][0, 0]) - 1

    names = _mat(folder / "devkit" / "cars_meta.mat", "class_names", year_first)
    parts = []
    for path, images in (
        (folder / "devkit" / "cars_train_annos.mat", "cars_train"),
        (folder / "cars_test_annos_withlabels.mat", "cars_test"),
    ):
        rows = [(f"{images}/{photo}", label) for photo, label in _mat(path, "annotations", row)]
        if any(not 0 <= label < len(names) for _, label in rows):
            raise DataError(f"{path}: a label is not in cars_meta.mat, which has {len(names)} classes")
        parts.append([(below(photo, str(path)), label) for photo, label in rows])
    return tuple(names), parts[0], parts[1]


def flowers(folder: Path) -> tuple[tuple[str, ...], Listed]:
    """Read names from ``cat_to_name.json`` and labels from ``imagelabels.mat``; no list of test images is in use."""
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
    return _closed(names, folder), [(f"image_{number:05}.jpg", label) for number, label in enumerate(labels, 1)]


TRAINVAL_AND_TEST: dict[str, Callable[[Path], tuple[tuple[str, ...], Listed, Listed]]] = {
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


def _bad(path: Path, number: int, expected: str, line: str) -> DataError:
    return DataError(f"{path}, line {number}: expected a line such as {expected!r}, got {line!r:.60}")
