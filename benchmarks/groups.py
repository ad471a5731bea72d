"""Suggestions from photos that nobody labelled: strangers, groups, and labels worth giving, with ``sar-mini``.

    python -m benchmarks.groups [--data ../shared/data] [--cache FOLDER] [--seeds 1 2 3] [--out FILE.md]

The sets and draws are those of ``benchmarks.class_statistics``, the hand-crafted prompt, statistics fitted on 16 photos
of each trained class. Strangers: half of the other classes join the bank, by name or with two photos each, the rest are
strangers, mean of four draws. Groups: a bank of the trained classes alone, and all test photos. Labels: all classes
are in the bank, the added ones by name; half of the test photos are unlabelled, some of them get their labels, and the
other half is evaluated, mean of three draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.class_statistics import Domain, Photos, domains, set_options, split
from sar_infer.classifiers.fitting import fit
from sar_infer.classifiers.scores import auroc, energy, softmax
from sar_infer.classifiers.statistics import Statistics, class_means, composed, mahalanobis
from sar_infer.classifiers.suggesting import Answers, suggest, worth_a_label

SHOTS = 16
BUDGETS = (5, 10, 20)
SIGNS = ("score", "energy", "distance")
WAYS = ("random", "least confident", "suggested")
LARGE = 10
"""Photos of a class that a group has to be led by."""


@dataclass(frozen=True)
class Bank:
    """Classes with text rows (C, D), the mean photos (C, D) and numbers (C,) of their photos."""

    statistics: Statistics
    scale: float
    text: Any
    photo_means: Any
    counts: Any

    @property
    def means(self) -> Any:
        """Return the class means (C, D)."""
        return class_means(self.statistics, self.text, self.photo_means, self.counts)

    def logits(self, rows: Any) -> Any:
        """Return logits (N, C)."""
        weights, bias = composed(self.statistics, self.scale, self.text, self.photo_means, self.counts)
        return ((rows - self.statistics.centre) @ weights.T + bias).astype(np.float64)

    def with_photos(self, rows: Any, labels: Any) -> Bank:
        """Return the bank with more photos."""
        sums, counts = self.photo_means * self.counts[:, None], self.counts.copy()
        np.add.at(sums, labels, rows)
        np.add.at(counts, labels, 1)
        return Bank(self.statistics, self.scale, self.text, sums / np.maximum(counts, 1)[:, None], counts)

    def of(self, classes: Any) -> Bank:
        """Return some of the classes."""
        return Bank(self.statistics, self.scale, self.text[classes], self.photo_means[classes], self.counts[classes])


def bank_of(domain: Domain, backbone: Any, seed: int) -> Bank:
    """Return a bank of all classes of a set: the trained ones with 16 photos each, the others by name."""
    trained, _ = split(domain.train.of(range(domain.trained)), SHOTS, seed)
    text = backbone.embed_names(domain.names, domain.template).numpy().astype(np.float32)
    fitted = fit(trained.rows, trained.labels.astype(np.int64), text[: domain.trained], backbone.logit_scale)
    empty = np.zeros(len(text), np.int64)
    bank = Bank(fitted.statistics, backbone.logit_scale, text, np.zeros_like(text), empty)
    return bank.with_photos(trained.rows, trained.labels)


def signs(bank: Bank, rows: Any) -> dict[str, Any]:
    """Return (N,) values that are larger for strangers, by their name."""
    logits = bank.logits(rows)
    best = bank.means[logits.argmax(axis=1)]
    return {
        "score": -softmax(logits).max(axis=1),
        "energy": energy(logits, 1.0),
        "distance": mahalanobis(bank.statistics, rows - best),
    }


def strangers(domain: Domain, bank: Bank, test: Photos, photos: int) -> list[float]:
    """Return the AUROC of each sign: strangers against photos of the bank's classes."""
    others, result = np.arange(domain.trained, len(domain.names)), []
    for draw in range(4):
        rng = np.random.default_rng(draw)
        added = np.sort(rng.permutation(others)[: (len(others) + 1) // 2])
        rows = [np.flatnonzero(domain.train.labels == c) for c in added]
        drawn = np.concatenate([rng.permutation(of)[:photos] for of in rows])
        larger = bank.with_photos(domain.train.rows[drawn], domain.train.labels[drawn])
        values = signs(larger.of([*range(domain.trained), *added]), test.rows)
        strange = np.isin(test.labels, np.setdiff1d(others, added))
        result.append([auroc(values[sign][strange], values[sign][~strange]) for sign in SIGNS])
    mean: list[float] = np.mean(result, axis=0).tolist()
    return mean


def groups(domain: Domain, bank: Bank, test: Photos) -> tuple[object, ...]:
    """Return figures of the groups in all test photos by a bank of the trained classes alone."""
    trained = bank.of(range(domain.trained))
    scores = softmax(trained.logits(test.rows))
    best = np.argsort(-scores, axis=1)[:, :3]
    top = np.take_along_axis(scores, best, axis=1).astype(np.float32)
    suggested_groups = suggest(bank.statistics, test.rows, Answers(best, top, trained.means, trained.counts)).groups
    fresh = [group.photos for group in suggested_groups if group.like is None]
    counts = [np.bincount(test.labels[rows], minlength=len(domain.names)) for rows in fresh]
    large = {c for c in range(domain.trained, len(domain.names)) if (test.labels == c).sum() >= LARGE}
    leaders = {int(of.argmax()) for of in counts} & large
    photos = sum(map(len, fresh))
    new = sum(int(of[domain.trained :].sum()) for of in counts)
    purity = sum(int(of.max()) for of in counts) / max(1, photos)
    all_new = int((test.labels >= domain.trained).sum())
    return (
        len(test.labels), len(domain.names), len(suggested_groups), len(fresh), f"{len(leaders)} of {len(large)}",
        f"{purity:.2f}", f"{new / all_new:.0%}", f"{new / max(1, photos):.0%}",
    )  # fmt: skip


def chosen(way: str, bank: Bank, rows: Any, count: int, rng: np.random.Generator) -> Any:
    """Return the photos (count,) that a way of choosing gets labels for."""
    if way == "random":
        return rng.permutation(len(rows))[:count]
    scores = -np.sort(-softmax(bank.logits(rows)), axis=1)
    if way == "least confident":
        return np.argsort(scores[:, 0])[:count]
    root = np.linalg.cholesky(bank.statistics.precision.astype(np.float64))
    return worth_a_label((rows - bank.statistics.centre) @ root, scores, count)


def harmonic(bank: Bank, test: Photos, trained: int) -> float:
    """Return the harmonic mean of the accuracies on trained and added classes, in per cent."""
    right = bank.logits(test.rows).argmax(axis=1) == test.labels
    sides = [right[test.labels < trained].mean(), right[test.labels >= trained].mean()]
    return float(200 * sides[0] * sides[1] / max(sum(sides), 1e-9))


def labels(domain: Domain, bank: Bank, test: Photos) -> dict[tuple[str, int], float]:
    """Return the harmonic mean by way and number of labels; that before is of the way ``""``."""
    result: dict[tuple[str, int], list[float]] = {}
    for draw in range(3):
        rng = np.random.default_rng(draw)
        order = rng.permutation(len(test.labels))
        stream, rest = (Photos(test.rows[o], test.labels[o]) for o in np.array_split(order, 2))
        result.setdefault(("", 0), []).append(harmonic(bank, rest, domain.trained))
        for way in WAYS:
            for count in BUDGETS:
                rows = chosen(way, bank, stream.rows, count, np.random.default_rng(draw))
                taught = bank.with_photos(stream.rows[rows], stream.labels[rows])
                result.setdefault((way, count), []).append(harmonic(taught, rest, domain.trained))
    return {key: float(np.mean(values)) for key, values in result.items()}


def measured(args: argparse.Namespace, backbone: Any) -> Iterator[tuple[str, int, Any, Any, Any]]:
    """Yield set, draw, AUROCs by number of photos, groups, and labels."""
    for seed in args.seeds:
        for domain in domains(args, backbone, seed):
            bank = bank_of(domain, backbone, seed)
            for label, test in domain.tests.items():
                name = f"{domain.name}{label}"
                command.say(f"{name}, draw {seed}")
                areas = {photos: strangers(domain, bank, test, photos) for photos in (0, 2)}
                yield name, seed, areas, groups(domain, bank, test), labels(domain, bank, test)


def page(results: list[tuple[str, int, Any, Any, Any]]) -> str:
    """Return the three tables; AUROCs and labels are means over draws."""
    names = list(dict.fromkeys(name for name, *_ in results))

    def mean(name: str, value: Any) -> float:
        return float(np.mean([value(result) for result in results if result[0] == name]))

    areas = [
        (name, *(f"{mean(name, lambda one, p=p, i=i: one[2][p][i]):.3f}" for p in (0, 2) for i in range(len(SIGNS))))
        for name in names
    ]
    gains = [
        (
            name,
            f"{mean(name, lambda one: one[4]['', 0]):.1f}",
            *(f"{mean(name, lambda one, w=w, c=c: one[4][w, c]):.1f}" for w in WAYS for c in BUDGETS),
        )
        for name in names
    ]
    heads = ("set", *(f"{sign}, {how}" for how in ("by name", "2 photos") for sign in SIGNS))
    group_heads = (
        "set", "draw", "photos", "classes", "groups", "like no class", "added classes that lead one", "purity",
        "photos of added classes in these", "share of these photos",
    )  # fmt: skip
    return "\n\n".join(
        [
            "AUROC of strangers, half of the other classes added",
            command.markdown(heads, areas),
            f"Groups in all test photos, bank of the trained classes; classes of {LARGE} photos and more can lead",
            command.markdown(
                group_heads, [(name, seed, *suggested_groups) for name, seed, _, suggested_groups, _ in results]
            ),
            "Labels: harmonic mean of trained and added classes, in per cent",
            command.markdown(("set", "before", *(f"{way}, {count}" for way in WAYS for count in BUDGETS)), gains),
        ]
    )


def main() -> None:
    """Measure, print and write."""
    args = set_options(__doc__)
    args.shots = SHOTS
    from sar_train.clip import backbone

    text = page(list(measured(args, backbone.load("sar-mini"))))
    command.tell(text, out=args.out)


if __name__ == "__main__":
    main()
