"""Bank files of versions 1 to 3, which hold all rows: the plain state of a bundle's bank, and files of older releases.

The history of such a file is read as text: what its steps did cannot be undone any more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.bank.info import ClassInfo, info_from_json, info_to_json
from sar_infer.bank.learned import BankCalibration
from sar_infer.bank.log import Step
from sar_infer.bank.photos import PhotoSet
from sar_infer.bank.state import REMOVED, RENAMED, Base, check_base
from sar_infer.bank.table import Block
from sar_infer.errors import BankError, BundleError
from sar_infer.storage.named_tensors import FileKind, Stored, read_only
from sar_infer.storage.strict_json import build
from sar_infer.storage.tensor_file import Tensors, tensor_bytes

MAPPED_BYTES = 64 << 20
"""Bytes of a tensor above which it is mapped, not read, and is checked by ``verify`` alone."""
_CLASSES, _SEALS, _ROWS, _DIGESTS, _SUMS = "photo_classes", "photo_seals", "photo_rows", "photo_digests", "photo_sums"
_PHOTOS = {_CLASSES: "I64", _SEALS: "U8", _ROWS: "F32", _DIGESTS: "U8", _SUMS: "I64"}
_UNDO = {"retired": "F32", "retired_names": "U8", "retired_offsets": "I64", "retired_positions": "I64"}
_UNDO_PHOTOS = {"retired_photos": "I64", "retired_photo_seals": "U8"}
_COVERED = (*_UNDO, *_UNDO_PHOTOS)
"""Tensors that the record digest takes, if the file has them."""
_UNIT = 2.0**-44
"""Unit of the sums of photos."""
KIND = FileKind(
    format="sar-bank",
    noun="bank",
    version=2,
    tensors={"embeddings": "F32"},
    error=BankError,
    remedy="carry its changes over: sar-bank rebase FILE --bundle NEW",
    writer="sar-bank",
    metadata=("provenance",),
    optional={**_UNDO, **_PHOTOS, **_UNDO_PHOTOS},
    sealed=(_CLASSES, _SEALS),
    reader=4,
)


def removed_names(provenance: Mapping[str, Any]) -> list[str]:
    """Return the names of the bundle's classes that were removed, or got another row."""
    names = provenance.get(REMOVED, [])
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def renamed_names(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the bundle's names of its classes that were renamed, by the names that they have."""
    names = provenance.get(RENAMED, {})
    return {new: old for new, old in names.items() if isinstance(old, str)} if isinstance(names, dict) else {}


def write(path: Path, base: Base) -> None:
    """Write a plain state without photos as version 2, which every reader of banks understands.

    Raises:
        BankError: There is more text than a file's header takes; an old file is still there.
        OSError: It cannot be written; an old one is still there.
    """
    texts = {
        "provenance": json.dumps(dict(base.provenance), ensure_ascii=False, sort_keys=True),
        "info": json.dumps(info_to_json(base.info), ensure_ascii=False),
        "history": "[]",
    }
    metadata = {**texts, "record_digest": _digest(base.encoder_digest, texts, {})}
    tensors = {"embeddings": base.block.rows}
    reader = 2 if base.info else 1
    KIND.save(path, base.block.names, tensors, base.encoder_digest, metadata, base.digest, reader)


def read(path: Path, encoder_digest: str | None, *, whole: bool = False) -> tuple[Base, tuple[Step, ...]]:
    """Return the classes of a file, with all that is known of them, and the steps of its history, as text.

    Args:
        path: The file.
        encoder_digest: The encoder that it must belong to; None accepts any.
        whole: Check every byte, however large.

    Raises:
        SchemaError: It was written for a newer reader.
        BankError: It is missing, damaged, no bank, or of another encoder.
    """
    stored = KIND.load(path, encoder_digest, MAPPED_BYTES)
    try:
        if whole and not stored.checked:
            if KIND.content_digest(stored.names, stored.tensors) != stored.metadata["content_digest"]:
                raise BankError("content does not match its digest; the file was damaged or changed")
            stored = dataclasses.replace(stored, checked=True)
        base, history = _content(stored)
        if stored.checked:
            KIND.check_names(stored.names)
        check_base(base, rows=stored.checked)
        return base, history
    except (BankError, BundleError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> BankError:
    """Return the error of a file that cannot be read."""
    return BankError(f"{path}: {f'metadata has no {error}' if isinstance(error, KeyError) else error}")


def _content(stored: Stored) -> tuple[Base, tuple[Step, ...]]:
    metadata, names = stored.metadata, stored.names
    provenance = json.loads(metadata["provenance"])
    block = Block(names, read_only(stored.tensors["embeddings"]))
    encoder, digest = metadata["encoder_digest"], metadata["content_digest"]
    if metadata["schema_version"] == "1":
        texts_by_name = build(Mapping[str, tuple[str, ...]], provenance.pop("phrases", {}), "provenance.phrases")
        rows = {name: row for row, name in enumerate(names)} if texts_by_name else {}
        items = {
            name: ClassInfo(phrases=phrases) for name, phrases in texts_by_name.items() if phrases not in ((), (name,))
        }
        info = {rows[name]: item for name, item in items.items() if name in rows}
        return Base(block, encoder, provenance, info, stated=digest), ()
    texts = {key: metadata[key] for key in ("provenance", "info", "history")}
    texts |= {key: metadata[key] for key in ("calibration",) if key in metadata}
    covered = {name: stored.tensors[name] for name in _COVERED if name in stored.tensors}
    if stored.checked and _digest(encoder, texts, covered) != metadata["record_digest"]:
        raise BankError("info, history or calibration do not match their digest; the file was damaged or changed")
    info = info_from_json(json.loads(texts["info"]), len(names))
    calibration = None
    if "calibration" in texts:
        calibration = build(BankCalibration, json.loads(texts["calibration"]), "calibration")
    photos = _photos(stored.tensors, len(names), block.rows.shape[-1])
    base = Base(block, encoder, provenance, info, photos, calibration, stated=digest)
    records = [{k: v for k, v in step.items() if k != "undo"} for step in json.loads(texts["history"])]
    return base, build(tuple[Step, ...], records, "history")


def _photos(tensors: Tensors, count: int, dim: int) -> dict[int, PhotoSet]:
    """Return the photos of classes by row; those that only the history needs are left out."""
    if _CLASSES not in tensors:
        return {}
    classes, retired = tensors[_CLASSES], tensors.get("retired_photos", np.empty((0, 3), np.int64))
    if classes.ndim != 2 or classes.shape[1] != 4 or retired.ndim != 2 or retired.shape[1] != 3:
        raise BankError(f"photos of classes: expected (K, 4) numbers, got {classes.shape}")
    counts = np.concatenate([classes[:, 1:], retired])
    rows, digests, sums = tensors[_ROWS], tensors[_DIGESTS], tensors[_SUMS]
    shapes = (rows.shape, digests.shape, sums.shape)
    expected = ((int(counts[:, 1].sum()), dim), (int(counts[:, :2].sum()), 32), (len(counts), dim))
    if (counts < 0).any() or shapes != expected or not all(0 <= row < count for row in classes[:, 0].tolist()):
        raise BankError("photos of classes: the tensors do not fit each other")
    seals = tensors[_SEALS].reshape(-1, 32)
    photos: dict[int, PhotoSet] = {}
    row = digest = 0
    for number, (slot, folded, count_kept, photos_only) in enumerate(classes.tolist()):
        photo_rows, names = rows[row : row + count_kept], digests[digest : digest + folded + count_kept]
        if _seal(names, photo_rows, sums[number], photos_only=bool(photos_only)) != seals[number].tobytes():
            raise BankError(f"photos of class {slot} do not match their seal; the file was damaged or changed")
        older = sums[number].astype(np.float64) * _UNIT - photo_rows.sum(axis=0, dtype=np.float64)
        photos[slot] = PhotoSet(names, photo_rows, older if folded else np.zeros(dim), bool(photos_only))
        row, digest = row + count_kept, digest + folded + count_kept
    return photos


def _seal(
    digests: npt.NDArray[np.uint8], rows: npt.NDArray[np.float32], total: npt.NDArray[np.int64], *, photos_only: bool
) -> bytes:
    numbers = np.array([len(digests), len(rows), photos_only], np.int64)
    digest = hashlib.sha256()
    for array in (numbers, total, digests, rows):
        for piece in tensor_bytes(array):
            digest.update(piece)
    return digest.digest()


def _digest(encoder: str, texts: Mapping[str, str], tensors: Tensors) -> str:
    """Return SHA-256 (hex) over the encoder's digest and the texts, each after its length, and tensors of undoing."""
    digest = hashlib.sha256()
    for text in (encoder, *texts.values()):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    for name in _COVERED:
        for piece in tensor_bytes(tensors.get(name, np.empty(0, np.uint8))):
            digest.update(piece)
    return digest.hexdigest()
