"""Run the ruler with a bound on the gap in place of SAR's weight: the weight adapts to it, or training stops at it.

    python experiments/ruler/bound.py adapt 0.07 run experiments/ruler.toml --data-root ../shared/data --out OUT
    python experiments/ruler/bound.py stop 0.1 run experiments/ruler.toml --data-root ../shared/data --out OUT

The gap is the root of the mean squared difference of similarities, as cosines. Neither rule is in the package. They
act on every run with squared SAR, whatever its weight; a run that was interrupted has to begin anew.

On the three pairs of split and seed of the finalists, Caltech101, base / new (H), open H:

    adapt 0.07    86.8 / 68.5 (76.5), 66.2        stop 0.1     81.3 / 69.0 (74.6), 64.1
    adapt 0.05    84.3 / 68.5 (75.6), 66.2        stop 0.05    69.9 / 69.7 (69.8), 61.2

Squared SAR at weight 10 ends at a gap of 0.07 by itself, with 85.9 / 68.9 (76.4), 67.3.
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
