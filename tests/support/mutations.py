"""Bundles that nobody means well with: mutations of a sound one; ``verdicts`` judges what becomes of it.

A mutation changes a copy of a sound bundle in place and says what it did. Those of this file leave the digests as they
were, as accidents do; ``hostile_bundles`` adds those of an author who writes fitting digests. Registered by name in
``MUTATIONS``; the same seed makes the same change.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sar_infer.bundle.manifest import BANK, MANIFEST

Chance = random.Random
Change = Callable[[Path, Path, Chance], str]
"""Changes a bundle folder, given another sound one, and says what it did."""


@dataclass(frozen=True)
class Mutation:
    """A kind of change; ``sealed`` where digests fit what was changed."""

    change: Change
    sealed: bool


MUTATIONS: dict[str, Mutation] = {}


def mutation(sealed: bool) -> Callable[[Change], Change]:
    """Register a change under its name."""

    def register(change: Change) -> Change:
        MUTATIONS[change.__name__.replace("_", " ")] = Mutation(change, sealed)
        return change

    return register


# ------------------------------------------------------------------------------------------------- damage to one file
def _file(folder: Path, chance: Chance) -> Path:
    """One of the files; every second time the bank or the manifest, which have the most structure."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return chance.choice((folder / BANK, folder / MANIFEST)) if chance.random() < 0.5 else chance.choice(files)


@mutation(sealed=False)
def bit_flips(folder: Path, other: Path, chance: Chance) -> str:
    path = _file(folder, chance)
    data = bytearray(path.read_bytes())
    reach = chance.choice((16, 512, len(data)))
    places = [chance.randrange(min(reach, len(data))) for _ in range(chance.choice((1, 1, 2, 8)))]
    for at in places:
        data[at] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"{path.name}: bits flipped at {places}"


@mutation(sealed=False)
def truncation(folder: Path, other: Path, chance: Chance) -> str:
    path = _file(folder, chance)
    size = chance.choice((0, 1, 7, 8, 9, path.stat().st_size - 1, chance.randrange(path.stat().st_size)))
    os.truncate(path, size)
    return f"{path.name}: cut to {size} bytes"


@mutation(sealed=False)
def added_bytes(folder: Path, other: Path, chance: Chance) -> str:
    path = _file(folder, chance)
    data, more = path.read_bytes(), chance.choice((b"\0", b"\n", b" ", b"}", chance.randbytes(100), bytes(2**20)))
    path.write_bytes(more + data if chance.random() < 0.3 else data + more)
    return f"{path.name}: {len(more)} bytes added"


@mutation(sealed=False)
def overwritten_stretch(folder: Path, other: Path, chance: Chance) -> str:
    path = _file(folder, chance)
    data = bytearray(path.read_bytes())
    length = chance.choice((4, 64, 4096))
    at = chance.randrange(chance.choice((64, len(data))))
    stretch = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    data[at : at + length] = stretch[: len(data) - at]
    path.write_bytes(data)
    return f"{path.name}: {length} bytes at {at} overwritten"


# --------------------------------------------------------------------------------------------------- files that moved
@mutation(sealed=False)
def file_of_another_bundle(folder: Path, other: Path, chance: Chance) -> str:
    name = chance.choice(sorted(path.name for path in other.iterdir()))
    shutil.copy(other / name, folder / name)
    return f"{name} comes from another bundle"


@mutation(sealed=False)
def two_files_exchanged(folder: Path, other: Path, chance: Chance) -> str:
    first, second = chance.sample(sorted(folder.iterdir()), 2)
    spare = folder.parent / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    return f"{first.name} and {second.name} exchanged"


@mutation(sealed=False)
def file_renamed(folder: Path, other: Path, chance: Chance) -> str:
    path = _file(folder, chance)
    name = chance.choice((path.name.upper(), path.name + "~", "." + path.name, path.name + "\n", "\u202e" + path.name))
    path.rename(folder / name)
    return f"{path.name} renamed to {name!r}"


@mutation(sealed=False)
def file_removed(folder: Path, other: Path, chance: Chance) -> str:
    path = _file(folder, chance)
    path.unlink()
    return f"{path.name} removed"


@mutation(sealed=False)
def file_too_many(folder: Path, other: Path, chance: Chance) -> str:
    name = chance.choice(("a\nb", "\x1b[2J", "é" * 100, "x" * 255, ".git", "weights.data", " ", "b\udcff"))
    if chance.random() < 0.3:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(b"x")
    return f"{name!r} added"


@mutation(sealed=False)
def something_else_in_its_place(folder: Path, other: Path, chance: Chance) -> str:
    path = _file(folder, chance)
    content = path.read_bytes()
    path.unlink()
    outside = folder.parent / f"outside-{path.name}"
    outside.write_bytes(content)
    made: dict[str, Callable[[], None]] = {
        "link out of the folder": lambda: path.symlink_to(outside),
        "link to nothing": lambda: path.symlink_to("nothing"),
        "link to itself": lambda: path.symlink_to(path.name),
        "link to a device": lambda: path.symlink_to("/dev/zero"),
        "link to another file": lambda: path.symlink_to(chance.choice(sorted(folder.iterdir())).name),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    kind = chance.choice(sorted(made))
    made[kind]()
    return f"{path.name}: a {kind}"
