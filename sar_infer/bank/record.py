"""The parts of a bank file beside names, rows and photos: provenance, class info, history, and what undo needs.

A calibration may be there too. All but what undo needs are JSON in the metadata; ``record_digest`` covers everything.
Files of version 1 have provenance alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_infer.bank.calibration import BankCalibration
from sar_infer.bank.history import Step
from sar_infer.bank.info import ClassInfo, info_from_json, info_to_json, sparse
from sar_infer.bank.photos import RETIRED, RETIRED_SEALS, retired_tensors
from sar_infer.bank.undo import Stack
from sar_infer.errors import BankError, BundleError
from sar_infer.storage.named_tensors import Stored
from sar_infer.storage.packed_names import PackedNames
from sar_infer.storage.strict_json import build
from sar_infer.storage.tensor_file import Tensors, tensor_bytes

if TYPE_CHECKING:
    from sar_infer.bank.class_bank import ClassBank

_ROWS, _NAMES, _OFFSETS, _POSITIONS = "retired", "retired_names", "retired_offsets", "retired_positions"
TENSORS = {_ROWS: "F32", _NAMES: "U8", _OFFSETS: "I64", _POSITIONS: "I64"}
"""Type of each tensor of the stack; a file has all of them or none."""
_TEXTS = ("provenance", "info", "history")
_COVERED = (*TENSORS, RETIRED, RETIRED_SEALS)
"""Tensors that the record digest takes, if the file has them."""


@dataclass(frozen=True)
class Record:
    """The content of a bank file beside names and rows."""

    provenance: Mapping[str, Any]
    info: Mapping[str, ClassInfo]
    history: tuple[Step, ...]
    stack: Stack | None
    calibration: BankCalibration | None = None


def metadata(bank: ClassBank) -> dict[str, str]:
    """Return the metadata of a bank's record."""
    rows = bank.index.for_many(len(bank.info))
    texts = {
        "provenance": json.dumps(dict(bank.provenance), ensure_ascii=False, sort_keys=True),
        "info": json.dumps(info_to_json(bank.info, rows), ensure_ascii=False),
        "history": json.dumps(sparse(bank.history), ensure_ascii=False),
    }
    if bank.calibration is not None:
        texts["calibration"] = json.dumps(dataclasses.asdict(bank.calibration), ensure_ascii=False)
    kept = {**tensors(bank.retired), **retired_tensors(bank.photo_stack)}
    return {**texts, "record_digest": _digest(bank.encoder_digest, texts, kept)}


def tensors(stack: Stack) -> Tensors:
    """Return the tensors of a stack; an empty stack has none."""
    if not len(stack):
        return {}
    names = stack.names
    return {_ROWS: stack.rows, _NAMES: names.data, _OFFSETS: names.offsets, _POSITIONS: stack.positions}


def read(stored: Stored, whole: bool = False) -> Record:
    """Read and check a record; ``whole`` checks the digest of mapped rows too.

    Version 1 had phrases in ``provenance``; they become class info.

    Raises:
        BankError: the record is damaged.
        ValueError: a text is not JSON.
    """
    found = stored.metadata
    provenance = json.loads(found["provenance"])
    if not isinstance(provenance, dict):
        raise BankError("field provenance: expected an object")
    if found["schema_version"] == "1":
        return _first_version(provenance, stored.names)
    for key in ("info", "history", "record_digest"):
        if key not in found:
            raise BankError(f"metadata has no {key!r}")
    kept = {name: stored.tensors[name] for name in TENSORS if name in stored.tensors}
    texts = {key: found[key] for key in (*_TEXTS, "calibration") if key in found}
    covered = {name: stored.tensors[name] for name in _COVERED if name in stored.tensors}
    if (stored.checked or whole) and _digest(found["encoder_digest"], texts, covered) != found["record_digest"]:
        raise BankError("info, history or calibration do not match their digest; the file was damaged or changed")
    try:
        info = info_from_json(json.loads(found["info"]), stored.names)
        history = build(tuple[Step, ...], json.loads(found["history"]), "history")
        stated = None if "calibration" not in found else json.loads(found["calibration"])
        calibration = None if stated is None else build(BankCalibration, stated, "calibration")
    except BundleError as error:
        raise BankError(str(error)) from None
    return Record(provenance, info, history, _stack(kept), calibration=calibration)


def check_stack(history: tuple[Step, ...], stack: Stack, photo_sets: int, dim: int) -> None:
    """Raise BankError unless a history fits what is kept to undo it, a stack of rows (R, dim) and sets of photos."""
    if [step.n for step in history] != list(range(1, len(history) + 1)):
        raise BankError("the steps of its history are not numbered from 1 on")
    for step in history:
        leads_back = step.to is not None and 0 <= step.to < step.n and step.undo is None
        if not (leads_back if step.action == "rollback" else step.to is None):
            raise BankError(f"step {step.n} of its history is no sound {step.action}")
    undos = [step.undo for step in history if step.undo is not None]
    counts = [count for undo in undos for count in (undo.appended, undo.removed, undo.replaced, undo.lost)]
    if min(counts, default=0) < 0 or sum(undo.rows for undo in undos) != len(stack):
        raise BankError(f"the history does not account for the {len(stack)} rows that are kept to undo it")
    if sum(undo.photo_sets for undo in undos) != photo_sets:
        raise BankError(f"the history does not account for the {photo_sets} sets of photos that are kept to undo it")
    if stack.rows.shape != (len(stack), dim) or stack.positions.shape != (len(stack),):
        raise BankError(f"rows kept to undo the history: expected ({len(stack)}, {dim}), got {stack.rows.shape}")


def _first_version(provenance: dict[str, Any], names: PackedNames) -> Record:
    try:
        phrases = build(Mapping[str, tuple[str, ...]], provenance.pop("phrases", {}), "provenance.phrases")
    except BundleError as error:
        raise BankError(str(error)) from None
    known = {name: texts for name, texts in phrases.items() if texts not in ((), (name,))}
    there = known.keys() & set(names) if known else ()
    return Record(provenance, {name: ClassInfo(phrases=known[name]) for name in known if name in there}, (), None)


def _stack(kept: Tensors) -> Stack | None:
    if not kept:
        return None
    if kept.keys() != TENSORS.keys():
        raise BankError(f"expected the tensors {', '.join(TENSORS)} together, found {', '.join(kept)}")
    return Stack(PackedNames(kept[_NAMES], kept[_OFFSETS]), kept[_ROWS], kept[_POSITIONS])


def _digest(encoder: str, texts: Mapping[str, str], kept: Tensors) -> str:
    """Return SHA-256 (hex) over the encoder's digest and the texts, each after its length, and the stack's tensors."""
    digest = hashlib.sha256()
    for text in (encoder, *texts.values()):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    for name in _COVERED:
        for piece in tensor_bytes(kept.get(name, np.empty(0, np.uint8))):
            digest.update(piece)
    return digest.hexdigest()
