"""The use cases: each is one function that returns a new bank with one more step of history.

Command line, server and Python call the same functions, with the same meaning. ``by`` is the author of the change, such
as a command. If nothing would change, the same bank is returned.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.entry import CALIBRATION, LEARNED, MODEL, THRESHOLD, Arrays, Entry, Puts, Record, check_entry
from sar_infer.bank.learned import BankCalibration, Learned
from sar_infer.bank.photos import MOST_ROWS, Parked, PhotoSet, check_unit
from sar_infer.bank.steps import Log, Step
from sar_infer.errors import AliasError, BankError, ClassNameError, InputError
from sar_infer.text.names import name_key, name_keys

Embed = Callable[[Sequence[tuple[str, ...]]], Floats]
"""Returns unit embeddings (N, D) for the phrases of each of N classes, as ``Classifier.embed_phrases`` does."""
Phrases = Mapping[str, tuple[str, ...]]
Photos = Mapping[str, PhotoSet]
NO_SETTINGS: Mapping[str, Any] = {}
T = TypeVar("T")
_MOST_NAMED = 3
_SAME_EMBEDDING = 1e-5
"""Largest difference between two embeddings of the same text; runs of an encoder differ by less."""


def ahead(bank: ClassBank, work: Callable[[ClassBank], T]) -> Callable[[ClassBank], T]:
    """Do work on a bank before its file is locked, since it takes long.

    Returns:
        A function of the bank under the lock, which returns the result; if another process has changed the bank
        meanwhile, it does the work again.
    """
    result = work(bank)
    return lambda locked: result if locked is bank or locked.digest == bank.digest != "" else work(locked)


def put_classes(
    bank: ClassBank,
    phrases: Mapping[str, tuple[str, ...] | None],
    photos: Photos,
    embed: Callable[[Phrases, Container[str]], Floats],
    settings: Mapping[str, Any] = NO_SETTINGS,
    *,
    by: str = "",
) -> ClassBank:
    """Add classes, or change those that are there: the use case of ``sar-bank add``, of PUT and of ``Classifier.add``.

    A class that is there, by name or alias, gets photos. It is embedded anew if it has no photos here, or phrases.

    Args:
        bank: The bank.
        phrases: The texts to embed, by the name of each class; None is the name itself.
        photos: Photos, by these names.
        embed: Returns the unit embedding (N, D) of the texts of each of N classes, and is given the names of those with
            photos too, as ``Classifier.class_rows``.
        settings: Fields of `Entry` to set of all these classes, such as ``threshold``.
        by: The author of the change.

    Raises:
        ClassNameError: A name is there twice; AliasError: a class to embed has the alias of another one.
        BankError: A name, an embedding or a photo is unsound.
    """
    texts = texts_to_embed(bank, phrases, photos)
    rows = embed(texts, {bank.lookup.spelling(name) for name in photos})
    return add(bank, texts, rows, photos, settings, by=by)


def texts_to_embed(bank: ClassBank, phrases: Mapping[str, tuple[str, ...] | None], photos: Container[str]) -> Phrases:
    """Return the texts of the classes that ``put_classes`` embeds, by the name that each has or gets.

    Raises:
        ClassNameError: A name is there twice, or is the alias of a class (AliasError).
        BankError: A name is unsound.
    """
    names = [
        name for name, own in phrases.items() if own is not None or name not in photos or bank.lookup.get(name) is None
    ]
    check_names(bank, names)
    spelled = {name: bank.lookup.spelling(name) for name in names}
    return {spelled[name]: phrases[name] or (spelled[name],) for name in names}


def add(
    bank: ClassBank,
    phrases: Phrases | Sequence[str],
    embeddings: Floats,
    photos: Photos | None = None,
    settings: Mapping[str, Any] = NO_SETTINGS,
    *,
    by: str = "",
) -> ClassBank:
    """Add classes at the end. A name of the bank keeps its position, photos and settings, and is embedded anew.

    Args:
        bank: The bank.
        phrases: The texts that were embedded, by class name; or names.
        embeddings: (N, D) float32, the unit embedding of each class.
        photos: Photos by class name, of these classes or of others of the bank; a photo that is counted for a class
            already is left out. One that another class has moves (`moves`); of two classes here the last gets it.
        settings: Fields of `Entry` to set of all these classes, such as ``threshold``.
        by: The author of the change.

    Raises:
        ClassNameError: A name is there twice, or is an alias (AliasError); or there is no such class for photos.
        BankError: A name, an embedding or a photo is unsound.
    """
    phrases = phrases if isinstance(phrases, Mapping) else {name: (name,) for name in phrases}
    if embeddings.dtype != np.float32 or embeddings.shape != (len(phrases), bank.dim):
        raise BankError(f"expected float32 ({len(phrases)}, {bank.dim}), got {embeddings.dtype} {embeddings.shape}")
    check_names(bank, [*phrases])
    check_unit(embeddings, phrases)
    at, next_key, photos = utc_now(), bank.next_key, _each_once(photos or {})
    rows, entries = dict(zip(phrases, embeddings, strict=True)), dict[str, Entry]()
    for name in dict.fromkeys([*phrases, *photos]):
        position = bank.lookup.get(name)
        key, next_key = (str(next_key), next_key + 1) if position is None else (bank.keys[position], next_key)
        entry = entries.get(key) or bank.entries.get(key)
        if name in phrases:
            entry = _embedded(entry, name, phrases[name], rows[name], at)
        elif entry is None:
            raise ClassNameError(bank.lookup.missing(name))
        entry = entry._replace(**settings)
        if (new := photos.get(name)) is not None:
            if new.rows.shape != (len(new), bank.dim):
                raise BankError(f"photos of {entry.name!r:.80}: expected an embedding of {bank.dim} numbers for each")
            entry = entry._replace(photos=entry.photos.joined(new))
        entries[key] = entry
    moved = moves(bank, photos)
    rows_by_digest = {digest: row for new in photos.values() for digest, row in new.recent.items()}
    for old, digests in _by_class(moved).items():
        key = bank.find(old)
        entry = entries.get(key) or bank.entries[key]
        entries[key] = entry._replace(photos=entry.photos.without(digests, rows_by_digest))
    puts = {key: entry for key, entry in entries.items() if not (key in bank.entries and entry.same(bank.entries[key]))}
    for entry in puts.values():
        check_entry(entry)
    action = "add" if bank.entries or bank.log.last else "create"
    return _committed(bank, action, puts, _summary(bank, puts, moved), by, at, next_key=next_key)


class Move(NamedTuple):
    """A photo, by its digest, that goes from one class to another."""

    digest: bytes
    old: str
    new: str


def moves(bank: ClassBank, photos: Photos) -> list[Move]:
    """Return which photos, given to classes by name or alias, are those of another class now, and so move."""
    to = {digest: bank.lookup.spelling(name) for name, new in photos.items() for digest in new.digests}
    return [
        Move(digest, entry.name, to[digest])
        for entry in (bank.special.values() if to else ())
        for digest in entry.photos.digests
        if entry.name != to.get(digest, entry.name)
    ]


def move_lines(moved: Iterable[Move]) -> list[str]:
    """Return a line for each pair of classes between which photos move."""
    pairs = Counter((one.old, one.new) for one in moved)
    return [f"moved {_count(count, 'photo')} from {old!r} to {new!r}" for (old, new), count in pairs.items()]


def move_photos(bank: ClassBank, digests: Iterable[bytes] | Mapping[bytes, str], to: str, *, by: str = "") -> ClassBank:
    """Give photos of the bank to another of its classes, as one step.

    Args:
        bank: The bank.
        digests: The photos; a mapping has the path of each, for messages.
        to: Name or alias of the class.
        by: The author of the change.

    Raises:
        ClassNameError: The bank does not have the class.
        InputError: No class has one of the photos, or only a sum has its embedding.
    """
    bank.find(to)
    paths = digests if isinstance(digests, Mapping) else {digest: digest.hex() for digest in digests}
    rows = dict[bytes, Floats]()
    for entry in bank.special.values():
        of_class = entry.photos.digest_set & paths.keys()
        if old := of_class - entry.photos.recent.keys():
            raise InputError(
                f"{paths[min(old)]}: one of the oldest photos of {entry.name!r}, of which only a sum is stored; add it "
                f"to {to!r} as a photo"
            )
        rows |= {digest: entry.photos.recent[digest] for digest in of_class}
    if missing := [path for digest, path in paths.items() if digest not in rows]:
        raise InputError(f"{missing[0]}: no class of the bank has this photo; add it to {to!r} as a photo")
    order = [digest for digest in paths if digest in rows]
    new = PhotoSet.of(order, np.array([rows[digest] for digest in order], np.float32).reshape(-1, bank.dim))
    return add_photos(bank, {to: new}, by=by)


def photo_steps(bank: ClassBank, name: str) -> list[dict[str, str | None]]:
    """Return the photos of a class, the oldest first: ``digest`` (hex), and ``at`` and ``by`` of the step that gave it.

    The two are None of a photo that was there before the steps that can be undone.

    Raises:
        ClassNameError: The bank does not have the class.
    """
    key, given = bank.find(name), dict[bytes, Step]()
    photos, before = bank.entries[key].photos, frozenset[bytes]()
    if isinstance(entry := bank.log.folded.get(key), Entry):
        before = entry.photos.digest_set
    for step in bank.history:
        if isinstance(entry := (step.puts or {}).get(key), Entry):
            given |= dict.fromkeys(entry.photos.digest_set - before, step)
            before = entry.photos.digest_set
    steps = [(digest, given.get(digest)) for digest in photos.digests]
    return [
        {"digest": digest.hex(), "at": step.at if step else None, "by": step.by if step else None}
        for digest, step in steps
    ]


def _each_once(photos: Photos) -> Photos:
    """Return the photos by class, each in the last class that has it."""
    last = {digest: name for name, new in photos.items() for digest in new.digests}
    return {name: new.without([one for one in new.digests if last[one] != name]) for name, new in photos.items()}


def _by_class(moved: Iterable[Move]) -> dict[str, list[bytes]]:
    result = dict[str, list[bytes]]()
    for one in moved:
        result.setdefault(one.old, []).append(one.digest)
    return result


def _embedded(entry: Entry | None, name: str, texts: tuple[str, ...], row: Floats, at: str) -> Entry:
    """Return a new class, or one that is there as embedded anew."""
    if entry is None:
        return Entry(name, row, () if texts == (name,) else texts, added=at)
    texts = () if texts in ((name,), (entry.name,)) else texts
    if not np.abs(entry.embedding - row).max(initial=0) <= _SAME_EMBEDDING:
        return entry._replace(embedding=row, phrases=texts, added=at)
    return entry if entry.phrases == texts else entry._replace(phrases=texts, added=at)


def _summary(bank: ClassBank, puts: Mapping[str, Entry], moved: Sequence[Move]) -> str:
    """Return what classes were added, replaced and changed, which got photos, and which photos moved."""
    arrived = Counter(one.new for one in moved)
    done: dict[str, list[str]] = {"added": [], "replaced": [], "changed": []}
    photos, photos_only = dict[str, int](), list[str]()
    for key, entry in puts.items():
        before = bank.entries.get(key)
        old = before or Entry(entry.name, entry.embedding)
        if before is None:
            done["added"].append(entry.name)
        elif not entry.embedded_as(before):
            done["replaced"].append(entry.name)
        elif not entry._replace(photos=old.photos).same(before):
            done["changed"].append(entry.name)
        if fresh := len(entry.photos.digest_set - old.photos.digest_set) - arrived[entry.name]:
            photos[entry.name] = fresh
        if entry.photos_only > old.photos_only:
            photos_only.append(f"photos only: {entry.name!r}")
    words = [f"{verb} {listed(of) if len(of) <= _MOST_NAMED else f'{len(of):,}'}" for verb, of in done.items() if of]
    words += [f"added {_count(sum(photos.values()), 'photo')} to {listed([*photos])}"] if photos else []
    return ", ".join([*words, *move_lines(moved), *photos_only])


def add_photos(bank: ClassBank, photos: Photos, *, by: str = "") -> ClassBank:
    """Add photos to classes, by name or alias; a photo that is counted for the class already is left out.

    Raises:
        ClassNameError: The bank does not have a class.
        BankError: An embedding is of another encoder's size.
    """
    return add(bank, {}, np.empty((0, bank.dim), np.float32), photos, by=by)


def forget_photos(
    bank: ClassBank, name: str, digests: Iterable[bytes] | Mapping[bytes, str], *, by: str = ""
) -> ClassBank:
    """Remove photos of a class, here and from all earlier steps, so that it cannot be undone.

    Other classes that count the same photos keep them. Earlier states of other classes, from which a photo may have
    moved, lose it, and so do parked photos. Where only a sum has the embedding of one, of a removed class or among
    parked photos, all that have no embedding of their own go with it.

    Args:
        bank: The bank.
        name: Name or alias of the class.
        digests: The photos; a mapping has the path of each, for messages.
        by: The author of the change.

    Raises:
        ClassNameError: The bank does not have the class.
        InputError: A photo is not counted for the class, or is among those of which only a sum is stored.
    """
    key, digests = bank.find(name), digests if isinstance(digests, Mapping) else [*digests]
    gone = frozenset(digests)
    entry = bank.entries[key]
    if not gone:
        return bank
    waiting = (one.photos[key].digests for one in bank.parked if key in one.photos)
    if strange := gone.difference(entry.photos.digests, *waiting):
        first = next(digest for digest in digests if digest in strange)
        path = digests[first] if isinstance(digests, Mapping) else "a photo"
        raise InputError(f"{path}: not counted for the class {name!r}, so nothing was removed; leave it out")
    if not gone & entry.photos.digest_set <= entry.photos.recent.keys():
        raise InputError(
            "a photo to remove is among the oldest of the class, of which only a sum is stored (embeddings of the "
            f"latest {MOST_ROWS} are); remove the class and add the photos that are to stay"
        )
    sharing = {k: one.photos.digest_set & gone for k, one in bank.special.items() if k != key}

    def without(other: str, photos: PhotoSet) -> PhotoSet:
        return photos.without(gone - sharing.get(other, frozenset()))

    def purged(other: str, item: Entry) -> Entry:
        return item._replace(photos=without(other, item.photos))

    sets = [{k: without(k, photos) for k, photos in one.photos.items()} for one in bank.parked]
    parked = tuple(one._replace(photos=photos) for one, photos in zip(bank.parked, sets, strict=True))
    after = bank.replaced(log=bank.log.mapped(purged), parked=parked)
    words = f"removed {_count(len(gone), 'photo')} from {entry.name!r}"
    pairs = ((one, new[k]) for old, new in zip(bank.parked, sets, strict=True) for k, one in old.photos.items())
    if more := sum(len(before.digest_set - gone) - len(left) for before, left in pairs if before is not left):
        words += f" and {more:,} older parked for another image encoder, of which only a sum with one was stored"
    return _committed(after, "forget", {key: purged(key, entry)}, words, by)


def remove(bank: ClassBank, names: Iterable[str], *, by: str = "") -> ClassBank:
    """Remove classes, by name or alias.

    Raises:
        ClassNameError: The bank does not have one, or ``names`` is a single string.
    """
    if isinstance(names, str):
        raise ClassNameError(f"expected a list of names to remove, got the string {names!r:.80}")
    keys = sorted({bank.find(name) for name in names}, key=bank.positions.__getitem__)
    gone = [bank.entries[key].name for key in keys]
    return _committed(bank, "remove", dict.fromkeys(keys), f"removed {listed(gone)}", by)


def rename(bank: ClassBank, old: str, new: str, embedding: Floats | None = None, *, by: str = "") -> ClassBank:
    """Give a class another name; without an embedding of the new name it keeps its own, and its phrases.

    Args:
        bank: The bank.
        old: Name or alias of the class.
        new: Its new name; if this is one of its aliases, the alias goes.
        embedding: (D,) float32, the unit embedding of the new name.
        by: The author of the change.

    Raises:
        ClassNameError: There is no such class, or another one has the new name.
        BankError: The embedding or the new name is unsound.
    """
    key = bank.find(old)
    entry, owner = bank.entries[key], bank.lookup.get(new)
    if owner is not None and bank.keys[owner] != key:
        raise ClassNameError(f"{new!r} is already a name of class {bank.names[owner]!r}")
    phrases = () if entry.texts == (new,) else entry.texts
    aliases = tuple(alias for alias in entry.aliases if name_key(alias) != name_key(new))
    after = entry._replace(name=new, phrases=phrases, aliases=aliases)
    words = f"renamed {entry.name!r} to {new!r}"
    if embedding is not None:
        check_unit(embedding[np.newaxis], [new])
        after, words = after._replace(phrases=(), embedding=embedding, added=utc_now()), f"{words}, embedded anew"
    elif entry.name == new:
        return bank
    return _committed(bank, "rename", {key: check_entry(after)}, words, by)


class ClassSettings(TypedDict, total=False):
    """What `set_class` sets of a class."""

    aliases: Sequence[str]
    threshold: float | None
    background: bool
    photos_only: bool


def set_class(bank: ClassBank, name: str, *, by: str = "", **settings: Unpack[ClassSettings]) -> ClassBank:
    """Set aliases, threshold, background and photos only of a class, by name or alias; what is left out stays.

    Raises:
        ClassNameError: The bank does not have the class.
        BankError: An alias is the name or an alias of a class, or is there twice; the threshold is not in 0..1.
    """
    key = bank.find(name)
    entry = bank.entries[key]
    fields: dict[str, Any] = {**settings}
    if "aliases" in fields:
        aliases = fields["aliases"] = tuple(fields["aliases"])
        spelled = name_keys(aliases)
        for number, alias in enumerate(aliases):
            owner = bank.lookup.get(alias)
            if owner is not None and (bank.keys[owner] != key or bank.lookup.name(alias) is not None):
                raise BankError(f"alias {alias!r} is already a name of class {bank.names[owner]!r}")
            if spelled[number] in spelled[:number]:
                raise BankError(f"alias {alias!r} is there twice; case and space do not count")
    differ = [field for field, value in fields.items() if value != getattr(entry, field)]
    if not differ:
        return bank
    if "photos_only" in fields:
        total = entry.photos.total + np.zeros(bank.dim)
        fields["photos"] = dataclasses.replace(entry.photos, total=total, photos_only=fields.pop("photos_only"))
    after = check_entry(entry._replace(**fields))
    words = ", ".join(field.replace("_", " ") for field in differ)
    return _committed(bank, "set", {key: after}, f"changed {entry.name!r} ({words})", by)


def set_unknown_threshold(bank: ClassBank, threshold: float | None, *, by: str = "") -> ClassBank:
    """Set the probability of *unknown*, 0 to 1, above which an image is called unknown; None: that of the model.

    Raises:
        BankError: The threshold is not in 0..1.
    """
    if threshold == bank.unknown_threshold:
        return bank
    if threshold is None:
        return _committed(bank, "set", {THRESHOLD: None}, "dropped the threshold of unknown", by)
    if not 0 <= threshold <= 1:
        raise BankError(f"expected a threshold of unknown of 0..1, got {threshold}")
    words = f"set the threshold of unknown to {threshold:g}"
    return _committed(bank, "set", {THRESHOLD: Record({"unknown": threshold})}, words, by)


def fit(bank: ClassBank, arrays: Arrays, data: Mapping[str, Any] | None = None, *, by: str = "") -> ClassBank:
    """Give a bank a class model that was fitted on its photos, which replaces an earlier one.

    Args:
        bank: The bank.
        arrays: The model's arrays, which the bank stores and does not read; none takes the model away.
        data: Further JSON of the model.
        by: The author of the change.
    """
    if not arrays:
        return _committed(bank, "fit", {MODEL: None}, "dropped the fitted class model", by)
    sets = [photos for photos in bank.photos.values() if len(photos.rows)]
    count = sum(len(photos.rows) for photos in sets)
    words = f"fitted the class model on {_count(count, 'photo')} of {_count(len(sets), 'class')}"
    data = {**(data or {}), "photos": bank.photos_digest}
    return _committed(bank, "fit", {MODEL: Record(data, dict(arrays))}, words, by)


def learn(bank: ClassBank, learned: Learned, *, by: str = "") -> ClassBank:
    """Give a bank what photos without labels taught, which replaces what was learned before.

    Photos that taught nothing change nothing; without photos, what was learned is cleared.
    """
    if not learned.photos:
        return _committed(bank, "learn", {LEARNED: None}, "cleared what was learned", by)
    if not learned.by_key and not learned.translation.any():
        return bank
    words = f"learned from {_count(learned.photos, 'photo')} without labels, of {_count(len(learned.by_key), 'class')}"
    return _committed(bank, "learn", {LEARNED: learned.record(bank.known_classes)}, words, by)


def calibrate(bank: ClassBank, calibration: BankCalibration | None, *, by: str = "") -> ClassBank:
    """Give a bank the calibration that was fitted on it as it is, without its own threshold; None takes it away."""
    if calibration is None:
        return _committed(bank, "calibrate", {CALIBRATION: None}, "dropped the calibration", by)
    words = f"calibrated on {_count(calibration.measured['photos'], 'photo')}"
    puts: Puts = {CALIBRATION: Record(dataclasses.asdict(calibration))}
    if bank.unknown_threshold is not None:
        puts, words = {**puts, THRESHOLD: None}, f"{words}, dropped the threshold of unknown"
    return _committed(bank, "calibrate", puts, words, by)


def rollback(bank: ClassBank, to: int, *, by: str = "") -> ClassBank:
    """Return the bank as it was after a step; the rollback is one more step, and cannot be undone itself.

    Args:
        bank: The bank.
        to: Number of the step; 0 is the beginning.
        by: The author of the change.

    Raises:
        InputError: There is no such step, another rollback took it back, or it is too old to be undone.
    """
    log = bank.log.back(to)
    gone = [step.n for step, left in zip(bank.history, log.steps, strict=True) if step.puts is not left.puts]
    if not gone:
        return bank
    numbers = ", ".join(map(str, reversed(gone)))
    summary = f"took back step{'s' if len(gone) > 1 else ''} {numbers}; as after step {to}"
    return bank.replaced(log=log.with_step(Step(bank.log.last + 1, utc_now(), "rollback", summary, by, to=to)))


def steps_back(bank: ClassBank, count: int) -> int:
    """Return the number of the step that is this many steps back; steps that were rolled back do not count.

    Raises:
        InputError: There are fewer steps to take back, or the count is negative.
    """
    line = bank.log.line
    if not 0 <= count < len(line):
        raise InputError(f"cannot go back {count} steps, there are {len(line) - 1} to take back")
    return line[-1 - count]


def carry(bank: ClassBank, bundled: ClassBank, embed: Embed, *, by: str = "") -> tuple[ClassBank, list[str]]:
    """Take a bank to another bundle: names are embedded anew, and photos come along if both embed images alike.

    Classes of the old bundle are those of the new one with the same name. Photos of another image encoder are parked:
    they are part of the file, and return when the bank is carried to a bundle that embeds images as theirs did. A bank
    without a base has the same classes afterwards. A carry cannot be rolled back.

    Args:
        bank: The bank; ``file.read(…, detached=True)`` is enough, so that the old bundle need not be there.
        bundled: The bank of the new bundle, without changes.
        embed: The name encoder of the new bundle.
        by: The author of the change.

    Returns:
        The bank, and a line for each kind of thing that has to be made again.

    Raises:
        BankError: No class is left that can be an answer, or a class of the new bundle has a name or an alias of
            another class; rename it first.
        ClassNameError: The new bundle cannot embed a name.
    """
    same = bank.base.digest == bundled.base.digest if bank.base and bundled.base else bank.base is None
    if same and bank.encoder_digest == bundled.encoder_digest:
        return bank, []
    keys, puts, texts, next_key = _carried(bank, bundled)
    entries = {key: entry for key, entry in puts.items() if entry is not None}
    for new, row in zip(texts, embed([*texts.values()]) if texts else (), strict=True):
        entries[new] = entries[new]._replace(embedding=row, added=entries[new].added or utc_now())
    sets = {key: dataclasses.replace(bank.entries[key].photos, photos_only=False) for key in keys}
    here = Parked(bank.images, {key: photos for key, photos in sets.items() if photos})
    parked: list[Parked] = []
    for waiting in (*bank.parked, here):
        photos = {keys[key]: one for key, one in waiting.photos.items() if key in keys}
        if not waiting.images.same(bundled.images):
            parked += [waiting._replace(photos=photos)] if photos else []
            continue
        for new, one in photos.items():
            entries[new] = entries[new]._replace(photos=entries[new].photos.joined(one))
    summary = f"carried {_count(len(keys), 'class')} to encoder {bundled.encoder_digest[:8]}"
    step = Step(bank.log.last + 1, utc_now(), "carry", summary, by)
    history = [dataclasses.replace(one, puts=None) for one in bank.history]
    log = Log((*history, step), step.n, {**puts, **entries})
    own: dict[str, Any] = {} if bank.base else {"base": None, "provenance": bank.provenance}
    after = bundled.replaced(log=log, next_key=next_key, parked=tuple(parked), **own)
    if not after.can_answer:
        raise BankError("no class is left that can be an answer")
    return after.checked(), _to_make_again(bank, bundled, len(here.photos))


def _carried(
    bank: ClassBank, bundled: ClassBank
) -> tuple[dict[str, str], dict[str, Entry | None], dict[str, tuple[str, ...]], int]:
    """Return the classes of a bank that differ from its base, at another bundle.

    Returns:
        Their keys there by their keys here; what they are there, without the bank's photos, the embeddings of the next
        still to be made, and None for the bundle's classes that were removed here; the texts to embed; and the number
        of the next key.
    """
    had, theirs = (bank.base.bank.entries, bundled.entries) if bank.base else ({}, {})
    by_name = {name_key(entry.name): key for key, entry in theirs.items()}
    keys, puts, texts = dict[str, str](), dict[str, Entry | None](), dict[str, tuple[str, ...]]()
    number = max(bundled.next_key, bank.next_key)
    changed = [(key, one) for key, one in bank.changes.items() if isinstance(one, Entry)]
    owners = {
        name_key(alias): key for key, one in changed for alias in one.aliases
    }  # the bank's word, not the bundle's
    for key, item in bank.changes.items():
        old = had.get(key)
        named = old or item
        if named is None or isinstance(item, Record) or isinstance(named, Record):
            continue
        new = by_name.get(name_key(named.name))
        if item is None:
            if new is not None:
                puts.setdefault(new, None)
            continue
        if new is None or puts.get(new) is not None:
            new, number = str(number), number + 1
        keys[key], bundles = new, theirs.get(new)
        photos = PhotoSet.of((), np.empty((0, bundled.dim), np.float32))
        if old is not None and bundles is not None and bundles.photos:
            photos = bundles.photos  # those of the new bundle's class, which the bank's are added to
        entry = item._replace(photos=dataclasses.replace(photos, photos_only=item.photos_only))
        if bundles is None or (item.phrases if old is None else item.added):
            texts[new] = item.texts
        else:
            free = [alias for alias in bundles.aliases if owners.get(name_key(alias), key) == key]
            entry = _as_bundled(entry, bundles._replace(aliases=tuple(free)))
        puts[new] = entry
    for new, entry in bundled.special.items() if bank.base else ():
        left = tuple(alias for alias in entry.aliases if name_key(alias) not in owners)
        if new not in puts and left != entry.aliases:
            puts[new] = entry._replace(aliases=left)
    return keys, puts, texts, number


def _as_bundled(entry: Entry, bundles: Entry) -> Entry:
    """Return a class with the embedding and the aliases of a bundle's class of the same name."""
    aliases = {name_key(alias): alias for alias in (*bundles.aliases, *entry.aliases)}
    return entry._replace(
        embedding=bundles.embedding,
        phrases=bundles.phrases if entry.name == bundles.name else bundles.texts,
        added=bundles.added,
        aliases=tuple(alias for key, alias in aliases.items() if key != name_key(entry.name)),
    )


def _to_make_again(bank: ClassBank, bundled: ClassBank, photographed: int) -> list[str]:
    """Return a line for each kind of thing that cannot be carried to a bundle."""
    notes = list[str]()
    if photographed and not bank.images.same(bundled.images):
        notes.append(
            f"another image encoder: the photos of {_count(photographed, 'class')} wait in the file until the bank is "
            "carried back; to use them here, add them again"
        )
    commands = {MODEL: "fit", LEARNED: "learn", CALIBRATION: "calibrate", THRESHOLD: "set --unknown-threshold"}
    for record, words in commands.items():
        if record in bank.records:
            notes.append(f"what sar-bank {words} stored belongs to the other bundle; run sar-bank {words} again")
    return notes


def _committed(
    bank: ClassBank, action: str, puts: Puts, summary: str, by: str, at: str | None = None, **fields: Any
) -> ClassBank:
    """Return a bank with one more step; the same bank if the step sets nothing and removes nothing that is there."""
    puts = {k: item for k, item in puts.items() if item is not None or k in bank.entries or k in bank.records}
    if not puts:
        return bank
    step = Step(bank.log.last + 1, at or utc_now(), action, summary, by, puts=puts)
    return dataclasses.replace(bank, log=bank.log.with_step(step), digest="", **fields)


def check_names(bank: ClassBank, names: Sequence[str]) -> None:
    """Check names to add, before time is spent on embedding them.

    Raises:
        ClassNameError: A name is there twice, or is the alias of a class (AliasError).
        BankError: A name is unsound.
    """
    seen: set[str] = set()
    for name, key in zip(names, name_keys(names), strict=True):
        check_entry(Entry(name, np.empty(0, np.float32)))
        if key in seen:
            raise ClassNameError(f"class name {name!r:.80} is there twice; case and space do not count")
        seen.add(key)
        if (owner := bank.lookup.alias(name)) is not None:
            raise AliasError(f"{name!r:.80} is another name of class {bank.names[owner]!r}; remove that alias first")


def utc_now() -> str:
    """Return the time in UTC: ``2026-11-25T15:39:05Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(names: Sequence[str]) -> str:
    """Return up to three names in words, more as a number."""
    return ", ".join(map(repr, names)) if len(names) <= _MOST_NAMED else f"{len(names):,} classes"


def _count(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun == "class" else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"
