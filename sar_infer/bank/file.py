"""The bank file: a base, or where it is, and the log of what was done to it. ``docs/bundle.md`` describes it.

A file is written whole; the rows of its base stand in it only if they are the bank's own. A plain state, such as the
bank of a bundle, is written as version 2, unless it has photos or a calibration.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.bank import old_files
from sar_infer.bank.info import info_from_json, info_to_json, sparse
from sar_infer.bank.log import (
    Add,
    Alias,
    Calibrate,
    Change,
    Fit,
    Forget,
    Learn,
    Log,
    Photos,
    Remove,
    Rename,
    Set,
    Step,
    applied,
    taught_changes,
)
from sar_infer.bank.old_files import KIND, MAPPED_BYTES
from sar_infer.bank.photos import PhotoSet
from sar_infer.bank.state import Base, State, check_base
from sar_infer.bank.table import Block
from sar_infer.errors import BankError, BundleError
from sar_infer.storage.files import write_atomically
from sar_infer.storage.named_tensors import packed, read_only, unpacked
from sar_infer.storage.strict_json import build
from sar_infer.storage.tensor_file import TensorFile, Tensors, file_pieces, tensor_bytes

VERSION = "4"
_BASE = "base"
"""Prefix of the tensors of a base's changes."""
_LARGE = 1 << 16
"""Characters of a step's changes above which they stand in a tensor: a header may have 100 MB."""
_TEXTS = (
    "encoder_digest",
    "content_digest",
    "base",
    "provenance",
    "records",
    "checkpoint",
    "info",
    "base_changes",
)
"""Metadata that the record digest covers."""
_PLAIN: Mapping[str, Any] = {kind.kind: kind for kind in (Remove, Rename, Alias, Set, Calibrate)}
"""Kinds of change whose fields are JSON as they are."""


@dataclass(frozen=True)
class Content:
    """The content of a bank file.

    Attributes:
        encoder_digest: The encoder that it belongs to.
        log: What was done to the base; of old files, text alone.
        base: The base, if the file holds it.
        base_digest: Digest of the base.
        path: The file of the bundle that is the base, as it was when this file was written.
        provenance: The base's.
    """

    encoder_digest: str
    log: Log
    base: Base | None
    base_digest: str
    path: str | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read(path: Path, encoder_digest: str | None = None, previous: Log | None = None, *, whole: bool = False) -> Content:
    """Read and check a file.

    Args:
        path: The file.
        encoder_digest: The encoder that it must belong to; None accepts any.
        previous: A log some of whose steps it may have; what belongs to these is not read.
        whole: Check every byte, also of tensors above ``MAPPED_BYTES``.

    Raises:
        SchemaError: It was written for a newer reader.
        BankError: It is missing, damaged, no bank, or of another encoder.
    """
    with KIND.opened(path) as file:
        if file.metadata["schema_version"] == VERSION:
            KIND.check_encoder(path, file.metadata["encoder_digest"], encoder_digest)
            try:
                return _read(file, previous or Log(), whole=whole)
            except (BankError, BundleError, ValueError, KeyError, TypeError) as error:
                raise old_files.unreadable(path, error) from None
    base, steps = old_files.read(path, encoder_digest, whole=whole)
    return Content(base.encoder_digest, Log(steps, len(steps)), base, base.digest, provenance=base.provenance)


def write(path: Path, base: Base, log: Log, digest: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: The file.
        base: The base; it is written too if it has no place of its own.
        log: What was done to it.
        digest: The digest of the state that this makes, which others may read without a replay.

    Raises:
        BankError: There is more text than a file's header takes; an old file is still there.
        OSError: It cannot be written; an old one is still there.
    """
    if base.path is None and not (log.steps or log.checkpoint or _base_changes(base)):
        old_files.write(path, base)
        return
    texts, tensors = _base_parts(base, log.begun)
    texts["content_digest"] = digest
    records = []
    for step in log.steps:
        entry, more = encoded(step)
        records.append(entry)
        tensors |= more
    texts["records"] = _json(records)
    if log.checkpoint:
        entry, more = encoded(log.checkpoint)
        texts["checkpoint"] = _json(entry)
        tensors |= more
    metadata = {
        "format": KIND.format,
        "schema_version": VERSION,
        "min_reader": VERSION,
        **texts,
        "record_digest": _digest_of_texts(texts),
    }
    try:
        write_atomically(path, file_pieces(tensors, metadata))
    except ValueError as error:
        raise BankError(f"{path}: cannot be written ({error})") from None


def _base_parts(base: Base, begun: int) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """Return metadata and tensors of a base: where it is, or all of it."""
    texts = {
        "encoder_digest": base.encoder_digest,
        "base": _json({"digest": base.digest, "path": base.path, "begun": begun}),
        "provenance": json.dumps(dict(base.provenance), ensure_ascii=False, sort_keys=True),
    }
    if base.path is not None:
        return texts, {}
    data, offsets = packed(base.block.names)
    tensors: dict[str, npt.NDArray[Any]] = {"names": data, "offsets": offsets, "embeddings": base.block.rows}
    texts["info"] = _json(info_to_json(base.info))
    if changes := _base_changes(base):
        entry, more = _encoded(Step(0, "", "checkpoint", "", changes=changes), _BASE)
        texts["base_changes"] = _json(entry)
        tensors |= more
    return texts, tensors


def _base_changes(base: Base) -> tuple[Change, ...]:
    """Return the changes that give the names and rows of a base all else."""
    names = base.block.names
    changes: list[Change] = []
    if base.photos:
        changes.append(Photos({names[slot]: base.photos[slot] for slot in sorted(base.photos)}))
    if base.calibration is not None:
        changes.append(Calibrate(base.calibration))
    return (*changes, *taught_changes(State(base)))


def encoded(step: Step) -> tuple[Mapping[str, Any], Tensors]:
    """Return a step's entry in the records and its tensors, which have the names of the file; computed once."""
    result = _ENCODED.get(step)
    if result is None:
        result = _ENCODED[step] = _encoded(step, f"s{step.n}")
    return result


_ENCODED: weakref.WeakKeyDictionary[Step, tuple[Mapping[str, Any], Tensors]] = weakref.WeakKeyDictionary()


def _encoded(step: Step, prefix: str) -> tuple[Mapping[str, Any], Tensors]:
    entry: dict[str, Any] = {"n": step.n, "at": step.at, "action": step.action, "summary": step.summary}
    entry |= ({"by": step.by} if step.by else {}) | ({} if step.to is None else {"to": step.to})
    if step.changes is None:
        return entry, {}
    tensors: dict[str, npt.NDArray[Any]] = {}
    changes = []
    for number, change in enumerate(step.changes):
        content, arrays = _parts(change)
        changes.append({"kind": change.kind, **content})
        tensors |= {f"{prefix}.{number}.{name}": array for name, array in arrays.items()}
    text = _json(changes)
    if len(text) > _LARGE:
        tensors[f"{prefix}.changes"] = np.frombuffer(text.encode(), np.uint8)
    entry["changes"] = None if len(text) > _LARGE else changes
    if tensors:
        entry["digest"] = _digest_of_tensors(tensors)
    return entry, tensors


def _parts(change: Change) -> tuple[dict[str, Any], Tensors]:
    """Return a change as JSON and its tensors."""
    match change:
        case Add():
            content: dict[str, Any] = {"names": list(change.names)}
            content |= {"info": info_to_json(change.info)} if change.info else {}
            return content | ({"exact": True} if change.exact else {}), {"rows": change.rows}
        case Photos():
            sets = change.sets.values()
            classes = [
                {"name": name, "photos": len(one), "rows": len(one.rows), "photos_only": one.photos_only}
                for name, one in change.sets.items()
            ]
            older = [one.older for one in sets if one.folded]
            arrays = {
                "rows": np.concatenate([one.rows for one in sets]),
                "digests": np.concatenate([one.digests for one in sets]),
            }
            return {"classes": classes}, arrays | ({"older": np.stack(older)} if older else {})
        case Forget():
            digests = None if change.digests is None else [digest.hex() for digest in change.digests]
            return {"name": change.name, "digests": digests}, {}
        case Fit():
            return {"tensors": sorted(change.tensors)}, change.tensors
        case Learn():
            content = {"names": list(change.names), "numbers": dict(change.numbers), "photos": change.photos}
            arrays = {"sums": change.sums, "counts": change.counts, "translation": change.translation}
            return content | ({"stale": True} if change.stale else {}), arrays
        case _:
            return sparse(change), {}


@dataclass(frozen=True)
class _BaseEntry:
    """The base as it stands in the metadata."""

    digest: str
    path: str | None = None
    begun: int = 0


@dataclass(frozen=True)
class _Learning:
    """The sums of a ``learn`` record, without its tensors."""

    names: tuple[str, ...]
    numbers: Mapping[str, float]
    photos: int
    stale: bool = False


@dataclass(frozen=True)
class _Class:
    """The photos of one class in a record."""

    name: str
    photos: int
    rows: int
    photos_only: bool


def _read(file: TensorFile, previous: Log, *, whole: bool) -> Content:
    metadata = file.metadata
    texts = {key: metadata[key] for key in _TEXTS if key in metadata}
    if _digest_of_texts(texts) != metadata["record_digest"]:
        raise BankError("its records do not match their digest; the file was damaged or changed")
    reader = _Reader(file, previous, whole=whole)
    steps = tuple(map(reader.step, json.loads(texts["records"])))
    checkpoint = reader.step(json.loads(texts["checkpoint"])) if "checkpoint" in texts else None
    provenance = json.loads(texts["provenance"])
    stated = build(_BaseEntry, json.loads(texts["base"]), "base")
    log = Log(steps, stated.begun, checkpoint)
    base = None
    if stated.path is None:
        base = _own_base(reader, texts, provenance, stated.digest)
    return Content(texts["encoder_digest"], log, base, stated.digest, stated.path, provenance)


def _own_base(reader: _Reader, texts: Mapping[str, str], provenance: Mapping[str, Any], digest: str) -> Base:
    """Return the base that the file holds, checked unless it is large."""
    names = unpacked(reader.tensor("names"), reader.tensor("offsets"))
    block = Block(names, reader.tensor("embeddings"))
    info = info_from_json(json.loads(texts["info"]), len(names))
    base = Base(block, texts["encoder_digest"], provenance, info, stated=digest)
    if "base_changes" in texts:
        state = applied(State(base), reader.step(json.loads(texts["base_changes"]), _BASE).changes or ())
        base = dataclasses.replace(
            base,
            photos=state.photos_by_slot,
            calibration=state.calibration,
            fitted=state.fitted,
            learned=state.learned,
        )
    check_base(base, rows=reader.checks("embeddings"))
    if reader.checks("embeddings") and base.computed_digest() != digest:
        raise BankError("content does not match its digest; the file was damaged or changed")
    return base


class _Reader:
    """Reads the steps of a file; those that are in a log already are taken from there."""

    def __init__(self, file: TensorFile, previous: Log, *, whole: bool) -> None:
        self._file, self._whole = file, whole
        steps = [*previous.steps, *([previous.checkpoint] if previous.checkpoint else [])]
        self._steps = {_json(encoded(step)[0]): step for step in steps}
        self._tensors: dict[str, npt.NDArray[Any]] = {}

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """Return a tensor, read once, and mapped if it is large."""
        if name not in self._file.entries:
            raise BankError(f"tensor {name!r:.40} is missing")
        if name not in self._tensors:
            span = self._file.entries[name]
            self._tensors[name] = read_only(self._file.tensor(name, span.end - span.start > MAPPED_BYTES))
        return self._tensors[name]

    def has(self, name: str) -> bool:
        """Return True if there is such a tensor."""
        return name in self._file.entries

    def checks(self, prefix: str) -> bool:
        """Return True if the tensors whose names begin so are to be checked: they are not large."""
        spans = [span for name, span in self._file.entries.items() if name.startswith(prefix)]
        return self._whole or all(span.end - span.start <= MAPPED_BYTES for span in spans)

    def check(self, prefix: str, digest: str | None) -> None:
        """Raise BankError if the tensors of a step do not have the digest that it states."""
        names = [name for name in self._file.entries if name.startswith(f"{prefix}.")]
        if names and self.checks(f"{prefix}.") and _digest_of_tensors({n: self.tensor(n) for n in names}) != digest:
            raise BankError(f"the content of {prefix} does not match its digest; the file was damaged or changed")

    def step(self, content: Any, prefix: str | None = None) -> Step:
        """Return a step from its entry in the records; its tensors begin with a prefix, which its number is."""
        previous = self._steps.get(_json(content))
        if previous is not None and prefix is None:
            return previous
        step: Step = build(Step, {key: content[key] for key in content.keys() - {"changes", "digest"}}, "records")
        prefix = prefix or f"s{step.n}"
        self.check(prefix, content.get("digest"))
        changes = content.get("changes")
        if changes is None and self.has(f"{prefix}.changes"):
            changes = json.loads(self.tensor(f"{prefix}.changes").tobytes())
        if changes is not None:
            changes = tuple(self._change(change, f"{prefix}.{number}") for number, change in enumerate(changes))
        step = dataclasses.replace(step, changes=changes)
        _ENCODED[step] = (
            content,
            {name: array for name, array in self._tensors.items() if name.startswith(f"{prefix}.")},
        )
        return step

    def _change(self, content: Any, prefix: str) -> Change:
        fields = dict(content)
        match kind := fields.pop("kind"):
            case "add":
                return self._add(fields, prefix)
            case "photos":
                return Photos(_photos(build(tuple[_Class, ...], fields["classes"], prefix), self, prefix))
            case "forget":
                digests = build(tuple[str, ...] | None, fields["digests"], prefix)
                gone = None if digests is None else tuple(map(bytes.fromhex, digests))
                return Forget(build(str, fields["name"], prefix), gone)
            case "fit":
                tensors = build(tuple[str, ...], fields["tensors"], prefix)
                return Fit({name: self.tensor(f"{prefix}.{name}") for name in tensors})
            case "learn":
                one = build(_Learning, fields, prefix)
                sums, counts, translation = (self.tensor(f"{prefix}.{n}") for n in ("sums", "counts", "translation"))
                return Learn(one.names, sums, counts, translation, one.numbers, one.photos, one.stale)
        change: Change = build(_PLAIN[kind], fields, prefix)
        return change

    def _add(self, fields: Mapping[str, Any], prefix: str) -> Add:
        names = build(tuple[str, ...], fields["names"], prefix)
        rows = self.tensor(f"{prefix}.rows")
        if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(names):
            raise BankError(f"{prefix}: expected float32 ({len(names)}, D) rows, got {rows.dtype} {rows.shape}")
        return Add(names, rows, info_from_json(fields.get("info", []), len(names)), bool(fields.get("exact")))


def _photos(classes: Sequence[_Class], reader: _Reader, prefix: str) -> dict[str, PhotoSet]:
    rows, digests = reader.tensor(f"{prefix}.rows"), reader.tensor(f"{prefix}.digests")
    older = reader.tensor(f"{prefix}.older") if reader.has(f"{prefix}.older") else np.empty((0, rows.shape[-1]))
    folded = [one for one in classes if one.photos > one.rows]
    fits = len(rows) == sum(one.rows for one in classes) and len(digests) == sum(one.photos for one in classes)
    if not fits or len(older) != len(folded) or rows.ndim != 2 or digests.ndim != 2:
        raise BankError(f"{prefix}: rows, digests and sums of photos do not fit the classes")
    sets: dict[str, PhotoSet] = {}
    row = digest = 0
    sums = iter(older)
    for one in classes:
        total = next(sums) if one.photos > one.rows else np.zeros(rows.shape[1])
        latest, names = rows[row : row + one.rows], digests[digest : digest + one.photos]
        sets[one.name] = PhotoSet(names, latest, total, one.photos_only)
        sets[one.name].check(rows.shape[1])
        row, digest = row + one.rows, digest + one.photos
    return sets


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _digest_of_texts(texts: Mapping[str, str]) -> str:
    """Return SHA-256 (hex) over some metadata: for each key and text, its length in 8 bytes and the UTF-8."""
    digest = hashlib.sha256()
    for text in (text for key in _TEXTS if key in texts for text in (key, texts[key])):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _digest_of_tensors(tensors: Tensors) -> str:
    """Return SHA-256 (hex) over tensors in the order of their names: each name after its length, then the bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(len(name).to_bytes(8, "little") + name.encode())
        for piece in tensor_bytes(tensors[name]):
            digest.update(piece)
    return digest.hexdigest()
