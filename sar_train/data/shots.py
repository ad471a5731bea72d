"""Draw the images of a few-shot run, and split its classes into base and new.

Rows and draws are those of KaiyangZhou/CoOp and Dassl for the same seed: one generator seeded once, labels grouped in
order of first appearance, ``sample`` per label, first the training and then the validation images. Sampling is done on
all classes and split into base and new afterwards, so that base-to-new and all-class runs share their images.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_VAL_SHOTS = 4


@dataclass(frozen=True)
class Shots:
    """Row numbers into the training and the validation split."""

    train: tuple[int, ...]
    val: tuple[int, ...]


def sample(labels: Sequence[int], shots: int, rng: random.Random) -> tuple[int, ...]:
    """Draw rows: ``shots`` per label without repetition, all of them where there are fewer (or ``shots`` is 0).

    Args:
        labels: (N,) label of each row.
        shots: K, 0 for all.
        rng: advanced by one ``sample`` per label that has at least K rows.

    Returns:
        Row numbers, label by label in order of first appearance.
    """
    by_label: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        by_label.setdefault(label, []).append(row)
    if shots < 1:
        return tuple(range(len(labels)))
    drawn = (rng.sample(rows, shots) if len(rows) >= shots else rows for rows in by_label.values())
    return tuple(row for rows in drawn for row in rows)


def few_shot(train: Sequence[int], val: Sequence[int], shots: int, seed: int) -> Shots:
    """Draw as CoOp does: K training images a class, then min(K, 4) validation images a class.

    Args:
        train: (N,) labels of the training split.
        val: (M,) labels of the validation split, may be empty.
        shots: K; 0 takes everything.
        seed: of the generator.
    """
    rng = random.Random(seed)
    chosen = sample(train, shots, rng)
    return Shots(chosen, sample(val, min(shots, MAX_VAL_SHOTS), rng))


def base_new(labels: Iterable[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split labels, ``range(C)`` for C classes, into sorted (base, new): the first ceil(n / 2), and the rest."""
    ordered = sorted(set(labels))
    half = (len(ordered) + 1) // 2
    return tuple(ordered[:half]), tuple(ordered[half:])
