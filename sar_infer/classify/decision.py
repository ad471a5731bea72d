"""From rankings to answers: the best classes, whether the image is one of them, and which others it may be.

An image is called unknown if the probability that it is none of the classes passes a threshold. A set holds each class
whose score is at least a quantile of held-out photos: split conformal prediction with the score ``1 - p`` (Sadinle, Lei
and Wasserman, arXiv 1609.00451), so that it holds the true class as often as was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.classify import ranking, several
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.ranking import Ranking
from sar_infer.encoders.encoders import finite
from sar_infer.errors import InputError
from sar_infer.images.preprocess import CROPS
from sar_infer.measures import COVERAGES, Doubles
from sar_infer.results import PLAIN, DecisionOptions, Explanation, ImageResult, Label, Prediction

T = TypeVar("T")
Decide = Callable[..., Iterator[ImageResult]]
"""Takes and yields what `Decision` does."""
_NEAREST = 3
_FIT = "fit the class model (sar-bank fit), or train with photos"


class Decision:
    """Makes the results of image rows for one set of classes; it is built once for any number of images.

    Args:
        classes: The classes of the call.
        top_k: Number of classes to return for each image, at most.
        options: Further output.

    Raises:
        InputError: ``top_k`` is below 1, or these classes do not have what ``options`` ask for.
    """

    def __init__(self, classes: ClassSet, top_k: int, options: DecisionOptions = PLAIN) -> None:
        if top_k < 1:
            raise InputError(f"expected top_k of 1 or more, got {top_k}")
        if classes.background is not None and bool(classes.background.all()):
            raise InputError("no class to choose from: there are only background classes")
        self._classes, self._top_k, self._options = classes, top_k, options
        if options.unknown and not can_call_unknown(classes) and options.threshold is None:
            raise InputError(f"unknown: no threshold is known here; {_FIT}, or give a threshold")
        self._least = None if options.coverage is None else _least(classes, options.coverage)
        if options.several:
            self._least = several.least(classes)
        self._rank_count = max(top_k, 2 if options.explain else 1, self._set_size())

    def __call__(self, rows: Floats, names: Sequence[str] | None = None) -> Iterator[ImageResult]:
        """Yield the result of each of N images.

        Args:
            rows: The image embeddings (N, D); with ``several`` those of their crops (5 N, D), one image after another.
            names: The names of the N images; by default ``image[i]``.

        Raises:
            BundleError: A row is not finite.
        """
        with np.errstate(all="ignore"):  # the outcome is checked instead
            ranked = ranking.rank(finite(rows, "image encoder"), self._classes, self._rank_count)
        if self._options.several:
            yield from self._several(ranked, rows, names)
            return
        columns = ranked.columns
        near = ranking.nearest(self._classes, columns[:, 0].tolist(), _NEAREST) if self._options.explain else None
        for row in range(len(rows)):
            predictions = self._predictions(ranked, row, rows[row])
            reason = self._reason(ranked, row)
            hidden = self._options.unknown and reason is not None and not self._options.guesses
            yield ImageResult(
                f"image[{row}]" if names is None else names[row],
                () if hidden else predictions[: self._top_k],
                unknown=float(ranked.unknown[row]),
                unknown_threshold=self._limit(int(ranked.columns[row, 0])),
                reason=reason,
                label_set=None if self._least is None else self._label_set(ranked, row, self._least),
                explanation=None if near is None else self._explanation(ranked, row, predictions, near[row]),
            )

    def _several(self, ranked: Ranking, rows: Floats, names: Sequence[str] | None) -> Iterator[ImageResult]:
        """Yield the labels of each image, and its best classes."""
        for number, best in enumerate(several.surest(ranked)):
            cosines = (self._classes.rows(best.columns) * rows[number * len(CROPS) + best.crops]).sum(1)
            predictions = self._named(best.columns, best.scores, best.logits, cosines)
            pairs = zip(predictions, best.columns.tolist(), best.crops.tolist(), strict=True)
            yield ImageResult(
                f"image[{number}]" if names is None else names[number],
                predictions[: self._top_k],
                unknown=best.unknown,
                labels=tuple(
                    Label(one.label, one.score, CROPS[crop])
                    for one, column, crop in pairs
                    if one.score > self._least[column]  # type: ignore[index]
                ),
            )

    def _set_size(self) -> int:
        """Return the largest number of classes that reach what they need in one image or crop: scores sum to 1."""
        if self._least is None:
            return 0
        count, least = len(self._classes.names), float(self._least.min())
        return count if least * count <= 1 else int(1 / least) + 1

    def _label_set(self, ranked: Ranking, row: int, least: Doubles) -> tuple[str, ...]:
        """Return the classes whose scores are at least those (C,) that they need."""
        pairs = zip(ranked.columns[row].tolist(), ranked.scores[row].tolist(), strict=True)
        return tuple(self._classes.names[column] for column, score in pairs if score >= least[column])

    def _predictions(self, ranked: Ranking, row: int, feature: Floats) -> tuple[Prediction, ...]:
        columns = ranked.columns[row, : max(self._top_k, 2)]
        values = (ranked.scores[row, : len(columns)], ranked.logits[row, : len(columns)])
        return self._named(columns, *values, self._classes.rows(columns) @ feature)

    def _named(self, columns: Indices, *values: Floats) -> tuple[Prediction, ...]:
        """Return classes (K,) with their scores, logits and cosines."""
        names, source = self._classes.names, self._classes.source
        cells = zip(columns.tolist(), *map(np.ndarray.tolist, values), strict=True)
        return tuple(Prediction(names[at], score, logit, cosine, source(at)) for at, score, logit, cosine in cells)

    def _reason(self, ranked: Ranking, row: int) -> str | None:
        """Return why the image is called unknown; None if it is not."""
        background = self._winning_background(ranked, row)
        if background is not None:
            score = float(ranked.best_background_scores[row, 0])
            return f"background {background!r} scores {score:.3f}, more than any class"
        if not self._options.unknown:
            return None
        column, score = int(ranked.columns[row, 0]), float(ranked.scores[row, 0])
        threshold = math.nan if self._classes.thresholds is None else float(self._classes.thresholds[column])
        if not math.isnan(threshold):
            return (
                f"score {score:.3f} is below {threshold:.3f}, the threshold of this class"
                if score < threshold
                else None
            )
        unknown, limit = float(ranked.unknown[row]), self._limit(column)
        return f"probability {unknown:.3f} is above {limit:.3f}" if limit is not None and unknown > limit else None

    def _limit(self, column: int) -> float | None:
        """Return the probability above which an image of a best class is called unknown; None if none is known."""
        if self._options.threshold is not None:
            return self._options.threshold
        limit = float(self._classes.unknown_thresholds[column])
        return None if math.isnan(limit) else limit

    def _winning_background(self, ranked: Ranking, row: int) -> str | None:
        """Return the name of the background class that scores more than every other class, if one does."""
        if not ranked.best_background.shape[1] or ranked.best_background_scores[row, 0] <= ranked.scores[row, 0]:
            return None
        return self._classes.names[int(ranked.best_background[row, 0])]

    def _explanation(
        self, ranked: Ranking, row: int, predictions: tuple[Prediction, ...], near: list[tuple[int, float]]
    ) -> Explanation:
        second = predictions[1] if len(predictions) > 1 else None
        return Explanation(
            margin=None if second is None else predictions[0].score - second.score,
            runner_up=None if second is None else second.label,
            nearest=tuple((self._classes.names[column], cosine) for column, cosine in near),
            background=self._winning_background(ranked, row),
        )


def by_bank(banks: Mapping[str, T], decision: Callable[[T], Decide]) -> Decide:
    """Return what makes of each image one result, which has the result by each bank.

    Args:
        banks: Banks or their classes, by name.
        decision: Returns what makes the results of one.

    Raises:
        InputError: A bank does not have what the call asks for; the message names it.
    """
    decisions = dict[str, Decide]()
    for name, bank in banks.items():
        try:
            decisions[name] = decision(bank)
        except InputError as error:
            raise InputError(f"bank {name}: {error}") from None

    def decide(rows: Floats, names: Sequence[str] | None = None) -> Iterator[ImageResult]:
        for results in zip(*(decision(rows, names) for decision in decisions.values()), strict=True):
            yield ImageResult(results[0].image, banks=dict(zip(decisions, results, strict=True)))

    return decide


def can_call_unknown(classes: ClassSet) -> bool:
    """Return True if an image of these classes can be called unknown without a threshold of the caller's."""
    return len(classes.model.unknown) > 0 or classes.thresholds is not None or _has_background(classes)


def _has_background(classes: ClassSet) -> bool:
    return classes.background is not None and bool(classes.background.any())


def _least(classes: ClassSet, coverage: float) -> Doubles:
    """Return the score (C,) that each class needs to be in the set."""
    if coverage not in COVERAGES:
        raise InputError(f"coverage {coverage:g}: expected one of {', '.join(map(str, COVERAGES))}")
    least = classes.model.least(coverage, classes.photos)
    if least is None:
        raise InputError(f"coverage {coverage:g}: needs a class model from four classes or more; {_FIT}")
    if _has_background(classes):
        raise InputError(f"coverage {coverage:g}: prediction sets do not support background classes")
    return least
