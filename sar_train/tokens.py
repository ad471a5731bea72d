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


@dataclass(frozen=True)
class PackedNames:
    """C class names as one token row.

    Attributes:
        ids: (N,) token ids of all names one after the other, shortest names first, each ending with the end token.
        groups: (count, length) of each run of equally long names, in the order of ``ids``.
        order: (C,) ``order[i]`` is the place of the i-th packed name in the caller's list.
    """

    ids: Tensor
    groups: tuple[tuple[int, int], ...]
    order: Tensor

    @property
    def positions(self) -> Tensor:
        """(N,) place of each token within its name, from 0."""
        return torch.cat([torch.arange(length).repeat(count) for count, length in self.groups])

    @property
    def ends(self) -> Tensor:
        """(C,) index of each name's end token, in packed order."""
        lengths = torch.cat([torch.full((count,), length) for count, length in self.groups])
        return lengths.cumsum(0) - 1


def tokenise(names: Sequence[str], suffix: str, encode: Encode, *, end_token: int, room: int) -> list[list[int]]:
    """Token ids of ``name + suffix`` and the end token for every name (underscores read as spaces).

    Args:
        names: class names.
        suffix: what the template has behind the name, usually ``.``.
        encode: the tokenizer.
        end_token: id of the end token.
        room: how many positions there are, end token included.

    Raises:
        ClassNameError: a name is empty or needs more than ``room`` positions.
    """
    rows = []
    for i, name in enumerate(names):
        if not name.strip(" _"):
            raise ClassNameError(f"class name {i + 1} is empty: give every class a name")
        ids = [*encode(name.replace("_", " ") + suffix), end_token]
        if len(ids) > room:
            raise ClassNameError(
                f"class name {name[:40]!r}… needs {len(ids)} tokens, but behind the prompt there is room for {room}: "
                "shorten the name"
            )
        rows.append(ids)
    return rows


def pack(rows: Sequence[Sequence[int]]) -> PackedNames:
    """Sort token rows by length and lay them one after the other.

    Raises:
        ClassNameError: there is no row.
    """
    if not rows:
        raise ClassNameError("no class names: expected at least one")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    groups = tuple((len(list(run)), length) for length, run in groupby(len(rows[i]) for i in order))
    flat = torch.tensor([token for i in order for token in rows[i]])
    return PackedNames(flat, groups, torch.tensor(order))
