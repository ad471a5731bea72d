"""What SAR is about, kept with each result: cosines among the class names, hand-crafted and learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sar_train.training.prompted import PromptedCLIP

MOST = 128
"""Names kept at most; of more classes every n-th of base and of new."""


@torch.no_grad()
def similarities(prompted: PromptedCLIP, base: Sequence[str], new: Sequence[str]) -> dict[str, Any] | None:
    """``names`` (base first), ``base`` (how many), and cosines by the ``handcrafted`` and the ``learned`` prompt.

    They are multiplied by 1,000, upper triangle row by row. None where the prompts hold for the trained classes alone,
    or where there are fewer than three names.
    """
    share = min(1.0, MOST / max(1, len(base) + len(new)))
    kept = [_thin(list(dict.fromkeys(names)), share) for names in (base, new)]
    names = [*kept[0], *kept[1]]
    if not prompted.method.transfers or len(names) < 3:
        return None
    handcrafted = prompted.backbone.embed_names(names, prompted.backbone.handcrafted(prompted.template))
    return {
        "names": names,
        "base": len(kept[0]),
        "handcrafted": _triangle(handcrafted),
        "learned": _triangle(prompted.embed(names)),
    }


def _thin(names: Sequence[str], share: float) -> list[str]:
    count = int(len(names) * share)
    return [names[i * len(names) // count] for i in range(count)]


def _triangle(rows: Tensor) -> list[int]:
    upper = torch.triu_indices(len(rows), len(rows), 1)
    cosines = (rows @ rows.T)[upper[0], upper[1]]
    return [int(value) for value in (1000 * cosines).round().tolist()]
