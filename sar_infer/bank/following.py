"""Following to another encoder: a bank of the new encoder gets what was done to the bank of the old one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.edits import put, remove, rename, set_photos_only
from sar_infer.bank.history import remembering, removed_names, renamed_names
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.merging import merge
from sar_infer.bank.photos import PhotoSet
from sar_infer.errors import BankError
from sar_infer.text.names import name_key

IMAGES = "images"
"""Key of a bank's provenance: a digest of what embeds images, the graph and its preprocessing. Two encoders with the
same one differ in names alone, and rows of photos are good for both."""
Embed = Callable[[Sequence[tuple[str, ...]]], Floats]
"""Returns unit rows (N, D) for the phrases of each of N classes, as ``Classifier.embed_phrases`` does."""


def follow(old: ClassBank, base: ClassBank, embed: Embed, kept: ClassBank | None = None, *, by: str = "") -> ClassBank:
    """Return a bank of another encoder with the classes that were added to ``old`` and what is known of all classes.

    Names of added classes are embedded anew, with their phrases; aliases, background and thresholds stay. The bundle's
    own classes come from ``base``, without those that were removed from ``old``. Photos follow if both encoders embed
    images alike, else they stay behind, see ``photos_missing``; that a name means nothing does not.

    Args:
        old: The bank of the encoder that was used until now.
        base: The new bundle's own bank.
        embed: The name encoder of the new bundle.
        kept: The bank that this encoder had when it was used before. Rows, order and history are its; if nothing has
            changed since, it is returned as it is.
        by: The author of the change.

    Raises:
        BankError: a bank is damaged, or no class is left that can be an answer.
        ClassNameError: the encoder cannot take a phrase of an added class.
    """
    start = base if kept is None else _renamed_since(kept, old, by)
    gone = {name_key(name) for name in removed_names(old)} - {name_key(name) for name in old.names}
    added = {name_key(name) for name in old.names if _added(old, name)}
    origins = renamed_names(start.provenance)
    left = [
        name
        for name in start.names
        if (name_key(name) not in added if _added(start, name) else name_key(origins.get(name, name)) in gone)
    ]
    bank = remove(start, left, by=by)
    if kept is not None:
        here = gone | {name_key(origin) for origin in renamed_names(bank.provenance).values()}
        missing = [n for n in base.names if name_key(n) not in here and bank.lookup.name(n) is None]
        if missing:
            rows = base.embeddings[[base.index[name] for name in missing]]
            info = {name: base.info[name] for name in missing if name in base.info}
            bank = merge(bank, ClassBank(missing, rows, base.encoder_digest, info=info), "keep", by=by)
    bank = _renamed_alike(bank, old, by)
    bank = merge(bank, _carried(old, bank, base, embed, returning=kept is not None), "take", by=by)
    sides = (old,) if kept is None else (old, bank)
    for name in [name for side in sides for name, photos in side.photos.items() if photos.photos_only]:
        row = old.lookup.name(name)
        if row is not None and bank.lookup.name(name) is not None:
            has = old.photos.get(old.names[row])
            bank = set_photos_only(bank, name, photos_only=has is not None and has.photos_only, by=by)
    if embed_alike(old, base):
        none = np.empty((0, base.embeddings.shape[1]), np.float32)
        bank = put(bank, "merge", {}, none, {}, by, photos=photos_to_keep(old, bank, base))
    if not len(bank.names) or (bank.background is not None and bank.background.all()):
        raise BankError("all classes of this bundle were removed, and none was added that can be an answer")
    theirs, came = renamed_names(old.provenance), _came(old, bank)
    own = {name_key(theirs.get(name, name)) for name in old.names if not _added(old, name)}
    known = removed_names(bank)  # a rollback takes names from the end; this bundle never had those that may go
    known = [name for name in known if name_key(name) not in own or base.lookup.name(name) is not None]
    info = {**bank.info, **came}
    provenance = remembering(bank.provenance, [*(n for n in [*removed_names(old), *came] if n not in known), *known])
    if (info, provenance) == (dict(bank.info), dict(bank.provenance)):
        return bank
    return dataclasses.replace(bank, info=info, provenance=provenance)


def _renamed_since(kept: ClassBank, old: ClassBank, by: str) -> ClassBank:
    """Return the bank that was kept with added classes renamed as in ``old`` since, so that they keep their photos."""
    steps = [{was: new for new, was in step.undo.renamed.items()} for step in old.history if step.undo is not None]
    for name in [name for name in kept.names if _added(kept, name) and old.lookup.name(name) is None]:
        wanted = functools.reduce(lambda now, step: step.get(now, now), steps, name)
        if old.lookup.name(wanted) is not None and kept.lookup.get(wanted) is None:
            kept = rename(kept, name, wanted, by=by)
    return kept


def _renamed_alike(bank: ClassBank, old: ClassBank, by: str) -> ClassBank:
    """Return the bank with the bundle's own classes renamed as in ``old``."""
    here, there = ({o: n for n, o in renamed_names(side.provenance).items()} for side in (bank, old))
    for origin in {**here, **there}:
        row, wanted = bank.lookup.name(here.get(origin, origin)), there.get(origin, origin)
        if row is None or _added(bank, bank.names[row]) or old.lookup.name(wanted) is None or _added(old, wanted):
            continue
        if bank.lookup.get(wanted) in (None, row) and old.lookup.get(bank.names[row]) is None:
            bank = rename(bank, bank.names[row], wanted, by=by)
    return bank


def _came(old: ClassBank, bank: ClassBank) -> dict[str, ClassInfo]:
    """Return the info of classes that were added to ``old`` and are this bundle's own: they follow to the next too."""
    added = ((info, bank.lookup.name(name)) for name, info in old.info.items() if info.added is not None)
    own = ((info, bank.names[row]) for info, row in added if row is not None)
    return {
        name: dataclasses.replace(bank.info.get(name, PLAIN), added=info.added)
        for info, name in own
        if not _added(bank, name)
    }


def _carried(old: ClassBank, bank: ClassBank, base: ClassBank, embed: Embed, *, returning: bool) -> ClassBank:
    """Return the classes of ``old`` that were added or of which something is known, with rows of ``bank``'s encoder.

    With ``returning``, the bank was kept: a class that is no background in ``old`` any more is none in it either.
    """
    phrases: dict[str, tuple[str, ...]] = {}
    rows: dict[str, Floats] = {}
    info: dict[str, ClassInfo] = {}
    for name in old.names:
        theirs, row = old.info.get(name, PLAIN), bank.lookup.name(name)
        ours = PLAIN if row is None else bank.info.get(bank.names[row], PLAIN)
        stays = ours.background and not returning
        if theirs.added is None and (
            row is None or (theirs == PLAIN and ours.added is None and ours.background == stays)
        ):
            continue  # the old bundle's own, which this one does not have, or has as it is
        texts, own = old.phrases(name), base.lookup.name(name)
        if row is not None and (theirs.added or ours.added) is None:
            threshold = theirs.threshold if ours.threshold is None else ours.threshold  # the new encoder's own
            background = theirs.background or stays
            theirs = dataclasses.replace(theirs, phrases=ours.phrases, background=background, threshold=threshold)
            rows[name] = bank.embeddings[row]
        elif row is not None and _same_texts(texts, name, bank, row):
            theirs = dataclasses.replace(theirs, phrases=())
            rows[name] = bank.embeddings[row]
        elif own is not None and texts == (name,):
            theirs = dataclasses.replace(theirs, phrases=base.info.get(base.names[own], PLAIN).phrases)
            rows[name] = base.embeddings[own]
        else:
            phrases[name] = texts
        info[name] = theirs
    rows |= dict(zip(phrases, embed([*phrases.values()]) if phrases else (), strict=True))
    found = np.empty((len(info), base.embeddings.shape[1]), dtype=np.float32)
    for number, name in enumerate(info):
        found[number] = rows[name]
    return ClassBank([*info], found, bank.encoder_digest, info=info)


def embed_alike(one: ClassBank, other: ClassBank) -> bool:
    """Return True if the encoders of two banks are known to embed images in the same way."""
    return IMAGES in one.provenance and one.provenance[IMAGES] == other.provenance.get(IMAGES)


def photos_to_keep(old: ClassBank, new: ClassBank, base: ClassBank) -> dict[str, PhotoSet]:
    """Return the photos that classes of both banks have in ``old``, by their names in ``new``.

    Left out are classes of ``base``, the new bundle's own bank, that were added to ``old``, since they were trained
    with photos, perhaps with these, and those that have photos in ``base``.
    """
    none, found = PhotoSet.none(new.embeddings.shape[1]), {}
    for name in [*old.photos, *new.photos]:
        here, there, own = (bank.lookup.name(name) for bank in (old, new, base))
        if here is None or there is None:
            continue
        if own is None or not (_added(old, old.names[here]) or base.names[own] in base.photos):
            found[new.names[there]] = old.photos.get(old.names[here], none)
    return found


def photos_missing(old: ClassBank, new: ClassBank) -> list[str]:
    """Return the classes of ``old`` some of whose photos a bank of another encoder does not have.

    The rows of photos belong to the image encoder, and the photos themselves are not kept: they have to be added again.
    """
    none = PhotoSet.none(1)
    return [name for name, photos in old.photos.items() if not photos.known <= new.photos.get(name, none).known]


def _same_texts(texts: tuple[str, ...], name: str, bank: ClassBank, row: int) -> bool:
    """Return True if a row was made from these texts, or they are the name alone and the row is what it stands for."""
    has = bank.names[row]
    if texts == (name,):
        return not _added(bank, has) or bank.phrases(has) == (has,)
    return bank.phrases(has) == texts


def _added(bank: ClassBank, name: str) -> bool:
    return bank.info.get(name, PLAIN).added is not None
