"""Novel names: what SAR regularises beside the training classes; there are no photos of them.

They come from a file, from WordNet around the training classes, or from WordNet at random. The names of the classes
that a run is judged on are counted among them and, unless asked otherwise, left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_train import nouns, wordnet
from sar_train.errors import DataError
from sar_train.prompts import Prompts
from sar_train.towers.text import TextTower

WORDS = "words"
WORDNET = "wordnet"
COUNT = 400
CONTEXT = 16
"""Context tokens to leave room for when the prompt is not known yet."""


@dataclass(frozen=True)
class NovelNames:
    """Names to regularise.

    Attributes:
        names: distinct from one another and from the training names, case and punctuation aside.
        source: ``wordnet``, ``words`` or the file.
        overlap: how many evaluated new names, or WordNet synonyms of them, the source gave, left out or not.
        warnings: what the user should know, one line each.
    """

    names: tuple[str, ...]
    source: str
    overlap: int
    warnings: tuple[str, ...] = ()


def novel_names(
    source: str,
    trained: Sequence[str],
    *,
    new: Sequence[str] = (),
    tower: TextTower | None = None,
    prompts: Prompts | None = None,
    count: int = COUNT,
    seed: int = 1,
    exclude: bool = True,
) -> NovelNames:
    """Gather novel names.

    Args:
        source: ``wordnet`` (relatives of the training classes), ``words`` (random nouns) or a file with one name a
            line (blank lines and lines that begin with ``#`` are passed over).
        trained: names of the training classes; they are never novel.
        new: names of the new classes that the run is judged on.
        tower: names that it has no room for are dropped; None keeps them.
        prompts: what stands around a name in that tower; None means 16 context tokens and a full stop.
        count: how many to take at most.
        seed: of what is drawn at random.
        exclude: leave the new names and their synonyms out.

    Raises:
        DataError: the file cannot be used, or nothing is left.
    """
    rng = random.Random(seed)
    if source == WORDNET:
        candidates: Iterable[str] = nouns.related_names(trained, wordnet.load(), rng)
    elif source == WORDS:
        candidates = nouns.random_words(wordnet.load(), rng)
    else:
        candidates = read_names(Path(source))
    taken = {_key(name) for name in trained}
    is_judged, fits = _judge(new), _room(tower, prompts)
    names: list[str] = []
    overlap = too_long = 0
    left = False
    for candidate in candidates:
        name = " ".join(candidate.replace("_", " ").split())
        key = _key(name)
        if not key or key in taken:
            continue
        if len(names) == count:
            left = True
            break
        taken.add(key)
        judged, fitting = is_judged(name), fits(name)
        overlap += judged
        too_long += not fitting
        if fitting and not (judged and exclude):
            names.append(name)
    if not names:
        advice = "; use --novel words, or a file" if source == WORDNET else ""
        raise DataError(f"novel names from {source}: none is left beside the class names{advice}")
    return NovelNames(tuple(names), source, overlap, _warnings(source, len(names), count, too_long, left=left))


def read_names(path: Path) -> list[str]:
    """The names in a file, one a line.

    Raises:
        DataError: not there, not text, or no name in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(
            f"novel names: {path} cannot be read ({reason}); expected {WORDNET}, {WORDS} or a file"
        ) from None
    if "\0" in text:
        raise DataError(f"novel names: {path} is a binary file; expected one name a line")
    names = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise DataError(f"novel names: {path} holds no name; expected one a line")
    return names


def _key(name: str) -> str:
    """What makes two names the same: letters and digits, case aside."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _judge(new: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name is one of the new names, or means the same synset."""
    if not new:
        return lambda name: False
    taxonomy = wordnet.load()
    keys = {_key(name) for name in new}
    synsets = {nouns.match(name, taxonomy, last_word=False) for name in new} - {None}
    return lambda name: _key(name) in keys or nouns.match(name, taxonomy, last_word=False) in synsets


def _room(tower: TextTower | None, prompts: Prompts | None) -> Callable[[str], bool]:
    """Whether the tower has room for a name."""
    if tower is None:
        return lambda name: True
    context, suffix = (prompts.n_context + prompts.n_behind, prompts.suffix) if prompts else (CONTEXT, ".")
    room = tower.context_length - 1 - context
    return lambda name: len(tower.encode(name + suffix)) + 1 <= room


def _warnings(source: str, got: int, count: int, too_long: int, *, left: bool) -> tuple[str, ...]:
    found = []
    drawn = source in (WORDNET, WORDS)
    if too_long:
        found.append(f"{too_long} novel names are too long for the text tower and were left out")
    if got < count and drawn:
        found.append(f"{source} gave {got} novel names, fewer than the {count} asked for")
    if left and not drawn:
        found.append(f"{source} holds more names than the {count} taken; --novel-count takes more")
    return tuple(found)
