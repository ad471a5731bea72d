"""What goes through a checkpoint, to the bit, and the average of parameters over epochs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.problems import equal, interrupted, make, parameters, schedule, started, train
from torch import Tensor

from sar_train.errors import RunError
from sar_train.training.checkpoint import load_state
from sar_train.training.state import State, start


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_goes_on_to_the_bit_after_any_epoch(tmp_path: Path, epoch: int) -> None:
    whole, resumed = interrupted(tmp_path, "coop", epoch)
    assert equal(resumed.method, whole.method)
    assert resumed.history == whole.history


def test_adam_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole, resumed = interrupted(tmp_path, "tcp", 2)
    assert equal(resumed.method, whole.method)
    for first, second in zip(resumed.method.parameters(), whole.method.parameters(), strict=True):
        ours, theirs = resumed.optimiser.state[first], whole.optimiser.state[second]
        assert ours.keys() == theirs.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert float(ours["step"]) == 4 * 3


def test_float16s_scale_goes_on(tmp_path: Path) -> None:
    whole, resumed = interrupted(tmp_path, "coop", 2, precision="fp16")
    assert equal(resumed.method, whole.method)
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    assert whole.scaler.state_dict()["_growth_tracker"] == 4 * 3


def test_float16s_scale_is_kept() -> None:
    plan = schedule("coop")
    first, second = (start(make("coop"), plan, 1, scaled=True) for _ in range(2))
    first.scaler.load_state_dict(first.scaler.state_dict() | {"scale": 128.0, "_growth_tracker": 7})
    second.restore(first.tensors(), 1, [])
    kept = second.scaler.state_dict()
    assert (kept["scale"], kept["_growth_tracker"]) == (128.0, 7)


def test_the_result_is_the_weighted_sum_over_epochs() -> None:
    plan, seen = schedule("promptsrc"), []
    state = started("promptsrc", plan, mean=3.0, sigma=1.0)
    before = parameters(state.method)
    shares = list(state.averaging)
    weights = {}

    def keep(now: State) -> None:
        if now.epoch < plan.epochs:
            seen.append(parameters(now.method))
        weights.update(now.average)

    # The parameters after the last epoch are those of a twin that averages nothing.
    train(state, "promptsrc", plan, after_epoch=keep)
    twin = started("promptsrc", plan, mean=3.0, sigma=1.0)
    twin.averaging = None
    train(twin, "promptsrc", plan)
    seen.append(parameters(twin.method))
    assert len(seen) == len(shares) == 4
    for name, result in parameters(state.method).items():
        expected = sum(share * epoch[name] for share, epoch in zip(shares, seen, strict=True))
        torch.testing.assert_close(result, expected, atol=1e-7, rtol=1e-6)
        assert not torch.equal(result, seen[-1][name]), name
    assert weights.keys() == before.keys()


def test_the_average_survives_an_interruption_and_holds_prompts_only(tmp_path: Path) -> None:
    whole, resumed = interrupted(tmp_path, "promptsrc", 2, mean=2.0, sigma=1.0)
    assert equal(resumed.method, whole.method)
    tensors, _ = load_state(tmp_path)
    kept = {name.removeprefix("average.") for name in tensors if name.startswith("average.")}
    assert kept == parameters(whole.method).keys()


def test_a_method_without_an_average_keeps_the_last() -> None:
    seen: list[dict[str, Tensor]] = []
    state = train(started("coop"), "coop", after_epoch=lambda now: seen.append(parameters(now.method)))
    assert torch.equal(state.method.context, seen[-1]["context"])
    assert not [name for name in state.tensors() if name.startswith("average.")]


def test_a_checkpoint_of_another_shape_or_method_is_refused() -> None:
    plan = schedule("coop")
    for other in (make("coop", context_init="", n_ctx=3), make("dept")):
        with pytest.raises(RunError, match="parameter context"):
            start(make("coop"), plan, 1).restore(start(other, plan, 1).tensors(), 1, [])
