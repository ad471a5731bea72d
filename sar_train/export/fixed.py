"""Fixed prompts in the form of a method, so that an untuned text side is exported like any other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import Prompts
from sar_train.methods.base import Classes, PromptMethod
from sar_train.training.prompted import PromptedCLIP


class Fixed(PromptMethod):
    """The same prompts for all classes. Not registered, as there is nothing to train.

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
    return PromptedCLIP(backbone, Fixed(backbone.handcrafted(template)), template, trained)
