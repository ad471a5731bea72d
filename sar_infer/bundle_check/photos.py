"""Check what a bundle answers now for photos in a folder for each class, beside what its manifest says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.figures import photos_evaluated
from sar_infer.bundle.freeze import MEASURED
from sar_infer.bundle.manifest import IMAGE_ENCODER, Quality
from sar_infer.bundle_check.chance import chance_error, lowest_credible
from sar_infer.bundle_check.comparison import open_graph
from sar_infer.bundle_check.finding import Check, at_least, at_most
from sar_infer.bundle_check.graphs import agreement, image_variants
from sar_infer.classifier import Classifier
from sar_infer.classifiers.scores import expected_calibration_error
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.errors import ImageError, InputError
from sar_infer.images.inputs import expand
from sar_infer.images.prefetch import decode_batches
from sar_infer.results import Profile
from sar_infer.text.names import name_key, spoken

BATCH = 16


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos with the class of each, an index into ``names``; -1 for a photo outside every folder."""

    names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]


def find_photos(folder: Path) -> LabelledPhotos:
    """Find all photos below a folder; the first folder on the way to a photo names its class.

    Raises:
        InputError: there are none, or it is not a folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with a folder of photos for each class")
    paths = expand([str(folder)])
    labels_by_key: dict[str, int] = {}
    names: list[str] = []
    labels: list[int] = []
    for path in paths:
        first, *rest = Path(path).relative_to(folder).parts
        key = name_key(spoken(first))
        if rest and key not in labels_by_key:
            labels_by_key[key] = len(names)
            names.append(spoken(first))
        labels.append(labels_by_key[key] if rest else -1)
    return LabelledPhotos(tuple(names), tuple(paths), np.array(labels, dtype=np.int64))


def checks(bundle: Bundle, photos: LabelledPhotos, advance: Callable[[int], None]) -> Iterator[Check]:
    """Check smaller image encoders, accuracy and calibration error, as far as photos allow.

    Folders named like classes of the bank are evaluated among themselves, and so are the others, which are new classes.
    Accuracy has a bound if the folders are all the classes of the bank and the manifest's figures are about these. The
    manifest does not name its new classes, so their accuracy has no bound.

    Raises:
        ImageError: a photo cannot be read.
        InputError: the photos cannot be used for any check.
    """
    variants = image_variants(bundle.manifest)
    if not photos.names and not variants:
        raise InputError(
            f"none of the {len(photos.paths):,} photos is in a folder of its class, and there is no smaller encoder to "
            "compare; expected CLASS/photo.jpg"
        )
    files = {"fp32": IMAGE_ENCODER} | {precision: variant.file for precision, variant in variants.items()}
    rows = _encode(bundle, photos.paths, files, advance)
    classifier = Classifier(bundle, device="cpu", cache=EmbeddingCache())
    logits = None
    if variants and len(bundle.bank.names):
        logits = functools.partial(classifier.logits, classes=classifier.class_set())
    for precision, variant in variants.items():
        label = f"{precision} image encoder, {len(photos.paths):,} photos"
        yield from agreement(bundle, label, variant, rows[precision], rows["fp32"], logits)
    bank_classes: dict[int, list[str]] = {}
    new: list[list[str]] = []
    for name in photos.names:
        row = bundle.bank.lookup.get(name)
        if row is None:
            new.append([name])
        else:
            bank_classes.setdefault(row, []).append(name)  # a name and its alias are one class
    complete = len(bank_classes) == len(bundle.bank.names) and _is_measured(bundle)
    quality = bundle.manifest.quality if complete else Quality()
    yield from _accuracies(classifier, quality, _group(photos, rows["fp32"], [*bank_classes.values()]), in_bank=True)
    yield from _accuracies(classifier, quality, _group(photos, rows["fp32"], new), in_bank=False)


def _encode(
    bundle: Bundle, paths: Sequence[str], files: Mapping[str, str], advance: Callable[[int], None]
) -> dict[str, Floats]:
    """Return the rows (N, D) of every image encoder; each photo is decoded once."""
    graphs = {precision: open_graph(bundle.path / file) for precision, file in files.items()}
    pieces: dict[str, list[Floats]] = {precision: [] for precision in files}
    for batch in decode_batches(paths, bundle.manifest.preprocess, BATCH, Profile()):
        for name, item in batch:
            if isinstance(item, ImageError):
                raise ImageError(f"{name}: {item}")
        pixels = np.stack([item for _, item in batch if isinstance(item, np.ndarray)])
        for precision, graph in graphs.items():
            pieces[precision].append(graph(pixels))
        advance(len(batch))
    return {precision: np.concatenate(rows) for precision, rows in pieces.items()}


def _group(photos: LabelledPhotos, rows: Floats, classes: Sequence[Sequence[str]]) -> Group:
    """Return the classes of these folders, each by the name of its first, with their photos."""
    folders = {name: label for label, name in enumerate(photos.names)}
    positions = {folders[name]: position for position, names in enumerate(classes) for name in names}
    chosen = np.isin(photos.labels, list(positions))
    labels = np.array([positions[label] for label in photos.labels[chosen].tolist()], dtype=np.int64)
    return Group(tuple(names[0] for names in classes), rows[chosen], labels)


LOST_POINTS = 1.0
"""Accepted loss in percentage points of accuracy, beyond what chance explains (`lowest_credible`)."""
GAINED_ERROR = 0.02
"""Accepted increase of the calibration error, beyond what chance explains (`chance_error`)."""


@dataclass(frozen=True)
class Group:
    """Some of the classes, with the rows (N, D) and labels (N,) of their photos."""

    names: tuple[str, ...]
    rows: Floats
    labels: npt.NDArray[np.int64]


def _is_measured(bundle: Bundle) -> bool:
    """Say whether the accuracies are about the whole bank; those of a frozen bundle may be about an older one."""
    frozen = bundle.manifest.quality.tables.get(MEASURED)
    same = frozen is None or frozen["content_digest"] == bundle.bank.content_digest
    return same and bundle.bank.background is None


def _accuracies(classifier: Classifier, quality: Quality, group: Group, *, in_bank: bool) -> Iterator[Check]:
    """Measure accuracy among some classes, and the calibration error among those of the bank.

    Args:
        classifier: Of the bundle.
        quality: What was measured of these classes then; empty if it was about others.
        group: The classes; one alone cannot be told from another, which is noted.
        in_bank: They are classes of the bank, so that accuracies have a bound if the quality has figures.
    """
    if len(group.names) < 2:
        for name in group.names:
            kind = "class of the bank" if in_bank else "new class"
            label = f"not measured, {len(group.labels):,} photos of {name!r}, the only {kind} among the folders"
            yield Check(label, None, None, "noted")
        return
    label = (
        f"{len(group.labels):,} photos of {len(group.names):,} {'classes of the bank' if in_bank else 'new classes'}"
    )
    classes = classifier.class_set(group.names, only=True)
    logits = classifier.logits(group.rows, classes)
    now = 100 * float((logits.argmax(axis=1) == group.labels).mean())
    then = quality.metrics.base_accuracy if in_bank else quality.metrics.new_accuracy
    measured_on = photos_evaluated(quality)
    if then is None or measured_on is None or not in_bank:
        yield Check(f"accuracy, {label}", then, now, "noted")
    else:
        bound = lowest_credible(then, measured_on, len(group.labels), LOST_POINTS)
        yield at_least(f"accuracy, {label}", now, bound, then)
    if in_bank:
        yield from _calibration(classifier.bundle, group, label, classifier.scores(logits, classes))


def _calibration(bundle: Bundle, group: Group, label: str, scores: Floats) -> Iterator[Check]:
    """Check the calibration error, if the group is what the bundle was calibrated on."""
    calibrated = {name_key(name) for name in bundle.manifest.calibrated}
    calibration = bundle.manifest.quality.calibration
    frozen = bundle.manifest.quality.tables.get(MEASURED)
    whole = frozen is None or frozen["calibrated"] == len(calibrated)  # else the figure is about more classes
    if calibration is not None and whole and {name_key(name) for name in group.names} == calibrated:
        now, then = expected_calibration_error(scores, group.labels), calibration.error_after
        bound = then + GAINED_ERROR + chance_error(calibration.measured_on, len(group.labels))
        yield at_most(f"calibration error, {label}", now, bound, then)
