"""The base class of sources of novel names, and finding a source by the text that the user writes."""

from __future__ import annotations

import difflib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sar_train.errors import ConfigError
from sar_train.registry import Registry

_MARKS = ("Mc", "Mn")
"""Unicode's categories of accents and of the vowels of many scripts."""
_EMOJI = {chr(code) for code in range(0xFE00, 0xFE10)}
"""Variation selectors, which are marks too but of no letter."""


def key(name: str) -> str:
    """Return a name's letters, their marks and digits in lower case; two names are the same if these are."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in plain if c.isalnum() or (unicodedata.category(c) in _MARKS and c not in _EMOJI))


@dataclass(frozen=True)
class SourceOptions:
    """Options of sources, in addition to their own text.

    Attributes:
        data_root: the folder that holds datasets by name.
        cache_dir: where answers of a model are kept; None keeps none.
        llm_url: base URL of an OpenAI-compatible endpoint.
        llm_model: the model to ask there.
    """

    data_root: Path | None = None
    cache_dir: Path | None = None
    llm_url: str | None = None
    llm_model: str | None = None


@dataclass(frozen=True)
class NameRequest:
    """A request for names.

    Attributes:
        trained: names of the training classes.
        count: how many will be taken.
        seed: of random draws.
        template: hand-crafted template with ``{}``, which says what kind of images it is about.
        is_evaluated: returns True for a name of a class that the run is evaluated on; no request may hold it.
    """

    trained: Sequence[str]
    count: int
    seed: int = 1
    template: str = "a photo of a {}."
    is_evaluated: Callable[[str], bool] = lambda name: False


class NovelSource(ABC):
    """A source of novel names.

    Class attributes: ``form``, the text that the user writes; ``endless``, True if any number of names can be had, so
    that too few are worth a warning, and left-over names are not.

    Attributes:
        name: as the user wrote it.
        argument: the text behind the colon, None where there is no colon.
        options: whatever else it may need.
        model: the language model that gave the names, as its server calls it, once it has.
    """

    form: ClassVar[str]
    endless: ClassVar[bool] = False

    def __init__(self, name: str, argument: str | None = None, options: SourceOptions = SourceOptions()) -> None:
        """Keep these and look at them; nothing is fetched yet.

        Raises:
            ConfigError: they cannot be used.
        """
        self.name, self.argument, self.options = name, argument, options
        self.model: str | None = None
        self.check()

    def check(self) -> None:
        """Raise ConfigError where the argument or the options cannot be used; by default there may be no argument."""
        if self.argument is not None:
            raise ConfigError(f"auxiliary names: expected only {self.form}, got {self.name}")

    @abstractmethod
    def candidates(self, request: NameRequest) -> Iterable[str]:
        """Return names as they come, repetitions and training names included.

        Raises:
            SarTrainError: the source has no names.
        """


kinds: Registry[NovelSource] = Registry("source of auxiliary names", "sar_train.novel_names")


def open_novel_source(text: str, options: SourceOptions = SourceOptions()) -> NovelSource:
    """Open the source that a user names: a registered one, or else a file.

    Raises:
        ConfigError: neither, or the text behind the colon cannot be used.
    """
    sources = kinds.entries
    kind, colon, argument = text.partition(":")
    if kind in sources:
        return sources[kind](text, argument.strip() if colon else None, options)
    if Path(text).is_file():
        return sources["file"](text, text, options)
    near = difflib.get_close_matches(kind.lower(), sources, n=1, cutoff=0.7)
    raise ConfigError(
        f"auxiliary names: {text} is neither a file nor a source; expected {forms()}"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def forms() -> str:
    """Return all forms that a user may write, for messages."""
    *first, last = sorted((kind.form for kind in kinds.entries.values()), key=lambda form: form == "FILE")
    return f"{', '.join(first)} or {last}"
