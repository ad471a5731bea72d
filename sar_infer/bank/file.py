"""The bank file: one safetensors file of version 1, written whole. ``docs/files.md`` describes it."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.bank.class_bank import Base, ClassBank
from sar_infer.bank.entry import Entry, Puts, Record, digest_of
from sar_infer.bank.photos import NO_PHOTOS, Images, Parked, PhotoSet, latest
from sar_infer.bank.steps import Log, Step
from sar_infer.errors import BankError, BaseMissingError, SarInferError, SchemaError
from sar_infer.storage.files import replacing
from sar_infer.storage.named_tensors import read_only
from sar_infer.storage.tensor_file import TensorFile, file_pieces

FORMAT, VERSION = "sar-bank", 1
Tensors = dict[str, npt.NDArray[Any]]
_PLAIN = Entry("", np.empty(0, np.float32))
_JSON_FIELDS = {field: Entry._fields.index(field) for field in Entry._fields[2:7]}
"""Positions of the fields of an entry that are JSON."""


def write(path: Path, bank: ClassBank) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; a link is replaced.

    Raises:
        OSError: It cannot be written; an old one is still there.
    """
    tensors: Tensors = {}
    content = encoded(bank, tensors)
    tensors["json"] = np.frombuffer(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), np.uint8)
    metadata = {"format": FORMAT, "version": str(VERSION), "digest": checksum(tensors)}
    with replacing(path, new_time=True) as stream:
        stream.writelines(file_pieces(tensors, metadata))


def read(
    path: Path,
    encoder_digest: str | None = None,
    base: ClassBank | None = None,
    *,
    detached: bool = False,
    name: Path | None = None,
) -> ClassBank:
    """Read and check a file; further arguments and errors are those of ``ClassBank.load``.

    Args:
        path: The file.
        encoder_digest: As in ``ClassBank.load``.
        base: As there.
        detached: No base is needed: of its classes, only those that were changed are there, with their names.
        name: The path that messages have, for a file to which a link led.
    """
    file, path = Path(path), Path(name or path)
    content, tensors, digest = _content(file, path)
    if encoder_digest is not None and content.get("encoder") != encoder_digest:
        raise BankError(
            f"{path}: belongs to another encoder (expected {encoder_digest[:8]}, the bank has "
            f"{content.get('encoder')!s:.8}); name the bundle that it was made with (--bundle), or carry it over: "
            f"sar-bank carry {path} --bundle BUNDLE"
        )
    try:
        return decoded(content, tensors, base, digest, detached=detached).checked()
    except BaseMissingError as error:
        raise BaseMissingError(f"{path}: {error}") from None
    except SarInferError as error:
        raise BankError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
        raise BankError(f"{path}: damaged ({type(error).__name__}: {error})") from None


def _content(file: Path, path: Path) -> tuple[dict[str, Any], Tensors, str]:
    """Return JSON, tensors and checksum of a file; messages have a path that led to it."""
    if not file.is_file():
        other = "is not a regular file" if file.exists() else "no such bank file; sar-bank create or add makes one"
        problem = "is a folder; expected a bank file" if file.is_dir() else other
        raise BankError(f"{path}: {problem}")
    try:
        with file.open("rb") as stream:
            tensor_file = TensorFile(stream)
            version, stated = tensor_file.metadata.get("version", ""), tensor_file.metadata.get("digest", "")
            if tensor_file.metadata.get("format") != FORMAT:
                raise BankError(f"{path}: not a bank file; expected one that sar-bank wrote")
            if version.isdecimal() and int(version) > VERSION:
                raise SchemaError(f"{path}: needs a reader of version {version}, this is {VERSION}: upgrade sar-clip")
            tensors = {name: read_only(tensor_file.tensor(name)) for name in tensor_file.entries}
            if version != str(VERSION) or stated != checksum(tensors):
                raise BankError(f"{path}: the content does not match its checksum; the file was damaged or changed")
            content = json.loads(tensors.pop("json").tobytes())
            if not isinstance(content, dict):
                raise ValueError("expected a JSON object")
            return content, tensors, stated
    except (ValueError, KeyError, RecursionError, OSError) as error:
        raise BankError(
            f"{path}: not a bank file, or a damaged one; expected one that sar-bank wrote ({error})"
        ) from None


def checksum(tensors: Tensors) -> str:
    """Return SHA-256 (hex) over names, types, shapes and bytes of all tensors."""
    return digest_of(str(VERSION), tensors).hexdigest()


class _Writer:
    """The tensors of a file, and the numbers by which the JSON names their rows.

    Args:
        tensors: Gets the arrays of records and of parked photos.
        photos: Photos whose embeddings are stored, by digest; they come first.
    """

    def __init__(self, tensors: Tensors, photos: Iterable[bytes]) -> None:
        self.tensors, self.photos = tensors, {digest: number for number, digest in enumerate(photos)}
        self.embeddings: dict[int, tuple[int, Any]] = {}  # number and row by identity: an array is stored once
        self.sums: dict[int, tuple[int, Any]] = {}

    def items(self, puts: Puts) -> list[list[Any]]:
        """Return puts as JSON: key, name and number of the embedding of a class, with its other fields if any."""
        result: list[list[Any]] = []
        for key, item in puts.items():
            if item is None:
                result.append([key])
            elif isinstance(item, Record):
                arrays = {name: f"array {len(self.tensors) + n} {name}" for n, name in enumerate(item.arrays)}
                self.tensors.update((arrays[name], array) for name, array in item.arrays.items())
                result.append([key, {"data": item.data, "arrays": arrays}])
            else:
                fields: dict[str, Any] = {name: item[at] for name, at in _JSON_FIELDS.items() if item[at] != _PLAIN[at]}
                if item.photos_only:
                    fields["photos_only"] = True
                if len(item.photos):
                    total = _number(self.sums, item.photos.total)
                    fields |= {"photos": self.runs(item.photos.digests), "sum": total}
                row = _number(self.embeddings, item.embedding)
                result.append([key, item.name, row, *([fields] if fields else [])])
        return result

    def runs(self, digests: Iterable[bytes]) -> list[list[int]]:
        """Return the numbers of photos as ranges; a photo without a number gets the next one."""
        runs: list[list[int]] = []
        for digest in digests:
            number = self.photos.setdefault(digest, len(self.photos))
            if runs and runs[-1][1] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, number + 1])
        return runs

    def parked(self, sets: Iterable[Parked], can_return: Container[str]) -> list[dict[str, Any]]:
        """Return parked photos as JSON: of each class that can return, the runs and the number of embeddings."""
        result: list[dict[str, Any]] = []
        for parked in sets:
            if classes := {key: one for key, one in parked.photos.items() if len(one) and key in can_return}:
                name = f"parked {len(result)}"
                self.tensors[name] = np.concatenate([one.rows for one in classes.values()])
                self.tensors[f"{name} sums"] = np.array([one.total for one in classes.values()], np.float64)
                runs = {key: [self.runs(one.digests), len(one.recent)] for key, one in classes.items()}
                result.append({"images": parked.images._asdict(), "classes": runs})
        return result


def _number(rows: dict[int, tuple[int, Any]], row: npt.NDArray[Any]) -> int:
    """Return the number of a row, which is appended if it is new."""
    return rows.setdefault(id(row), (len(rows), row))[0]


def encoded(bank: ClassBank, tensors: Tensors) -> dict[str, Any]:
    """Return the JSON of a bank, and put its arrays among the tensors."""
    base_keys, base_records = ({}, {}) if bank.base is None else (bank.base.bank.entries, bank.base.bank.records)
    folded = {k: item for k, item in bank.log.folded.items() if item is not None or k in base_keys or k in base_records}
    every = [pair for puts in (folded, *(step.puts or {} for step in bank.log.steps)) for pair in puts.items()]
    recent = [item.photos.recent for _, item in every if isinstance(item, Entry) and item.photos.recent]
    pool = {digest: row for rows in recent for digest, row in rows.items()}
    pool |= {digest: row for rows in reversed(recent) for digest, row in rows.items()}  # as it was embedded first
    writer = _Writer(tensors, pool)
    content: dict[str, Any] = {
        "encoder": bank.encoder_digest,
        "images": bank.images._asdict(),
        "dim": bank.dim,
        "next_key": bank.next_key,
        "provenance": dict(bank.provenance),
        "begun": bank.log.begun,
        "folded": writer.items(folded),
        "steps": [
            {field: value for field, value in vars(step).items() if value not in ("", None)}
            | ({} if step.puts is None else {"puts": writer.items(step.puts)})
            for step in bank.log.steps
        ],
        "parked": writer.parked(bank.parked, {key for key, item in every if item is not None}),
    }
    if bank.base is not None:
        touched = {key: base_keys[key].name for key, _ in every if key in base_keys}
        content["base"] = {"digest": bank.base.digest, "path": bank.base.path, "names": touched}
    for name, kind, rows in (
        ("embeddings", np.float32, [row for _, row in writer.embeddings.values()]),
        ("photos", np.float32, [*pool.values()]),
        ("photo sums", np.float64, [row for _, row in writer.sums.values()]),
    ):
        tensors[name] = np.array(rows, kind).reshape(-1, bank.dim)
    tensors["photo digests"] = np.frombuffer(b"".join(writer.photos), np.uint8).reshape(-1, 32)
    return content


def decoded(
    content: Mapping[str, Any],
    tensors: Mapping[str, npt.NDArray[Any]],
    base_bank: ClassBank | None = None,
    digest: str = "",
    *,
    detached: bool = False,
) -> ClassBank:
    """Return the bank of the JSON and the tensors of a file; ``read`` describes the arguments."""
    dim = content["dim"]
    embeddings, pool_rows, sums = (tensors[name] for name in ("embeddings", "photos", "photo sums"))
    if any(array.shape[1:] != (dim,) for array in (embeddings, pool_rows, sums)):
        raise BankError(f"expected embeddings of {dim} numbers")
    flat = tensors["photo digests"].tobytes()
    photos = [flat[start : start + 32] for start in range(0, len(flat), 32)]
    rows, photo_sums = list(embeddings), list(sums)  # a view of each, once
    pool = dict(zip(photos, pool_rows, strict=False))

    def item_of(item: Sequence[Any]) -> Entry | Record | None:
        if len(item) == 2:  # most of them
            return Entry(item[0], rows[item[1]])
        if not item:
            return None
        if len(item) == 1:
            return Record(item[0]["data"], {name: tensors[where] for name, where in item[0]["arrays"].items()})
        name, row, stated = item
        fields = {field: stated[field] for field in _JSON_FIELDS if field in stated}
        fields = {field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()}
        of_class, only = NO_PHOTOS, stated.get("photos_only", False)
        if "photos" in stated or only:
            digests = _digests(stated.get("photos", ()), photos)
            total = photo_sums[stated["sum"]] if digests else np.zeros(dim)
            of_class = PhotoSet(digests, latest(digests, pool), total, only)
        return Entry(name, rows[row], **fields, photos=of_class)

    def puts(items: Sequence[Sequence[Any]]) -> dict[str, Entry | Record | None]:
        return {key: item_of(item) for key, *item in items}

    steps = tuple(Step(**{**one, "puts": puts(one["puts"]) if "puts" in one else None}) for one in content["steps"])
    bank = ClassBank(
        content["encoder"],
        dim,
        Log(steps, content["begun"], puts(content["folded"])),
        None if "base" not in content else _stub(content) if detached else _base(content, base_bank),
        content["next_key"],
        _images(content),
        content["provenance"],
        tuple(_parked(number, one, photos, tensors) for number, one in enumerate(content.get("parked", ()))),
        digest,
    )
    if bank.base is None and [*map(id, rows)] == [id(entry.embedding) for entry in bank.entries.values()]:
        vars(bank)["embeddings"] = embeddings  # the classes are the tensor itself
    return bank


def _parked(number: int, stated: Any, photos: list[bytes], tensors: Mapping[str, npt.NDArray[Any]]) -> Parked:
    rows, totals, sets = tensors[f"parked {number}"], tensors[f"parked {number} sums"], dict[str, PhotoSet]()
    for (key, (runs, count)), total in zip(stated["classes"].items(), totals, strict=True):
        digests = _digests(runs, photos)
        recent = dict(zip(digests[len(digests) - count :], rows[:count], strict=True))
        sets[key], rows = PhotoSet(digests, recent, total), rows[count:]
    return Parked(_images(stated), sets)


def _digests(runs: Sequence[Sequence[int]], photos: list[bytes]) -> tuple[bytes, ...]:
    return tuple(digest for start, stop in runs for digest in photos[start:stop])


def _images(content: Mapping[str, Any]) -> Images:
    return Images(content["images"]["digest"], tuple(content["images"]["self_test"]))


def _stub(content: Mapping[str, Any]) -> Base:
    """Return the base that a file names, with the names of changed classes and no embeddings."""
    stated, row = content["base"], np.zeros(content["dim"], np.float32)
    entries = {key: Entry(name, row) for key, name in stated["names"].items()}
    bank = ClassBank(content["encoder"], content["dim"], Log(folded=entries), images=_images(content))
    return Base(bank, stated["digest"], stated["path"])


def _base(content: Mapping[str, Any], bank: ClassBank | None) -> Base:
    """Return the base that a file names.

    Args:
        content: Its JSON.
        bank: The bank of a bundle, the base of the file; None opens the file that is named.

    Raises:
        BaseMissingError: It is not where it was, or is another one.
    """
    stated = content["base"]
    path = Path(stated["path"])
    if bank is None:
        if not path.is_file():
            raise BaseMissingError(
                f"stores changes of the bundle {path.parent}, which is not there; name its bundle (--bundle)"
            )
        bank = ClassBank.load(path, content["encoder"]).shared(path)
    base = bank.base
    if base is None or base.digest != stated["digest"]:
        raise BaseMissingError(
            f"stores changes of the bundle that was at {path.parent}, which has other classes now; carry the bank "
            "over: sar-bank carry BANK_FILE --bundle BUNDLE"
        )
    return base
