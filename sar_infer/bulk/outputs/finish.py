"""Finish a run: list rejected inputs, write the summary, and merge all parts if the output is one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sar_infer.bulk.outputs.job import REJECTED, SUCCESS, BulkJob
from sar_infer.bulk.outputs.rows import RowFormat
from sar_infer.bulk.outputs.store import LocalFolder, Store, write_text


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
    """Counts of the last run alone: inputs, seconds, parts that it found finished, and members it passed over."""

    inputs: int
    seconds: float
    resumed: int
    passed_over: int = 0


def finish_folder(job: BulkJob, form: RowFormat, parts: Sequence[str], ended: Ended) -> Summary:
    """Write ``_rejected.jsonl`` and ``_SUCCESS.json`` beside the parts; each shard writes its own."""
    summary = _collect(job.store, job.shard.named(REJECTED), job.store, form, parts, ended)
    write_text(job.store, job.shard.named(SUCCESS), _dumped(summary, parts, job.settings))
    return summary


def finish_file(file: Path, job: BulkJob, form: RowFormat, parts: Sequence[str], ended: Ended) -> Summary:
    """Write ``FILE.rejected.jsonl``, FILE and ``FILE.summary.json``; the last one completes the run."""
    folder = LocalFolder(file.parent)
    summary = _collect(folder, _rejected_file(file), job.store, form, parts, ended)
    with folder.stage(file.name) as path:
        form.merge(path, (partial(job.store.open, name) for name in parts))
    write_text(folder, summary_file(file).name, _dumped(summary, parts, job.settings))
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
    """The record of a finished run: its summary, ``digest_of`` its parts, and its settings."""

    summary: Summary
    parts: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, text: bytes) -> Finished | None:
        """Parse what ``finish_file`` or ``finish_folder`` wrote; return None if it is damaged."""
        try:
            found = json.loads(text)
            return cls(Summary(**found["summary"]), str(found["parts"]), dict(found["settings"]))
        except (ValueError, KeyError, TypeError):
            return None


def finished(file: Path) -> Finished | None:
    """Return the record of a single file if it is complete, else None."""
    try:
        return Finished.read(summary_file(file).read_bytes()) if file.is_file() else None
    except OSError:
        return None


def finished_folder(job: BulkJob, parts: Iterable[str]) -> Summary | None:
    """Return the summary of a folder, or a shard's share of it, if it is complete with these parts, else None."""
    own = {job.shard.named(name) for name in (REJECTED, SUCCESS)}
    if not own <= job.store.names():
        return None
    with job.store.open(job.shard.named(SUCCESS)) as stream:
        found = Finished.read(stream.read())
    if found is None or (found.parts, found.settings) != (digest_of(parts), job.settings):
        return None
    return found.summary


def digest_of(parts: Iterable[str]) -> str:
    """Return the SHA-256 (hex) over the names of all parts, and so over all inputs and settings."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()


def _rejected_file(file: Path) -> str:
    return f"{file.name}.rejected.jsonl"


def _collect(target: Store, name: str, store: Store, form: RowFormat, parts: Sequence[str], ended: Ended) -> Summary:
    inputs = rejected = 0
    with target.stage(name) as path, path.open("w", encoding="utf-8") as lines:
        for part in parts:
            with store.open(part) as stream:
                count, flaws = form.flaws(stream)
            inputs += count
            rejected += len(flaws)
            where = {"part": part} if target is store else {}  # removing that part has it done again
            lines.writelines(json.dumps(flaw | where, ensure_ascii=False) + "\n" for flaw in flaws)
    seconds = round(ended.seconds, 3)
    rate = round(ended.inputs / max(ended.seconds, 1e-9), 2)
    return Summary(inputs, inputs - rejected, rejected, len(parts), ended.resumed, seconds, rate, ended.passed_over)


def _dumped(summary: Summary, parts: Sequence[str], settings: Mapping[str, Any]) -> str:
    content = {"summary": asdict(summary), "parts": digest_of(parts), "settings": settings}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
