from __future__ import annotations

import re

import numpy as np
import pytest

from sar_infer._arrays import at_even_steps, nearest
from sar_infer.bank import ClassBank
from sar_infer.bank_advice import row_rules
from sar_infer.bank_advice.row_rules import ABSOLUTE, HIGHEST, Neighbours
from sar_infer.encoders.encoders import unit_rows


def bank(rows: np.ndarray) -> ClassBank:
    return ClassBank.of(tuple(f"class {number}" for number in range(len(rows))), unit_rows(rows), "d")


@pytest.fixture(scope="module")
def large() -> ClassBank:
    return bank(np.random.default_rng(1).normal(size=(300, 16)).astype(np.float32))


def test_the_limit_is_the_banks_own(large: ClassBank) -> None:
    cosines = large.embeddings.astype(np.float64) @ large.embeddings.T.astype(np.float64)
    np.fill_diagonal(cosines, -1)
    assert Neighbours(large).limit == pytest.approx(np.percentile(cosines.max(axis=1), 99.9), abs=1e-6)


@pytest.mark.parametrize("rising", [True, False])
def test_a_glance_tells_what_the_plain_computation_tells(large: ClassBank, *, rising: bool) -> None:
    cosines = large.embeddings @ large.embeddings.T
    np.fill_diagonal(cosines, -1)
    nearest = cosines.max(axis=1)
    limit = np.percentile(nearest, 99.9)
    values = np.sort(np.concatenate([np.linspace(-1, 1, 50), nearest - 1e-5, nearest + 1e-5]))
    values = values if rising else values[::-1]
    neighbours = Neighbours(large)
    assert [neighbours.is_passed(value) for value in values] == [value > limit for value in values]


def test_an_ordinary_name_costs_a_glance(large: ClassBank, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counting(embeddings: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(rows))
        return nearest(embeddings, rows, k)

    monkeypatch.setattr(row_rules, "nearest", counting)
    neighbours = Neighbours(large)
    assert not neighbours.is_passed(0.3)
    assert neighbours.is_passed(0.995)  # a limit is never so high, but the message states it
    assert neighbours.limit < 0.99
    assert sizes == [64] * 4 + [44]
    assert Neighbours(large).check(["ordinary"], -large.embeddings.mean(axis=0, keepdims=True)) == []
    assert sizes[5:] == [1, 64]


def test_a_name_that_nearly_is_a_class_is_found(large: ClassBank) -> None:
    neighbours = Neighbours(large)
    direction = unit_rows(np.random.default_rng(2).normal(size=(1, 16)).astype(np.float32))[0]
    row = large.embeddings[7]
    across = unit_rows((direction - (direction @ row) * row)[np.newaxis])[0]
    near, far = (
        cosine * row + np.sqrt(1 - cosine**2) * across for cosine in (neighbours.limit + 0.01, neighbours.limit - 0.01)
    )
    (finding,) = neighbours.check(["near", "far"], np.stack([near, far]).astype(np.float32))
    assert (finding.kind, finding.name, finding.suggestion) == ("near-duplicate", "near", "class 7")


def test_the_message_has_the_digits_that_make_it_true(large: ClassBank) -> None:
    neighbours = Neighbours(large)
    row = large.embeddings[7]
    cosine = float(nearest(large.embeddings, row[np.newaxis], 1)[1][0, 0])
    for neighbours.limit in (cosine - 2e-5, cosine - 0.2):
        (finding,) = neighbours.check(["near"], row[np.newaxis])
        shown = re.search(r"cosine (\S+) to 'class 7', above (\S+), and", finding.message)
        assert shown is not None
        assert float(shown[1]) > float(shown[2])
    assert shown.groups() == ("1.00", "0.800")


def test_a_class_is_not_its_own_neighbour(large: ClassBank) -> None:
    assert Neighbours(large).check(["class 3"], large.embeddings[3:4]) == []


@pytest.mark.parametrize("count", [0, 1, 99])
def test_a_small_bank_has_a_fixed_limit(large: ClassBank, count: int) -> None:
    small = ClassBank.of(tuple(large.names[:count]), large.embeddings[:count], "d")
    neighbours = Neighbours(small)
    assert neighbours.limit == ABSOLUTE
    assert [finding.name for finding in neighbours.check(["x"], large.embeddings[:1])] == ["x"] * (count > 0)
    assert neighbours.check([], large.embeddings[:0]) == []


def test_a_bank_that_doubles_classes_hides_none(large: ClassBank) -> None:
    assert Neighbours(bank(np.concatenate([large.embeddings] * 2))).limit == HIGHEST


def test_every_name_of_many_is_looked_up(large: ClassBank) -> None:
    findings = Neighbours(large).check([f"new {number}" for number in range(300)], large.embeddings)
    assert [finding.suggestion for finding in findings] == list(large.names)


def test_a_large_bank_is_sampled_on_both_sides(large: ClassBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_rules, "MOST_SAMPLES", 20)
    whole = Neighbours(large).limit
    monkeypatch.setattr(row_rules, "MOST_COMPARED", 50)
    positions = sorted({*at_even_steps(300, 50).tolist(), *at_even_steps(300, 20).tolist()})
    cosines = large.embeddings[at_even_steps(300, 20)] @ large.embeddings[positions].T
    expected = np.percentile(np.sort(cosines, axis=1)[:, -2], 99.9)
    assert Neighbours(large).limit == pytest.approx(min(expected, HIGHEST), abs=1e-6)
    assert Neighbours(large).limit <= whole
