"""Accuracy on base and new classes, per class, with confused pairs, and the harmonic mean that the field reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sar_infer.measures import confused_pairs

if TYPE_CHECKING:  # reports take the harmonic mean from here without torch
    from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent over N images, by class name, and the pairs most often confused."""

    accuracy: float
    per_class: dict[str, float]
    counts: dict[str, int]
    confused: list[dict[str, Any]]


def evaluate(logits: Tensor, labels: Tensor, names: Sequence[str], *, pairs: int = 10) -> Evaluation:
    """Give each image the class with the largest logit, and compare with the labels.

    Args:
        logits: (N, C).
        labels: (N,) 0 to C - 1.
        names: the C class names.
        pairs: how many confused pairs to keep.
    """
    predicted, names = logits.argmax(1).cpu(), distinct(names)
    right = predicted == labels
    counts = Counter(labels.tolist())
    hits = Counter(labels[right].tolist())
    confused = confused_pairs(labels.numpy(), predicted.numpy())[:pairs]
    return Evaluation(
        accuracy=100 * float(right.double().mean()) if len(labels) else float("nan"),
        per_class={names[c]: 100 * hits[c] / counts[c] for c in sorted(counts)},
        counts={names[c]: counts[c] for c in sorted(counts)},
        confused=[{"true": names[true], "predicted": names[guess], "count": count} for true, guess, count in confused],
    )


def distinct(names: Sequence[str]) -> list[str]:
    """Make names distinct: where classes share one, as ImageNet's *missile*, the class's number is added."""
    counts = Counter(names)
    return [f"{name} (class {i})" if counts[name] > 1 else name for i, name in enumerate(names)]


def harmonic_mean(base: float | None, new: float | None) -> float | None:
    """Return 2 B N / (B + N) of two accuracies in percent; None where one is missing."""
    if base is None or new is None:
        return None
    return 2 * base * new / (base + new) if base + new > 0 else 0.0
