"""Run plans with two penalties that compare photos with auxiliary names, which the package does not have.

    python experiments/ruler/step.py run experiments/ruler/step.toml --data-root ../shared/data --out OUT

``image_text`` keeps the similarities between the photos of a batch and the drawn auxiliary names as the hand-crafted
prompt has them: the mean over photos x and names j of (x . w_j - x . v_j)^2. ``distil`` keeps the softmax over base and
drawn names for each photo, at CLIP's logit scale: KL of the hand-crafted prompt's answer from the learned prompt's, as
PromptSRC does over base names. Both draw names as SAR does.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor
from torch.nn.functional import kl_div

from sar_train.cli import experiment
from sar_train.regularisers.base import RegulariserInputs, regularisers
from sar_train.regularisers.sar import SAR
from sar_train.training.loop import OptimiserStep

batch: dict[str, Tensor] = {}
"""Of the step: ``photos`` (B, D), unit features, and ``scaled``, these times the logit scale."""
plain_terms = OptimiserStep._terms


def terms(self: OptimiserStep, rows: Tensor, views: Tensor, drawn: Any) -> Any:
    """Return a step's terms; keep the photos for the penalty."""
    batch["photos"] = self.task.features[rows, views].float()
    batch["scaled"] = self._backbone.logit_scale * batch["photos"]
    return plain_terms(self, rows, views, drawn)


@regularisers.register("image_text")
class ImageText(SAR):
    """Squared differences of similarities between photos and auxiliary names."""

    def __call__(self, inputs: RegulariserInputs) -> Tensor:
        """Compute the loss in float32."""
        shift = (inputs.prompted.float() - inputs.handcrafted.float())[~inputs.is_base]
        return (batch["photos"] @ shift.T).square().mean()


@regularisers.register("distil")
class Distil(SAR):
    """Distillation of the hand-crafted prompt's softmax over base and auxiliary names."""

    def __call__(self, inputs: RegulariserInputs) -> Tensor:
        """Compute the loss in float32."""
        student, teacher = (
            (batch["scaled"] @ names.float().T).log_softmax(1) for names in (inputs.prompted, inputs.handcrafted)
        )
        return kl_div(student, teacher, reduction="batchmean", log_target=True)


OptimiserStep._terms = terms  # type: ignore[method-assign]

if __name__ == "__main__":
    experiment.main(sys.argv[1:])
