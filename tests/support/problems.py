"""Small learning problems for the tiny backbone: features far from its text embeddings, or generated photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from support.features import Rows, stored
from support.tiny import VIT, tiny_backbone
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from sar_train.data.dataset import SPLITS
from sar_train.data.feature_file import StoredFeatures
from sar_train.data.task import Task
from sar_train.methods.base import Classes, PromptMethod, Schedule, Setup, methods
from sar_train.regularisers.base import Regularisation, regularisers
from sar_train.training import loop
from sar_train.training.checkpoint import load_state, save_state
from sar_train.training.loop import TrainingPrecision
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.state import State, start

CLASSES = ("cat", "dog", "sea lake", "red car", "green tree", "tall house", "apple", "chair")
BASE = CLASSES[:4]
NOVEL = ("fox", "boat", "lamp", "grey stone", "bird")
TEMPLATE = "a photo of a {}."
SIZE = 32
"""Pixels a side."""


def scattered(labels: Sequence[int], seed: int, spread: float = 0.4) -> Tensor:
    """(N, D) unit rows around a direction of each label's own, far from the text embeddings."""
    rng = torch.Generator().manual_seed(99)
    size = tiny_backbone().embed_dim
    centres = normalize(torch.randn(len(CLASSES), size, generator=rng), dim=-1)
    noise = torch.randn(len(labels), size, generator=torch.Generator().manual_seed(seed))
    return normalize(centres[torch.tensor(labels)] + spread * noise / size**0.5, dim=-1)


def generated_photos(labels: Sequence[int], seed: int) -> Tensor:
    """(N, 3, 32, 32) pixels: a coarse pattern of each label's own, and noise."""
    patterns = torch.randn(len(CLASSES), 3, 4, 4, generator=torch.Generator().manual_seed(98))
    smooth = interpolate(patterns, (SIZE, SIZE), mode="bilinear")
    noise = torch.randn(len(labels), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return smooth[torch.tensor(labels)] + 0.3 * noise


def feature_set(per_class: int = 12) -> StoredFeatures:
    """Eight classes, ``per_class`` photos each in every split, published split."""
    labels = [label for label in range(len(CLASSES)) for _ in range(per_class)]
    splits: Rows = {s: (scattered(labels, seed), torch.tensor(labels)) for seed, s in enumerate(SPLITS, 1)}
    return stored(splits, "blobs", CLASSES)


def classes(names: Sequence[str] = BASE, template: str = TEMPLATE, model: str = VIT) -> Classes:
    """Names with their hand-crafted embeddings."""
    backbone = tiny_backbone(model)
    return Classes(tuple(names), backbone.embed_names(names, template))


def setup(
    names: Sequence[str] = BASE,
    template: str = TEMPLATE,
    seed: int = 3,
    model: str = VIT,
) -> Setup:
    """What a method is made from."""
    return Setup(tiny_backbone(model), tuple(names), template, torch.Generator().manual_seed(seed))


def make(name: str, given: Setup | None = None, **settings: Any) -> PromptMethod:
    """A registered method at its start values."""
    kind = methods.get(name)
    return kind(kind.Config(**settings), given or setup())


def embed(method: PromptMethod, names: Sequence[str] = BASE, template: str = TEMPLATE, model: str = VIT) -> Tensor:
    """(C, D) class embeddings under a method's prompts, with gradient."""
    return tiny_backbone(model).text(method.prompts(classes(names, template, model)), names)


@cache
def problem(views: int = 2, per_class: int = 6, *, photos: bool = False) -> Task:
    """Four classes in turn; with ``photos`` from generated photos, whose views take turns as the crops of an epoch."""
    backbone, labels = tiny_backbone(), [i % len(BASE) for i in range(per_class * len(BASE))]
    crops: Callable[[Tensor, int], Tensor] | None = None
    if photos:
        pixels = torch.stack([generated_photos(labels, seed) for seed in range(views)], 1)
        features = backbone.encode_images(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])

        def crops(rows: Tensor, epoch: int) -> Tensor:
            return pixels[rows, epoch % views]

    else:
        features = torch.stack([scattered(labels, seed) for seed in range(views)], 1)
    return Task(features, torch.tensor(labels), BASE, classes().handcrafted, crops)


def regularisation(name: str = "sar", **settings: Any) -> Regularisation:
    """A regulariser over the base classes and five novel names; SAR draws three of these unless told otherwise."""
    kind = regularisers.get(name)
    config = kind.Config(**({"subset": 3} if name == "sar" else {}) | settings)
    return Regularisation(kind(config), NOVEL, classes([*BASE, *NOVEL]).handcrafted)


def schedule(name: str, **changes: Any) -> Schedule:
    """A method's own schedule, short."""
    kind = methods.get(name)
    short = {"epochs": 4, "learning_rate": 0.005, "batch_size": 1 if kind.per_image else 8}
    return dataclasses.replace(kind.schedule, **(short | changes))


def problem_for(name: str) -> Task:
    """With photos for methods that prompt the image tower, with few ones for methods that train one at a time."""
    kind = methods.get(name)
    return problem(2, 2 if kind.per_image else 6, photos="image" in kind.towers)


def started(
    name: str, plan: Schedule | None = None, seed: int = 3, precision: TrainingPrecision = "fp32", **settings: Any
) -> State:
    """The state before the first epoch; float16's scale is low enough that no step is skipped."""
    kind = methods.get(name)
    method = make(name, setup(seed=seed), **settings)
    if kind.per_image:
        method.get_buffer("mean_image").copy_(problem_for(name).features[:, 0].mean(0))
    state = start(method, plan or schedule(name), seed, scaled=precision == "fp16")
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 1024.0})
    return state


def train(
    state: State,
    name: str,
    plan: Schedule | None = None,
    extra: Regularisation | None = None,
    after_epoch: Callable[[State], None] = lambda state: None,
    precision: TrainingPrecision = "fp32",
) -> State:
    """Run what is left of the epochs; the state itself is given back."""
    step = loop.OptimiserStep(tiny_backbone(), problem_for(name), state, extra, precision=precision)
    loop.train(step, plan or schedule(name), after_epoch)
    return state


def interrupted(
    folder: Path,
    name: str,
    epoch: int,
    plan: Schedule | None = None,
    precision: TrainingPrecision = "fp32",
    regulariser: str = "sar",
    **settings: Any,
) -> tuple[State, State]:
    """A whole run with a regulariser, and one that goes on from the file that the first left after an epoch."""
    extra = regularisation(regulariser, weight=1.0)

    def keep(now: State) -> None:
        if now.epoch == epoch:
            meta = {"config": {}, "epoch": now.epoch, "history": now.history, "seconds": 0.0}
            save_state(folder, now.tensors(), meta)

    whole = started(name, plan, precision=precision, **settings)
    train(whole, name, plan, extra, keep, precision)
    stored = load_state(folder)
    assert stored is not None
    resumed = started(name, plan, seed=8, precision=precision, **settings)  # every random number is another one
    resumed.restore(stored[0], stored[1]["epoch"], stored[1]["history"])
    train(resumed, name, plan, extra, precision=precision)
    return whole, resumed


def prompted(method: PromptMethod, template: str = TEMPLATE, model: str = VIT) -> PromptedCLIP:
    """A method ready for use."""
    return PromptedCLIP(tiny_backbone(model), method, template, BASE)


def parameters(method: PromptMethod) -> dict[str, Tensor]:
    """Copies of the parameters by name."""
    return {name: value.detach().clone() for name, value in method.named_parameters()}


def equal(first: PromptMethod, second: PromptMethod) -> bool:
    """Whether all parameters and buffers are equal to the bit."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
