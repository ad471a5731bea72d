"""What a bank knows of a class beside its name and row."""

from __future__ import annotations

import dataclasses
import unicodedata
from dataclasses import dataclass
from typing import Any

from sar_infer.errors import BankError


@dataclass(frozen=True)
class ClassInfo:
    """What differs from a plain class of the bundle.

    Attributes:
        phrases: What was embedded and averaged on the sphere; () is the name itself.
        aliases: Other names of the class, which find it and take its row.
        background: Takes part in the softmax, and is never an answer.
        threshold: Least score, 0..1, for the class to be believed.
        added: UTC time in ISO form when it came, or got its present row, at run time; None for the bundle's own.

    Raises:
        BankError: a phrase or an alias is empty, no text, or has a control character, or the threshold is out of range.
    """

    phrases: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    background: bool = False
    threshold: float | None = None
    added: str | None = None

    def __post_init__(self) -> None:
        for what, texts in (("phrase", self.phrases), ("alias", self.aliases)):
            for text in texts:
                check_text(what, text)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise BankError(f"expected a threshold of 0..1, got {self.threshold}")


def check_text(what: str, text: str) -> None:
    """As class names are checked: control characters, and halves of surrogate pairs, which no file can hold.

    Raises:
        BankError: it is empty, or has one.
    """
    if not text.strip():
        raise BankError(f"a class has an empty {what}")
    kinds = () if text.isprintable() else {unicodedata.category(character) for character in text}
    if "Cc" in kinds:
        raise BankError(f"{what} {text!r:.80} has a control character")
    if "Cs" in kinds:
        raise BankError(f"{what} {text!r:.80} is not text in UTF-8")


PLAIN = ClassInfo()
"""A class of the bundle that nothing is known of but name and row."""


def sparse(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, and those without one; for JSON."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if item != default:
            result[field.name] = item
    return result
