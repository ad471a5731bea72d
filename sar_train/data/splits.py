"""Draw the photos of a few-shot run, and split photos that came without splits.

Rows and draws are those of KaiyangZhou/CoOp and Dassl for the same seed: one generator seeded once, labels grouped in
order of first appearance, ``sample`` per label, first the training and then the validation photos. Sampling is done on
all classes, so that base-to-new and all-class runs share their photos. A draw depends only on the photos and the seed,
so it needs to be kept nowhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sar_train.data.dataset import SPLITS, Photo, Split

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
    """Draw as CoOp does: K training photos a class, then min(K, 4) validation photos a class.

    Args:
        train: (N,) labels of the training split.
        val: (M,) labels of the validation split, may be empty.
        shots: K; 0 takes everything.
        seed: of the generator.
    """
    rng = random.Random(seed)
    chosen = sample(train, shots, rng)
    return Shots(chosen, sample(val, min(shots, MAX_VAL_SHOTS), rng))


def split_photos(
    photos: Iterable[Photo], counts: Callable[[int], tuple[int, int]], seed: int
) -> dict[Split, tuple[Photo, ...]]:
    """Split photos at random, class by class.

    Args:
        photos: in an order that is always the same.
        counts: returns how many of a class's photos to (train on, validate on); the rest are tested on.
        seed: of the generator.
    """
    by_label: dict[int, list[Photo]] = {}
    for photo in photos:
        by_label.setdefault(photo.label, []).append(photo)
    rng, splits = random.Random(seed), {split: list[Photo]() for split in SPLITS}
    for label in sorted(by_label):
        of_class = by_label[label]
        rng.shuffle(of_class)
        train, val = counts(len(of_class))
        for split, chosen in zip(
            SPLITS, (of_class[:train], of_class[train : train + val], of_class[train + val :]), strict=True
        ):
            splits[split] += sorted(chosen, key=in_folder_order)
    return {split: tuple(chosen) for split, chosen in splits.items()}


def hold_out(photos: Iterable[Photo], shots: int, seed: int) -> dict[Split, tuple[Photo, ...]]:
    """Hold photos out of those to learn from, so that there are some to validate and to test on.

    Beyond K shots of a class, up to min(K, 4) but not more than half validate and the rest test. Without photos beyond
    the shots a fifth tests, at least one; a single photo trains.

    Args:
        photos: all that there are.
        shots: K; 0 learns from as many as there are.
        seed: of the generator.
    """

    def counts(total: int) -> tuple[int, int]:
        if total <= 1:
            return total, 0
        if shots < 1 or total <= shots:
            return total - max(1, total // 5), 0
        return shots, min(shots, MAX_VAL_SHOTS, (total - shots) // 2)

    return split_photos(sorted(photos, key=in_folder_order), counts, seed)


def in_folder_order(photo: Photo) -> list[str]:
    """Return the key that sorts photos folder by folder."""
    return photo.path.split("/")
