"""The value that a method hands to the towers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sar_train.errors import ConfigError


@dataclass(frozen=True)
class Prompts:
    """What stands around a class name: ``[start][context][name][suffix][end]``.

    Attributes:
        context: (M, W) vectors in the space of the token embeddings, M may be 0. They are the same for every class,
            which is what lets the tower compute them once.
        suffix: text behind the name.
    """

    context: Tensor
    suffix: str = "."


def split_template(template: str) -> tuple[str, str]:
    """The text before and behind the class name in a hand-crafted template such as ``a photo of a {}.``.

    Raises:
        ConfigError: there is not exactly one ``{}``, or no white space before it (the tokens of a name must not
            depend on what stands before).
    """
    parts = template.split("{}")
    if len(parts) != 2:
        raise ConfigError(f"template {template!r}: expected exactly one {{}} for the class name, got {len(parts) - 1}")
    if parts[0] and not parts[0][-1].isspace():
        raise ConfigError(f"template {template!r}: expected a space before {{}}")
    return parts[0].strip(), parts[1].rstrip()
