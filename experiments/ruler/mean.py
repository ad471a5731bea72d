"""Run the ruler with a pull of the mean embedding to the hand-crafted one, against a common rotation of all names.

    python experiments/ruler/mean.py 0.3 run experiments/ruler_frame.toml --data-root ../shared/data --out OUT

The number is the weight of |mean of w - mean of v|² next to the similarities. It is not in the package: at 0.3, with
own 10, on Caltech101's first pair of split and seed, base / new (H), joint H:

    own 10, mean 0.3    85.5 / 72.1 (78.2), 66.4        own 10    88.3 / 72.3 (79.5), 68.6
"""

from __future__ import annotations

import sys

from torch import Tensor

from sar_train.cli import experiment
from sar_train.regularisers.base import RegulariserInputs
from sar_train.regularisers.sar import SAR

WEIGHT = float(sys.argv[1])  # read here, since processes of the pool import this file
plain = SAR.__call__


def pulled(self: SAR, inputs: RegulariserInputs) -> Tensor:
    """Compute the loss with the pull."""
    moved = (inputs.prompted.float() - inputs.handcrafted.float()).mean(0)
    return plain(self, inputs) + WEIGHT * moved.square().sum()


SAR.__call__ = pulled  # type: ignore[method-assign]

if __name__ == "__main__":
    experiment.main(args=sys.argv[2:])
