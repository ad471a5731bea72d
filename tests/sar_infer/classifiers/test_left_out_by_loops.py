"""The choice of the numbers of class statistics, against loops over classes whose photos are all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.unit import unit

from sar_infer.classifiers.left_out import Fold, Prompt, choose, folds_of

SIZE, SCALE, PRIOR, TRACE = 6, 20.0, 2.0, 100.0
GRID = np.linspace(-40, 80, 241)
ALPHAS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
Curves = dict[tuple[str, float, int], tuple[list[np.ndarray], dict[int, list[np.ndarray]]]]


@dataclass
class World:
    """Every photo of a class has the same two views, so that it does not matter which are drawn."""

    counts: Sequence[int]
    seed: int
    alphas: tuple[float, ...] = (0.0, 0.2, 0.4)
    retrained: bool = True
    apart: float = 0.5

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        shape = (len(self.counts), SIZE)
        truth = rng.normal(size=shape)
        self.views = unit(truth[:, None] + 0.5 * rng.normal(size=(shape[0], 2, SIZE)) + 0.5)
        hand, *learned = (unit(truth + 0.8 * rng.normal(size=shape)) for _ in range(4))
        whole, *halves = (unit(hand + self.apart * rows) for rows in learned)
        self.prompts = [Prompt("handcrafted", hand), Prompt("learned", whole, tuple(halves))][: 1 + self.retrained]

    def folds(self) -> list[Fold]:
        return folds_of(len(self.counts), retrained=self.retrained, seed=self.seed)

    def chosen(self) -> Any:
        labels = np.repeat(np.arange(len(self.counts)), self.counts)
        weights = {} if self.alphas == ALPHAS else {"alphas": self.alphas}
        return choose(self.views[labels], labels, self.prompts, SCALE, seed=self.seed, **weights)


def fold_curves(world: World, fold: Fold, rows: np.ndarray, alpha: float, photos: int) -> tuple[Any, Any]:
    """Return per cent right for each g: the mean of kept classes, and each left-out class."""
    plain, counts = world.views[:, 0], world.counts
    learned = {c: -(-counts[c] // 2) for c in fold.kept}
    shown = {c: min(photos, max(counts[c] - 1, 0)) for c in fold.left}
    with_photos = [c for c in fold.kept if counts[c]]
    centre = np.mean([plain[c] for c in with_photos], axis=0)
    around = sum(learned[c] * ((plain[c] - centre) ** 2).sum() for c in with_photos) / sum(learned.values()) / 2
    named = {c: rows[c] - np.mean([rows[k] for k in fold.kept], axis=0) for c in range(len(rows))}
    fitted = {c: rows[c] - np.mean([rows[k] for k in with_photos], axis=0) for c in with_photos}
    slope = sum((plain[c] - centre) @ fitted[c] for c in with_photos) / sum(row @ row for row in fitted.values())

    def mean_of(c: int, count: int, slope: float) -> np.ndarray:
        return (count * (plain[c] - centre) + PRIOR * slope * named[c]) / (count + PRIOR)

    def best(image: np.ndarray, means: dict[int, np.ndarray], alpha: float) -> tuple[int, float]:
        weight, apart = alpha * TRACE / around, image - centre
        logits = {c: SCALE * image @ rows[c] + weight * (apart @ mean - mean @ mean / 2) for c, mean in means.items()}
        first = max(logits, key=logits.__getitem__)
        return first, logits[first]

    ours_are = {c: mean_of(c, learned[c], slope) for c in fold.kept}
    theirs_are = {c: mean_of(c, shown[c], slope if alpha else 0.0) for c in fold.left}

    def right(c: int) -> np.ndarray:
        result = []
        for image in world.views[c]:
            ours, score = best(image, ours_are, alpha)
            theirs, other = best(image, theirs_are, alpha or 0.5)
            above = score - GRID > other
            result.append(above & (ours == c) if c in learned else ~above & (theirs == c))
        return 100 * np.mean(result, axis=0)

    on_kept = [right(c) for c in fold.kept if counts[c] > 1]  # the first half, or a lone photo, is learned from
    return np.mean(on_kept, axis=0), {c: right(c) for c in fold.left if counts[c]}


def measured(world: World) -> Curves:
    result: Curves = {}
    for fold in world.folds():
        if all(world.counts[c] < 2 for c in fold.kept):
            continue
        for prompt in world.prompts:
            rows = prompt.in_fold[fold.half] if prompt.in_fold else prompt.rows
            for photos in (0, 1, 2, 4, 8):
                if 2 * sum(world.counts[c] > photos for c in fold.left) <= len(fold.left):
                    break
                for alpha in world.alphas:
                    on_kept, left = fold_curves(world, fold, rows, alpha, photos)
                    ours, theirs = result.setdefault((prompt.name, alpha, photos), ([], {}))
                    ours.append(on_kept)
                    for c, curve in left.items():
                        theirs.setdefault(c, []).append(curve)
    return result


def middle(curve: np.ndarray) -> int:
    good = [position for position in range(len(curve)) if curve[position] >= max(curve) - 0.5]
    return good[len(good) // 2]


WORLDS = [
    World((7, 4, 9, 5, 6, 8), 1),
    World((7, 4, 9, 5, 6, 8), 2, alphas=ALPHAS, retrained=False),
    World((12, 10, 9, 11, 10), 3),
    World((1, 2, 1, 2, 2, 3, 2), 4),
    World((3, 0, 5, 4, 4, 1, 3), 5, retrained=False),
    World((3, 3, 3, 3), 6, alphas=(0.0,)),
    *(World((4, 5, 6, 4, 5, 6, 9), seed, alphas=(0.0, 0.1), apart=0.05) for seed in range(7, 11)),
]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: f"seed {world.seed}")
def test_the_choice_is_that_of_loops(world: World) -> None:
    choice, curves = world.chosen(), measured(world)
    numbers = sorted({photos for _, _, photos in curves})
    means = {key: np.mean(ours, axis=0) for key, (ours, _) in curves.items()}
    classes = {key: {c: np.mean(result, axis=0) for c, result in left.items()} for key, (_, left) in curves.items()}
    added = {key: np.mean(list(result.values()), axis=0) for key, result in classes.items()}
    both = {key: (means[key] + added[key]) / 2 for key in curves}
    for name, scores in choice.scores.items():
        assert list(scores) == list(world.alphas)
        for alpha, score in scores.items():
            by_name, *by_photos = (both[name, alpha, n].max() for n in numbers)
            assert score == pytest.approx(np.mean([by_name, np.mean(by_photos or [by_name])]))
    tops = {name: max(scores.values()) for name, scores in choice.scores.items()}
    learned = tops.get("learned", 0) > tops["handcrafted"] + 0.5
    assert choice.prompt == ("learned" if learned else "handcrafted")
    good = [alpha for alpha, score in choice.scores[choice.prompt].items() if score >= tops[choice.prompt] - 0.25]
    assert choice.alpha == min(good)

    keys = {n: (choice.prompt, choice.alpha, n) for n in numbers}
    places = {n: middle(both[key]) for n, key in keys.items()}
    usual, full = int(np.median([count for count in world.counts if count])), GRID[places[0]]
    offsets = [(n, full - GRID[places[n]] if n else 0.0) for n in numbers if n < usual] + [(usual, full)]
    np.testing.assert_allclose(choice.offsets, offsets)
    shifts, ours, theirs = np.array(choice.curve).T
    at = [int(np.abs(GRID - full - shift).argmin()) for shift in shifts]
    assert places[0] in at
    assert (np.diff(at) == 4).all()
    assert (min(at), max(at)) == (places[0] % 4, places[0] + (240 - places[0]) // 4 * 4)
    np.testing.assert_allclose(ours, means[keys[0]][at])
    np.testing.assert_allclose(theirs, added[keys[0]][at])
    assert choice.trained == pytest.approx({n: means[key][places[n]] for n, key in keys.items()})

    rivals = np.mean([len(fold.kept) + len(fold.left) - 1 for fold in world.folds()])
    assert [one.photos for one in choice.expected] == numbers
    for one in choice.expected:
        shares = np.array([curve[places[one.photos]] for curve in classes[keys[one.photos]].values()]) / 100
        values = 100 * shares ** ((2 * len(world.counts) - 1) / rivals)
        power = (2 * len(world.counts) - 1) / rivals
        turns = [
            np.var([curve[places[one.photos]] for curve in result], ddof=1)
            for result in curves[keys[one.photos]][1].values()
            if len(result) > 1
        ]
        count, level = len(values), (values.sum() / 100 + 1) / (len(values) + 2)
        spread = max(np.var(values, ddof=1), 100**2 * level * (1 - level) / 4) if count > 1 else 0
        slope = power * shares.mean() ** (power - 1) if shares.any() else 0
        variance = (2 * spread + slope**2 * np.mean(turns or [0])) / count
        half = stats.t.ppf(0.975, count - 1) * np.sqrt(variance) if count > 1 else 100
        assert one.accuracy == pytest.approx(values.mean())
        assert [one.low, one.high] == pytest.approx(
            np.clip([one.accuracy - half, one.accuracy + half], 0, 100), abs=0.01 + 0.04 * half
        )
