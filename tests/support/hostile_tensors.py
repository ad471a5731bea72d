"""Mutations of banks and heads: safetensors files that lie in their header, or hold unsound content with its digest.

Importing this file registers them.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from support.hostile_bundles import TEXTS, seal
from support.mutations import Chance, mutation
from support.tensor_bytes import Header, Tensors, join, read, split, write

from sar_infer.bundle.manifest import BANK, HEAD

HeaderChange = Callable[[Header, bytes, Chance], tuple[bytes, str]]
"""The new file, given the header and data of the old one, and what was done."""
ContentChange = Callable[[Tensors, Chance], str]
"""Changes tensors in place and says what it did."""


def _target(folder: Path, chance: Chance) -> Path:
    return folder / (HEAD if (folder / HEAD).exists() and chance.random() < 0.3 else BANK)


def of_header(change: HeaderChange) -> HeaderChange:
    """Register a change of one of the files."""

    @mutation(sealed=True)
    @functools.wraps(change)
    def mutate(folder: Path, other: Path, chance: Chance) -> str:
        path = _target(folder, chance)
        data, done = change(*split(path.read_bytes()), chance)
        path.write_bytes(data)
        seal(folder)
        return f"{path.name}: {done}"

    return change


def of_content(change: ContentChange) -> ContentChange:
    """Register a change of the tensors of one of the files, which is written with the digest that fits."""

    @mutation(sealed=True)
    @functools.wraps(change)
    def mutate(folder: Path, other: Path, chance: Chance) -> str:
        path = _target(folder, chance)
        metadata, tensors = read(path)
        done = change(tensors, chance)
        write(path, metadata, tensors)
        seal(folder)
        return f"{path.name}: {done}"

    return change


# -------------------------------------------------------------------------------------------------------------- header
@of_header
def hostile_header(header: Header, data: bytes, chance: Chance) -> tuple[bytes, str]:
    raw = json.dumps(header).encode()
    files: dict[str, Callable[[], bytes]] = {
        "length of 2**63": lambda: join(raw, data, 2**63),
        "length of 2**64 - 1": lambda: join(raw, data, 2**64 - 1),
        "length of 99 MB that is not there": lambda: join(raw, data, 99_000_000),
        "99 MB of header": lambda: join(raw + b" " * (99_000_000 - len(raw)), data),
        "length 0": lambda: join(b"", raw + data),
        "length too short": lambda: join(raw, data, len(raw) - 1),
        "length too long": lambda: join(raw, data, len(raw) + 1),
        "deep": lambda: join(b"[" * 100_000, data),
        "deep metadata": lambda: join(b'{"__metadata__": ' + b'{"a":' * 5000 + b"}" * 5001, data),
        "not JSON": lambda: join(b"x" * len(raw), data),
        "a list": lambda: join(b"[]", data),
        "not UTF-8": lambda: join(raw.replace(b"format", b"f\xffrmat", 1), data),
        "lone surrogate": lambda: join(raw.replace(b"sar-", b"\\ud800", 1), data),
        "every key twice": lambda: join(raw[:-1] + b"," + raw[1:], data),
        "data cut off": lambda: join(raw, data[: chance.randrange(len(data))]),
        "more data": lambda: join(raw, data + bytes(64)),
        "no data": lambda: join(raw, b""),
    }
    kind = chance.choice(sorted(files))
    return files[kind](), f"header: {kind}"


@of_header
def hostile_tensor_entries(header: Header, data: bytes, chance: Chance) -> tuple[bytes, str]:
    name = chance.choice(sorted(set(header) - {"__metadata__"}))
    entry = header[name]
    start, end = entry["data_offsets"]
    field, value = chance.choice(
        [
            ("data_offsets", value)
            for value in ([-8, end], [end, start], [start, 2**63], [start + 4, end], [0, len(data)])
        ]
        + [("data_offsets", value) for value in ([], [start], [start, end, end], "x", [0.5, end], [start, 10**30])]
        + [("shape", value) for value in ([-1], [2**62, 2**62], [0], [], [1] * 5000, "x", [10**30], [2**32, 2**32, 0])]
        + [("dtype", value) for value in ("F16", "BF16", "F64", "BOOL", "C64", "F8_E4M3", "", None, 7)]
    )
    entry[field] = value
    if chance.random() < 0.2:
        header["more"] = dict(entry)
    return join(json.dumps(header).encode(), data), f"{name}: {field} {str(value)[:40]}"


@of_header
def hostile_metadata(header: Header, data: bytes, chance: Chance) -> tuple[bytes, str]:
    metadata = header["__metadata__"]
    key = chance.choice(sorted(metadata))
    if chance.random() < 0.15:
        del metadata[key]
        done = "left out"
    else:
        value = chance.choice((*TEXTS, "[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "99", "-1", "1e9", "²", "null"))
        value = chance.choice((value, value, value, None, 1, [], {}, "[" + "{}," * 300_000 + "{}]"))
        metadata[key] = value
        done = str(value)[:40]
    return join(json.dumps(header).encode(), data), f"metadata: {key}: {done!r}"


# ------------------------------------------------------------------------------------------------------------- content
@of_content
def unsound_rows(tensors: Tensors, chance: Chance) -> str:
    name = chance.choice([key for key in tensors if tensors[key].dtype.kind == "f"])
    rows = tensors[name]
    value = chance.choice((float("nan"), float("inf"), 0.0, 1e30, -1e30, 1e-40, 0.5, -1.0))
    if chance.random() < 0.5 and rows.size:
        rows.reshape(-1)[chance.randrange(rows.size)] = value
    else:
        rows[...] = value
    return f"{name}: {value}"


@of_content
def unsound_shapes(tensors: Tensors, chance: Chance) -> str:
    name = chance.choice(sorted(tensors))
    old = tensors[name]
    forms: dict[str, Callable[[], npt.NDArray[Any]]] = {
        "flat": lambda: old.reshape(-1),
        "one more axis": lambda: old[np.newaxis],
        "empty": lambda: old[:0] if old.ndim else np.empty(0, old.dtype),
        "half": lambda: old[: len(old) // 2] if old.ndim else old,
        "twice": lambda: np.concatenate([np.atleast_1d(old)] * 2),
        "turned": lambda: np.ascontiguousarray(old.T),
        "single": lambda: np.zeros((), old.dtype),
        "half as exact": lambda: old.astype(np.float16),
        "whole numbers": lambda: np.nan_to_num(old).astype(np.int32),
    }
    kind = chance.choice(sorted(forms))
    tensors[name] = forms[kind]()
    return f"{name}: {kind}"


@of_content
def unsound_names(tensors: Tensors, chance: Chance) -> str:
    packed, offsets = tensors["names"].tobytes(), tensors["offsets"].tolist()
    names = [packed[start:end] for start, end in itertools.pairwise(offsets)]
    place = chance.randrange(len(names))
    kind = chance.choice(("name", "name", "offset", "order", "bytes"))
    if kind == "name":
        options = (b"", b" ", names[place - 1], names[place - 1].upper(), b"\xff", b"\xed\xa0\x80", b"a\nb", b"\x1b[2J")
        names[place] = chance.choice((*options, b"x" * 2**20, "\u202e".encode(), b"\0"))
        offsets = np.cumsum([0, *map(len, names)]).tolist()
        packed = b"".join(names)
    elif kind == "offset":
        offsets[chance.randrange(len(offsets))] = chance.choice((-1, 0, 2**62, -(2**62), len(packed), len(packed) + 1))
    elif kind == "order":
        offsets.reverse()
    else:
        packed = chance.choice((b"", packed[:-1], packed + b"x", chance.randbytes(len(packed))))
    tensors["names"] = np.frombuffer(packed, np.uint8)
    tensors["offsets"] = np.array(offsets, np.int64)
    return f"{kind} at {place}"
