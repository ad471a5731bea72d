"""What a classification is asked to choose from, and the request that says so."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sar_infer.client.exchange import Call
from sar_infer.client.pictures import Picture
from sar_infer.errors import InputError
from sar_infer.results import PLAIN, DecisionOptions
from sar_infer.text.names import Classes, phrases_by_name

Mode = Literal["bank", "extend", "only"]


@dataclass(frozen=True)
class Options:
    """What a classification chooses from, and how much it answers."""

    classes: Mapping[str, tuple[str, ...]]
    mode: Mode | None
    top_k: int
    judging: DecisionOptions = PLAIN

    @classmethod
    def of(
        cls, classes: Classes | None, only: bool, top_k: int, mode: Mode | None, judging: DecisionOptions = PLAIN
    ) -> Options:
        """The options of a call.

        Raises:
            ClassNameError: a name has no phrases, or something is not text.
            InputError: ``classes`` is a single string, ``only`` and ``mode`` disagree, or a threshold is asked for.
        """
        if judging.threshold is not None:
            raise InputError("a server has its bundle's threshold; leave it out")
        if only and mode not in (None, "only"):
            raise InputError(f"only and mode {mode!r} disagree; give one of them")
        return cls(phrases_by_name(classes), "only" if only else mode, top_k, judging)

    @property
    def spellings(self) -> dict[str, str]:
        """The names as they were given, by what a server makes of each: composed letters and single spaces."""
        return {" ".join(unicodedata.normalize("NFC", name).split()): name for name in self.classes}

    def call(self, pictures: Sequence[Picture]) -> Call:
        """A form; JSON where a class has phrases of its own, which a form cannot say."""
        asked = {"mode": self.mode, "unknown": self.judging.unknown, "coverage": self.judging.coverage}
        fields: dict[str, Any] = {"top_k": self.top_k} | {k: v for k, v in asked.items() if v is not None}
        if self.judging.explain:
            fields["explain"] = "true"
        if all(phrases == (name,) for name, phrases in self.classes.items()):
            fields |= {"classes": list(self.classes)}
            return Call("POST", "/v1/classify", fields=fields, files=[picture.data for picture in pictures])
        images = [base64.b64encode(picture.data).decode() for picture in pictures]
        classes = {name: list(phrases) for name, phrases in self.classes.items()}
        return Call("POST", "/v1/classify", json={**fields, "classes": classes, "images": images})
