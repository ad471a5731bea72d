"""One run, or one machine's share of it: which pieces are its own, what is done, and whether it may go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sar_infer.bulk.items import Broken, Piece
from sar_infer.bulk.outputs.parts import committed, part_name, part_number
from sar_infer.bulk.outputs.store import LocalFolder, Store, read_text, write_text
from sar_infer.errors import InputError, WriteError
from sar_infer.storage.strict_json import canonical_digest

JOB, REJECTED, SUCCESS = "_job.json", "_rejected.jsonl", "_SUCCESS.json"
Listing = Callable[[Callable[[int], bool]], Iterable[Piece]]
"""The pieces of a run whose numbers are wanted."""


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

    def begin(self, pieces: Listing, *, resume: bool) -> dict[int, str]:
        """Claim the output, and see that what is there already is of the same settings and inputs.

        Args:
            pieces: Of the run.
            resume: Whether anything may be there.

        Returns:
            The parts of the shard that are finished, by piece. Those that say that a shard was out of reach, which is
            there now, are removed.

        Raises:
            InputError: something else is there, or settings or inputs have changed.
            WriteError: the folder cannot be written.
        """
        place, present = self.store.place, self.store.names()
        parts = self._committed(present)
        if not present or (JOB in present and not parts and self.shard.of == 1):  # whoever began has done nothing
            text = json.dumps({"format": 1, "settings": self.settings}, indent=2, ensure_ascii=False)
            write_text(self.store, JOB, text + "\n")
            return {}
        if JOB not in present:
            raise InputError(f"{place}: not empty, and not the output of such a run; choose another --out")
        self._check_settings()
        done = {number: name for number, name in parts.items() if self.shard.has(number)}
        if not resume and (done or self.shard.of == 1):
            what = f"{len(done)} finished pieces are there"
            raise InputError(f"{place}: {what}; go on with --resume, or choose another --out")
        return self._same_inputs(pieces, done)

    def parts(self, expected: Mapping[int, str]) -> list[str]:
        """All parts of the shard, in the order of the pieces.

        Args:
            expected: By piece: those that were there, and those that have been written.

        Raises:
            InputError: a piece has two.
            WriteError: one is missing.
        """
        present = set(self._committed(self.store.names()).values())
        parts = [expected[number] for number in sorted(expected)]
        if missing := [part for part in parts if part not in present]:
            place = self.store.place
            raise WriteError(
                f"{place}: {len(missing)} parts are missing, first {missing[0]}; run it again with --resume"
            )
        return parts

    def clear(self) -> None:
        """Remove what earlier kills have left half done of this shard."""
        own = {self.shard.named(name) for name in (REJECTED, SUCCESS)} | ({JOB} if self.shard.of == 1 else set())
        self.store.clear(
            lambda name: name in own or ((number := part_number(name)) is not None and self.shard.has(number))
        )

    def reopen(self) -> None:
        """Take back the word that all is done."""
        for name in {SUCCESS, self.shard.named(SUCCESS)}:
            self.store.discard(name)

    def abandon(self) -> None:
        """Leave nothing behind of a run that has done nothing; shards may have others beside them."""
        if self.shard.of == 1 and self.store.names() == {JOB}:
            self.store.discard(JOB)
            if isinstance(self.store, LocalFolder):
                self.store.remove_if_empty()

    def _committed(self, names: Iterable[str]) -> dict[int, str]:
        try:
            return committed(names)
        except InputError as error:
            raise InputError(f"{self.store.place}: {error}") from None

    def _check_settings(self) -> None:
        place = self.store.place
        try:
            before = json.loads(read_text(self.store, JOB))["settings"]
            told = changes(before, self.settings)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{place}/{JOB}: damaged; choose another --out") from None
        if told:
            raise InputError(f"{place}: of a run with other settings ({told}); give the same, or choose another --out")

    def _same_inputs(self, pieces: Listing, done: Mapping[int, str]) -> dict[int, str]:
        """Those that stay done; the listing is followed as far as finished pieces go."""
        left, stay = dict(done), dict(done)
        for piece in pieces(done.__contains__) if done else ():
            found, now = left.pop(piece.number), self.part(piece)
            if found != now and found == self._while_away(piece):
                self.store.discard(stay.pop(piece.number))
            elif found != now:
                why = f" ({piece.unit.place}: {piece.unit.reason})" if isinstance(piece.unit, Broken) else ""
                self._changed(found, f"has other inputs than when it was finished{why}")
            if not left:
                break
        if left:
            self._changed(left[min(left)], "is of inputs that are gone")
        return stay

    def _while_away(self, piece: Piece) -> str:
        """The part of a piece whose shard or file is out of reach."""
        return self.part(Piece(piece.number, Broken(getattr(piece.unit, "place", ""), "")))

    def _changed(self, part: str, what: str) -> None:
        advice = "restore them, remove the part to do it again, or choose another --out"
        raise InputError(f"{self.store.place}: {part} {what}; {advice}")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which settings differ, and how: ``top_k was 5, now 1``; empty where none does."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}" for name in changed)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
