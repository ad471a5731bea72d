"""One step: the update that an optimiser would make, in pieces, at other precisions, with a regulariser."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support import full_length
from support.problems import (
    BASE,
    NOVEL,
    make,
    parameters,
    problem,
    problem_for,
    regularisation,
    schedule,
    started,
)
from support.tiny import tiny_backbone
from torch import Tensor

from sar_train.data.task import Task
from sar_train.methods.base import PromptMethod, methods
from sar_train.regularisers.base import Regularisation, RegulariserInputs
from sar_train.regularisers.sar import SAR, SARConfig
from sar_train.training import loop
from sar_train.training.loop import OptimiserStep
from sar_train.training.state import start


class Watched(SAR):
    """Keeps what it is given."""

    def __init__(self, config: SARConfig) -> None:
        super().__init__(config)
        self.seen: list[RegulariserInputs] = []

    def __call__(self, inputs: RegulariserInputs) -> Tensor:
        self.seen.append(inputs)
        return super().__call__(inputs)


def one_step(
    method: PromptMethod,
    data: Task,
    rows: Tensor,
    extra: Regularisation | None = None,
    rate: float = 0.1,
    micro_batch: int = 0,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The terms, and how the parameters moved at a learning rate of 0.1 without momentum or decay."""
    plan = schedule("coop", learning_rate=rate, momentum=0.0, weight_decay=0.0)
    before = parameters(method)
    terms = OptimiserStep(tiny_backbone(), data, start(method, plan, 1), extra, micro_batch=micro_batch)(rows, 0.0)
    return terms, {name: value - before[name] for name, value in parameters(method).items()}


def test_the_regulariser_is_added_at_its_weight_and_sees_base_and_novel_names() -> None:
    sar = regularisation(weight=2.0, subset=0)
    teacher = sar.teacher.roll(1, 1)  # other than the single template
    watched = Watched(sar.regulariser.config)
    extra = Regularisation(watched, NOVEL, teacher, sar.novel_handcrafted)
    method, data = make("coop", context_init="", n_ctx=3), problem(1)
    start_value = method.context.detach().clone()
    terms, moved = one_step(method, data, torch.arange(24), extra=extra, rate=0.01)
    context = start_value.clone().requires_grad_()
    rows = full_length.text_rows(tiny_backbone(), [*BASE, *NOVEL], context)
    torch.testing.assert_close(watched.seen[0].prompted, rows, atol=2e-6, rtol=0)
    torch.testing.assert_close(watched.seen[0].handcrafted, teacher)
    assert watched.seen[0].is_base.tolist() == [True] * 4 + [False] * 5
    logits = tiny_backbone().logit_scale * data.features[:, 0] @ rows[:4].T
    penalty = SAR(SARConfig())(RegulariserInputs(rows, teacher, watched.seen[0].is_base))
    (torch.nn.functional.cross_entropy(logits, data.labels) + 2.0 * penalty).backward()
    assert terms["regulariser"] == pytest.approx(penalty.item(), rel=1e-4)
    torch.testing.assert_close(moved["context"], -0.01 * context.grad, atol=1e-6, rtol=1e-3)


def test_a_draw_from_the_union_keeps_rows_and_teacher_together() -> None:
    """Each prompted row must sit beside its own name's teacher: at the start of coop they are equal."""
    sar = regularisation(rule="union", subset=5)
    watched = Watched(sar.regulariser.config)
    extra = Regularisation(watched, NOVEL, sar.teacher)
    plan = schedule("coop", learning_rate=1e-12)
    state = start(make("coop"), plan, 1)
    step = OptimiserStep(tiny_backbone(), problem(), state, extra)
    for _ in range(6):
        step(torch.arange(4), 0.0)
    for inputs in watched.seen:
        torch.testing.assert_close(inputs.prompted, inputs.handcrafted, atol=2e-6, rtol=0)
        nearest = (inputs.handcrafted @ sar.teacher.T).argmax(1)
        assert torch.equal(inputs.is_base, nearest < 4)
    assert len({tuple(inputs.is_base.tolist()) for inputs in watched.seen}) > 1


@pytest.mark.parametrize("name", methods.entries)
def test_pieces_of_a_batch_add_up_to_the_batch(name: str) -> None:
    data = problem_for(name)
    extra = None if name == "cocoop" else regularisation(weight=1.0)  # its names follow each piece's first photo
    results = [one_step(make(name), data, torch.arange(8), extra, 0.01, micro_batch=size) for size in (0, 3, 8)]
    for terms, moved in results[1:]:
        assert terms == {key: pytest.approx(value, rel=1e-4, abs=1e-6) for key, value in results[0][0].items()}
        for key, change in moved.items():
            assert (change - results[0][1][key]).norm() <= 1e-4 * results[0][1][key].norm() + 1e-9, key
    assert any(change.abs().max() > 0 for change in results[0][1].values())


def test_half_precision_gives_nearly_the_same_update_and_float16_scales_the_loss() -> None:
    data, moved = problem(1), {}
    for precision in ("fp32", "bf16", "fp16"):
        method = make("prograd", n_ctx=6)
        plan = schedule("coop", learning_rate=0.01, momentum=0.0, weight_decay=0.0)
        state = start(method, plan, 1, scaled=precision == "fp16")
        if precision == "fp16":
            state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 4096.0})
        before = parameters(method)
        OptimiserStep(tiny_backbone(), data, state, precision=precision)(torch.arange(24), 0.0)
        moved[precision] = method.context.detach() - before["context"]
        assert state.scaler.get_scale() == (4096.0 if precision == "fp16" else 1.0)
    for precision, most in (("fp16", 0.02), ("bf16", 0.1)):
        assert 0 < (moved[precision] - moved["fp32"]).norm() < most * moved["fp32"].norm()


def test_a_gradient_beyond_float16_skips_the_update_and_lowers_the_scale() -> None:
    method = make("coop")
    state = start(method, schedule("coop"), 1, scaled=True)
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 2.0**60})
    before = parameters(method)
    terms = OptimiserStep(tiny_backbone(), problem(1), state, precision="fp16")(torch.arange(24), 0.0)
    assert terms["cross_entropy"] < 100
    assert torch.equal(method.context.detach(), before["context"])
    assert state.scaler.get_scale() == 2.0**59


@pytest.mark.parametrize("name", ["maple", "promptsrc"])
def test_each_epoch_learns_from_its_own_crops(name: str) -> None:
    asked: list[tuple[list[int], int]] = []
    data = problem(1, photos=True)
    sar = data.crops
    crops = lambda rows, epoch: asked.append((rows.tolist(), epoch)) or sar(rows, epoch)  # noqa: E731
    plan = schedule(name, epochs=3, batch_size=12)
    data = dataclasses.replace(data, crops=crops)
    loop.train(OptimiserStep(tiny_backbone(), data, started(name, plan)), plan)
    assert [epoch for _, epoch in asked] == [1, 1, 2, 2, 3, 3]
    for epoch in (1, 2, 3):
        assert sorted(row for rows, when in asked if when == epoch for row in rows) == list(range(24))
