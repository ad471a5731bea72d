"""Names that are the same class to a reader: equal up to case, space, accents, hyphens or plural."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from sar_infer.lint.finding import Finding
from sar_infer.text.names import name_key
from sar_infer.text.tokenizer import clean

_JOINT = re.compile(r"[\W_]+")


class KnownNames:
    """Names and aliases by what their spellings have in common.

    Args:
        names: Pairs of a name or alias, and the class that it stands for.
    """

    def __init__(self, names: Iterable[tuple[str, str]]) -> None:
        self._exact: dict[str, str] = {}
        self._loose: dict[str, str] = {}
        for name, owner in names:
            self.add(name, owner)

    def add(self, name: str, owner: str) -> None:
        """Know one more; the first that had a spelling keeps it."""
        self._exact.setdefault(name_key(name), owner)
        self._loose.setdefault(loose_key(name), owner)

    def check(self, name: str) -> Finding | None:
        """Which known class a name doubles, None where it doubles none."""
        owner = self._exact.get(name_key(name))
        if owner is not None:
            what = "is known already" if owner == name else f"is a name of {owner!r} already"
            return Finding("duplicate", "info" if owner == name else "warning", name, what, owner)
        owner = self._loose.get(loose_key(name))
        if owner is None:
            return None
        return Finding("duplicate", "warning", name, f"is another spelling of {owner!r}, which is known", owner)


def loose_key(name: str) -> str:
    """What spellings of one name share: letters and digits in lower case, no accents, the last word in the singular."""
    plain = unicodedata.normalize("NFKD", clean(name))
    words = _JOINT.split("".join(c for c in plain if not unicodedata.combining(c)).strip())
    words = [word for word in words if word] or [plain]
    return "".join([*words[:-1], _singular(words[-1])])


def _singular(word: str) -> str:
    """The word without an English plural's ending; wrong now and then, but the same for both of its forms."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes")) and len(word) > 4:
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word
