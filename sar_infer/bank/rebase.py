"""Replaying what was done to one bundle's bank on another's: the same changes, with names embedded anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.file import read
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.log import (
    Add,
    Alias,
    Calibrate,
    Change,
    Fit,
    Learn,
    Log,
    Photos,
    Remove,
    Rename,
    Set,
    Settings,
    changed_info,
    checkpoint,
    names_in,
    replay,
    standing,
    taught_changes,
)
from sar_infer.bank.old_files import removed_names, renamed_names
from sar_infer.bank.photos import PhotoSet
from sar_infer.bank.state import REMOVED, RENAMED, Base, State
from sar_infer.bank.table import Block
from sar_infer.errors import BankError, ClassNameError
from sar_infer.text.names import name_key, name_keys

_MOST_NAMED = 20

IMAGES = "images"
"""Key of a bank's provenance: a digest of what embeds images: weights, visual prompts and preprocessing. Two encoders
with the same one differ in names alone, and rows of photos are good for both."""
Embed = Callable[[Sequence[tuple[str, ...]]], Floats]
"""Returns unit rows (N, D) for the phrases of each of N classes, as ``Classifier.embed_phrases`` does."""


@dataclass(frozen=True)
class Rebased:
    """A bank on another base, and a line for each kind of thing that could not come along."""

    bank: ClassBank
    left_out: tuple[str, ...] = ()


def rebased(bank: ClassBank, base: ClassBank, embed: Embed) -> Rebased:
    """Return a bank on another base, with its history: added names embedded anew, and all else taken along.

    Photos come along if both encoders embed images alike. A class that was added and is now the bundle's own gets the
    bundle's row. What was undone stays undone, and every step can still be taken back.

    Args:
        bank: The bank.
        base: The bank of the other bundle.
        embed: The name encoder of that bundle.

    Raises:
        BankError: No class is left that can be an answer.
    """
    if bank.encoder_digest == base.encoder_digest:
        return Rebased(ClassBank.of(replay(base.base, bank.log), bank.log))
    carrier = _Carrier(
        base, embed, photos=IMAGES in bank.provenance and bank.provenance[IMAGES] == base.provenance.get(IMAGES)
    )
    first = bank.log.checkpoint.changes if bank.log.checkpoint else None
    begun = [*(_alone(bank) if bank.base.path is None else ()), *(first or ())]
    moved_checkpoint = checkpoint(carrier.changes(begun))
    steps = tuple(
        step if step.changes is None else dataclasses.replace(step, changes=carrier.changes(step.changes))
        for step in bank.log.steps
    )
    log = Log(steps, bank.log.begun, moved_checkpoint)
    state = replay(base.base, log)
    if not state.can_answer:
        raise BankError("all classes of this bundle were removed, and none was added that can be an answer")
    return Rebased(ClassBank.of(state, log), tuple(_left_out(bank, state, carrier)))


def _left_out(bank: ClassBank, state: State, carrier: _Carrier) -> Iterator[str]:
    """Yield a line for each kind of thing that could not come along."""
    for name, reason in carrier.refused.items():
        if name in bank.index:
            yield f"class {name!r} cannot be embedded: {reason}"
    if missing := photos_missing(bank, state):
        listed = ", ".join(map(repr, missing[:_MOST_NAMED])) + (", …" if len(missing) > _MOST_NAMED else "")
        if carrier.photos:
            yield f"the bundle was trained on these classes, so their photos stay out: {listed}"
        else:
            yield f"another image encoder: add the photos of these classes again: {listed}"
    if bank.calibration is not None:
        yield "the calibration was of the other encoder; sar-bank calibrate fits a new one"
    if bank.fitted is not None:
        yield "the class statistics were fitted with the other encoder's rows; fit them again"
    if bank.learned is not None and not carrier.photos:
        yield "another image encoder: what was learned from photos without labels has to be learned again"


def detached(path: Path) -> ClassBank:
    """Return the bank of a file for ``rebased``, which does not need its base; of this only mentioned names are there.

    Raises:
        SchemaError: It was written for a newer reader.
        BankError: It is missing, damaged, or no bank.
    """
    content = read(path)
    if content.base is not None:
        return ClassBank.load(path)
    steps = [*([content.log.checkpoint] if content.log.checkpoint else []), *standing(content.log)]
    changes = [change for step in steps for change in step.changes or ()]
    names, dim = _mentioned(changes), next((c.rows.shape[1] for c in changes if isinstance(c, Add)), 1)
    dim = next((one.rows.shape[1] for c in changes if isinstance(c, Photos) for one in c.sets.values()), dim)
    block = Block(names, np.zeros((len(names), dim), np.float32))
    base = Base(block, content.encoder_digest, content.provenance, stated=content.base_digest, path=content.path)
    return ClassBank.of(replay(base, content.log), content.log)


def _mentioned(changes: Sequence[Change]) -> tuple[str, ...]:
    """Return the names of classes that some changes are about and that no change before has added."""
    names: dict[str, None] = {}
    added: set[str] = set()
    for change in changes:
        if not isinstance(change, Add):
            names |= {name: None for name in names_in(change) if name_key(name) not in added}
        added |= {name_key(name) for name in (*names_in(change), *([change.new] if isinstance(change, Rename) else []))}
    return tuple(names)


def photos_missing(old: State, new: State) -> list[str]:
    """Return the classes of a bank some of whose photos another bank does not have."""
    names = [(name, new.lookup.name(name)) for name in old.photos]
    positions = {name: position for name, position in names if position is not None}
    return [
        name
        for name, photos in old.photos.items()
        if len(photos)
        and not (name in positions and photos.digest_set <= new.photos_of(new.names[positions[name]]).digest_set)
    ]


class _Carrier:
    """Makes changes of one encoder's bank into changes of another's.

    Args:
        base: The bank of the other bundle.
        embed: Its name encoder.
        photos: Rows of photos are good for both.
    """

    def __init__(self, base: ClassBank, embed: Embed, *, photos: bool) -> None:
        self._base, self._embed, self.photos = base, embed, photos
        self._added: set[str] = set()
        self.refused: dict[str, str] = {}

    def changes(self, changes: Sequence[Change]) -> tuple[Change, ...]:
        """Return the same changes for the other bank, without those that cannot be made there."""
        result: list[Change] = []
        for change in changes:
            if isinstance(change, Add):
                result.append(self._add(change))
            elif isinstance(change, Photos):
                result.append(Photos({name: self._photos(name, one) for name, one in change.sets.items()}))
            elif not isinstance(change, Calibrate | Fit) and (self.photos or not isinstance(change, Learn)):
                result.append(change)
        return tuple(result)

    def _add(self, change: Add) -> Add:
        names, info = list[str](), list[ClassInfo]()
        rows: dict[int, Floats] = {}
        texts: dict[int, tuple[str, ...]] = {}
        for number, name in enumerate(change.names):
            item, position = change.info.get(number, PLAIN), self._base.lookup.name(name)
            phrases = item.phrases or (name,)
            self._added.add(name_key(name))
            if position is not None and phrases == (name,):  # it is the new bundle's own now
                rows[len(names)] = self._base.rows_at([position])[0]
                item = _together(self._base.info_of(self._base.names[position]), item)
            else:
                texts[len(names)] = phrases
            names.append(name)
            info.append(item)
        rows |= self._embedded(texts, names)
        left = sorted(rows)
        together = np.array([rows[number] for number in left], np.float32).reshape(len(left), self._base.dim)
        items = {position: info[number] for position, number in enumerate(left)}
        return Add(tuple(names[number] for number in left), together, items, change.exact)

    def _embedded(self, texts: Mapping[int, tuple[str, ...]], names: Sequence[str]) -> dict[int, Floats]:
        """Return a row for each of some phrases that can be embedded."""
        if not texts:
            return {}
        try:
            return dict(zip(texts, self._embed([*texts.values()]), strict=True))
        except ClassNameError:
            rows: dict[int, Floats] = {}
            for number, phrases in texts.items():
                try:
                    rows[number] = self._embed([phrases])[0]
                except ClassNameError as error:
                    self.refused[names[number]] = str(error)
            return rows

    def _photos(self, name: str, photos: PhotoSet) -> PhotoSet:
        """Return those photos of a class that are good for the other encoder, and were not trained on."""
        position = self._base.lookup.name(name)
        trained = position is not None and (
            name_key(name) in self._added or bool(self._base.photos_of(self._base.names[position]))
        )
        if self.photos and not trained:
            return photos
        return PhotoSet.none(self._base.dim).with_photos_only(photos.photos_only and position is None)


def _together(bundled: ClassInfo, item: ClassInfo) -> ClassInfo:
    """Return what is known of a class that the bundle has, and that was added to the bank before."""
    aliases = {name_key(alias): alias for alias in (*bundled.aliases, *item.aliases)}
    return dataclasses.replace(
        bundled,
        aliases=tuple(aliases.values()),
        background=bundled.background or item.background,
        threshold=item.threshold if bundled.threshold is None else bundled.threshold,
    )


def _alone(bank: ClassBank) -> list[Change]:
    """Return what was done to a bundle's bank of which a file of an older version holds all rows."""
    base, provenance = bank.base, bank.provenance
    names, origins = base.block.names, renamed_names(provenance)
    info = dict(base.info)
    added = [slot for slot, item in info.items() if item.added is not None]
    if not (added or bank.history or REMOVED in provenance or RENAMED in provenance):  # a list of names
        return [Add(tuple(names), base.block.rows, info)]
    keys = set(name_keys(names))
    gone = tuple(name for name in removed_names(provenance) if name_key(name) not in keys)
    changes: list[Change] = [Remove(gone)] if gone else []
    base_names = {names[slot] for slot in range(len(names))} - {names[slot] for slot in added}
    changes += [Rename(old, new) for new, old in origins.items() if new in base_names]
    own_info = {names[slot]: item for slot, item in info.items() if item.added is None}
    settings = {name: changed_info(PLAIN, item) for name, item in own_info.items()}
    changes += [Alias({name: item.aliases for name, item in own_info.items() if item.aliases})]
    changes += [Set({name: new for name, new in settings.items() if new != Settings()})]
    if added:
        items = {number: info[slot] for number, slot in enumerate(added)}
        changes.append(Add(tuple(names[slot] for slot in added), base.block.rows[added], items))
    if base.photos:
        changes.append(Photos({names[slot]: photos for slot, photos in base.photos.items()}))
    return [*changes, *taught_changes(State(base))]
