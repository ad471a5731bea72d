"""The use cases: each is one function that returns a new bank with one more step of history.

Command line, server and Python call the same functions, with the same meaning. ``by`` is the author of the change, such
as a command. If nothing would change, the same bank is returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.entry import (
    CALIBRATION,
    LEARNED,
    MODEL,
    MOST_ROWS,
    Arrays,
    Entry,
    Parked,
    PhotoSet,
    Puts,
    Record,
    check_entry,
    check_unit,
    same_embedding,
    same_entry,
)
from sar_infer.bank.file import decoded, encoded
from sar_infer.bank.learned import BankCalibration, Learn
from sar_infer.bank.steps import Log, Step
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.text.names import name_key, name_keys

Embed = Callable[[Sequence[tuple[str, ...]]], Floats]
"""Returns unit embeddings (N, D) for the phrases of each of N classes, as ``Classifier.embed_phrases`` does."""
Phrases = Mapping[str, tuple[str, ...]]
Photos = Mapping[str, PhotoSet]
_MOST_NAMED = 3
_KEEP: Any = object()


def create(
    empty: ClassBank, phrases: Phrases, embeddings: Floats, photos: Photos | None = None, *, by: str = ""
) -> ClassBank:
    """Return a bank of exactly some classes.

    Args:
        empty: A bank without classes and base, of an encoder (``ClassBank(encoder_digest, dim, images=…)``).
        phrases: The texts that were embedded, by class name.
        embeddings: (C, D) float32, the unit embedding of each class.
        photos: Photos by class name.
        by: The author of the change.

    Raises:
        ClassNameError: A name is there twice, or there is no class.
        BankError: A name, an embedding or a photo is unsound.
    """
    if not phrases:
        raise ClassNameError("a bank needs a class")
    return _added(empty, "create", phrases, embeddings, photos or {}, by)


def add(
    bank: ClassBank,
    phrases: Phrases | Sequence[str],
    embeddings: Floats,
    photos: Photos | None = None,
    *,
    background: bool | None = None,
    threshold: float | None = None,
    by: str = "",
) -> ClassBank:
    """Add classes at the end. A name of the bank keeps its position, photos and settings, and is embedded anew.

    Args:
        bank: The bank.
        phrases: The texts that were embedded, by class name; or names.
        embeddings: (N, D) float32, the unit embedding of each class.
        photos: Photos by class name, of these classes or of others of the bank; a photo that is counted for a class
            already is left out.
        background: Set this flag of all these classes.
        threshold: Set this threshold of all these classes.
        by: The author of the change.

    Raises:
        ClassNameError: A name is there twice, or is an alias of a class; or there is no such class for photos.
        BankError: A name, an embedding or a photo is unsound.
    """
    by_name = phrases if isinstance(phrases, Mapping) else {name: (name,) for name in phrases}
    return _added(bank, "add", by_name, embeddings, photos or {}, by, background, threshold)


def add_photos(bank: ClassBank, photos: Photos, *, by: str = "") -> ClassBank:
    """Add photos to classes, by name or alias; a photo that is counted for the class already is left out.

    Raises:
        ClassNameError: The bank does not have a class.
        BankError: An embedding is of another encoder's size.
    """
    return _added(bank, "add", {}, np.empty((0, bank.dim), np.float32), photos, by)


def forget_photos(bank: ClassBank, name: str, digests: Iterable[bytes], *, by: str = "") -> ClassBank:
    """Remove photos of a class, here and from all earlier steps, so that it cannot be undone.

    Other classes that count the same photos keep them.

    Raises:
        ClassNameError: The bank does not have the class.
        InputError: A photo is not counted for the class, or is among those of which only a sum is stored.
    """
    key, gone = bank.find(name), frozenset(digests)
    entry = bank.entries[key]
    if not gone:
        return bank
    if not gone <= {*entry.photos}:
        raise InputError("a photo to remove is not counted for the class")
    if not gone <= bank.pool.keys():
        raise InputError(
            "a photo to remove is among the oldest of the class, of which only a sum is stored (embeddings of the "
            f"latest {MOST_ROWS} are); remove the class and add the photos that are to stay"
        )
    alive = bank.entries.keys() - {key}

    def purged(other: str, item: Entry) -> Entry:
        return item if other in alive else _without(item, gone.intersection(item.photos), bank.pool)

    counted = {digest for other in bank.special.keys() & alive for digest in bank.entries[other].photos}
    pool = {digest: row for digest, row in bank.pool.items() if digest not in gone or digest in counted}
    parked = []
    for one in bank.parked:
        waiting = dict(one.photos)
        if key in waiting:
            photos, total = waiting.pop(key)
            left = _without(
                entry._replace(photos=photos, photo_sum=total), gone & one.pool.keys() & {*photos}, one.pool
            )
            waiting |= {} if left.photo_sum is None else {key: (left.photos, left.photo_sum)}
        shared = {digest for photos, _ in waiting.values() for digest in photos}
        pool_left = {digest: row for digest, row in one.pool.items() if digest not in gone - shared}
        parked.append(one._replace(photos=waiting, pool=pool_left))
    before = bank.before  # a bank before a carry that has one of the photos cannot be gone back to
    if before is not None and any(digest in before[1]["photo digests"].tobytes() for digest in gone):
        before = None
    after = bank.with_log(bank.log.mapped(purged), pool=pool, parked=tuple(parked), before=before)
    puts = {key: _without(entry, gone, bank.pool)}
    return _committed(after, "forget", puts, f"removed {_count(len(gone), 'photo')} from {entry.name!r}", by)


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


def set_class(
    bank: ClassBank,
    name: str,
    *,
    aliases: Sequence[str] = _KEEP,
    threshold: float | None = _KEEP,
    background: bool = _KEEP,
    photos_only: bool = _KEEP,
    by: str = "",
) -> ClassBank:
    """Set aliases, threshold, background and photos only of a class, by name or alias; what is not given stays.

    Raises:
        ClassNameError: The bank does not have the class.
        BankError: An alias is the name or an alias of a class, or is there twice; the threshold is not in 0..1.
    """
    key = bank.find(name)
    entry = bank.entries[key]
    given = {"aliases": aliases, "threshold": threshold, "background": background, "photos_only": photos_only}
    fields: dict[str, Any] = {field: value for field, value in given.items() if value is not _KEEP}
    if "aliases" in fields:
        fields["aliases"] = _checked_aliases(bank, key, aliases)
    differ = [field for field, value in fields.items() if value != getattr(entry, field)]
    if not differ:
        return bank
    after = check_entry(entry._replace(**fields))
    words = ", ".join(field.replace("_", " ") for field in differ)
    return _committed(bank, "set", {key: after}, f"changed {entry.name!r} ({words})", by)


def fit(bank: ClassBank, arrays: Arrays, data: Mapping[str, Any] | None = None, *, by: str = "") -> ClassBank:
    """Give a bank a class model that was fitted on its photos, which replaces an earlier one.

    Args:
        bank: The bank.
        arrays: The model's arrays, which the bank stores and does not read; none takes the model away.
        data: Further JSON of the model.
        by: The author of the change.
    """
    if not arrays:
        puts: Puts = {MODEL: None} if MODEL in bank.records else {}
        return _committed(bank, "fit", puts, "dropped the fitted class model", by)
    sets = [photos for photos in bank.photos.values() if len(photos.rows)]
    count = sum(len(photos.rows) for photos in sets)
    words = f"fitted the class model on {_count(count, 'photo')} of {_count(len(sets), 'class')}"
    return _committed(bank, "fit", {MODEL: Record(data or {}, dict(arrays))}, words, by)


def learn(bank: ClassBank, learning: Learn, *, by: str = "") -> ClassBank:
    """Give a bank what photos without labels taught, which replaces what was learned before.

    Photos that taught nothing change nothing; without photos, what was learned is cleared.

    Raises:
        ClassNameError: The bank does not have a class, or one is named twice.
        BankError: The sums are of another encoder's size.
    """
    keys = [bank.find(name) for name in learning.names]
    if len({*keys}) < len(keys):
        raise ClassNameError("a class is named twice in what was learned")
    if len(learning.translation) != bank.dim:
        raise BankError(f"what was learned has {len(learning.translation)} numbers, expected {bank.dim}")
    if not learning.photos:
        puts: Puts = {LEARNED: None} if LEARNED in bank.records else {}
        return _committed(bank, "learn", puts, "cleared what was learned", by)
    if not keys and not learning.translation.any():
        return bank
    data: dict[str, Any] = {"keys": keys, "numbers": {name: float(number) for name, number in learning.numbers.items()}}
    data |= {"photos": learning.photos, "classes": dict(bank.known_classes)}
    arrays: Arrays = {"sums": learning.sums, "counts": learning.counts, "translation": learning.translation}
    words = f"learned from {_count(learning.photos, 'photo')} without labels, of {_count(len(keys), 'class')}"
    return _committed(bank, "learn", {LEARNED: Record(data, arrays)}, words, by)


def calibrate(bank: ClassBank, calibration: BankCalibration | None, *, by: str = "") -> ClassBank:
    """Give a bank the calibration that was fitted on it as it is; None takes it away."""
    if calibration is None:
        puts: Puts = {CALIBRATION: None} if CALIBRATION in bank.records else {}
        return _committed(bank, "calibrate", puts, "dropped the calibration", by)
    words = f"calibrated on {_count(calibration.measured['photos'], 'photo')}"
    return _committed(bank, "calibrate", {CALIBRATION: Record(dataclasses.asdict(calibration))}, words, by)


def rollback(bank: ClassBank, to: int, *, by: str = "") -> ClassBank:
    """Return the bank as it was after a step; the rollback is one more step, and cannot be undone itself.

    Args:
        bank: The bank.
        to: Number of the step; 0 is the beginning.
        by: The author of the change.

    Raises:
        InputError: There is no such step, another rollback took it back, or it is too old to be undone.
        BaseMissingError: The step is before a carry, and the bundle of then is not where it was.
    """
    then, log = bank, bank.log
    if bank.before is not None and to < _carried(bank):
        then = decoded(*bank.before)
        log = then.log.back(to)
        left = {step.n for step in log.steps if step.puts is not None}
        gone = [step.n for step in then.history if step.puts is not None and step.n not in left]
        since = [dataclasses.replace(step, puts=None) for step in bank.history if step.n >= _carried(bank)]
        gone += [step.n for step in bank.history if step.n == _carried(bank) or step.puts is not None]
        log = Log((*log.steps, *since), log.begun, log.folded)
    else:
        log = log.back(to)
        left = {step.n for step in log.steps if step.puts is not None}
        gone = [step.n for step in bank.history if step.puts is not None and step.n not in left]
    if not gone:
        return bank
    numbers = ", ".join(map(str, reversed(gone)))
    summary = f"took back step{'s' if len(gone) > 1 else ''} {numbers}; as after step {to}"
    step = Step(bank.log.last + 1, utc_now(), "rollback", summary, by, to=to)
    return then.with_log(log.with_step(step))


def steps_back(bank: ClassBank, count: int) -> int:
    """Return the number of the step that is this many steps back; steps that were rolled back do not count.

    Raises:
        InputError: There are fewer steps to take back.
    """
    line = bank.log.line
    if bank.before is not None and line[0] == _carried(bank):
        line = [*decoded(*bank.before, detached=True).log.line, *line]
    if count >= len(line):
        raise InputError(f"cannot go back {count} steps, there are {len(line) - 1} to take back")
    return line[-1 - count]


def carry(bank: ClassBank, bundled: ClassBank, embed: Embed, *, by: str = "") -> tuple[ClassBank, list[str]]:
    """Take a bank to another bundle: names are embedded anew, and photos come along if both embed images alike.

    Classes of the old bundle are those of the new one with the same name. Photos of another image encoder are parked:
    they are part of the file, and return when the bank is carried to a bundle that embeds images as theirs did. A bank
    without a base has the same classes afterwards.

    Args:
        bank: The bank; ``file.read(…, detached=True)`` is enough, so that the old bundle need not be there.
        bundled: The bank of the new bundle, without changes.
        embed: The name encoder of the new bundle.
        by: The author of the change.

    Returns:
        The bank, and a line for each kind of thing that could not be carried.

    Raises:
        BankError: No class is left that can be an answer.
    """
    same = bank.base.digest == bundled.base.digest if bank.base and bundled.base else bank.base is None
    if same and bank.encoder_digest == bundled.encoder_digest:
        return bank, []
    keys, puts, notes = _carried_classes(bank, bundled, embed)
    alike = bank.images.same(bundled.images)
    here = {key: (e.photos, e.photo_sum) for key, e in bank.changes.items() if isinstance(e, Entry) and e.photos}
    waiting = [*bank.parked, Parked(bank.images, here, bank.pool)]  # type: ignore[arg-type]
    pool: dict[bytes, Floats] = {}
    parked: list[Parked] = []
    for one in waiting:
        photos = {keys[key]: value for key, value in one.photos.items() if key in keys}
        if not (alike if one is waiting[-1] else one.images.same(bundled.images)):
            parked += [one._replace(photos=photos)] if photos else []
            continue
        pool |= one.pool
        for key, (digests, total) in photos.items():
            entry = puts.get(key) or bundled.entries[key]
            assert isinstance(entry, Entry)  # noqa: S101 - keys are those of classes
            puts[key] = _joined(entry, digests, total, one.pool)
    if not alike and here:
        notes.append(
            f"another image encoder: the photos of {_count(len(here), 'class')} wait in the file until the bank is "
            "carried back; to use them here, add them again"
        )
    for record, words in ((MODEL, "fit"), (LEARNED, "learn"), (CALIBRATION, "calibrate")):
        if record in bank.records:
            notes.append(f"what sar-bank {words} stored belongs to the other bundle; run sar-bank {words} again")
    tensors: dict[str, Any] = {}
    before = encoded(dataclasses.replace(bank, before=None), tensors), tensors
    number, name = bank.log.last + 1, bundled.encoder_digest[:8]
    step = Step(number, utc_now(), "carry", f"carried {_count(len(keys), 'class')} to encoder {name}", by)
    texts = [dataclasses.replace(step, puts=None) for step in bank.history]
    after = ClassBank(
        bundled.encoder_digest,
        bundled.dim,
        Log((*texts, step), number, puts),
        bundled.base if bank.base else None,
        pool,
        max(bundled.next_key, bank.next_key) + len(keys),
        bundled.images,
        bundled.provenance if bank.base else bank.provenance,
        tuple(parked),
        before,
    )
    if not after.can_answer:
        raise BankError("no class is left that can be an answer")
    return after.checked(), notes


def _carried_classes(
    bank: ClassBank, bundled: ClassBank, embed: Embed
) -> tuple[dict[str, str], dict[str, Entry | Record | None], list[str]]:
    """Return the new key of each class, what differs from the new base, and a line for each class that is left out."""
    had = bank.base.bank.entries if bank.base else {}
    theirs = bundled.entries if bank.base else {}
    taken = {name_key(entry.name): key for key, entry in theirs.items()}  # by the names that classes have by now
    puts: dict[str, Entry | Record | None] = {}
    keys: dict[str, str] = {}
    notes: list[str] = []
    texts: dict[str, tuple[str, ...]] = {}
    number = max(bundled.next_key, bank.next_key)
    original = dict(taken)
    for key in (key for key, item in bank.changes.items() if item is None and key in had):
        new = taken.pop(name_key(had[key].name), None)
        puts |= {} if new is None else {new: None}
    for key, entry in bank.entries.items():
        if key not in bank.changes:
            continue
        new = original.get(name_key(had[key].name)) if key in had else taken.get(name_key(entry.name))
        owner = taken.get(name_key(entry.name))
        name = entry.name
        if new is None or puts.get(new, entry) is None:
            new = owner
        elif owner not in (None, new):
            notes.append(f"class {theirs[new].name!r} keeps its name: the bundle has another class {entry.name!r}")
            name = theirs[new].name
        if new is None:
            new, number = str(number), number + 1
        keys[key] = new
        bundles = theirs.get(new)
        if bundles is not None and (not entry.phrases if key not in had else entry.added is None):
            phrases = entry.phrases if name == bundles.name else bundles.texts
            after = entry._replace(
                name=name,
                embedding=bundles.embedding,
                phrases=phrases,
                added=bundles.added,
                aliases=tuple({name_key(alias): alias for alias in (*bundles.aliases, *entry.aliases)}.values()),
            )
        else:
            texts[new], after = entry.texts, entry
        taken[name_key(name)] = new
        puts[new] = after._replace(photos=(), photo_sum=None)
    notes += _embedded(puts, texts, embed)
    for key in [key for key in keys if isinstance(puts.get(keys[key]), Record) or puts.get(keys[key]) is None]:
        del keys[key]
    names = {key: owner for key, owner in taken.items() if puts.get(owner, True) is not None}
    for new, item in puts.items():
        if isinstance(item, Entry):
            free = [
                a
                for a in item.aliases
                if names.setdefault(name_key(a), new) == new and name_key(a) != name_key(item.name)
            ]
            puts[new] = item._replace(aliases=tuple(free))
    return keys, puts, notes


def _embedded(puts: dict[str, Entry | Record | None], texts: Mapping[str, tuple[str, ...]], embed: Embed) -> list[str]:
    """Give entries the embeddings of their texts; return a line for each that cannot be embedded, which is left out."""
    try:
        rows = dict(zip(texts, embed([*texts.values()]), strict=True)) if texts else {}
    except ClassNameError:
        rows, notes = {}, []
        for key, phrases in texts.items():
            try:
                rows[key] = embed([phrases])[0]
            except ClassNameError as error:
                notes.append(f"class {phrases[0]!r} cannot be embedded: {error}")
                puts.pop(key)
    else:
        notes = []
    for key, row in rows.items():
        entry = puts[key]
        assert isinstance(entry, Entry)  # noqa: S101 - texts are those of entries
        puts[key] = entry._replace(embedding=row, added=entry.added or utc_now())
    return notes


def _carried(bank: ClassBank) -> int:
    """Return the number of the step that carried the bank here; -1 if that cannot be undone."""
    return -1 if bank.before is None else max(step.n for step in bank.history if step.action == "carry")


def _added(
    bank: ClassBank,
    action: str,
    phrases: Phrases,
    embeddings: Floats,
    photos: Photos,
    by: str,
    background: bool | None = None,
    threshold: float | None = None,
) -> ClassBank:
    """Return a bank with classes and photos put in."""
    if embeddings.dtype != np.float32 or embeddings.shape != (len(phrases), bank.dim):
        raise BankError(
            f"expected float32 embeddings ({len(phrases)}, {bank.dim}), got {embeddings.dtype} {embeddings.shape}"
        )
    check_names(bank, [*phrases])
    check_unit(embeddings, phrases)
    at, next_key = utc_now(), bank.next_key
    settings = {
        key: value for key, value in (("background", background), ("threshold", threshold)) if value is not None
    }
    puts: dict[str, Entry] = {}
    keys: dict[str, str] = {}
    done: dict[str, list[str]] = {"added": [], "replaced": [], "changed": []}
    for (name, texts), row in zip(phrases.items(), embeddings, strict=True):
        position = bank.lookup.name(name)
        if position is None:
            key, next_key, verb = str(next_key), next_key + 1, "added"
            entry = Entry(name, row, () if texts == (name,) else texts, added=at)
        else:
            key, verb = bank.keys[position], "changed"
            entry = bank.entries[key]
            anew = () if texts in ((name,), (entry.name,)) else texts
            if not same_embedding(entry.embedding, row):
                entry, verb = entry._replace(embedding=row, phrases=anew, added=at), "replaced"
            elif entry.phrases != anew:
                entry = entry._replace(phrases=anew, added=at)
        keys[name] = key
        entry = entry._replace(**settings)  # type: ignore[arg-type]
        if position is None or not same_entry(entry, bank.entries[key]):
            puts[key] = check_entry(entry)
            done[verb].append(entry.name)
    pool, photo_words, counts = dict(bank.pool), list[str](), dict[str, int]()
    for name, new in photos.items():
        key = keys.get(name) or bank.find(name)
        if new.rows.shape[1:] != (bank.dim,) or len(new.rows) != len(new):
            raise BankError(f"photos of {name!r:.80}: expected an embedding of {bank.dim} numbers for each photo")
        before = puts.get(key) or bank.entries[key]
        entry = before._replace(**settings)  # type: ignore[arg-type]
        if not same_entry(entry, before):
            done["changed"].append(entry.name)
        entry = _joined(entry, new.digests, new.total, new.recent)
        if new.photos_only and not entry.photos_only:
            photo_words.append(f"photos only: {entry.name!r}")
            entry = entry._replace(photos_only=True)
        if not same_entry(entry, before):
            puts[key] = check_entry(entry)
        if len(entry.photos) > len(before.photos):
            counts[entry.name] = len(entry.photos) - len(before.photos)
        pool = {**new.recent, **pool}
    if counts:
        photo_words.insert(0, f"added {_count(sum(counts.values()), 'photo')} to {listed([*counts])}")
    words = [f"{verb} {listed(of) if len(of) <= _MOST_NAMED else f'{len(of):,}'}" for verb, of in done.items() if of]
    after_bank = dataclasses.replace(bank, pool=pool, next_key=next_key) if puts else bank
    return _committed(after_bank, action, puts, ", ".join([*words, *photo_words]), by, at)


def _joined(entry: Entry, digests: Sequence[bytes], total: Any, rows: Mapping[bytes, Floats]) -> Entry:
    """Return a class with further photos, of which those that are counted already are left out."""
    counted = {*entry.photos}
    fresh = tuple(digest for digest in digests if digest not in counted)
    if not fresh:
        return entry
    if len(fresh) < len(digests):
        total = sum(rows[digest].astype(np.float64) for digest in fresh if digest in rows)
    before = np.zeros(len(entry.embedding)) if entry.photo_sum is None else entry.photo_sum
    return entry._replace(photos=(*entry.photos, *fresh), photo_sum=before + total)


def _without(entry: Entry, gone: Iterable[bytes], pool: Mapping[bytes, Floats]) -> Entry:
    gone = {*gone}
    if not gone or entry.photo_sum is None:
        return entry
    left = tuple(digest for digest in entry.photos if digest not in gone)
    taken = np.sum([pool[digest] for digest in gone], axis=0, dtype=np.float64)
    return entry._replace(photos=left, photo_sum=entry.photo_sum - taken if left else None)


def _committed(bank: ClassBank, action: str, puts: Puts, summary: str, by: str, at: str | None = None) -> ClassBank:
    """Return a bank with one more step; without puts the same bank."""
    if not puts:
        return bank
    log = bank.log.with_step(Step(bank.log.last + 1, at or utc_now(), action, summary, by, puts=puts))
    before = None if log.begun > _carried(bank) else bank.before
    return bank.with_log(log, before=before)


def _checked_aliases(bank: ClassBank, key: str, aliases: Sequence[str]) -> tuple[str, ...]:
    """Return the aliases of a class if no class has one of them already, by name or alias."""
    keys = name_keys(aliases)
    for number, alias in enumerate(aliases):
        owner = bank.lookup.get(alias)
        if owner is not None and (bank.keys[owner] != key or bank.lookup.name(alias) is not None):
            raise BankError(f"alias {alias!r} is already a name of class {bank.names[owner]!r}")
        if keys[number] in keys[:number]:
            raise BankError(f"alias {alias!r} is there twice; case and space do not count")
    return tuple(aliases)


def check_names(bank: ClassBank, names: Sequence[str]) -> None:
    """Check names to add, before time is spent on embedding them.

    Raises:
        ClassNameError: A name is there twice, or is an alias of a class.
        BankError: A name is unsound.
    """
    seen: set[str] = set()
    for name, key in zip(names, name_keys(names), strict=True):
        check_entry(Entry(name, np.empty(0, np.float32)))
        if key in seen:
            raise ClassNameError(f"class name {name!r:.80} is there twice; case and space do not count")
        seen.add(key)
        if (owner := bank.lookup.alias(name)) is not None:
            raise ClassNameError(
                f"{name!r:.80} is another name of class {bank.names[owner]!r}; remove that alias first"
            )


def utc_now() -> str:
    """Return the time in UTC: ``2026-11-25T15:39:05Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(names: Sequence[str]) -> str:
    """Return up to three names in words, more as a number."""
    return ", ".join(map(repr, names)) if len(names) <= _MOST_NAMED else f"{len(names):,} classes"


def _count(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun == "class" else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"
