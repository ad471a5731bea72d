"""A bulk run from start to end, on one machine or on a cluster."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sar_infer import __version__
from sar_infer.bulk.items import FlawKind, printable
from sar_infer.bulk.locations import is_url
from sar_infer.bulk.outputs.finish import (
    Ended,
    Summary,
    clear_file,
    digest_of,
    finish_file,
    finish_folder,
    finished,
    finished_folder,
    summary_file,
)
from sar_infer.bulk.outputs.job import WHOLE, BulkJob, Shard, alone, changes
from sar_infer.bulk.outputs.rows import JsonLines, Parquet, RowFormat, check_parquet
from sar_infer.bulk.outputs.store import LocalFolder, Store, open_store
from sar_infer.bulk.pool import BatchPool
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.sources.listing import InputSources
from sar_infer.bulk.work import Listing, Work
from sar_infer.bulk.worker import Answerer, WorkerOptions
from sar_infer.errors import InputError, SarInferError

SUFFIXES = (".parquet", ".jsonl")
"""Suffixes of an output that is a file; anything else is a folder."""


@dataclass(frozen=True)
class EngineOptions:
    """Processes of this machine, or a Ray cluster.

    Attributes:
        kind: Which of the two.
        workers: Processes, or tasks at a time; with Ray None takes the cluster's CPUs.
        batch_size: Images encoded together.
        address: Address of the Ray cluster.
    """

    kind: Literal["local", "ray"] = "local"
    workers: int | None = None
    batch_size: int = 16
    address: str = "auto"


@dataclass(frozen=True)
class BulkPlan:
    """Inputs, answers and output of a run.

    Attributes:
        sources: What to read.
        options: How to answer.
        out: Where to write: a file (``SUFFIXES``), or the path or URL of a folder.
        form: File type of a folder's parts.
        shard: This run's share of the pieces.
        resume: Continue an earlier run.
        retry: Kinds of errors whose parts are written again; only with ``resume``, into a folder.
    """

    sources: InputSources
    options: WorkerOptions
    out: str
    form: Literal["parquet", "jsonl"] = "parquet"
    shard: Shard = WHOLE
    resume: bool = False
    retry: tuple[FlawKind, ...] = ()

    @property
    def file(self) -> Path | None:
        """Return the output if it is a single file, else None."""
        return Path(self.out) if self.out.lower().endswith(SUFFIXES) else None


def run(plan: BulkPlan, engine: EngineOptions, progress: Progress) -> Summary:
    """Classify everything that has no answer yet, then finish the output.

    Raises:
        InputError: the plan contradicts itself or names something that does not exist; nothing was changed.
        WriteError: the output cannot be written; finished pieces stay.
        SarInferError: see ``Answerer`` and ``BatchPool``.
    """
    parquet = plan.out.lower().endswith(".parquet") if plan.file else plan.form == "parquet"
    if parquet:
        check_parquet()
    plan.sources.check()
    answerer = Answerer(plan.options)
    if caution := answerer.caution:
        progress.warn(caution)
    job, form = _job(plan, answerer, parquet)
    with alone(job, plan.out, plan.file):
        if plan.file and (summary := _finished(plan, plan.file, job)):
            return summary
        with _ready(engine):
            work = Work(plan.sources, job, job.begin(plan.sources.pieces, resume=plan.resume, retry=plan.retry))
            job.clear()
            listing = Listing()
            if plan.file is None and (summary := _nothing_left(work)):
                return summary
            job.reopen()
            if plan.file:
                clear_file(plan.file)
                summary_file(plan.file).unlink(missing_ok=True)
            progress.expect(work.left)
            try:
                written = _work_off(work, answerer.options, form, engine, progress, listing)
            except SarInferError:
                if not progress.inputs:
                    job.abandon()
                raise
            finally:
                progress.close()
        return _finish(plan, work, written, form, progress, listing)


def _job(plan: BulkPlan, answerer: Answerer, parquet: bool) -> tuple[BulkJob, RowFormat]:
    sources, arguments = plan.sources, [printable(argument) for argument in plan.sources.arguments]
    settings = answerer.settings() | {
        "column": sources.column,
        "key_column": sources.key_column,
        "piece_size": sources.piece_size,
        "format": "parquet" if parquet else "jsonl",
    }
    if plan.file:  # the parts of a folder belong to the whole run, and each names its own inputs
        settings |= {"sources": arguments, "shard": f"{plan.shard.index}/{plan.shard.of}"}
    settings = json.loads(json.dumps(settings))
    form: RowFormat = (
        Parquet(
            answerer.columns,
            settings | {"version": __version__, "sources": arguments, "encoder": answerer.encoder_digest},
        )
        if parquet
        else JsonLines()
    )
    return BulkJob(settings, _store(plan), plan.shard, form.suffix), form


def _store(plan: BulkPlan) -> Store:
    if plan.file is None:
        store = open_store(plan.out)
        if isinstance(store, LocalFolder) and store.folder.exists() and not store.folder.is_dir():
            raise InputError(f"{plan.out}: is a file; name a folder, FILE.parquet or FILE.jsonl as --out")
        return store
    if plan.retry:
        raise InputError(f"{plan.out}: a finished file has no parts to retry; choose a folder as --out")
    if is_url(plan.out):
        raise InputError(f"{plan.out}: in storage the output is a folder of parts; leave out {plan.file.suffix}")
    if plan.file.is_dir():
        raise InputError(f"{plan.out}: is a folder; choose another --out")
    return LocalFolder(plan.file.with_name(f".{plan.file.name}.parts"))


def _finished(plan: BulkPlan, file: Path, job: BulkJob) -> Summary | None:
    """Return the summary if the run to be resumed was complete, and clear its leftovers; else None."""
    record = finished(file) if plan.resume else None
    changed = changes(record.settings, job.settings) if record is not None else ""
    if record is not None and not changed:
        if digest_of(job.part(piece) for piece in plan.sources.pieces(job.shard.has)) != record.parts:
            raise InputError(f"{file}: its inputs have changed since it was finished; choose another --out")
        clear_file(file)
        _remove_parts(job)
        return record.summary
    if file.exists() and not job.store.names():
        if changed:
            raise InputError(f"{file}: written with other settings ({changed}); give the same, or choose another --out")
        advice = "" if job.shard == WHOLE else "; each shard needs a file of its own, or all of them one folder"
        raise InputError(f"{file}: exists; choose another --out{advice}")
    return None


def _nothing_left(work: Work) -> Summary | None:
    """Return the summary of a folder that is complete and has no further inputs, else None; it stays as it is."""
    record = finished_folder(work.job, [work.done[number] for number in sorted(work.done)])
    if record is None:
        return None
    listing = Listing()
    complete = next(work.left(listed=_added(work, listing)), None) is None
    return record.summary if complete and record.listing == listing.digest else None


def _added(work: Work, listing: Listing) -> Callable[[str], object] | None:
    """Return what adds inputs to a listing if there are shards to compare it with, else None."""
    return None if work.job.shard == WHOLE else listing.add


def _ready(engine: EngineOptions) -> contextlib.AbstractContextManager[None]:
    """Prepare the engine before the output is touched.

    Raises:
        InputError: Ray is missing, or there is no cluster.
    """
    if engine.kind == "local":
        return contextlib.nullcontext()
    from sar_infer.processes.cluster import connect

    connect(engine.address, "--address", "--engine ray needs Ray: pip install 'sar-clip[ray]'")
    from sar_infer.bulk.ray import cluster

    return cluster()


def _work_off(
    work: Work, options: WorkerOptions, form: RowFormat, engine: EngineOptions, progress: Progress, listing: Listing
) -> dict[int, str]:
    """Answer the remaining pieces and return the parts that were written, by piece.

    If there are shards, ``listing`` gets the inputs of them all.
    """
    if engine.kind == "ray":
        from sar_infer.bulk.ray import run_ray

        return run_ray(work, options, form, engine.workers, engine.batch_size, progress)
    with BatchPool(options, form, engine.workers or 1) as pool:
        pieces = work.left(progress.warn, _added(work, listing), pool.reader)
        return pool.write_parts(pieces, work.job, engine.batch_size, progress)


def _finish(
    plan: BulkPlan, work: Work, written: Mapping[int, str], form: RowFormat, progress: Progress, listing: Listing
) -> Summary:
    job = work.job
    parts = job.parts({**work.done, **written})  # not listed again: sources that were unreachable then may be there now
    ended = Ended(progress.inputs, progress.seconds, len(work.done), progress.passed_over, listing.digest)
    if plan.file is None:
        return finish_folder(job, form, parts, ended)
    summary = finish_file(plan.file, job, form, parts, ended)
    _remove_parts(job)
    return summary


def _remove_parts(job: BulkJob) -> None:
    if isinstance(job.store, LocalFolder):
        job.store.remove()
