"""A method on its backbone, ready for use: class embeddings, image features and answers, without gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sar_train.clip.backbone import CHUNK, Backbone
from sar_train.clip.prompts import Prompts
from sar_train.clip.text_tower import TextTower
from sar_train.config.run import build
from sar_train.errors import RunError
from sar_train.methods.base import Classes, PromptMethod, Setup, methods
from sar_train.training.checkpoint import HANDCRAFTED, Run


class PromptedCLIP:
    """A backbone under a method's prompts.

    Args:
        backbone: the frozen CLIP.
        method: whose prompts.
        template: the hand-crafted prompt with ``{}``.
        trained: the classes that the method was trained on, which its head knows.
    """

    def __init__(self, backbone: Backbone, method: PromptMethod, template: str, trained: Sequence[str]) -> None:
        self.backbone, self.method, self.template, self.trained = backbone, method, template, tuple(trained)

    def classes(self, names: Sequence[str]) -> Classes:
        """Return names with their hand-crafted embeddings, which are made when the method asks for them."""
        return Classes(tuple(names), lambda: self.backbone.embed_names(names, self.template))

    @torch.no_grad()
    def embed(self, names: Sequence[str]) -> Tensor:
        """Return (C, D) unit class embeddings; where prompts depend on the image, those for the mean training image."""
        if not isinstance(self.backbone.tower, TextTower):
            return self.backbone.embed_names(names, self.template)
        size = CHUNK if self.method.transfers else len(names)  # else prompts know their classes as a whole
        chunks = [names[i : i + size] for i in range(0, len(names), size)]
        return torch.cat([self.backbone.text(self.method.prompts(self.classes(chunk)), chunk) for chunk in chunks])

    @torch.no_grad()
    def image_prompts(self) -> Prompts | None:
        """Return the prompts for the image tower, None where it has none."""
        if "image" not in self.method.towers:
            return None
        return self.method.prompts(self.classes(self.trained[:1]))

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (N, 3, H, W) as (N, D) unit rows, under image prompts where the method has them."""
        prompts, tower = self.image_prompts(), self.backbone.image
        if prompts is None or tower is None:
            return self.backbone.encode_images(pixels)
        return tower(prompts, tower.embed(pixels.to(self.backbone.device)))

    @torch.no_grad()
    def logits(self, images: Tensor, names: Sequence[str], *, text_only: bool = False, frozen: bool = False) -> Tensor:
        """Return logits (N, C) for (N, D) unit image features.

        Args:
            images: from `encode_images`.
            names: the candidates; exactly the trained classes are answered by the head too, where there is one.
            text_only: leave the head out.
            frozen: take the prompt for the mean image, where it depends on the image.
        """
        images, scale = images.to(self.backbone.device), self.backbone.logit_scale
        if self.method.per_image and not frozen:
            classes, tower = self.classes(names), self.backbone.text
            packed = tower.pack(names, self.method.prompts(classes))
            rows = [tower(self.method.prompts(classes, image), packed) @ image for image in images]
            return scale * torch.stack(rows) if rows else images.new_zeros(0, len(names))
        logits: Tensor = scale * images @ self.embed(names).T
        head = self.method.head()
        if head is None or text_only or tuple(names) != self.trained:
            return logits
        return (1 - head.mix) * logits + head.mix * (images @ head.weight.T + head.bias)


class Fixed(PromptMethod):
    """The same prompts for all classes, so that an untuned text side is used and exported like any other.

    Args:
        prompts: their context and suffix, which are all that a template has.
    """

    paper = "no paper: a hand-crafted template"

    context: Tensor

    def __init__(self, prompts: Prompts) -> None:
        super().__init__(None, None)
        self.register_buffer("context", prompts.context)
        self.suffix = prompts.suffix

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the prompts that were given."""
        return Prompts(self.context, self.suffix)


def handcrafted(backbone: Backbone, template: str, trained: Sequence[str] = ()) -> PromptedCLIP:
    """Return an untuned backbone under a hand-crafted template, with the classes that it has a class model of.

    Raises:
        ConfigError: not a template.
    """
    with_prompts = isinstance(backbone.tower, TextTower)
    prompts = backbone.handcrafted(template) if with_prompts else Prompts(torch.empty(0, 0), "")
    return PromptedCLIP(backbone, Fixed(prompts), template, trained)


def restore(run: Run, backbone: Backbone) -> PromptedCLIP:
    """Open a stored run on its backbone; one without training has the hand-crafted prompt.

    Raises:
        RunError: the stored prompts do not fit the method or the backbone.
        ConfigError: unknown method or settings.
    """
    if run.method == HANDCRAFTED:
        return handcrafted(backbone, run.template, run.class_names)
    kind = methods.get(run.method)
    setup = Setup(backbone, run.class_names or ("x",), run.template or "a photo of a {}.", torch.Generator())
    method = kind(build(kind.Config, run.settings, f"[{run.method}] of the run"), setup)
    expected = {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in run.tensors.items()}
    if expected != shapes:
        wrong = min(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))
        raise RunError(
            f"the run's prompts do not fit {run.method} on {backbone.name}: {wrong} is {shapes.get(wrong, 'missing')}, "
            f"expected {expected.get(wrong, 'nothing of that name')}"
        )
    method.load_state_dict(dict(run.tensors))
    return PromptedCLIP(backbone, method.eval().requires_grad_(requires_grad=False), setup.template, run.class_names)
