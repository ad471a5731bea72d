"""A regulariser beside SAR."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sar_train.regularisers.base import Regulariser, RegulariserInputs, regularisers


@dataclass(frozen=True)
class SevenConfig:
    """Settings of `Seven`."""

    weight: float = 1.0


class Seven(Regulariser):
    """A penalty of seven, whatever the embeddings."""

    Config = SevenConfig

    def __init__(self, config: SevenConfig) -> None:
        """Keep the weight."""
        self._weight = config.weight

    def draw(self, n_base: int, n_novel: int, generator: torch.Generator) -> Tensor:
        """Take all classes."""
        return torch.arange(n_base + n_novel)

    def weight(self, progress: float) -> float:
        """Return the weight."""
        return self._weight

    def __call__(self, inputs: RegulariserInputs) -> Tensor:
        """Return seven."""
        return 0 * inputs.prompted.sum() + 7


@contextmanager
def seven() -> Iterator[None]:
    """Register `Seven` as ``seven`` for a while."""
    regularisers.register("seven")(Seven)
    try:
        yield
    finally:
        del regularisers._entries["seven"]
