"""Fixed prompts in the form of a method, so that an untuned text side is exported like any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import DeepPrompt, Prompts
from sar_train.methods.base import Classes, PromptMethod
from sar_train.training.prompted import PromptedCLIP


class Fixed(PromptMethod):
    """The same prompts for all classes. Not registered, as there is nothing to train.

    Args:
        prompts: their context and suffix, which are all that a template has.
        image: what a trained method puts into the image tower.
    """

    paper = "no paper: a hand-crafted template"

    context: Tensor

    def __init__(self, prompts: Prompts, image: Mapping[int, DeepPrompt] | None = None) -> None:
        super().__init__(None, None)
        self.register_buffer("context", prompts.context)
        self.suffix = prompts.suffix
        self._image = {k: dataclasses.replace(item, vectors=item.vectors.detach()) for k, item in (image or {}).items()}
        for layer, item in self._image.items():  # so that they are part of what the encoder is known by
            self.register_buffer(f"image_{layer}", item.vectors)

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the prompts that were given."""
        return Prompts(self.context, self.suffix, image=self._image)


class FixedBeside(Fixed):
    """The same, beside what a trained method puts into the image tower."""

    towers = ("text", "image")


def handcrafted(backbone: Backbone, template: str) -> PromptedCLIP:
    """Return an untuned backbone under a hand-crafted template.

    Raises:
        ConfigError: not a template.
    """
    return PromptedCLIP(backbone, Fixed(backbone.handcrafted(template)), template, ())


def with_handcrafted(prompted: PromptedCLIP, template: str) -> PromptedCLIP:
    """Return a trained method's classes and image side with a hand-crafted template in place of its prompt.

    Raises:
        ConfigError: not a template.
    """
    backbone, learned = prompted.backbone, prompted.image_prompts()
    plain = backbone.handcrafted(template)
    method = Fixed(plain) if learned is None else FixedBeside(plain, learned.image)
    return PromptedCLIP(backbone, method, template, prompted.trained)
