"""Class names as packed token rows: grouped by length, so that nothing is padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from sar_train.errors import ClassNameError

Encode = Callable[[str], list[int]]
"""Text to token ids, without start and end token (the ``encode`` method of a CLIP tokenizer)."""


SLACK = 8
"""Padding tokens that are worth a group less: every group costs a round of small operations in each layer."""


@dataclass(frozen=True)
class PackedTokens:
    """C class names as one token row.

    Attributes:
        ids: (N,) token ids of all names one after the other, shortest names first, each ending with the end token and
            padded with 0 to the length of its group.
        groups: (count, length) of each run of names that are laid out equally long, in the order of ``ids``.
        lengths: (C,) tokens of each name without padding, in packed order.
        order: (C,) ``order[i]`` is the place of the i-th packed name in the caller's list.
    """

    ids: Tensor
    groups: tuple[tuple[int, int], ...]
    lengths: Tensor
    order: Tensor

    @property
    def positions(self) -> Tensor:
        """Return (N,) the place of each token within its name, from 0."""
        return torch.cat([torch.arange(length).repeat(count) for count, length in self.groups]).to(self.ids.device)

    @property
    def ends(self) -> Tensor:
        """Return (C,) the index of each name's end token, in packed order."""
        laid = torch.cat([torch.full((count,), length) for count, length in self.groups]).to(self.ids.device)
        return laid.cumsum(0) - laid + self.lengths - 1

    def to(self, device: torch.device) -> PackedTokens:
        """Return the same names on another device."""
        return PackedTokens(self.ids.to(device), self.groups, self.lengths.to(device), self.order.to(device))


def pack(rows: Sequence[Sequence[int]], slack: int = SLACK) -> PackedTokens:
    """Sort token rows by length and lay them one after the other, in groups of one length.

    A group joins that of the next length where that pads at most ``slack`` tokens.

    Raises:
        ClassNameError: there is no row.
    """
    if not rows:
        raise ClassNameError("no class names: expected at least one")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    groups: list[tuple[int, int]] = []
    for length, run in groupby(len(rows[i]) for i in order):
        count = len(list(run))
        if groups and groups[-1][0] * (length - groups[-1][1]) <= slack:
            count += groups.pop()[0]
        groups.append((count, length))
    laid = [length for count, length in groups for _ in range(count)]
    flat = [t for i, n in zip(order, laid, strict=True) for t in (*rows[i], *[0] * (n - len(rows[i])))]
    lengths = torch.tensor([len(rows[i]) for i in order])
    return PackedTokens(torch.tensor(flat), tuple(groups), lengths, torch.tensor(order))
