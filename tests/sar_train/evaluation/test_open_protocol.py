"""One ranking over base and new classes, against loops in plain Python and closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sar_train.evaluation import open_protocol as module
from sar_train.evaluation.open_protocol import CURVE_POINTS, Curve, OpenMeasures, open_protocol

Rows = Sequence[Sequence[float]]
AREAS = ("auroc", "openworld_auc", "ausuc")


def best(row: Sequence[float], classes: range) -> int:
    """Return the first class with the largest logit."""
    return max(classes, key=lambda c: (row[c], -c))


def probability(row: Sequence[float], n_base: int) -> float:
    total = math.fsum(math.exp(value) for value in row)
    return math.exp(max(row[:n_base])) / total


def by_loops(logits: Rows, labels: Sequence[int], n_base: int, weight: Callable[[int], float]) -> list[float]:
    """Return base, new, all (percent), AUROC, OpenworldAUC and AUSUC by counting images and pairs of images."""
    n = len(labels)
    sides = ([i for i in range(n) if labels[i] < n_base], [i for i in range(n) if labels[i] >= n_base])
    every = range(len(logits[0]))

    def share(images: Sequence[int], right: Callable[[int], bool]) -> float:
        return 100 * sum(weight(i) for i in images if right(i)) / sum(weight(i) for i in images)

    def moved(i: int, offset: float) -> list[float]:
        return [value - offset if c < n_base else value for c, value in enumerate(logits[i])]

    def open_right(i: int, offset: float) -> bool:
        return best(moved(i, offset), every) == labels[i]

    def among_own(i: int) -> bool:
        side = range(n_base) if labels[i] < n_base else range(n_base, len(every))
        return best(logits[i], side) == labels[i]

    def pairs(value: Callable[[int, int], float]) -> float:
        total = sum(weight(i) * weight(j) for i in sides[0] for j in sides[1])
        return sum(weight(i) * weight(j) * value(i, j) for i in sides[0] for j in sides[1]) / total

    def above(i: int, j: int) -> float:
        a, b = (round(probability(logits[k], n_base), 13) for k in (i, j))
        return 1.0 if a > b else 0.5 if a == b else 0.0

    margins = sorted({max(row[:n_base]) - max(row[n_base:]) for row in logits})
    offsets = [margins[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(margins)), margins[-1] + 1]
    curve = [[share(side, lambda i, o=offset: open_right(i, o)) for side in sides] for offset in offsets]
    area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve)) / 1e4
    return [
        *(share(images, lambda i: open_right(i, 0)) for images in (*sides, range(n))),
        pairs(above),
        pairs(lambda i, j: above(i, j) * among_own(i) * among_own(j)),
        area,
    ]


def values(measures: OpenMeasures) -> list[float | None]:
    return [getattr(measures, key) for key in ("base_accuracy", "new_accuracy", "accuracy", *AREAS)]


@pytest.mark.parametrize("whole", [False, True], ids=["no ties", "many ties"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_measure_is_what_loops_count(seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    n_base, n_classes = 3, 7
    labels = rng.choice(n_classes, 60, p=[0.3, 0.1, 0.1, 0.05, 0.25, 0.15, 0.05])
    logits = rng.normal(size=(60, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    logits = logits.round() if whole else logits
    protocol = open_protocol(logits, labels, n_base)
    counts = [int((labels == c).sum()) for c in range(n_classes)]
    rows, truth = logits.tolist(), labels.tolist()
    for measures, weight in ((protocol.images, lambda i: 1.0), (protocol.per_class, lambda i: 1 / counts[truth[i]])):
        assert values(measures) == pytest.approx(by_loops(rows, truth, n_base, weight), abs=1e-9)
    assert protocol.images.harmonic_mean == pytest.approx(
        2 / (1 / protocol.images.base_accuracy + 1 / protocol.images.new_accuracy)
    )


def test_equal_scores_are_a_coin_toss_between_sides() -> None:
    measures = open_protocol(np.zeros((8, 4)), [0, 1, 2, 3] * 2, 2).images
    assert values(measures) == [50, 0, 25, 0.5, 0.125, 0.125]  # the first class takes all
    assert measures.curve == Curve([50, 0], [0, 50])


def test_large_logits_do_not_tie_where_probabilities_round_to_one() -> None:
    logits = [[200.0, 0.0], [100.0, 0.0]]  # both probabilities are 1 in float64
    assert open_protocol(logits, [0, 1], 1).images.auroc == 1
    assert open_protocol(logits, [1, 0], 1).images.auroc == 0


@pytest.mark.parametrize(("labels", "base", "new"), [([0, 1, 1], 100, None), ([2, 2, 3], None, 100)])
def test_a_side_without_images_has_no_measures_of_two_sides(labels: list[int], base: object, new: object) -> None:
    for measures in vars(open_protocol(np.eye(4)[labels], labels, 2)).values():
        assert values(measures) == [base, new, 100, None, None, None]
        assert measures.harmonic_mean is measures.curve is None


def test_a_side_without_classes_and_no_images_at_all_are_measured_too() -> None:
    assert open_protocol(np.eye(2), [0, 1], 2).images.base_accuracy == 100
    assert open_protocol(np.eye(2), [0, 1], 0).images.new_accuracy == 100
    assert open_protocol(np.eye(2), [1, 1], 1).images.new_accuracy == 50
    assert values(open_protocol(np.zeros((0, 3)), [], 2).per_class) == [None] * 6


def test_a_long_curve_keeps_its_ends_its_shape_and_its_exact_area(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, n = np.random.default_rng(4), 9000  # more images than are ranked at once
    labels = rng.integers(0, 10, n)
    logits = (rng.normal(size=(n, 10)) + 2 * np.eye(10)[labels]).astype(np.float32)
    measures = open_protocol(logits, labels, 5).images
    monkeypatch.setattr(module, "CURVE_POINTS", n)
    full = open_protocol(logits, labels, 5).images
    assert measures.curve is not None
    assert full.curve is not None
    base, new = np.array(measures.curve.base), np.array(measures.curve.new)
    assert len(base) == len(new) <= CURVE_POINTS < len(full.curve.base)
    assert (measures.curve.base, measures.curve.new) == (base.round(2).tolist(), new.round(2).tolist())
    assert measures.ausuc == full.ausuc
    assert (np.diff(base) <= 0).all()
    assert (np.diff(new) >= 0).all()
    assert -np.trapezoid(new, base) / 1e4 == pytest.approx(measures.ausuc, abs=1e-3)
    base_images, new_images = labels < 5, labels >= 5
    alone = [
        np.mean(logits[base_images, :5].argmax(1) == labels[base_images]),
        np.mean(logits[new_images, 5:].argmax(1) == labels[new_images] - 5),
    ]
    assert [base[0], new[0], base[-1], new[-1]] == pytest.approx([100 * alone[0], 0, 0, 100 * alone[1]], abs=0.006)


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="expected numbers"):
        open_protocol(np.full((2, 2), np.nan), [0, 1], 1)
