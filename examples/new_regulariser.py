"""Near, a regulariser of your own: each name's embedding, trained or novel, stays near its hand-crafted one.

    python examples/new_regulariser.py [FOLDER]

Over the base names and a few novel ones, with w_i the unit embedding of name i under the learned prompt and v_i under
the hand-crafted one::

    loss = mean over i of (1 - w_i . v_i)

Copied to ``sar_train/regularisers/near.py`` without its last lines (docs/extend.md), it is found by being
there and composes with every method. Run as a script, it registers itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sar_train.regularisers.base import Regulariser, RegulariserInputs, regularisers


@dataclass(frozen=True)
class NearConfig:
    """Settings of Near.

    Attributes:
        weight: multiplier of the loss.
        novel: how many novel names a step draws.
    """

    weight: float = 8.0
    novel: int = 16


@regularisers.register("near")
class Near(Regulariser):
    """The loss above."""

    Config = NearConfig

    def __init__(self, config: NearConfig) -> None:
        """Keep the settings."""
        self.config = config

    def draw(self, n_base: int, n_novel: int, generator: torch.Generator) -> Tensor:
        """Take all base names and draw novel ones."""
        novel = n_base + torch.randperm(n_novel, generator=generator)[: self.config.novel]
        return torch.cat([torch.arange(n_base), novel])

    def weight(self, progress: float) -> float:
        """Return the same weight throughout."""
        return self.config.weight

    def __call__(self, inputs: RegulariserInputs) -> Tensor:
        """Compute the loss in float32."""
        return (1 - (inputs.prompted.float() * inputs.handcrafted.float()).sum(1)).mean()


if __name__ == "__main__":
    import sys
    from pathlib import Path

    from sar_train import train

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
    run = train(
        "demo",
        method="coop",
        settings={"near": {"weight": 8}},
        shots=4,
        statistics=False,
        epochs=2,
        out=folder / "near",
        overwrite=True,
        progress=print,
    )
    print(f"\nbase {run.scores.base_accuracy:.1f} %, new {run.scores.new_accuracy:.1f} %")
