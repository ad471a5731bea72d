"""What goes through a checkpoint, to the bit, and the average of parameters over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.problems import equal, interrupted, parameters, schedule, started, train

from sar_train.training.checkpoint import load_state
from sar_train.training.state import State


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


def test_the_result_is_the_weighted_sum_over_epochs() -> None:
    plan, epochs = schedule("promptsrc"), []
    state = started("promptsrc", plan, mean=3.0, sigma=1.0)
    before = parameters(state.method)
    shares = list(state.averaging)
    weights = {}

    def keep(now: State) -> None:
        if now.epoch < plan.epochs:
            epochs.append(parameters(now.method))
        weights.update(now.average)

    # The parameters after the last epoch are those of a twin that averages nothing.
    train(state, "promptsrc", plan, after_epoch=keep)
    twin = started("promptsrc", plan, mean=3.0, sigma=1.0)
    twin.averaging = None
    train(twin, "promptsrc", plan)
    epochs.append(parameters(twin.method))
    assert len(epochs) == len(shares) == 4
    for name, result in parameters(state.method).items():
        expected = sum(share * epoch[name] for share, epoch in zip(shares, epochs, strict=True))
        torch.testing.assert_close(result, expected, atol=1e-7, rtol=1e-6)
        assert not torch.equal(result, epochs[-1][name]), name
    assert weights.keys() == before.keys()
