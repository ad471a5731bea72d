"""Mutations of an author who knows the format: every digest fits, so that what lies behind them is reached.

Importing this file registers them in ``mutations.MUTATIONS``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.mutations import Chance, mutation

from sar_infer.bundle.manifest import MANIFEST, TOKENIZER, file_entry

NUMBERS = (0, -1, 1, 10**30, -(10**30), 10**400, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"))
TEXTS = ("", " ", "x" * 100_000, "\0", "a\nb", "\x1b[2J", "\u202e", "é", "\ud800", "../../etc/passwd", "NaN", "1")
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": {}}, [None] * 1000, {"\ud800": 1})


def seal(folder: Path, edit: Callable[[dict[str, Any]], None] = lambda content: None) -> None:
    """Write the manifest anew for the files that are there, with whatever ``edit`` does to its JSON."""
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    entries = {path.name: file_entry(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    content["files"] = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in entries.items()}
    edit(content)
    del content["digest"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["digest"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(content), "utf-8")


# ------------------------------------------------------------------------------------------------------------ manifest
@mutation(sealed=True)
def manifest_values(folder: Path, other: Path, chance: Chance) -> str:
    done = []

    def edit(content: dict[str, Any]) -> None:
        for _ in range(chance.choice((1, 1, 2))):
            where, key = place(content, chance)
            old, new = where[key], chance.choice(chance.choice((NUMBERS, NUMBERS, TEXTS, OTHERS)))
            if isinstance(old, int | float) and not isinstance(old, bool) and chance.random() < 0.7:
                new = chance.choice((*NUMBERS, -old, 2 * old, old + 1, old - 1, 1000 * old))
            where[key] = new
            done.append(f"{key}: {str(old)[:40]} became {repr(new)[:40]}")

    seal(folder, edit)
    return f"{MANIFEST}: " + ", ".join(done)


def place(content: dict[str, Any], chance: Chance) -> tuple[Any, Any]:
    """A random value inside, and not the digest, as container and key; early values as often as deep ones."""
    where: Any = content
    key: Any = chance.choice(sorted(set(content) - {"digest"}))
    while isinstance(where[key], dict | list) and where[key] and chance.random() < 0.8:
        where = where[key]
        key = chance.choice(sorted(where)) if isinstance(where, dict) else chance.randrange(len(where))
    return where, key


@mutation(sealed=True)
def manifest_fields(folder: Path, other: Path, chance: Chance) -> str:
    done = []

    def edit(content: dict[str, Any]) -> None:
        where, key = place(content, chance)
        if isinstance(where, dict) and chance.random() < 0.5:
            del where[key]
            done.append(f"without {key}")
        else:
            added = chance.choice(("__class__", "", "digest2", "\0", "x" * 1000))
            (where if isinstance(where, dict) else content)[added] = chance.choice(OTHERS)
            done.append(f"with {added[:20]!r}")

    seal(folder, edit)
    return f"{MANIFEST}: " + ", ".join(done)


@mutation(sealed=True)
def manifest_text(folder: Path, other: Path, chance: Chance) -> str:
    path = folder / MANIFEST
    sound = path.read_bytes()
    texts = {
        "empty": b"",
        "deep": b"[" * 200_000,
        "deep objects": b'{"a":' * 200_000,
        "deep value": sound.rstrip()[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "long number": sound.replace(b'"embed_dim": ', b'"embed_dim": ' + b"9" * 10_000, 1),
        "twice the same key": sound.replace(b"{", b'{"min_reader": 99, ', 1),
        "byte order mark": b"\xef\xbb\xbf" + sound,
        "UTF-16": sound.decode().encode("utf-16"),
        "NUL": sound.replace(b"{", b"\0{", 1),
        "a number": b"1",
        "text": b'"x"',
        "of a later reader": sound.replace(b'"min_reader": ', b'"min_reader": 9', 1),
        "many megabytes": b'{"x": "' + b"y" * 2**25 + b'"}',
    }
    kind = chance.choice(sorted(texts))
    path.write_bytes(texts[kind])
    return f"{MANIFEST}: {kind}"


# ----------------------------------------------------------------------------------------------------------- tokenizer
@mutation(sealed=True)
def hostile_tokenizer(folder: Path, other: Path, chance: Chance) -> str:
    path = folder / TOKENIZER
    data = path.read_bytes()
    text = gzip.decompress(data)
    lines = text.split(b"\n")
    files: dict[str, Callable[[], bytes]] = {
        "bomb": lambda: gzip.compress(bytes(2**27), 9),
        "bomb of lines": lambda: gzip.compress(b"a b\n" * 2**23, 1),
        "cut off": lambda: data[: chance.randrange(len(data))],
        "not compressed": lambda: text,
        "empty": lambda: b"",
        "empty inside": lambda: gzip.compress(b""),
        "version alone": lambda: gzip.compress(lines[0] + b"\n"),
        "not UTF-8": lambda: gzip.compress(text.replace(b"e", b"\xff", 1)),
        "merges left out": lambda: gzip.compress(b"\n".join(lines[: chance.randrange(2, len(lines))]) + b"\n"),
        "merges backwards": lambda: gzip.compress(b"\n".join([lines[0], *reversed(lines[1:-1])]) + b"\n"),
        "the same merge always": lambda: gzip.compress(b"\n".join([lines[0], *[lines[1]] * (len(lines) - 2)]) + b"\n"),
        "one long line": lambda: gzip.compress(lines[0] + b"\n" + b"x" * 2**22 + b" y\n"),
        "wrong check sum": lambda: data[:-8] + bytes(8),
        "a second member": lambda: data + gzip.compress(b"a b\n" * 1000),
        "noise behind": lambda: data + chance.randbytes(50),
    }
    kind = chance.choice(sorted(files))
    path.write_bytes(files[kind]())
    seal(folder)
    return f"{TOKENIZER}: {kind}"
