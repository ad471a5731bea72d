"""Accuracies on features made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sar_train.evaluation.accuracy import evaluate, harmonic_mean

percent = st.floats(0.1, 100)


def test_accuracy_per_class_and_confusions() -> None:
    logits = torch.tensor([[1.0, 0, -1], [0, -3, -2], [0, 0.5, 0], [0, 0, 9]])
    result = evaluate(logits, torch.tensor([0, 1, 1, 2]), ["cat", "dog", "cow"])
    assert result.accuracy == 75
    assert result.per_class == {"cat": 100, "dog": 50, "cow": 100}
    assert result.counts == {"cat": 1, "dog": 2, "cow": 1}
    assert result.confused == [{"true": "dog", "predicted": "cat", "count": 1}]
    nothing = evaluate(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), ["cat", "dog"])
    assert math.isnan(nothing.accuracy)
    assert nothing.per_class == {}


def test_classes_that_share_a_name_are_counted_apart() -> None:
    logits = torch.eye(3)[[0, 1, 1, 2]]
    result = evaluate(logits, torch.tensor([0, 1, 2, 2]), ["missile", "crane", "missile"])
    assert result.counts == {"missile (class 0)": 1, "crane": 1, "missile (class 2)": 2}
    assert result.per_class == {"missile (class 0)": 100.0, "crane": 100.0, "missile (class 2)": 50.0}
    assert result.confused == [{"true": "missile (class 2)", "predicted": "crane", "count": 1}]


def test_the_most_frequent_confusions_come_first_and_ties_in_order_of_classes() -> None:
    errors = [(2, 0), (1, 2), (1, 2), (0, 2), (0, 1)]
    labels, guesses = (torch.tensor(column) for column in zip(*errors, strict=True))
    pairs = [("b", "c", 2), ("a", "b", 1), ("a", "c", 1), ("c", "a", 1)]
    for count, confused in ((10, pairs), (2, pairs[:2])):
        result = evaluate(torch.eye(3)[guesses], labels, ["a", "b", "c"], pairs=count)
        assert [tuple(pair.values()) for pair in result.confused] == confused
    many = torch.arange(12)
    assert len(evaluate(torch.eye(12).roll(1, 0), many, [f"{i}" for i in many]).confused) == 10


@given(percent, percent)
def test_harmonic_mean_lies_between_and_below_the_mean(base: float, new: float) -> None:
    mean = harmonic_mean(base, new)
    assert mean is not None
    assert min(base, new) - 1e-9 <= mean <= (base + new) / 2 + 1e-9


def test_harmonic_mean_of_the_published_averages() -> None:
    assert harmonic_mean(69.34, 74.22) == pytest.approx(71.70, abs=0.01)
    assert harmonic_mean(None, 1) is harmonic_mean(1, None) is None
    assert harmonic_mean(0, 0) == harmonic_mean(0.5, 0) == 0
    assert harmonic_mean(0.25, 0.5) == pytest.approx(1 / 3)
