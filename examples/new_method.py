"""Stay, a prompt-tuning method of your own: CoOp's context, with a penalty on how far it moves from its first words.

    python examples/new_method.py [FOLDER]

Copied to ``sar_train/methods/stay.py`` without its last lines (docs/extend.md), it is found by being there, and
the protocols, SAR, the export and the conformance tests take it up. Run as a script, it registers itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sar_train.clip.prompts import Prompts
from sar_train.methods.base import Classes, ForwardOutputs, PromptMethod, Schedule, Setup, methods, start_context


@dataclass(frozen=True)
class StayConfig:
    """Settings of Stay.

    Attributes:
        weight: of the penalty.
    """

    weight: float = 0.1


@methods.register("stay")
class Stay(PromptMethod):
    """Context vectors (M, W) that stay near the words they start from."""

    Config = StayConfig
    schedule = Schedule(epochs=50, learning_rate=2e-3, batch_size=32)
    paper = "none, an example"

    def __init__(self, config: StayConfig, setup: Setup) -> None:
        """Start from the embeddings of ``a photo of a``."""
        super().__init__(config, setup)
        self.context = start_context(setup, "a photo of a", 4)
        self.register_buffer("start", self.context.detach().clone())

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:
        """Return the learned context; the name and a full stop follow it."""
        return Prompts(self.context)

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:
        """Return cross-entropy and the penalty, each by its name."""
        moved = (self.context - self.get_buffer("start")).square().sum()
        return super().terms(outputs) | {"stay": self.config.weight * moved}


if __name__ == "__main__":
    import sys
    from pathlib import Path

    from sar_train import train

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
    run = train(
        "demo",
        method="stay",
        settings={"stay": {"weight": 1}},
        shots=4,
        statistics=False,
        epochs=2,
        out=folder / "stay",
        overwrite=True,
        progress=print,
    )
    print(f"\nbase {run.scores.base_accuracy:.1f} %, new {run.scores.new_accuracy:.1f} %")
