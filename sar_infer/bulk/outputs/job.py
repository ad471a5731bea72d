"""One run, or one machine's share of it: which pieces are its own, what is done, and whether it may go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sar_infer.artefact import canonical_digest
from sar_infer.bulk.items import Piece
from sar_infer.bulk.outputs.parts import committed, part_name, part_number
from sar_infer.bulk.outputs.store import Store, read_text, write_text
from sar_infer.errors import InputError, WriteError

JOB = "_job.json"


@dataclass(frozen=True)
class Shard:
    """Every ``of``-th piece, from piece ``index - 1`` on."""

    index: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise InputError(f"--shard: expected I/N with I of 1 to N, got {self.index}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``2/8`` is the second of eight.

        Raises:
            InputError: it is not of this form.
        """
        index, _, of = text.partition("/")
        if not (index.isdecimal() and of.isdecimal()):
            raise InputError(f"--shard: expected I/N, such as 2/8, got {text!r}")
        return cls(int(index), int(of))

    def has(self, number: int) -> bool:
        """Whether a piece is in it."""
        return number % self.of == self.index - 1

    def named(self, name: str) -> str:
        """A file of this shard alone: ``_SUCCESS.json`` is ``_SUCCESS.2-of-8.json``."""
        stem, dot, suffix = name.partition(".")
        return name if self.of == 1 else f"{stem}.{self.index}-of-{self.of}{dot}{suffix}"


WHOLE = Shard()
"""Of one: everything."""


@dataclass(frozen=True)
class Job:
    """The settings that answers depend on, as plain values, and what of it is worked off here."""

    settings: Mapping[str, Any]
    store: Store
    shard: Shard
    suffix: str

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the settings."""
        return canonical_digest(dict(self.settings))

    def part(self, piece: Piece) -> str:
        """The file of a piece's answers."""
        return part_name(piece, self.digest, self.suffix)

    def own(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces of the shard."""
        return (piece for piece in pieces if self.shard.has(piece.number))

    def begin(self, pieces: Iterable[Piece], *, resume: bool) -> frozenset[str]:
        """Claim the output, and see that what is there already is of the same settings and inputs.

        Args:
            pieces: All of the run, from the first.
            resume: Whether anything may be there.

        Returns:
            The parts of the shard that are finished.

        Raises:
            InputError: something else is there, or settings or inputs have changed.
            WriteError: the folder cannot be written.
        """
        place, present = self.store.place, self.store.names()
        parts = committed(present)
        if not present or (JOB in present and not parts and self.shard.of == 1):  # whoever began has done nothing
            text = json.dumps({"format": 1, "settings": self.settings}, indent=2, ensure_ascii=False)
            write_text(self.store, JOB, text + "\n")
            return frozenset()
        if JOB not in present:
            raise InputError(f"{place}: not empty, and not the output of such a run; choose another --out")
        self._check_settings()
        done = {number: name for number, name in parts.items() if self.shard.has(number)}
        if not resume and (done or self.shard.of == 1):
            what = f"{len(done)} finished pieces are there"
            raise InputError(f"{place}: {what}; go on with --resume, or choose another --out")
        self._check_inputs(pieces, done)
        return frozenset(done.values())

    def parts(self, pieces: Iterable[Piece]) -> list[str]:
        """All parts of the shard, in the order of the pieces.

        Raises:
            WriteError: one is missing.
        """
        present = self.store.names()
        parts = [self.part(piece) for piece in self.own(pieces)]
        if missing := [part for part in parts if part not in present]:
            place = self.store.place
            raise WriteError(
                f"{place}: {len(missing)} parts are missing, first {missing[0]}; run it again with --resume"
            )
        return parts

    def clear(self) -> None:
        """Remove what earlier kills have left half done of this shard."""
        self.store.clear(lambda name: (number := part_number(name)) is not None and self.shard.has(number))

    def _check_settings(self) -> None:
        place = self.store.place
        try:
            before = json.loads(read_text(self.store, JOB))["settings"]
            changed = [name for name in {**before, **self.settings} if before.get(name) != self.settings.get(name)]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{place}/{JOB}: damaged; choose another --out") from None
        if changed:
            told = "; ".join(f"{n} was {_short(before.get(n))}, now {_short(self.settings.get(n))}" for n in changed)
            raise InputError(f"{place}: of a run with other settings ({told}); give the same, or choose another --out")

    def _check_inputs(self, pieces: Iterable[Piece], done: Mapping[int, str]) -> None:
        """The listing is followed as far as finished pieces go."""
        left = dict(done)
        for piece in self.own(pieces):
            if not left:
                return
            found = left.pop(piece.number, self.part(piece))
            if found != self.part(piece):
                self._changed(found, "has other inputs than when it was finished")
        if left:
            self._changed(left[min(left)], "is of inputs that are gone")

    def _changed(self, part: str, what: str) -> None:
        advice = "restore them, remove the part to do it again, or choose another --out"
        raise InputError(f"{self.store.place}: {part} {what}; {advice}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
