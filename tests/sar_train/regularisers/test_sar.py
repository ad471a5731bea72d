"""SAR against its formula written out with loops, and the properties that make it what it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from sar_train.regularisers.base import RegulariserInputs
from sar_train.regularisers.sar import SAR, SARConfig


def rows(count: int, seed: int, size: int = 8) -> torch.Tensor:
    return normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)), dim=-1)


def inputs(prompted: torch.Tensor, handcrafted: torch.Tensor, n_base: int = 3) -> RegulariserInputs:
    return RegulariserInputs(prompted, handcrafted, torch.arange(len(prompted)) < n_base)


def own(**settings: object) -> SAR:
    """The reading of the paper: relations among prompted embeddings, every row counts."""
    return SAR(SARConfig(**{"frame": "own", "rows": "all"} | settings))


def written_out(w: torch.Tensor, v: torch.Tensor, config: SARConfig, n_base: int = 3) -> float:
    columns = v if config.frame == "teacher" else w
    chosen = range(n_base, len(w)) if config.rows == "novel" else range(len(w))
    total = 0.0
    for i in chosen:
        others = [j for j in range(len(w)) if j != i]
        s = [math.exp(float(w[i] @ columns[j]) / config.tau) for j in others]
        t = [math.exp(float(v[i] @ v[j]) / config.tau) for j in others]
        p, q = [x / sum(s) for x in s], [x / sum(t) for x in t]
        first, second = (q, p) if config.distance == "kl" else (p, q)
        total += sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))
    return total / len(chosen)


@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("distance", ["kl", "kl-reverse"])
@pytest.mark.parametrize("frame", ["own", "teacher"])
@pytest.mark.parametrize("which", ["all", "novel"])
def test_kl_equals_the_formula(tau: float, distance: str, frame: str, which: str) -> None:
    w, v = rows(6, 0), rows(6, 1)
    config = SARConfig(tau=tau, distance=distance, frame=frame, rows=which)
    assert float(SAR(config)(inputs(w, v))) == pytest.approx(written_out(w, v, config), rel=1e-4)


def test_raw_distances_equal_the_formula() -> None:
    w, v = rows(5, 0), rows(5, 1)
    gaps = [float(w[i] @ w[j] - v[i] @ v[j]) for i in range(5) for j in range(5) if i != j]
    assert float(own(distance="l1")(inputs(w, v))) == pytest.approx(sum(map(abs, gaps)) / 20, rel=1e-5)
    assert float(own(distance="mse")(inputs(w, v))) == pytest.approx(sum(g * g for g in gaps) / 20, rel=1e-5)


@pytest.mark.parametrize("distance", ["kl", "kl-reverse", "l1", "mse"])
def test_zero_for_equal_relations_whatever_the_rotation(distance: str) -> None:
    v = rows(6, 0)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2))).Q
    loss = own(distance=distance)
    assert float(loss(inputs(v @ rotation, v))) == pytest.approx(0, abs=1e-6)
    assert float(loss(inputs(rows(6, 3), v))) > 1e-3


def test_the_anchor_pulls_novel_names_only() -> None:
    w, v = rows(6, 0), rows(6, 1)
    plain, anchored = (SAR(SARConfig(anchor=a))(inputs(w, v)) for a in (0.0, 2.0))
    assert float(anchored - plain) == pytest.approx(2 * float((1 - (w * v).sum(1))[3:].mean()), rel=1e-4)


def test_the_teachers_frame_sees_a_rotation_and_novel_rows_leave_base_alone() -> None:
    v = rows(6, 0)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2))).Q
    fixed, novel = own(frame="teacher"), own(frame="teacher", rows="novel")
    assert float(fixed(inputs(v, v))) == pytest.approx(0, abs=1e-6)
    assert float(fixed(inputs(v @ rotation, v))) > 1e-3
    moved = torch.cat([rows(3, 5), v[3:]]).requires_grad_()
    penalty = novel(inputs(moved, v))
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(0, abs=1e-6)
    assert moved.grad is not None
    assert float(moved.grad[:3].abs().max()) == 0
    assert float(fixed(inputs(moved.detach(), v))) > 1e-3


def test_the_teachers_frame_is_pointwise() -> None:
    """A sum of quadratic forms of the shift of each name by itself; the own frame is no such sum."""
    w, v = rows(6, 0), rows(6, 1)
    shift = w - v
    forms = [((shift[i] @ v.T) ** 2).sum() - (shift[i] @ v[i]) ** 2 for i in range(6)]
    assert float(own(frame="teacher")(inputs(w, v))) == pytest.approx(float(sum(forms)) / 30, rel=1e-5)
    assert float(own()(inputs(w, v))) != pytest.approx(float(sum(forms)) / 30, rel=1e-2)


def test_mixed_draws_all_base_names_and_union_draws_from_all() -> None:
    rng = torch.Generator().manual_seed(0)
    mixed = SAR(SARConfig(subset=5)).draw(10, 40, rng)
    assert mixed[:10].tolist() == list(range(10))
    assert len(mixed) == 15
    union = SAR(SARConfig(subset=20, rule="union")).draw(10, 40, rng).tolist()
    assert (len(union), union) == (20, sorted(union))
    assert any(i < 10 for i in union) and any(i >= 10 for i in union)
    assert SAR(SARConfig(subset=0)).draw(10, 40, rng).tolist() == list(range(50))
    assert SAR(SARConfig(subset=99)).draw(10, 3, rng).tolist() == list(range(13))
    assert len(SAR(SARConfig(subset=1)).draw(10, 40, rng)) == 11, "from one on a number of names, below it a share"
    assert len(SAR(SARConfig(subset=0.5)).draw(10, 40, rng)) == 15


@pytest.mark.parametrize(("n_base", "novel"), [(100, 25), (10, 2), (2, 1)])
def test_a_share_of_the_base_names_is_drawn_by_default(n_base: int, novel: int) -> None:
    drawn = SAR(SARConfig()).draw(n_base, 400, torch.Generator().manual_seed(0))
    assert len(drawn) == n_base + novel


def test_the_weight_ramps_up() -> None:
    ramped = SAR(SARConfig(weight=2.0, ramp=0.5))
    assert [ramped.weight(p) for p in (0, 0.25, 0.5, 1)] == [0, 1, 2, 2]
    assert SAR(SARConfig(weight=2.0)).weight(0) == 2


def test_settings_at_the_edge_and_beyond_it() -> None:
    beyond = [("tau", 0), ("weight", -0.1), ("subset", -0.1), ("anchor", -0.1), ("ramp", 1.1), ("ramp", -0.1)]
    for name, value in beyond:
        with pytest.raises(ValueError, match=name):
            SARConfig(**{name: value})
    SARConfig(weight=0, subset=0, anchor=0, ramp=0, tau=1e-9)
    SARConfig(ramp=1)


def test_fewer_than_two_names_or_no_novel_row_cost_nothing() -> None:
    for count in (1, 2):
        assert float(own(distance="kl")(inputs(rows(count, 0), rows(count, 1)))) == 0, (
            "no choice among neighbours, no loss"
        )
    assert float(own(distance="l1")(inputs(rows(2, 0), rows(2, 1)))) > 0
    w = rows(3, 0).requires_grad_()
    loss = SAR(SARConfig(rows="novel", anchor=1.0))(inputs(w, rows(3, 1)))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(w.grad.abs().max()) == 0
