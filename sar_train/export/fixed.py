"""Fixed prompts in the form of a method, so that an untuned backbone is exported like any other."""

from __future__ import annotations

from torch import Tensor, nn

from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import Prompts
from sar_train.methods.base import Classes, PromptMethod
from sar_train.training.prompted import PromptedCLIP


class Fixed(PromptMethod):
    """The same prompts for all classes. Not registered, as there is nothing to train."""

    paper = "no paper: a hand-crafted template"

    context: Tensor

    def __init__(self, prompts: Prompts) -> None:
        """Keep the context and the suffix, which are all that a template has."""
        nn.Module.__init__(self)
        self.register_buffer("context", prompts.context)
        self.suffix = prompts.suffix

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the prompts that were given."""
        return Prompts(self.context, self.suffix)


def handcrafted(backbone: Backbone, template: str) -> PromptedCLIP:
    """Return an untuned backbone under a hand-crafted template.

    Raises:
        ConfigError: not a template.
    """
    return PromptedCLIP(backbone, Fixed(backbone.handcrafted(template)), template, ())
