"""A linear probe on the same shots, as a yardstick: the accuracy of image features without any text.

Multinomial logistic regression: the mean cross-entropy of ``x W' + b`` plus ``l2 / 2`` times the squared norm of W. The
problem is convex, so its solution does not depend on a seed; LBFGS with a strong-Wolfe line search finds it in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
DEFAULT_STRENGTH = 1e-4
"""Where there are too few rows to choose on."""
MAX_STEPS = 500
HELD_OUT = 4
"""Without validation shots, every fourth training photo chooses the strength."""
Labelled = tuple[Tensor, Tensor]
"""(N, D) features and (N,) labels."""


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier: ``weight`` (C, D), ``bias`` (C,), and the L2 strength it was fitted with."""

    weight: Tensor
    bias: Tensor
    l2: float

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Return the percentage of (N, D) rows whose largest logit is at their label (N,); nan without rows."""
        logits = features.double() @ self.weight.T + self.bias
        return 100 * float((logits.argmax(1) == labels).double().mean())


def linear_probe(
    features: Tensor, labels: Tensor, images: Tensor, truth: Tensor, *, val: Labelled | None = None, seed: int = 1
) -> float:
    """Return the accuracy in percent of a probe on given rows.

    Args:
        features: (N, D) or (N, V, D) unit features of the training shots; views count as rows of their own.
        labels: (N,) 0 to C - 1.
        images: (M, D) rows to classify.
        truth: (M,) their labels.
        val: validation shots, which choose the strength and are not trained on, so that the probe sees what a prompt
            sees. Without them a seeded quarter of the photos, with their views, chooses, and all are then trained on.
        seed: of that quarter.
    """
    photos, views = len(labels), features.shape[1] if features.ndim == 3 else 1
    if features.ndim == 3:
        labels = labels.repeat_interleave(views)
        features = features.flatten(0, 1)
    classes = int(labels.max()) + 1
    if val is not None and len(val[1]):
        return choose((features, labels), val, classes).accuracy(images, truth)
    if photos < 2 * HELD_OUT:
        return fit(features, labels, classes, DEFAULT_STRENGTH).accuracy(images, truth)
    order = torch.randperm(photos, generator=torch.Generator().manual_seed(seed))
    rows = order[:, None] * views + torch.arange(views)  # views of one photo stay together: they say the same
    train_rows, held_rows = rows[photos // HELD_OUT :].flatten(), rows[: photos // HELD_OUT].flatten()
    chosen = choose((features[train_rows], labels[train_rows]), (features[held_rows], labels[held_rows]), classes)
    return fit(features, labels, classes, chosen.l2, start=chosen).accuracy(images, truth)


def choose(train: Labelled, val: Labelled, classes: int, strengths: Sequence[float] = STRENGTHS) -> LinearProbe:
    """Return the fit that does best on validation rows; ties go to the stronger regularisation.

    Args:
        train: (N, D) unit features and (N,) labels.
        val: (M, D) and (M,), at least one row.
        classes: C; labels are 0 to C - 1.
        strengths: to choose among, at least one.
    """
    probes: list[LinearProbe] = []
    for l2 in sorted(strengths, reverse=True):
        probes.append(fit(*train, classes, l2, start=probes[-1] if probes else None))
    return max(probes, key=lambda probe: probe.accuracy(*val))


def fit(features: Tensor, labels: Tensor, classes: int, l2: float, start: LinearProbe | None = None) -> LinearProbe:
    """Solve for one strength, from ``start`` or from zero.

    Args:
        features: (N, D).
        labels: (N,) 0 to C - 1.
        classes: C.
        l2: strength of the penalty.
        start: a solution nearby, which saves steps.
    """
    x = features.double()
    weight = start.weight.clone() if start else x.new_zeros(classes, x.shape[1])
    bias = start.bias.clone() if start else x.new_zeros(classes)
    weight.requires_grad_()
    bias.requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_STEPS,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        solver.zero_grad()
        value = cross_entropy(x @ weight.T + bias, labels) + l2 / 2 * weight.square().sum()
        value.backward()
        return value.item()

    with torch.enable_grad():
        solver.step(loss)
    return LinearProbe(weight.detach(), bias.detach(), l2)
