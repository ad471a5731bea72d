"""Run the ruler with a bound on the gap in place of SAR's weight: the weight adapts to it, or training stops at it.

    python experiments/ruler/bound.py adapt 0.07 run experiments/ruler.toml --data-root ../shared/data --out OUT
    python experiments/ruler/bound.py stop 0.1 run experiments/ruler.toml --data-root ../shared/data --out OUT

The gap is the root of the mean squared difference of similarities, as cosines. Neither rule is in the package, and
docs/experiments.md says what they gave. They act on every run with squared SAR, whatever its weight; a run that was
interrupted has to begin anew.
"""

from __future__ import annotations

import math
import sys

from torch import Tensor

from sar_train.cli import experiment
from sar_train.regularisers.base import RegulariserInputs
from sar_train.regularisers.sar import SAR
from sar_train.training.state import State

RULE, BOUND = sys.argv[1], float(sys.argv[2])  # read here, since processes of the pool import this file
plain_loss, plain_end = SAR.__call__, State.end_epoch
weights: dict[SAR, float] = {}


def adapt(self: SAR, inputs: RegulariserInputs) -> Tensor:
    """Compute the loss, and let the weight grow above the bound and shrink below it, by a tenth a step at most."""
    loss = plain_loss(self, inputs)
    excess = math.sqrt(float(loss.detach())) / BOUND - 1
    weights[self] = min(1e3, max(1e-2, weights.get(self, 1.0) * math.exp(0.1 * max(-1.0, min(1.0, excess)))))
    return loss


def stop(self: State, entry: dict[str, float]) -> None:
    """Count the epoch, and let it be the last where its mean gap is above the bound."""
    plain_end(self, entry)
    if math.sqrt(entry.get("regulariser", 0.0)) > BOUND:
        self.epoch = sys.maxsize


if RULE == "adapt":
    SAR.__call__ = adapt  # type: ignore[method-assign]
    SAR.weight = lambda self, progress: weights.get(self, 1.0)  # type: ignore[method-assign]
else:
    State.end_epoch = stop  # type: ignore[method-assign]
    SAR.weight = lambda self, progress: 1e-9  # type: ignore[method-assign]  # measured only

if __name__ == "__main__":
    experiment.main(args=sys.argv[3:])
