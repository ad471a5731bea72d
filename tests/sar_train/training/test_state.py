"""What goes through a checkpoint, to the bit, and the average of parameters over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.problems import equal, interrupted, parameters

from sar_train.training.checkpoint import load_state


@pytest.mark.parametrize(
    ("method", "epoch", "precision", "settings"),
    [
        ("coop", 3, "fp16", {}),
        ("promptsrc", 2, "fp32", {"mean": 2.0, "sigma": 1.0}),  # has an average
    ],
)
def test_a_run_goes_on_to_the_bit_after_any_epoch(
    tmp_path: Path, method: str, epoch: int, precision: Any, settings: dict[str, float]
) -> None:
    whole, resumed = interrupted(tmp_path, method, epoch, precision=precision, **settings)
    assert equal(resumed.method, whole.method)
    assert resumed.history == whole.history
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    assert whole.scaler.state_dict().get("_growth_tracker", 4 * 3) == 4 * 3
    for first, second in zip(resumed.method.parameters(), whole.method.parameters(), strict=True):
        ours, theirs = resumed.optimiser.state[first], whole.optimiser.state[second]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours if ours[key] is not None)
    tensors, _ = load_state(tmp_path)
    averaged = {name.removeprefix("average.") for name in tensors if name.startswith("average.")}
    assert averaged == (parameters(whole.method).keys() if method == "promptsrc" else set())
