"""The base of all prompt-tuning methods: trainable parameters that turn into `Prompts`, and loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import Prompts
from sar_train.registry import Registry

Tower = Literal["text", "image"]


@dataclass(frozen=True)
class Schedule:
    """The training of a method unless the user says otherwise; `loop.learning_rate` says how the rate falls.

    Attributes:
        epochs: as published for 16 shots and ViT-B/16.
        learning_rate: as published.
        batch_size: as published.
        optimiser: SGD with ``momentum``, or Adam with ``eps``.
        momentum: of SGD.
        weight_decay: of both.
        eps: of Adam.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    eps: float = 1e-8


@dataclass(frozen=True)
class Setup:
    """Everything that a method is made from, besides its settings.

    Attributes:
        backbone: the frozen CLIP.
        class_names: the C classes with images.
        template: the hand-crafted prompt with ``{}``.
        generator: every random number comes from it.
    """

    backbone: Backbone
    class_names: Sequence[str]
    template: str
    generator: torch.Generator


class Classes:
    """The class names of one call, trained or not.

    Args:
        names: C names.
        handcrafted: their unit embeddings, or a function that makes them when a method first asks.
    """

    def __init__(self, names: Sequence[str], handcrafted: Tensor | Callable[[], Tensor]) -> None:
        self.names, self._handcrafted = names, handcrafted

    @cached_property
    def handcrafted(self) -> Tensor:
        """Return (C, D) unit embeddings under the hand-crafted template, without gradient."""
        return self._handcrafted if isinstance(self._handcrafted, Tensor) else self._handcrafted()


@dataclass(frozen=True)
class ForwardOutputs:
    """The tensors that one training step computed, all in float32.

    Attributes:
        images: (B, D) unit image features, under image prompts where the method has them.
        frozen: (B, D) unit features of the same views without prompts, or a function that makes them when a method
            first asks for `frozen_images`.
        prompted: (C, D) unit class embeddings under the learned prompt, with gradient.
        handcrafted: (C, D) the same under the hand-crafted template, without.
        logits: (B, C) scaled cosines.
        labels: (B,) classes of the images.
        scale: multiplier of the cosine.
    """

    images: Tensor
    frozen: Tensor | Callable[[], Tensor]
    prompted: Tensor
    handcrafted: Tensor
    logits: Tensor
    labels: Tensor
    scale: float

    @cached_property
    def frozen_images(self) -> Tensor:
        """Return (B, D) unit features of the same views without prompts, without gradient."""
        return self.frozen if isinstance(self.frozen, Tensor) else self.frozen()


@dataclass(frozen=True)
class Head:
    """A linear classifier of the trained classes next to the text branch.

    The logits of an image are ``(1 - mix) * text + mix * (weight @ feature + bias)``, as long as the candidates are
    exactly the trained classes.

    Attributes:
        weight: (C, D), for unit features.
        bias: (C,).
        mix: share of the head.
    """

    weight: Tensor
    bias: Tensor
    mix: float


class PromptMethod(nn.Module, ABC):
    """One method of the field; its parameters are all that is trained.

    Class attributes:
        Config: a frozen dataclass with cited defaults.
        schedule: the published schedule.
        paper: title and arXiv number.
        towers: which towers it puts prompts into. Without ``image``, image features are made once and kept.
        per_image: whether the prompt depends on the image; such a method has a buffer ``mean_image`` (D,), which
            is used for all images where none is given. It is filled with the mean unit feature of the training images.
        reference_terms: names of terms whose gradient is not added but handed to `project_gradient`.
        trains: False for the methods that only use the hand-crafted prompt.
        sar_weight: SAR's weight where none is given, if the method suits another than the usual one; 0 leaves SAR off
            unless it is asked for (docs/experiments.md).
    """

    Config: ClassVar[type[Any]]
    schedule: ClassVar[Schedule]
    paper: ClassVar[str]
    towers: ClassVar[tuple[Tower, ...]] = ("text",)
    per_image: ClassVar[bool] = False
    reference_terms: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[bool] = True
    sar_weight: ClassVar[float | None] = None

    config: Any

    def __init__(self, config: Any, setup: Setup | None) -> None:
        """Keep the settings and the names of the trained classes; a method calls this, then makes its parameters.

        Without a ``setup`` there are no trained classes, as for the fixed prompts of an export.
        """
        super().__init__()
        self.config, self.class_names = config, tuple(setup.class_names) if setup else ()

    @classmethod
    def published(cls, experiment: str, *, shots: int, dataset: str) -> Mapping[str, Any]:  # noqa: ARG003
        """Return what the paper's scripts set otherwise than the defaults here, which are those of 16-shot base-to-new.

        Args:
            experiment: ``base-to-new``, ``few-shot``, ``cross-dataset`` or ``domain-generalisation``.
            shots: images per class.
            dataset: what is trained on, as in `sar_train.data.layouts.LAYOUTS` where it is one of those.

        Returns:
            Settings in the vocabulary of ``sar-train --config``.
        """
        return {}

    @classmethod
    def settle(cls, config: Any, template: str, dataset: str | None) -> tuple[Any, str]:  # noqa: ARG003
        """Return the settings and the hand-crafted template of a run, once it is known what it learns from.

        By default both stay as they are. A method whose reference implementation has templates of its own puts them
        here. Zero-shot is evaluated with the dataset's template in any case.

        Args:
            config: the method's settings as given.
            template: the hand-crafted prompt with ``{}``, the user's or the dataset's.
            dataset: a key of `sar_train.data.layouts.LAYOUTS`; None where the data is none of those or the template is
                the user's.

        Raises:
            ConfigError: not a template.
        """
        return config, template

    @abstractmethod
    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:
        """Return the prompts as they are now, differentiable, for any class names.

        Args:
            classes: the names that will be embedded.
            image: (D,) the unit feature of the image in question, for methods with ``per_image``; None asks for a
                prompt that does not depend on an image.
        """

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:
        """Return loss terms by name, already weighted; their sum is minimised. By default the cross-entropy."""
        return {"cross_entropy": cross_entropy(outputs.logits, outputs.labels)}

    def project_gradient(self, gradient: Tensor, reference: Tensor) -> Tensor:  # noqa: ARG002
        """Return the gradient of a parameter, from that of the loss and that of the ``reference_terms``."""
        return gradient

    def groups(self, learning_rate: float) -> list[tuple[list[nn.Parameter], float]]:
        """Return the parameters and the learning rate of each group, for the run's ``learning_rate``."""
        return [(list(self.parameters()), learning_rate)]

    def averaging(self, epochs: int) -> Sequence[float] | None:  # noqa: ARG002
        """Return weights by which the parameters after each epoch are averaged into the result; None takes the last."""
        return None

    @property
    def transfers(self) -> bool:
        """Return True if the prompts can serve names other than the trained ones."""
        return True

    def head(self) -> Head | None:
        """Return the classifier of the trained classes, None where the method has none."""
        return None


def later(default: Any) -> Any:
    """Declare a setting of a method's ``Config`` that is newer than the committed results.

    At its default it is no part of a result's key (`sar_train.training.identity`), so that their keys hold.
    """
    return field(default=default, metadata={"later": True})


def start_context(setup: Setup, words: str, n_ctx: int) -> nn.Parameter:
    """Make a context (M, W) of the token vectors of ``words``; without words, ``n_ctx`` vectors from N(0, 0.02^2)."""
    tower = setup.backbone.text
    start = tower.embed_text(words).clone() if words else normal(setup, n_ctx, tower.width)
    return nn.Parameter(start.to(setup.backbone.device, torch.float32))


def normal(setup: Setup, *shape: int) -> Tensor:
    """Draw random numbers from N(0, 0.02^2), the usual start values of prompts."""
    return (0.02 * torch.randn(shape, generator=setup.generator)).to(setup.backbone.device)


def linear(setup: Setup, n_in: int, n_out: int) -> nn.Linear:
    """Make a linear layer with torch's default start values, drawn from the setup's generator."""
    layer, bound = nn.Linear(n_in, n_out), n_in**-0.5
    for parameter in layer.parameters():
        drawn = torch.rand(parameter.shape, generator=setup.generator)
        parameter.data.copy_(bound * (2 * drawn - 1))
    return layer.to(setup.backbone.device)


def scale_depth(depth: int, layers: int) -> int:
    """Scale a number of layers given for CLIP's 12 to a tower of another depth: at least 1, at most all."""
    return min(layers, max(1, round(depth * layers / 12)))


methods: Registry[PromptMethod] = Registry("method", "sar_train.methods")
"""Every method that learns is one file in this folder, and is registered by being there."""
ZERO_SHOT, GDA = "zero-shot", "gda"


@dataclass(frozen=True)
class NoSettings:
    """A method without settings."""


class ZeroShot(PromptMethod):
    """The hand-crafted prompt. Nothing is trained, so it also runs on text towers that take no learned prompt."""

    Config = NoSettings
    schedule = Schedule(epochs=0, learning_rate=0.0, batch_size=1)
    paper = "Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020"
    trains = False
    sar_weight = 0.0

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:
        """Raise NotImplementedError: the backbone embeds names under the template."""
        raise NotImplementedError


class GaussianModel(ZeroShot):
    """The class model under the hand-crafted prompt."""

    paper = "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, arXiv 2402.04087"


UNTRAINED: Mapping[str, type[PromptMethod]] = {GDA: GaussianModel, ZERO_SHOT: ZeroShot}
"""Methods without training, by name."""


def method_kind(name: str) -> type[PromptMethod]:
    """Return the class of a method, with training or without.

    Raises:
        ConfigError: no such method.
    """
    return UNTRAINED.get(name) or methods.get(name)


def describe_methods() -> list[dict[str, Any]]:
    """List name, paper, prompted towers and whether image features are cached, for each method."""
    return [
        {
            "name": name,
            "paper": kind.paper,
            "towers": list(kind.towers) if kind.trains else [],
            "features_cached": "image" not in kind.towers,
            "prompt_per_image": kind.per_image,
        }
        for name, kind in {**methods.entries, **UNTRAINED}.items()
    ]
