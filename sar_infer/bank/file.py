"""The bank file: one safetensors file of version 1, written whole. ``docs/bank-file.md`` describes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank.class_bank import Base, ClassBank
from sar_infer.bank.entry import MOST_ROWS, Entry, Images, Parked, Puts, Record
from sar_infer.bank.steps import Log, Step
from sar_infer.errors import BankError, BaseMissingError, SarInferError, SchemaError
from sar_infer.storage.files import write_atomically
from sar_infer.storage.named_tensors import read_only
from sar_infer.storage.tensor_file import TensorFile, file_pieces, tensor_bytes

FORMAT, VERSION = "sar-bank", 1
Tensors = dict[str, npt.NDArray[Any]]
_FIELDS = {field: number for number, field in enumerate(Entry._fields)}
_PLAIN = Entry("", np.empty(0, np.float32))
_BEFORE = "before "
_JSON_FIELDS = ("phrases", "aliases", "threshold", "background", "photos_only", "added")


def write(path: Path, bank: ClassBank) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        OSError: It cannot be written; an old one is still there.
    """
    tensors: Tensors = {}
    content = encoded(bank, tensors)
    tensors["json"] = np.frombuffer(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), np.uint8)
    metadata = {"format": FORMAT, "version": str(VERSION), "digest": checksum(tensors)}
    write_atomically(path, file_pieces(tensors, metadata), new_time=True)


def read(
    path: Path, encoder_digest: str | None = None, base: ClassBank | None = None, *, detached: bool = False
) -> ClassBank:
    """Read and check a file; arguments and errors are those of ``ClassBank.load``.

    ``detached`` needs no base: of its classes, only those that were changed are there, with their names.
    """
    path = Path(path)
    content, tensors, digest = _content(path)
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


def _content(path: Path) -> tuple[dict[str, Any], Tensors, str]:
    """Return JSON, tensors and checksum of a file."""
    if not path.is_file():
        other = "is not a regular file" if path.exists() else "no such bank file"
        problem = "is a folder; expected a bank file" if path.is_dir() else other
        raise BankError(f"{path}: {problem}")
    try:
        with path.open("rb") as stream:
            if stream.read(9)[8:] != b"{":
                raise BankError(f"{path}: not a bank file; expected one that sar-bank wrote")
            stream.seek(0)
            file = TensorFile(stream)
            version, stated = file.metadata.get("version", ""), file.metadata.get("digest", "")
            if file.metadata.get("format") != FORMAT:
                raise BankError(f"{path}: not a bank file; expected one that sar-bank wrote")
            if version.isdecimal() and int(version) > VERSION:
                raise SchemaError(f"{path}: needs a reader of version {version}, this is {VERSION}: upgrade sar-clip")
            tensors = {name: read_only(file.tensor(name)) for name in file.entries}
            if version != str(VERSION) or stated != checksum(tensors):
                raise BankError(f"{path}: the content does not match its checksum; the file was damaged or changed")
            content = json.loads(tensors.pop("json").tobytes())
            if not isinstance(content, dict):
                raise ValueError("expected a JSON object")
            return content, tensors, stated
    except (ValueError, KeyError, RecursionError, OSError) as error:
        raise BankError(f"{path}: not a readable bank file ({error})") from None


def checksum(tensors: Tensors) -> str:
    """Return SHA-256 (hex) over names, types, shapes and bytes of all tensors."""
    digest = hashlib.sha256(str(VERSION).encode())
    for name, array in sorted(tensors.items()):
        digest.update(json.dumps([name, array.dtype.newbyteorder("<").str, array.shape]).encode())
        for chunk in tensor_bytes(array):
            digest.update(chunk)
    return digest.hexdigest()


def encoded(bank: ClassBank, tensors: Tensors) -> dict[str, Any]:
    """Return the JSON of a bank, and put its arrays among the tensors."""
    base_keys = {} if bank.base is None else bank.base.bank.entries
    base_records = {} if bank.base is None else bank.base.bank.records
    folded = {k: item for k, item in bank.log.folded.items() if item is not None or k in base_keys or k in base_records}
    several = [folded, *(step.puts for step in bank.log.steps if step.puts is not None)]
    recent = {
        digest for puts in several for e in puts.values() if isinstance(e, Entry) for digest in e.photos[-MOST_ROWS:]
    }
    pool = {digest: row for digest, row in bank.pool.items() if digest in recent}
    photos = dict(zip(pool, range(len(pool)), strict=True))  # those with embeddings first
    embeddings: dict[int, npt.NDArray[Any]] = {}
    sums: dict[int, npt.NDArray[Any]] = {}

    def number(rows: dict[int, npt.NDArray[Any]], row: npt.NDArray[Any] | None) -> int:
        assert row is not None  # noqa: S101 - of a class with photos
        rows.setdefault(id(row), row)
        return order.setdefault(id(row), len(rows) - 1)

    order: dict[int, int] = {}  # the same array is stored once

    def numbers(digests: Sequence[bytes]) -> list[list[int]]:
        runs: list[list[int]] = []
        for digest in digests:
            number = photos.setdefault(digest, len(photos))
            if runs and runs[-1][1] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, number + 1])
        return runs

    def items_of(puts: Puts) -> list[list[Any]]:
        result: list[list[Any]] = []
        for key, item in puts.items():
            if isinstance(item, Entry):
                more: dict[str, Any] = {
                    field: value for field in _JSON_FIELDS if (value := item[_FIELDS[field]]) != _PLAIN[_FIELDS[field]]
                }
                if item.photos:
                    more |= {"photos": numbers(item.photos), "sum": number(sums, item.photo_sum)}
                result.append([key, item.name, number(embeddings, item.embedding), *([more] if more else [])])
            elif item is None:
                result.append([key])
            else:
                for name, array in item.arrays.items():
                    names = arrays.setdefault(id(array), f"array {len(arrays)} {name}")
                    tensors[names] = array
                named = {name: arrays[id(array)] for name, array in item.arrays.items()}
                result.append([key, {"data": item.data, "arrays": named}])
        return result

    arrays: dict[int, str] = {}
    content: dict[str, Any] = {
        "encoder": bank.encoder_digest,
        "images": {"digest": bank.images.digest, "self_test": list(bank.images.self_test)},
        "dim": bank.dim,
        "next_key": bank.next_key,
        "provenance": dict(bank.provenance),
        "begun": bank.log.begun,
        "folded": items_of(folded),
        "steps": [
            {"n": step.n, "at": step.at, "action": step.action, "summary": step.summary}
            | ({"by": step.by} if step.by else {})
            | ({} if step.to is None else {"to": step.to})
            | ({} if step.puts is None else {"puts": items_of(step.puts)})
            for step in bank.log.steps
        ],
    }
    if bank.base is not None:
        touched = {key: base_keys[key].name for puts in several for key in puts if key in base_keys}
        content["base"] = {"digest": bank.base.digest, "path": bank.base.path, "names": touched}
    if bank.parked:
        content["parked"] = []
    for parked in bank.parked:
        place = len(content["parked"])
        waiting = list(parked.pool)
        tensors[f"parked {place}"] = np.array([*parked.pool.values()], np.float32).reshape(len(waiting), -1)
        tensors[f"parked {place} sums"] = np.array([s for _, s in parked.photos.values()], np.float64)
        content["parked"].append(
            {
                "images": {"digest": parked.images.digest, "self_test": list(parked.images.self_test)},
                "pool": numbers(waiting),
                "classes": {key: numbers(digests) for key, (digests, _) in parked.photos.items()},
            }
        )
    if bank.before is not None:
        content["before"], before = bank.before
        tensors |= {f"{_BEFORE}{name}": array for name, array in before.items()}
    tensors["embeddings"] = np.array([*embeddings.values()], np.float32).reshape(-1, bank.dim)
    tensors["photos"] = np.array([*pool.values()], np.float32).reshape(-1, bank.dim)
    tensors["photo digests"] = np.frombuffer(b"".join(photos), np.uint8).reshape(-1, 32)
    tensors["photo sums"] = np.array([*sums.values()], np.float64).reshape(-1, bank.dim)
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
    embeddings: Floats = tensors["embeddings"]
    pool_rows, sums = tensors["photos"], tensors["photo sums"]
    flat = tensors["photo digests"].tobytes()
    photos = [flat[start : start + 32] for start in range(0, len(flat), 32)]
    if embeddings.shape[1:] != (dim,) or pool_rows.shape[1:] != (dim,) or sums.shape[1:] != (dim,):
        raise BankError(f"expected embeddings of {dim} numbers")
    rows = list(embeddings)  # a view of each, once
    photo_sums = list(sums)

    def listed(runs: Sequence[Sequence[int]]) -> tuple[bytes, ...]:
        return tuple(digest for start, stop in runs for digest in photos[start:stop])

    def puts(items: Sequence[Sequence[Any]]) -> dict[str, Entry | Record | None]:
        result: dict[str, Entry | Record | None] = {}
        for item in items:
            if len(item) == 3:
                result[item[0]] = Entry(item[1], rows[item[2]])
            elif len(item) == 1:
                result[item[0]] = None
            elif len(item) == 2:
                named = {name: tensors[where] for name, where in item[1]["arrays"].items()}
                result[item[0]] = Record(item[1]["data"], named)
            else:
                key, name, row, more = item
                fields: dict[str, Any] = {
                    field: tuple(v) if isinstance(v := more[field], list) else v
                    for field in _JSON_FIELDS
                    if field in more
                }
                if "photos" in more:
                    fields |= {"photos": listed(more["photos"]), "photo_sum": photo_sums[more["sum"]]}
                result[key] = Entry(name, rows[row], **fields)
        return result

    steps = tuple(
        Step(
            step["n"],
            step["at"],
            step["action"],
            step["summary"],
            step.get("by", ""),
            step.get("to"),
            puts(step["puts"]) if "puts" in step else None,
        )
        for step in content["steps"]
    )
    base = None
    if content.get("base"):
        base = _stub(content) if detached else _base(content, base_bank)
    bank = ClassBank(
        content["encoder"],
        dim,
        Log(steps, content["begun"], puts(content["folded"])),
        base,
        dict(zip(photos, pool_rows, strict=False)),
        content["next_key"],
        _images(content["images"]),
        content["provenance"],
        tuple(
            Parked(
                _images(one["images"]),
                {
                    key: (listed(runs), row)
                    for (key, runs), row in zip(one["classes"].items(), tensors[f"parked {number} sums"], strict=True)
                },
                dict(zip(listed(one["pool"]), tensors[f"parked {number}"], strict=True)),
            )
            for number, one in enumerate(content.get("parked", ()))
        ),
        (content["before"], {name.removeprefix(_BEFORE): a for name, a in tensors.items() if name.startswith(_BEFORE)})
        if "before" in content
        else None,
        digest,
    )
    if (
        base is None
        and len(bank.entries) == len(rows)
        and all(one.embedding is row for one, row in zip(bank.entries.values(), rows, strict=True))
    ):
        vars(bank)["several"] = (embeddings,)  # the classes are the tensor itself
    return bank


def _images(content: Mapping[str, Any]) -> Images:
    return Images(content["digest"], tuple(content["self_test"]))


def _stub(content: Mapping[str, Any]) -> Base:
    """Return the base that a file names, with the names of changed classes and no embeddings."""
    stated, row = content["base"], np.zeros(content["dim"], np.float32)
    entries = {key: Entry(name, row) for key, name in stated["names"].items()}
    bank = ClassBank(content["encoder"], content["dim"], Log(folded=entries), images=_images(content["images"]))
    return Base(bank, stated["digest"], stated["path"])


def _base(content: Mapping[str, Any], bank: ClassBank | None) -> Base:
    """Return the base that a file names.

    Args:
        content: Its JSON.
        bank: The bank of a bundle, which stands on its base; None opens the file that is named.

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
