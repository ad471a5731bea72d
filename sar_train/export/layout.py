"""The prompt around a name in the graph, and how many positions it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sar_infer.text import TokenizerSpec
from sar_train.clip.prompts import Prompts
from sar_train.clip.text_tower import TextTower
from sar_train.errors import ExportError
from sar_train.export.fixed import Fixed
from sar_train.training.prompted import PromptedCLIP


@dataclass(frozen=True)
class PromptLayout:
    """The prompts of a method, seen without any particular name.

    Attributes:
        prompts: the prompts of one name; those of other classes may differ in values, not in shape.
        teacher: the hand-crafted prompts from whose embeddings the method makes each class's prompts; None if the
            prompts are the same for all classes.
        template: the hand-crafted template that takes part in embedding a name, or None.
        longer: by how many tokens the teacher's text after the name is longer than the method's; may be negative.
    """

    prompts: Prompts
    teacher: Prompts | None
    template: str | None
    longer: int = 0

    @property
    def n_prefix(self) -> int:
        """Count the positions beside name, suffix and end token: the start token and all context, also after the name.

        The teacher needs room for the name as well, so the longer prompt of the two counts.
        """
        student = 1 + self.prompts.n_context + self.prompts.n_suffix_context
        return student if self.teacher is None else max(student, 1 + self.teacher.n_context + self.longer)


@torch.no_grad()
def layout(prompted: PromptedCLIP) -> PromptLayout:
    """Return the layout of a method's prompts.

    Raises:
        ExportError: teacher and student have different texts after the name, and a text may merge with the name into
            one token, so that the two cannot read one input.
    """
    prompts, template = prompted.method.prompts(prompted.classes(["x"])), prompted.template
    if prompts.first_class_specific_layer is None:
        return PromptLayout(prompts, None, template if isinstance(prompted.method, Fixed) else None)
    teacher = prompted.backbone.handcrafted(template)
    behind = prompts.suffix, teacher.suffix
    if behind[0] != behind[1] and any(text and not text[0].isspace() for text in behind):
        raise ExportError(
            f"the method puts {behind[0]!r} after a name and its template {template!r} {behind[1]!r}; both read the "
            "same tokens of a name, so the two texts must be equal or begin with a space"
        )
    tower = prompted.backbone.text
    return PromptLayout(prompts, teacher, template, tower.tail(teacher) - tower.tail(prompts))


def tokenizer_spec(tower: TextTower, placed: PromptLayout) -> TokenizerSpec:
    """Return how names become tokens for these prompts.

    Raises:
        ExportError: no position is left for a name.
    """
    n_prefix, suffix = placed.n_prefix, placed.prompts.suffix
    room = tower.context_length - n_prefix - 1
    if room < 1 + len(tower.encode(suffix)):
        raise ExportError(f"the prompt takes {n_prefix} of {tower.context_length} positions: no room for a name")
    return TokenizerSpec("clip-bpe", tower.context_length, n_prefix, suffix, tower.end_token, room)
