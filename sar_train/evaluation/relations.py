"""SAR's own measure, which needs no images: how far held-out names keep their hand-crafted relations."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sar_train.novel_names.source import key
from sar_train.novel_names.wordnet import load, random_words

COUNT = 300
SEED = 20_250_217
"""Names are drawn by a seed of their own, so that all runs are measured on nearly the same ones."""


def held_out_names(used: Iterable[str], new: Sequence[str] = (), count: int = COUNT) -> tuple[str, ...]:
    """Return names that a run neither trained on nor regularised: the new classes, then random WordNet nouns.

    Args:
        used: base and novel names, left out in any spelling (`clean.key`).
        new: names of the new classes.
        count: how many in all.
    """
    keys, names = {key(name) for name in used}, []
    for name in (*new, *random_words(load(), random.Random(SEED))):
        if key(name) not in keys:
            keys.add(key(name))
            names.append(name)
        if len(names) == count:
            break
    return tuple(names)


def spearman_of_relations(first: Tensor, second: Tensor) -> float:
    """Return Spearman's rank correlation between the off-diagonal cosines of two sets (C, D) of unit rows, C > 2."""
    upper = torch.triu_indices(len(first), len(first), 1)
    pairs = [(rows.double() @ rows.double().T)[upper[0], upper[1]].cpu().numpy() for rows in (first, second)]
    return spearman(*pairs)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two (N,) arrays, ties at their average rank."""
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the average rank of each value, less one half."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - counts / 2)[inverse]
