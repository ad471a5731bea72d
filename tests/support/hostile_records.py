"""Mutations of what a bank says beside names and rows, under the digest that fits; importing this registers them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from support import hostile_tensors  # noqa: F401 - its mutations first, so that cases keep their numbers
from support.hostile_bundles import NUMBERS, OTHERS, TEXTS, place, seal
from support.mutations import Chance, mutation
from support.tensor_bytes import Tensors, read, write

from sar_infer.bundle.manifest import BANK

Metadata = dict[str, str]
RecordChange = Callable[[Metadata, Tensors, Chance], str]
"""Changes metadata and tensors in place and says what it did."""
_TEXTS = ("provenance", "info", "history")
_STACK = ("retired", "retired_names", "retired_offsets", "retired_positions")


def record_digest(metadata: Metadata, tensors: Tensors) -> str:
    """As ``docs/bundle.md`` has it, from the bytes of a file."""
    digest = hashlib.sha256()
    for text in (metadata["encoder_digest"], *(metadata[key] for key in _TEXTS)):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    for name in _STACK:
        digest.update(np.ascontiguousarray(tensors.get(name, np.empty(0, np.uint8))).data)
    return digest.hexdigest()


def of_record(change: RecordChange) -> RecordChange:
    """Register a change of the bank beside names and rows, which is written with the digests that fit."""

    @mutation(sealed=True)
    @functools.wraps(change)
    def mutate(folder: Path, other: Path, chance: Chance) -> str:
        metadata, tensors = read(folder / BANK)
        if "record_digest" not in metadata:
            return "a bank without a record"
        done = change(metadata, tensors, chance)
        write(folder / BANK, {**metadata, "record_digest": record_digest(metadata, tensors)}, tensors)
        seal(folder)
        return f"{BANK}: {done}"

    return change


@of_record
def hostile_record(metadata: Metadata, tensors: Tensors, chance: Chance) -> str:
    key = chance.choice(_TEXTS)
    content = {"": json.loads(metadata[key])}
    where, inner = place(content, chance)
    old, new = where[inner], chance.choice(chance.choice((NUMBERS, TEXTS, OTHERS)))
    if chance.random() < 0.2 and isinstance(where, dict):
        del where[inner]
    else:
        where[inner] = new
    metadata[key] = json.dumps(content.get(""))
    return f"{key}: {inner}: {str(old)[:60]} became {str(new)[:40]!r}"


@of_record
def hostile_record_text(metadata: Metadata, tensors: Tensors, chance: Chance) -> str:
    key = chance.choice(_TEXTS)
    texts = ("", "[" * 100_000, '{"a":' * 100_000, "null", "[]", "{}", "1", "NaN", "9" * 10_000, '{"a": "\\ud800"}')
    metadata[key] = text = chance.choice((*texts, json.dumps([metadata[key]] * 1000), "[{}" + ",{}" * 100_000 + "]"))
    return f"{key}: {text[:40]}"
