"""What a bundle answers now for photos in a folder for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sar_infer.artefact.bundle import Bundle
from sar_infer.artefact.manifest import IMAGE_ENCODER
from sar_infer.errors import ImageError, InputError
from sar_infer.images.inputs import expand
from sar_infer.images.prefetch import decode_batches
from sar_infer.results import Profile
from sar_infer.text.names import name_key
from sar_train.export.head import spoken
from sar_train.export.recheck.accuracy import Group, is_measured, of_known, of_new
from sar_train.export.recheck.finding import Finding
from sar_train.export.recheck.graphs import agreement, image_variants
from sar_train.export.verify import Rows, open_graph

BATCH = 16


@dataclass(frozen=True)
class Photos:
    """Photos with the class of each, an index into ``names``; -1 for a photo outside of every folder."""

    names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]


def find_photos(folder: Path) -> Photos:
    """All photos below a folder; the first folder on the way to a photo names its class.

    Raises:
        InputError: there are none, or it is not a folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with a folder of photos for each class")
    paths = expand([str(folder)])
    places: dict[str, int] = {}
    names: list[str] = []
    labels: list[int] = []
    for path in paths:
        first, *rest = Path(path).relative_to(folder).parts
        key = name_key(spoken(first))
        if rest and key not in places:
            places[key] = len(names)
            names.append(spoken(first))
        labels.append(places[key] if rest else -1)
    return Photos(tuple(names), tuple(paths), np.array(labels, dtype=np.int64))


def checks(bundle: Bundle, photos: Photos, advance: Callable[[int], None]) -> Iterator[Finding]:
    """Smaller image encoders, accuracy, zero-shot accuracy and calibration error, as far as photos can tell.

    Folders that are called like classes of the bank are judged among themselves, and so are the others, which are new
    classes. Accuracy has a bound where the folders are all the classes of the bank, and the passport speaks of these;
    what its new classes were is not known, so that theirs has none.

    Raises:
        ImageError: a photo cannot be read.
        InputError: the photos can tell nothing.
    """
    variants = image_variants(bundle.manifest)
    if not photos.names and not variants:
        raise InputError(
            f"none of the {len(photos.paths):,} photos is in a folder of its class, and there is no smaller encoder to "
            "compare; expected CLASS/photo.jpg"
        )
    files = {"fp32": IMAGE_ENCODER} | {precision: variant.file for precision, variant in variants.items()}
    rows = _encode(bundle, photos.paths, files, advance)
    for precision, variant in variants.items():
        what = f"{precision} image encoder, {len(photos.paths):,} photos"
        yield from agreement(bundle, what, variant, rows[precision], rows["fp32"])
    known: dict[int, list[str]] = {}
    new: list[list[str]] = []
    for name in photos.names:
        row = bundle.bank.lookup.get(name)
        if row is None:
            new.append([name])
        else:
            known.setdefault(row, []).append(name)  # a name and an alias are one class
    complete = len(known) == len(bundle.bank.names) and is_measured(bundle)
    yield from of_known(bundle, _group(photos, rows["fp32"], [*known.values()]), complete=complete)
    yield from of_new(bundle, _group(photos, rows["fp32"], new), complete=complete)


def _encode(
    bundle: Bundle, paths: Sequence[str], files: Mapping[str, str], advance: Callable[[int], None]
) -> dict[str, Rows]:
    """Rows (N, D) of every image encoder; each photo is decoded once."""
    graphs = {precision: open_graph(bundle.path / file) for precision, file in files.items()}
    parts: dict[str, list[Rows]] = {precision: [] for precision in files}
    for batch in decode_batches(paths, bundle.manifest.preprocess, BATCH, Profile()):
        for name, item in batch:
            if isinstance(item, ImageError):
                raise ImageError(f"{name}: {item}")
        pixels = np.stack([item for _, item in batch if isinstance(item, np.ndarray)])
        for precision, graph in graphs.items():
            parts[precision].append(graph(pixels))
        advance(len(batch))
    return {precision: np.concatenate(found) for precision, found in parts.items()}


def _group(photos: Photos, rows: Rows, classes: Sequence[Sequence[str]]) -> Group:
    """Classes that have these folders, each by the name of its first."""
    folders = {name: label for label, name in enumerate(photos.names)}
    places = {folders[name]: place for place, names in enumerate(classes) for name in names}
    chosen = np.isin(photos.labels, list(places))
    labels = np.array([places[label] for label in photos.labels[chosen].tolist()], dtype=np.int64)
    return Group(tuple(names[0] for names in classes), rows[chosen], labels)
