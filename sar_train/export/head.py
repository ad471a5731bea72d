"""The classifier that some methods have for the trained classes, as a file of the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sar_infer.bank.head import ClassHead
from sar_infer.text.names import name_key, spoken

if TYPE_CHECKING:
    from sar_train.training.prompted import PromptedCLIP


def head_names(prompted: PromptedCLIP, phrases: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the trained classes as the bank spells them if the bundle can have the method's head, else nothing.

    The head answers together with the text branch, so every trained class has to be in the bank, once, under its own
    name.

    Args:
        prompted: the model whose head it is.
        phrases: the phrases of each class of the bank.
    """
    return () if prompted.method.head() is None else trained_names(prompted, phrases)


def trained_names(prompted: PromptedCLIP, phrases: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the trained classes as the bank spells them if each is there once, under its own name; else nothing."""
    themselves = {
        name_key(name): name for name, several in phrases.items() if [*map(name_key, several)] == [name_key(name)]
    }
    keys = [name_key(spoken(name)) for name in prompted.trained]
    if len(set(keys)) < len(keys) or not all(key in themselves for key in keys):
        return ()
    return tuple(themselves[key] for key in keys)


def class_head(prompted: PromptedCLIP, names: Sequence[str], encoder_digest: str) -> ClassHead | None:
    """Return the head with its classes under these names, or None if there are no names."""
    head = prompted.method.head()
    if head is None or not names:
        return None
    weight, bias = (tensor.detach().cpu().float().numpy() for tensor in (head.weight, head.bias))
    return ClassHead(tuple(names), weight, bias, head.mix, encoder_digest)
