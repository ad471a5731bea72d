"""Choose novel names from a source's candidates: distinct, other than the training classes, short enough.

The names of the new classes that a run is evaluated on are counted and, by default, left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sar_train.errors import DataError
from sar_train.novel_names import wordnet
from sar_train.novel_names.source import NameRequest, NovelSource, key, open_novel_source

COUNT = 400
"""How many names to take by default; fewer are then no reason for a warning."""


@dataclass(frozen=True)
class NovelNames:
    """Names to regularise.

    Attributes:
        names: distinct from one another and from the training names, case and punctuation aside.
        source: as the user wrote it.
        overlap: how many names of the evaluated new classes, or WordNet synonyms of them, the source gave, whether they
            were left out or not.
        warnings: for the user, one line each.
        model: the language model that gave them, None for other sources.
    """

    names: tuple[str, ...]
    source: str
    overlap: int
    warnings: tuple[str, ...] = ()
    model: str | None = None

    @property
    def summary(self) -> dict[str, object]:
        """Return the entry for the record; it keeps all names of a language model, which may not give them again."""
        summary: dict[str, object] = {"source": self.source, "count": len(self.names), "overlap": self.overlap}
        return summary | ({"model": self.model, "names": list(self.names)} if self.model else {})


def novel_names(
    source: NovelSource | str,
    trained: Sequence[str],
    *,
    new: Sequence[str] = (),
    room: Callable[[str], bool] = lambda name: True,
    count: int = COUNT,
    seed: int = 1,
    exclude: bool = True,
    template: str = "a photo of a {}.",
) -> NovelNames:
    """Gather novel names; where WordNet has no relatives of the class names, random nouns, with a warning.

    Args:
        source: where they come from; a text as after ``--novel`` is opened without options.
        trained: names of the training classes; they are never novel.
        new: names of the new classes that the run is evaluated on.
        room: returns True if the text tower has room for a name; others are dropped.
        count: how many to take at most.
        seed: of random draws.
        exclude: leave the new names and their synonyms out.
        template: hand-crafted template with ``{}``, which says what kind of images it is about.

    Raises:
        SarTrainError: the source cannot be used, or nothing is left.
    """
    source = open_novel_source(source) if isinstance(source, str) else source
    is_evaluated = _evaluated(new)
    keys = {key(name) for name in trained}
    names: list[str] = []
    overlap = too_long = 0
    left = False
    for candidate in source.candidates(NameRequest(trained, count, seed, template, is_evaluated)):
        name = " ".join(candidate.replace("_", " ").split())
        if not key(name) or key(name) in keys:
            continue
        if len(names) == count:
            left = True
            break
        keys.add(key(name))
        evaluated, fitting = is_evaluated(name), room(name)
        overlap += evaluated
        too_long += not fitting
        if fitting and not (evaluated and exclude):
            names.append(name)
        if source.endless and len(names) == count:
            break
    if not names and source.form.startswith("wordnet"):  # as of a shop's article numbers
        nouns = novel_names(
            "words", trained, new=new, room=room, count=count, seed=seed, exclude=exclude, template=template
        )
        warning = f"WordNet has no relatives of these class names: SAR uses {len(nouns.names)} random nouns"
        return dataclasses.replace(nouns, warnings=(warning, *nouns.warnings))
    if not names and source.form != "none":
        raise DataError(f"auxiliary names from {source.name}: no name is left that is not a class name")
    warnings = []
    if too_long:
        warnings.append(f"{too_long} auxiliary names are too long for the text tower and were left out")
    if len(names) < count != COUNT and source.endless:
        warnings.append(f"{source.name} gave {len(names)} auxiliary names, fewer than the {count} asked for")
    if left and not source.endless:
        warnings.append(f"{source.name} has more names than the {count} used; a higher count uses more")
    return NovelNames(tuple(names), source.name, overlap, tuple(warnings), source.model)


def _evaluated(new: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that is True for one of the new names, in any spelling or number, or of the same synset."""
    forms = {form for name in new for form in _forms(name)}
    synsets = {wordnet.match(name, wordnet.load(), last_word=False) for name in new} - {None}

    def is_evaluated(name: str) -> bool:
        if not forms.isdisjoint(_forms(name)):
            return True
        return bool(synsets) and wordnet.match(name, wordnet.load(), last_word=False) in synsets

    return is_evaluated


def _forms(name: str) -> set[str]:
    """Return the key of a name, and those of its singular if it may be a plural."""
    return {key(form) for form in wordnet.singulars(name.lower())}
