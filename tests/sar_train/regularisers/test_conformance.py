"""The duties of every registered regulariser; a new file in ``regularisers/`` is picked up by itself."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from support.problems import BASE, NOVEL, classes, equal, regularisation, schedule, started, train
from torch.nn.functional import normalize

from sar_train.regularisers.base import Regulariser, RegulariserInputs, regularisers
from sar_train.training.state import State

every_regulariser = pytest.mark.parametrize("name", regularisers.entries)


def made(name: str) -> Regulariser:
    kind = regularisers.get(name)
    return kind(kind.Config())


def moved(dtype: torch.dtype = torch.float32) -> RegulariserInputs:
    """Unit embeddings of nine names, some way from their hand-crafted ones."""
    handcrafted = classes([*BASE, *NOVEL]).handcrafted
    noise = torch.randn(handcrafted.shape, generator=torch.Generator().manual_seed(5))
    prompted = normalize(handcrafted + noise / handcrafted.shape[1] ** 0.5, dim=1).to(dtype).requires_grad_()
    return RegulariserInputs(prompted, handcrafted.to(dtype), torch.arange(len(handcrafted)) < len(BASE))


@cache
def trained(name: str | None, weight: float) -> State:
    plan = schedule("coop", epochs=4)
    return train(started("coop", plan), "coop", plan, regularisation(name, weight=weight) if name else None)


@every_regulariser
@pytest.mark.parametrize(("n_base", "n_novel"), [(100, 400), (4, 5), (2, 0), (1, 1)])
def test_draws_are_names_that_are_there_and_repeat_with_the_seed(name: str, n_base: int, n_novel: int) -> None:
    def draws() -> list[list[int]]:
        generator = torch.Generator().manual_seed(7)
        return [made(name).draw(n_base, n_novel, generator).tolist() for _ in range(3)]

    for drawn in draws():
        assert drawn
        assert len(set(drawn)) == len(drawn), "a name twice"
        assert set(drawn) <= set(range(n_base + n_novel))
        base = [index < n_base for index in drawn]
        assert base == sorted(base, reverse=True), "base names come first"
    assert draws() == draws(), "random numbers come from the generator alone"


@every_regulariser
def test_the_weight_is_a_number_throughout(name: str) -> None:
    weights = [made(name).weight(step / 10) for step in range(11)]
    assert all(0 <= weight < float("inf") for weight in weights)
    assert weights[-1] > 0


@every_regulariser
def test_the_penalty_is_a_float32_scalar_whose_gradient_reaches_the_learned_embeddings(name: str) -> None:
    inputs = moved()
    penalty = made(name)(inputs)
    assert (penalty.shape, penalty.dtype) == ((), torch.float32)
    penalty.backward()
    gradient = inputs.prompted.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    assert inputs.handcrafted.grad is None
    half = moved(torch.bfloat16)
    whole = RegulariserInputs(half.prompted.float(), half.handcrafted.float(), half.is_base)
    assert float(made(name)(half).detach()) == float(made(name)(whole).detach()), "not computed in float32"


@every_regulariser
def test_it_counts_and_at_weight_zero_it_is_not_there(name: str) -> None:
    plain, zero, weighted = trained(None, 0.0), trained(name, 0.0), trained(name, 1.0)
    assert equal(zero.method, plain.method)
    assert zero.history == plain.history
    assert not equal(weighted.method, plain.method)
    assert all("regulariser" in epoch for epoch in weighted.history)
