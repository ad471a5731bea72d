"""Finish a run: list rejected inputs, write the summary, and merge all parts if the output is one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sar_infer.bulk.outputs.job import REJECTED, SUCCESS, BulkJob, Shard
from sar_infer.bulk.outputs.rows import RowFormat
from sar_infer.bulk.outputs.store import LocalFolder, Store, write_text
from sar_infer.errors import InputError, WriteError, reason_of


@dataclass(frozen=True)
class Summary:
    """Counts of a finished run.

    Attributes:
        inputs: Rows, one for each input.
        classified: Rows with an answer.
        rejected: Rows without one.
        pieces: Parts.
        resumed: Parts that an earlier, interrupted run had finished.
        seconds: Duration of the last run.
        rate: Inputs a second of the last run.
        passed_over: Members of tars that are no images, in the last run.
    """

    inputs: int
    classified: int
    rejected: int
    pieces: int
    resumed: int
    seconds: float
    rate: float
    passed_over: int = 0


@dataclass(frozen=True)
class Ended:
    """Counts of the last run alone: inputs, seconds, parts that it found finished, and members it passed over.

    ``listing`` is a digest over the inputs of all shards, as the last run found them; None if there is one shard.
    """

    inputs: int
    seconds: float
    resumed: int
    passed_over: int = 0
    listing: str | None = None


def finish_folder(job: BulkJob, form: RowFormat, parts: Sequence[str], ended: Ended) -> Summary:
    """Write ``_rejected.jsonl`` and ``_SUCCESS.json`` beside the parts; each shard writes its own.

    Raises:
        InputError: another shard has listed other inputs, so that some have no row or two.
        WriteError: a part cannot be read, or a file cannot be written.
    """
    summary = _collect(job.store, job.shard.named(REJECTED), job.store, form, parts, ended)
    write_text(job.store, job.shard.named(SUCCESS), _dumped(summary, parts, job.settings, ended.listing))
    if ended.listing is not None and (other := _differs(job, ended.listing)):
        job.store.discard(job.shard.named(SUCCESS))
        raise InputError(
            f"{job.store.location}: shard {other.index}/{other.of} found other inputs than "
            f"{job.shard.index}/{job.shard.of}, so images are missing or stand there twice; give all shards the same "
            "inputs, best as a list (.txt)"
        )
    return summary


def finish_file(file: Path, job: BulkJob, form: RowFormat, parts: Sequence[str], ended: Ended) -> Summary:
    """Write ``FILE.rejected.jsonl``, FILE and ``FILE.summary.json``; the last one completes the run."""
    folder = LocalFolder(file.parent)
    summary = _collect(folder, _rejected_file(file), job.store, form, parts, ended)
    with folder.stage(file.name) as path:
        try:
            form.merge(path, (partial(job.store.open, name) for name in parts))
        except ValueError as error:  # pyarrow's errors are
            raise WriteError(
                f"{job.store.location}: a part is damaged: {reason_of(error)}; remove it, then --resume"
            ) from None
    write_text(folder, summary_file(file).name, _dumped(summary, parts, job.settings, ended.listing))
    return summary


def summary_file(file: Path) -> Path:
    """Return the path of a single file's summary."""
    return file.with_name(f"{file.name}.summary.json")


def clear_file(file: Path) -> None:
    """Remove what killed runs have left unfinished of a single file and the files beside it."""
    names = {file.name, _rejected_file(file), summary_file(file).name}
    LocalFolder(file.parent).clear(names.__contains__)


@dataclass(frozen=True)
class Finished:
    """The record of a finished run: its summary, ``digest_of`` its parts, its settings, and ``Ended.listing``."""

    summary: Summary
    parts: str
    settings: Mapping[str, Any]
    listing: str | None = None

    @classmethod
    def read(cls, text: bytes) -> Finished | None:
        """Parse what ``finish_file`` or ``finish_folder`` wrote; return None if it is damaged."""
        try:
            record = json.loads(text)
            return cls(
                Summary(**record["summary"]), str(record["parts"]), dict(record["settings"]), record.get("listing")
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def finished(file: Path) -> Finished | None:
    """Return the record of a single file if it is complete, else None."""
    try:
        return Finished.read(summary_file(file).read_bytes()) if file.is_file() else None
    except OSError:
        return None


def finished_folder(job: BulkJob, parts: Iterable[str]) -> Finished | None:
    """Return the record of a folder, or a shard's share of it, if it is complete with these parts, else None."""
    closing_names = {job.shard.named(name) for name in (REJECTED, SUCCESS)}
    if not closing_names <= job.store.names():
        return None
    record = _marker(job, job.shard)
    return record if record and (record.parts, record.settings) == (digest_of(parts), job.settings) else None


def _marker(job: BulkJob, shard: Shard) -> Finished | None:
    with job.store.open(shard.named(SUCCESS)) as stream:
        return Finished.read(stream.read())


def _differs(job: BulkJob, listing: str) -> Shard | None:
    """Return another finished shard if its inputs were others than this one's, else None.

    One is enough: every shard was compared with one of those that were finished before.
    """
    names = job.store.names()
    shards = (Shard(index, job.shard.of) for index in range(1, job.shard.of + 1))
    other = next((shard for shard in shards if shard != job.shard and shard.named(SUCCESS) in names), None)
    record = None if other is None else _marker(job, other)
    return other if record is not None and record.listing not in (None, listing) else None


def digest_of(parts: Iterable[str]) -> str:
    """Return the SHA-256 (hex) over the names of all parts, and so over all inputs and settings."""
    digest = hashlib.sha256()
    for part_name in parts:
        digest.update(f"{part_name}\n".encode())
    return digest.hexdigest()


def _rejected_file(file: Path) -> str:
    return f"{file.name}.rejected.jsonl"


def _collect(target: Store, name: str, store: Store, form: RowFormat, parts: Sequence[str], ended: Ended) -> Summary:
    inputs = rejected = 0
    with target.stage(name) as path, path.open("w", encoding="utf-8") as lines:
        for part_name in parts:
            try:
                with store.open(part_name) as stream:
                    count, flaws = form.flaws(stream)
            except (OSError, ValueError, KeyError, TypeError) as error:
                location = f"{store.location}/{part_name}"
                raise WriteError(f"{location}: cannot be read: {reason_of(error)}; remove it, then --resume") from None
            inputs += count
            rejected += len(flaws)
            where = {"part": part_name} if target is store else {}  # removing that part has it done again
            lines.writelines(json.dumps(flaw | where, ensure_ascii=False) + "\n" for flaw in flaws)
    seconds = round(ended.seconds, 3)
    rate = round(ended.inputs / max(ended.seconds, 1e-9), 2)
    return Summary(inputs, inputs - rejected, rejected, len(parts), ended.resumed, seconds, rate, ended.passed_over)


def _dumped(summary: Summary, parts: Sequence[str], settings: Mapping[str, Any], listing: str | None) -> str:
    content = {"summary": asdict(summary), "parts": digest_of(parts), "settings": settings}
    content |= {} if listing is None else {"listing": listing}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
