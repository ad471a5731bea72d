"""One run's claim on its output: which pieces it owns, which parts are there, and whether it may continue.

A part holds the rows of one piece and is committed by one rename. Its name says which inputs under which settings:
``part-000017-1f2e3d4c5b6a.parquet`` is piece 17, with the start of a digest over its inputs and the run's settings. A
listing of the folder is therefore all that a resumed run needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_infer.bulk.items import Broken, Piece
from sar_infer.bulk.outputs.store import LocalFolder, Store, read_text, write_text
from sar_infer.errors import InputError, WriteError
from sar_infer.storage.files import locked
from sar_infer.storage.strict_json import canonical_digest

JOB, REJECTED, SUCCESS = "_job.json", "_rejected.jsonl", "_SUCCESS.json"
PieceListing = Callable[[Callable[[int], bool]], Iterable[Piece]]
"""A function that returns the pieces of a run whose numbers it is asked for."""
_PART = re.compile(r"part-(\d{6,})-[0-9a-f]{12}\.(?:jsonl|parquet)")


@dataclass(frozen=True)
class Shard:
    """A share of a run: every ``of``-th piece, starting with piece ``index - 1``."""

    index: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise InputError(f"--shard: expected I/N with I of 1 to N, got {self.index}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that a text names; ``2/8`` is the second of eight.

        Raises:
            InputError: the text is not of this form.
        """
        index, _, of = text.partition("/")
        if not (index.isdecimal() and of.isdecimal()):
            raise InputError(f"--shard: expected I/N, such as 2/8, got {text!r}")
        return cls(int(index), int(of))

    def has(self, number: int) -> bool:
        """Return whether a piece belongs to this shard."""
        return number % self.of == self.index - 1

    def named(self, name: str) -> str:
        """Return the name of a file that belongs to this shard: ``_SUCCESS.json`` is ``_SUCCESS.2-of-8.json``."""
        stem, dot, suffix = name.partition(".")
        return name if self.of == 1 else f"{stem}.{self.index}-of-{self.of}{dot}{suffix}"


WHOLE = Shard()
"""The only shard of an undivided run."""


@dataclass(frozen=True)
class BulkJob:
    """One run, or one machine's share of it, and where its parts are kept.

    Attributes:
        settings: Everything that answers depend on, as plain values.
        store: Where parts are kept.
        shard: The share of this machine.
        suffix: Suffix of the parts.
    """

    settings: Mapping[str, Any]
    store: Store
    shard: Shard
    suffix: str

    def part(self, piece: Piece) -> str:
        """Return the file name of a piece's part."""
        settings = canonical_digest(dict(self.settings))
        digest = hashlib.sha256(f"{settings}{piece.digest}".encode()).hexdigest()
        return f"part-{piece.number:06}-{digest[:12]}{self.suffix}"

    def begin(self, pieces: PieceListing, *, resume: bool, retry: Collection[str] = ()) -> dict[int, str]:
        """Claim the output, and check that existing parts have the same settings and inputs.

        Args:
            pieces: The pieces of the run.
            resume: Accept existing parts.
            retry: Kinds of errors (``FlawKind``); parts whose finished run set inputs aside for one of them are
                removed, to be written again. A run that has not ended is refused.

        Returns:
            The finished parts of the shard, by piece. A part is removed if all it says is that its tar shard or file
            was unreachable, and it is reachable now.

        Raises:
            InputError: the output holds something else, or settings or inputs have changed.
            WriteError: the folder cannot be written.
        """
        location, present = self.store.location, self.store.names()
        parts = self._committed(present)
        if not present or (JOB in present and not parts and self.shard.of == 1):  # an earlier run wrote no part
            text = json.dumps({"format": 1, "settings": self.settings}, indent=2, ensure_ascii=False)
            write_text(self.store, JOB, text + "\n")
            return {}
        if JOB not in present:
            raise InputError(f"{location}: not empty, and not the output of a bulk run; choose another --out")
        self._check_settings()
        done = {number: name for number, name in parts.items() if self.shard.has(number)}
        if not resume and (done or self.shard.of == 1):
            pieces_are = "piece is" if len(done) == 1 else "pieces are"
            raise InputError(
                f"{location}: {len(done)} finished {pieces_are} there; go on with --resume, or choose another --out"
            )
        return self._without_errors(self._same_inputs(pieces, done), retry)

    def parts(self, expected: Mapping[int, str]) -> list[str]:
        """Return all parts of the shard, in the order of the pieces.

        Args:
            expected: The parts, by piece: those that were there and those that this run has written.

        Raises:
            InputError: a piece has two parts.
            WriteError: a part is missing.
        """
        present = set(self._committed(self.store.names()).values())
        parts = [expected[number] for number in sorted(expected)]
        if missing := [name for name in parts if name not in present]:
            location = self.store.location
            raise WriteError(
                f"{location}: {len(missing)} parts are missing, first {missing[0]}; run it again with --resume"
            )
        return parts

    def clear(self) -> None:
        """Remove what killed runs have left unfinished in this shard."""
        leftovers = {self.shard.named(name) for name in (REJECTED, SUCCESS)} | ({JOB} if self.shard.of == 1 else set())
        self.store.clear(
            lambda name: name in leftovers or ((number := part_number(name)) is not None and self.shard.has(number))
        )

    def reopen(self) -> None:
        """Remove the files that say that the run is complete."""
        for name in {SUCCESS, self.shard.named(SUCCESS)}:
            self.store.discard(name)

    def abandon(self) -> None:
        """Remove the traces of a run that has written nothing, unless it shares its folder with other shards."""
        if self.shard.of == 1 and self.store.names() == {JOB}:
            self.store.discard(JOB)
            if isinstance(self.store, LocalFolder):
                self.store.remove_if_empty()

    def _committed(self, names: Iterable[str]) -> dict[int, str]:
        """Return the names of parts, by piece.

        Raises:
            InputError: a piece has two.
        """
        part_names: dict[int, str] = {}
        for name in sorted(names):
            number = part_number(name)
            if number is None or not _PART.fullmatch(name):
                continue
            if number in part_names:
                raise InputError(
                    f"{self.store.location}: {part_names[number]} and {name} hold the same piece of the work; remove "
                    "one, or both, and use --resume"
                )
            part_names[number] = name
        return part_names

    def _check_settings(self) -> None:
        location = self.store.location
        try:
            before = json.loads(read_text(self.store, JOB))["settings"]
            changed = changes(before, self.settings)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{location}/{JOB}: damaged; choose another --out") from None
        if changed:
            advice = "give the same, or choose another --out"
            raise InputError(f"{location}: written with other settings ({changed}); {advice}")

    def _same_inputs(self, pieces: PieceListing, done: Mapping[int, str]) -> dict[int, str]:
        """Return the parts that stay finished; list pieces only as far as finished ones go."""
        left, back = dict(done), dict[int, str]()
        for piece in pieces(done.__contains__) if done else ():
            stored_name, now = left.pop(piece.number), self.part(piece)
            if stored_name != now and stored_name == self._part_if_unreachable(piece):
                back[piece.number] = getattr(piece.unit, "location", "")
            elif stored_name != now:
                self._check_moved(
                    stored_name, [location for location in back.values() if location.lower().endswith(".parquet")]
                )
                why = f" ({piece.unit.location}: {piece.unit.reason})" if isinstance(piece.unit, Broken) else ""
                self._changed(stored_name, f"has other inputs than when it was finished{why}")
            if not left:
                break
        if left:
            self._changed(left[min(left)], "is of inputs that are gone")
        for number in back:
            self.store.discard(done[number])
        return {number: name for number, name in done.items() if number not in back}

    def _check_moved(self, part_name: str, back: Sequence[str]) -> None:
        """Raise InputError if Parquet files are back that were one piece while they were out of reach."""
        if back:
            raise InputError(
                f"{self.store.location}: {back[0]} can be read again, and its row groups move the pieces after it; to "
                f"do them again, remove {part_name} and all parts after it; else classify the file alone, with "
                "another --out"
            )

    def _without_errors(self, done: Mapping[int, str], kinds: Collection[str]) -> dict[int, str]:
        """Remove the parts with errors of these kinds, as far as ``_rejected.jsonl`` tells, and return the others.

        That list is removed after them: its parts may have other rows soon.
        """
        listed, names = self.shard.named(REJECTED), self.store.names()
        if kinds and listed not in names and self.shard.named(SUCCESS) not in names:
            raise InputError(
                f"{self.store.location}: --retry does again what a run set aside, and is known at its end, but this "
                "run has not ended; end it with --resume alone, then retry"
            )
        if not kinds or listed not in names:
            return dict(done)
        try:
            with self.store.open(listed) as lines:
                again = {row["part"] for row in map(json.loads, lines) if row["error_kind"] in kinds}
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{self.store.location}/{listed}: damaged; remove it, and --resume writes it again"
            ) from None
        for name in again.intersection(done.values()):
            self.store.discard(name)
        self.store.discard(listed)
        return {number: name for number, name in done.items() if name not in again}

    def _part_if_unreachable(self, piece: Piece) -> str:
        """Return the part that a piece has if its tar shard or file is unreachable."""
        return self.part(Piece(piece.number, Broken(getattr(piece.unit, "location", ""), "")))

    def _changed(self, part_name: str, problem: str) -> None:
        advice = "restore them, remove the part to do it again, or choose another --out"
        raise InputError(f"{self.store.location}: {part_name} {problem}; {advice}")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe which settings differ and how, as ``top_k was 5, now 1``; empty if none does."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}" for name in changed)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def part_number(name: str) -> int | None:
    """Return the number of the piece that a part belongs to, None for other files; what follows the name may differ."""
    match = _PART.match(name)
    return int(match[1]) if match else None


@contextlib.contextmanager
def alone(job: BulkJob, out: str, file: Path | None = None) -> Iterator[None]:
    """Keep other processes of this machine out of an output, by a lock in the folder or beside the file.

    There are no locks in storage: two runs may put the same parts there.

    Args:
        job: The run; if it has a shard, runs of other shards may share the folder.
        out: The output as the user calls it.
        file: The output, if it is a single file.

    Raises:
        WriteError: another process uses the output, or the lock cannot be taken.
    """
    with contextlib.ExitStack() as locks:
        try:
            if file is not None:
                locks.enter_context(locked(file.parent.resolve() / file.name))
            elif isinstance(job.store, LocalFolder):
                folder = job.store.folder.resolve()
                locks.enter_context(locked(folder / "run", shared=job.shard != WHOLE))
                if job.shard != WHOLE:
                    locks.enter_context(locked(folder / job.shard.named("run")))
        except BlockingIOError:
            raise WriteError(f"{out}: another process is changing it; try again when it is done") from None
        yield
