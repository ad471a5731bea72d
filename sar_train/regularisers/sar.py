"""Similarity Alignment Regularization (Jung & Lee, arXiv 2502.11969), in a formulation of our own.

The paper keeps the similarities among the text embeddings of base and novel class names as a hand-crafted prompt has
them. Its equation is not public to us; what follows is ours. Over a random subset S of base and novel names, with w_i
the unit embedding under the learned prompt and v_i under the hand-crafted one::

    s_ij = w_i . w_j        t_ij = v_i . v_j
    loss = mean over i in S and j != i of (s_ij - t_ij)^2

so that similarities which moved a little cost next to nothing. The loss does not see a common rotation of all w. With
``frame="teacher"``, s_ij is w_i . v_j. Then s_ij - t_ij = (w_i - v_i) . v_j, and the loss is pointwise in the teacher's
frame: a sum of quadratic forms of each name's own shift, as KgCoOp's distance in another metric. ``distance="kl"``
compares the softmax over j of s_ij / tau with that of t_ij / tau. The defaults come from ``experiments/ruler.toml`` and
``experiments/ruler_frame.toml`` (docs/experiments.md). A step draws a quarter as many novel names as there are base
names, so that it costs about a quarter more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from sar_train.regularisers.base import Regulariser, RegulariserInputs, regularisers


@dataclass(frozen=True)
class SARConfig:
    """Settings of SAR (all ours: the paper's values are not public to us).

    Args:
        weight: of the loss. 0: as without SAR, bit by bit. ProGrad's default is 1; for DePT and PromptSRC SAR is off.
        tau: temperature of both softmaxes of the KL distances.
        distance: ``mse`` or ``l1`` on the similarities; ``kl``: mean over i of KL(softmax_j t_ij / tau, softmax_j s_ij
            / tau); ``kl-reverse``: arguments swapped. A weight is for one distance.
        frame: ``own``: s_ij = w_i . w_j; a rotation of all names costs nothing. ``teacher``: s_ij = w_i . v_j.
        rows: which i count: ``all`` of S, or only auxiliary names (``novel``).
        rule: in each step ``mixed``: all trained classes and a draw of auxiliary names; ``union``: a draw from both.
        subset: names drawn; below 1 a share of the number of trained classes; 0: all.
        anchor: weight of the pull of auxiliary embeddings to their hand-crafted ones.
        ramp: share of the training over which the weight grows from 0.
        teacher: ``template``: the hand-crafted template; ``ensemble``: the mean over CLIP's 80 templates.
    """

    weight: float = 10.0
    tau: float = 0.1
    distance: Literal["kl", "kl-reverse", "l1", "mse"] = "mse"
    frame: Literal["own", "teacher"] = "own"
    rows: Literal["all", "novel"] = "all"
    rule: Literal["mixed", "union"] = "mixed"
    subset: float = 0.25
    anchor: float = 0.0
    ramp: float = 0.0
    teacher: Literal["template", "ensemble"] = "template"

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected 0 or more, got {getattr(self, name)}"
            for name in ("weight", "subset", "anchor")
            if getattr(self, name) < 0
        ]
        if self.tau <= 0:
            problems.append(f"tau: expected more than 0, got {self.tau}")
        if not 0 <= self.ramp <= 1:
            problems.append(f"ramp: expected 0 to 1, got {self.ramp}")
        if problems:
            raise ValueError("; ".join(problems))


@regularisers.register("sar")
class SAR(Regulariser):
    """The loss above."""

    Config = SARConfig

    def __init__(self, config: SARConfig) -> None:
        """Keep the settings."""
        self.config = config

    def draw(self, n_base: int, n_novel: int, generator: torch.Generator) -> Tensor:
        """Take all base names and draw novel ones, or draw from the union; see `SARConfig.rule`."""
        first = n_base if self.config.rule == "mixed" else 0
        pool = n_base + n_novel - first
        subset = self.config.subset
        count = min(pool, max(1, round(subset * n_base if subset < 1 else subset)) if subset else pool)
        drawn = first + torch.randperm(pool, generator=generator)[:count].sort().values
        return torch.cat([torch.arange(first), drawn])

    def weight(self, progress: float) -> float:
        """Return a weight that grows linearly from 0 over the first ``ramp`` of the training, then stays."""
        return self.config.weight * (min(1.0, progress / self.config.ramp) if self.config.ramp else 1.0)

    def __call__(self, inputs: RegulariserInputs) -> Tensor:
        """Compute the loss in float32."""
        prompted, handcrafted = inputs.prompted.float(), inputs.handcrafted.float()
        novel = ~inputs.is_base
        columns = handcrafted if self.config.frame == "teacher" else prompted
        rows = novel if self.config.rows == "novel" else torch.ones_like(novel)
        loss = relation_loss(prompted @ columns.T, handcrafted @ handcrafted.T, rows, self.config)
        if self.config.anchor and novel.any():
            loss = loss + self.config.anchor * (1 - (prompted * handcrafted).sum(1)[novel]).mean()
        return loss


def relation_loss(student: Tensor, teacher: Tensor, rows: Tensor, config: SARConfig) -> Tensor:
    """Return the mean distance between the chosen rows (K,) of two (K, K) similarity matrices, without diagonals."""
    size = len(student)
    if size < 2 or not rows.any():
        return student.sum() * 0
    off = ~torch.eye(size, dtype=torch.bool, device=student.device)
    student, teacher = student[off].view(size, size - 1)[rows], teacher[off].view(size, size - 1)[rows]
    if config.distance == "l1":
        return (student - teacher).abs().mean()
    if config.distance == "mse":
        return (student - teacher).square().mean()
    student, teacher = (student / config.tau).log_softmax(1), (teacher / config.tau).log_softmax(1)
    if config.distance == "kl":
        return kl_div(student, teacher, reduction="batchmean", log_target=True)
    return kl_div(teacher, student, reduction="batchmean", log_target=True)
