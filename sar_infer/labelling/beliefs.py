"""Beliefs about every photo by the answers so far: the closed form of the class model, made anew with each answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.class_model.model import ClassModel, gaussian, linear, log_probabilities

_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Classes and their linear scores.

    Attributes:
        names: C names of classes.
        weights: (C, D) float32.
        bias: (C,) float32.
    """

    names: tuple[str, ...]
    weights: Floats
    bias: Floats

    @classmethod
    def of(
        cls, names: Sequence[str], texts: Floats, rows: Floats, labels: Indices, scale: float, named: bool
    ) -> Beliefs:
        """Fit the closed form, with the usual weights.

        Args:
            names: C names of classes.
            texts: (C, D) their unit text rows.
            rows: (N, D) unit rows of answered photos, at least one of each class.
            labels: (N,) 0 to C - 1.
            scale: The logit scale.
            named: False if the encoder reads no names.
        """
        flags = np.full(len(names), named)
        closed = gaussian(rows.astype(np.float64), labels, texts.astype(np.float64), flags)
        model = ClassModel(
            level=0.0,
            factor=closed.precision.astype(np.float32),
            centre=closed.centre.astype(np.float32),
            text_centre=closed.text_centre.astype(np.float32),
            slope=closed.slope,
            prior=closed.prior,
            broad=closed.broad,
            scale=scale,
            photos=float(closed.photos),
            axes=np.empty((rows.shape[1], 0), np.float16),
        )
        counts = np.bincount(labels, minlength=len(names))
        means = np.zeros(texts.shape)
        np.add.at(means, labels, rows)
        weights, bias = linear(model, texts, means / counts[:, None], counts, flags)
        return cls(tuple(names), weights[:-1], bias[:-1])

    def probabilities(self, rows: Floats) -> Floats:
        """Return the probabilities (N, C) of the classes for unit rows (N, D)."""
        result = np.empty((len(rows), len(self.names)), np.float32)
        for start in range(0, len(rows), _ROWS):
            some = slice(start, start + _ROWS)
            result[some] = np.exp(log_probabilities(rows[some] @ self.weights.T + self.bias))
        return result
