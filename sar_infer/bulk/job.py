"""One run's output: its settings, its list of chunks, and the parts that are finished.

A part holds the rows of one chunk and is committed by one rename: ``part-000017.parquet`` is chunk 17. A part with rows
that an outage set aside (``OUTAGES``) is called ``part-000017-outage.parquet``; a run that resumes answers its chunk
again. The list of chunks is written once, before all parts, so a run that resumes does not depend on what a folder or a
bucket holds by then; a listing of the output is all else that it needs.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sar_infer.bulk.chunks import Chunk
from sar_infer.bulk.listing import InputSources
from sar_infer.bulk.rows import Row, RowFormat
from sar_infer.bulk.store import LocalFolder, Store, write_text
from sar_infer.errors import InputError, WriteError, reason_of
from sar_infer.images.inputs import Warn
from sar_infer.storage.files import locked

JOB, CHUNKS = "_job.json", "_chunks.jsonl"
_PART = re.compile(r"part-(\d{6,})(-outage)?\.(?:jsonl|parquet)")


@dataclass(frozen=True)
class Summary:
    """Counts of a finished run.

    Attributes:
        inputs: Rows, one for each input.
        classified: Rows with an answer.
        rejected: Rows without one.
        chunks: Parts.
        resumed: Parts that an earlier, interrupted run had finished.
        seconds: Duration of the last run.
        rate: Inputs a second of the last run.
    """

    inputs: int
    classified: int
    rejected: int
    chunks: int
    resumed: int
    seconds: float
    rate: float


@dataclass
class Job:
    """A run and its output.

    Attributes:
        settings: Everything that answers depend on, as plain values.
        store: Where parts are kept.
        form: The form of the parts.
        file: The output if it is a single file; the parts are kept beside it until it is complete.
        done: Numbers of the chunks that an earlier run has finished.
        again: Numbers of those with an outage, which are answered again.
        inputs: How many inputs all chunks have; None if it is not known before they are read.
    """

    settings: Mapping[str, Any]
    store: Store
    form: RowFormat
    file: Path | None = None
    done: frozenset[int] = frozenset()
    again: frozenset[int] = frozenset()
    inputs: int | None = None

    @property
    def closing(self) -> tuple[Store, str, str]:
        """Return where the rejected inputs and the summary are written, and the names of these two files."""
        if self.file is None:
            return self.store, "_rejected.jsonl", "_SUCCESS.json"
        name = self.file.name
        return LocalFolder(self.file.parent), f"{name}.rejected.jsonl", f"{name}.summary.json"

    def begin(self, sources: InputSources, warn: Warn, *, resume: bool) -> Summary | None:
        """Claim the output: list the inputs, or find out what an earlier run has finished.

        Args:
            sources: The inputs.
            warn: Called with a line about files that are passed over.
            resume: Continue an earlier run.

        Returns:
            The summary, if the run is complete.

        Raises:
            InputError: the output holds something else, settings have changed, or there is no image.
            WriteError: the output cannot be written.
        """
        location, names = self.store.location, self.store.names()
        parts = _parts(names)
        outages = frozenset(number for number, name in parts.items() if "-outage" in name)
        if resume and (summary := self._complete(parts)) and not outages:
            return summary
        if self.file and self.file.exists() and not names:
            raise InputError(f"{self.file}: exists; choose another --out")
        if JOB not in names and names - {CHUNKS}:
            raise InputError(f"{location}: not empty, and not the output of a bulk run; choose another --out")
        if JOB not in names or not (parts or resume):
            self._list(sources, warn)
        else:
            if not resume:
                raise InputError(
                    f"{self.file or location}: {len(parts):,} chunks of an earlier run are there; continue it with "
                    "--resume, or choose another --out"
                )
            try:
                with self.store.open(JOB) as stream:
                    record = json.load(stream)
                settings, self.inputs = dict(record["settings"]), record["inputs"]
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{location}/{JOB}: damaged; choose another --out") from None
            self._check_settings(settings)
        self.done, self.again = frozenset(parts) - outages, outages
        for name in names:
            if (match := _PART.fullmatch(name)) and match[2] and int(match[1]) in self.done:
                self.store.discard(name)  # the run was killed between writing its successor and this
        self.store.clear()
        target, _, success = self.closing
        target.discard(success)
        if self.file:
            LocalFolder(self.file.parent).clear(self.file.name)
        return None

    def chunks(self) -> Iterator[Chunk]:
        """Yield all chunks, in order, as they are listed in the output."""
        with self.store.open(CHUNKS) as lines:
            for number, line in enumerate(lines):
                yield Chunk.parse(number, line)

    def write(self, chunk: Chunk, rows: Iterable[tuple[Any, bool]]) -> None:
        """Write the part of a chunk.

        Args:
            chunk: The chunk.
            rows: Packed rows, and whether an outage set one of them aside.

        Raises:
            WriteError: the part cannot be written.
        """
        outage = False
        name = f"part-{chunk.number:06}"

        def packed() -> Iterator[Any]:
            nonlocal outage
            for pack, flawed in rows:
                outage |= flawed
                yield pack

        def fill(path: Path) -> str:
            self.form.write(path, packed())
            return f"{name}{'-outage' if outage else ''}{self.form.suffix}"

        self.store.put(f"{name}{self.form.suffix}", fill)
        if chunk.number in self.again and not outage:
            self.store.discard(f"{name}-outage{self.form.suffix}")

    def abandon(self) -> None:
        """Remove the traces of a run that has written no part."""
        if self.store.names() <= {JOB, CHUNKS}:
            self.store.discard(JOB)
            self.store.discard(CHUNKS)
            if isinstance(self.store, LocalFolder):
                with contextlib.suppress(OSError):
                    self.store.folder.rmdir()

    def finish(self, inputs: int, seconds: float) -> Summary:
        """List the rejected inputs, merge the parts if the output is a single file, and write the summary.

        Args:
            inputs: Inputs that the last run has answered.
            seconds: How long it took.

        Raises:
            WriteError: a part is missing or damaged, or a file cannot be written.
        """
        target, rejected_name, success = self.closing
        parts = _parts(self.store.names())
        total = rejected = 0

        def fill(path: Path) -> None:
            nonlocal total, rejected
            with path.open("w", encoding="utf-8") as lines:
                for count, flaws in self._read(parts):
                    total, rejected = total + count, rejected + len(flaws)
                    lines.writelines(json.dumps(flaw, ensure_ascii=False) + "\n" for flaw in flaws)

        target.put(rejected_name, fill)
        if self.file:
            opened = [partial(self.store.open, parts[number]) for number in sorted(parts)]
            LocalFolder(self.file.parent).put(self.file.name, lambda path: self.form.merge(path, opened))
        rate = round(inputs / max(seconds, 1e-9), 2)
        summary = Summary(total, total - rejected, rejected, len(parts), len(self.done), round(seconds, 3), rate)
        content = {"summary": asdict(summary), "settings": self.settings}
        write_text(target, success, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        self._remove_parts(parts)
        return summary

    def _read(self, parts: Mapping[int, str]) -> Iterator[tuple[int, list[Row]]]:
        """Yield the number of rows of each part, and its rows without an answer.

        Raises:
            WriteError: a part is missing or damaged.
        """
        for chunk in self.chunks():
            name = parts.get(chunk.number)
            if name is None:
                raise WriteError(f"{self.store.location}: chunk {chunk.number} is missing; run again with --resume")
            try:
                with self.store.open(name) as stream:
                    count, flaws = self.form.flaws(stream)
                if count != (chunk.count or count) and all(flaw["error_kind"] != "source" for flaw in flaws):
                    raise ValueError(f"it has {count} of {chunk.count} rows")
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise WriteError(
                    f"{self.store.location}/{name}: damaged: {reason_of(error)}; remove it, then --resume"
                ) from None
            yield count, flaws

    def _list(self, sources: InputSources, warn: Warn) -> None:
        """Write the list of chunks, and then the settings, which make the output that of a run."""
        inputs: int | None = 0
        empty = True

        def fill(path: Path) -> None:
            nonlocal inputs, empty
            with path.open("w", encoding="ascii") as lines:
                for chunk in sources.chunks(warn):
                    lines.write(chunk.line())
                    empty = empty and chunk.count == 0
                    inputs = None if inputs is None or chunk.count is None else inputs + chunk.count
            if empty:
                raise InputError(f"{', '.join(sources.arguments)}: no image in it")

        try:
            self.store.put(CHUNKS, fill)
            record = {"format": 1, "inputs": inputs, "settings": self.settings}
            write_text(self.store, JOB, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        except BaseException:
            self.abandon()
            raise
        self.inputs = inputs

    def _complete(self, parts: Mapping[int, str]) -> Summary | None:
        """Return the summary of a run that is complete, else None."""
        target, _, success = self.closing
        if success not in target.names() or (self.file and not self.file.exists()):
            return None
        try:
            with target.open(success) as stream:
                record = json.load(stream)
            summary, settings = Summary(**record["summary"]), dict(record["settings"])
        except (ValueError, KeyError, TypeError):
            return None
        self._check_settings(settings)
        if self.file is None:
            if len(parts) != summary.chunks:
                return None
            for _ in self._read(parts):
                pass
        self._remove_parts(parts)
        return summary

    def _remove_parts(self, parts: Mapping[int, str]) -> None:
        """Remove the parts of a single file, unless a run that resumes answers some of them again."""
        if self.file and isinstance(self.store, LocalFolder) and not any("-outage" in name for name in parts.values()):
            shutil.rmtree(self.store.folder, ignore_errors=True)

    def _check_settings(self, before: Mapping[str, Any]) -> None:
        """Raise InputError if settings have changed since an earlier run."""
        now = self.settings
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            shown = [[json.dumps(some.get(name), ensure_ascii=False) for some in (before, now)] for name in changed]
            values = "; ".join(f"{name} was {a:.60}, now {b:.60}" for name, (a, b) in zip(changed, shown, strict=True))
            raise InputError(
                f"{self.file or self.store.location}: written with other settings ({values}); give the same, or choose "
                "another --out"
            )


def _parts(names: Iterable[str]) -> dict[int, str]:
    """Return the names of parts by number; of two the one without an outage."""
    matches = [match for name in sorted(names) if (match := _PART.fullmatch(name))]
    return {int(match[1]): match[0] for match in matches}


@contextlib.contextmanager
def alone(job: Job, out: str) -> Iterator[None]:
    """Keep other processes of this machine out of an output, by a lock in the folder or beside the file.

    There are no locks in storage: two runs would write the same parts there.

    Args:
        job: The run.
        out: The output as the user calls it.

    Raises:
        WriteError: another process uses the output, or the lock cannot be taken.
    """
    with contextlib.ExitStack() as locks:
        try:
            if job.file is not None:
                locks.enter_context(locked(job.file.parent.resolve() / job.file.name))
            elif isinstance(job.store, LocalFolder):
                locks.enter_context(locked(job.store.folder.resolve() / "run"))
        except BlockingIOError:
            raise WriteError(f"{out}: another process is changing it; try again when it is done") from None
        yield
