"""The probe solves its convex problem: the gradient vanishes, and a case known in closed form comes out."""

import pytest
import torch
from support.features import rows

from sar_train.evaluation.linear_probe import STRENGTHS, choose, fit, linear_probe


def gradient(
    features: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, l2: float
) -> float:
    """Largest entry of the gradient, derived by hand: (softmax - one-hot) x / N + l2 W."""
    x = features.double()
    error = (x @ weight.T + bias).softmax(1)
    error[torch.arange(len(labels)), labels] -= 1
    return float(max((error.T @ x / len(x) + l2 * weight).abs().max(), error.mean(0).abs().max()))


@pytest.mark.parametrize("l2", [1e-2, 1e-4, 1e-6])
def test_the_gradient_vanishes(l2: float) -> None:
    train = rows(60)
    probe = fit(train.features, train.labels, 3, l2)
    assert gradient(train.features, train.labels, probe.weight, probe.bias, l2) < 1e-6
    warm = fit(train.features, train.labels, 3, l2, start=fit(train.features, train.labels, 3, 1e-3))
    assert gradient(train.features, train.labels, warm.weight, warm.bias, l2) < 1e-6


def noise(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features that say nothing, so that accuracy shows every change of the weights."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=rng), torch.arange(count) % 3


def test_the_strength_is_that_which_does_best_on_validation_rows_and_of_equals_the_largest() -> None:
    train, val, test = noise(30, 1), noise(30, 3), noise(3000, 2)
    strengths = (1e-1, 1e-3)
    scores = [fit(*train, 3, l2).accuracy(*val) for l2 in strengths]
    assert choose(train, val, 3, strengths).l2 == strengths[scores.index(max(scores))]
    apart = rows(30)
    assert choose((apart.features, apart.labels), (apart.features, apart.labels), 3).l2 == 1e-2
    assert STRENGTHS == (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    assert linear_probe(*train, *test, val=val) == choose(train, val, 3).accuracy(*test)
    assert linear_probe(*train, *test, val=(val[0][:0], val[1][:0])) == linear_probe(*train, *test)


@pytest.mark.parametrize("count", [8, 30])
def test_a_seeded_quarter_chooses_and_all_rows_are_trained_on(count: int) -> None:
    train, test = noise(count, 1), noise(3000, 2)
    for seed in (1, 2):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        held, others = order[: count // 4], order[count // 4 :]
        chosen = choose((train[0][others], train[1][others]), (train[0][held], train[1][held]), 3)
        expected = fit(*train, 3, chosen.l2).accuracy(*test)
        assert linear_probe(*train, *test, seed=seed) == pytest.approx(expected, abs=0.1)
    assert linear_probe(*train, *test) == linear_probe(*train, *test, seed=1)


def test_views_of_a_held_out_photo_are_not_trained_on() -> None:
    def hint(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 3
        return 0.8 * torch.eye(24)[labels] + torch.randn(count, 24, generator=rng), labels

    test = hint(3000, 2)
    for count, seed in ((40, 1), (40, 4), (7, 1)):  # copies change no fit, so nothing comes out otherwise
        features, labels = hint(count, 1)
        views = torch.stack([features] * 3, 1)
        once = linear_probe(features, labels, *test, seed=seed)
        assert linear_probe(views, labels, *test, seed=seed) == pytest.approx(once, abs=0.05)
