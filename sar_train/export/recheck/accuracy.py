"""How well photos of some classes are answered now, beside what the passport says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer.artefact.bundle import Bundle
from sar_infer.artefact.freeze import MEASURED
from sar_infer.artefact.manifest import REFERENCE_ENCODER, Passport
from sar_infer.bank.names import name_key
from sar_infer.classifier import Classifier
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import scale
from sar_infer.encoders.cache import EmbeddingCache
from sar_train.evaluation.confidence import expected_calibration_error, softmax
from sar_train.export.recheck.finding import Finding, at_least, at_most
from sar_train.export.recheck.graphs import encoded
from sar_train.export.verify import Rows

LOST_POINTS = 1.0
"""Percentage points of accuracy; where there are few photos, two standard errors of them."""
GAINED_ERROR = 0.02
"""Of the calibration error."""


@dataclass(frozen=True)
class Group:
    """Some of the classes, and the rows (N, D) and labels (N,) of their photos."""

    names: tuple[str, ...]
    rows: Rows
    labels: npt.NDArray[np.int64]


def is_measured(bundle: Bundle) -> bool:
    """Whether its accuracies are about its bank, all of it; those of a frozen bundle may be about an older one."""
    frozen = bundle.manifest.passport.tables.get(MEASURED)
    same = frozen is None or frozen["content_digest"] == bundle.bank.content_digest
    return same and bundle.bank.background is None


def of_known(bundle: Bundle, group: Group, *, complete: bool) -> Iterator[Finding]:
    """Accuracy, zero-shot accuracy and calibration error among classes of the bank.

    Args:
        bundle: What answers.
        group: Some of its classes; of one alone there is nothing to say.
        complete: The passport speaks of exactly these, so that accuracies have a bound.
    """
    if len(group.names) < 2:
        return
    passport = bundle.manifest.passport if complete else Passport()
    what = f"{len(group.labels):,} photos of {len(group.names):,} classes of the bank"
    classes, logits = _answers(bundle, group)
    yield _bounded(f"accuracy, {what}", _percent(logits, group.labels), passport.metrics.base_accuracy, group)
    if (zero_shot := _zero_shot(bundle, group)) is not None:
        now = _percent(zero_shot, group.labels)
        yield _bounded(f"zero-shot accuracy, {what}", now, passport.zero_shot.base_accuracy, group)
    yield from _calibration(bundle, group, what, logits, scale(bundle.manifest, classes).temperature)


def of_new(bundle: Bundle, group: Group, *, complete: bool) -> Iterator[Finding]:
    """Accuracy and zero-shot accuracy among classes that the bank does not have; noted, without a bound.

    Args:
        bundle: What answers.
        group: The classes; of one alone there is nothing to say.
        complete: The passport speaks of the bank's own classes, and its figures of new ones go beside these.
    """
    if len(group.names) < 2:
        return
    passport = bundle.manifest.passport if complete else Passport()
    what = f"{len(group.labels):,} photos of {len(group.names):,} new classes"
    _, logits = _answers(bundle, group)
    yield Finding(f"accuracy, {what}", passport.metrics.new_accuracy, _percent(logits, group.labels), "noted")
    if (zero_shot := _zero_shot(bundle, group)) is not None:
        now = _percent(zero_shot, group.labels)
        yield Finding(f"zero-shot accuracy, {what}", passport.zero_shot.new_accuracy, now, "noted")


def _calibration(bundle: Bundle, group: Group, what: str, logits: Rows, temperature: float) -> Iterator[Finding]:
    """The calibration error, where the group is what the bundle was calibrated on."""
    calibrated = {name_key(name) for name in bundle.manifest.calibrated}
    found = bundle.manifest.passport.calibration
    frozen = bundle.manifest.passport.tables.get(MEASURED)
    whole = frozen is None or frozen["calibrated"] == len(calibrated)  # else the figure is about more classes
    if found is not None and whole and {name_key(name) for name in group.names} == calibrated:
        scores = softmax(logits.astype(np.float64) / temperature)
        now, then = expected_calibration_error(scores, group.labels), found.error_after
        yield at_most(f"calibration error, {what}", now, then + GAINED_ERROR, then)


def _answers(bundle: Bundle, group: Group) -> tuple[ClassSet, Rows]:
    """The group's classes, and the logits (N, C) of its photos among them."""
    classifier = Classifier(bundle, device="cpu", cache=EmbeddingCache())
    classes = classifier.class_set(group.names, only=True)
    return classes, classifier.logits(group.rows, classes)


def _zero_shot(bundle: Bundle, group: Group) -> Rows | None:
    """Cosines (N, C) to the names behind the hand-crafted prompt; None where the bundle has no reference encoder."""
    reference = bundle.manifest.reference
    if reference is None:
        return None
    return group.rows @ encoded(bundle, REFERENCE_ENCODER, reference.tokenizer, group.names).T


def _bounded(what: str, now: float, then: float | None, group: Group) -> Finding:
    """An accuracy, with a bound where the passport says what it was."""
    if then is None:
        return Finding(what, None, now, "noted")
    lost = max(LOST_POINTS, 2 * float(np.sqrt(now * (100 - now) / len(group.labels))))
    return at_least(what, now, then - lost, then)


def _percent(logits: Rows, labels: npt.NDArray[np.int64]) -> float:
    return 100 * float((logits.argmax(axis=1) == labels).mean())
