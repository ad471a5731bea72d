"""A bulk run from start to end, on one machine or on a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sar_infer import __version__
from sar_infer.bulk.chunks import Chunk
from sar_infer.bulk.containers import printable
from sar_infer.bulk.engine import run_local
from sar_infer.bulk.job import Job, Summary, alone
from sar_infer.bulk.listing import InputSources
from sar_infer.bulk.locations import is_url
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.rows import JsonLines, Parquet, RowFormat, check_parquet
from sar_infer.bulk.store import LocalFolder, open_store
from sar_infer.bulk.worker import Answerer, WorkerOptions
from sar_infer.errors import InputError, SarInferError, install

SUFFIXES = (".parquet", ".jsonl")
"""Suffixes of an output that is a file; anything else is a folder."""


def run(
    sources: InputSources,
    options: WorkerOptions,
    out: str,
    progress: Progress,
    *,
    parquet: bool = True,
    resume: bool = False,
    workers: int | None = 1,
    ray_address: str | None = None,
) -> Summary:
    """Classify everything that has no answer yet, then finish the output.

    Args:
        sources: What to read.
        options: How to answer.
        out: Where to write: a file (``SUFFIXES``), or the path or URL of a folder.
        progress: Notified of inputs and parts.
        parquet: Whether the parts of a folder are Parquet files, not JSON lines.
        resume: Continue an earlier run.
        workers: Processes, or Ray's tasks at a time; with Ray None is as many as the cluster has CPUs for.
        ray_address: Address of a Ray cluster; None = processes of this machine.

    Raises:
        InputError: the call contradicts itself or names something that does not exist; nothing was changed.
        WriteError: the output cannot be written; finished parts stay.
        SarInferError: see ``Answerer`` and ``run_local``.
    """
    file = Path(out) if out.lower().endswith(SUFFIXES) else None
    parquet = out.lower().endswith(".parquet") if file else parquet
    if parquet:
        check_parquet()
    if file is None:
        store = open_store(out)
        if isinstance(store, LocalFolder) and store.folder.exists() and not store.folder.is_dir():
            raise InputError(f"{out}: is a file; name a folder, FILE.parquet or FILE.jsonl as --out")
    elif is_url(out):
        raise InputError(f"{out}: in storage the output is a folder of parts; leave out {file.suffix}")
    elif file.is_dir():
        raise InputError(f"{out}: is a folder; choose another --out")
    else:
        store = LocalFolder(file.with_name(f".{file.name}.parts"))
    answerer = Answerer(options)
    if caution := answerer.classifier.choice.caution:
        progress.warn(caution)
    settings = answerer.settings() | {
        "sources": [printable(argument) for argument in sources.arguments],
        "column": sources.column,
        "key_column": sources.key_column,
        "chunk_size": sources.chunk_size,
        "format": "parquet" if parquet else "jsonl",
    }
    settings = json.loads(json.dumps(settings))
    metadata = settings | {"version": __version__, "encoder": answerer.classifier.bundle.manifest.encoder_digest}
    form: RowFormat = Parquet(answerer.columns, metadata) if parquet else JsonLines(answerer.columns)
    job = Job(settings, store, form, file)
    with alone(job, out):
        if ray_address is not None:
            from sar_infer.processes.cluster import connect

            connect(ray_address, "--address", f"--engine ray needs Ray: {install('ray')}")
        if summary := job.begin(sources, progress.warn, resume=resume):
            return summary
        progress.total = job.inputs

        def remaining() -> Iterator[Chunk]:
            for chunk in job.chunks():
                if chunk.number in job.done:
                    progress.keep(chunk.count or 0, before=True)
                else:
                    yield chunk

        work = job, remaining(), answerer.options
        try:
            if ray_address is not None:
                from sar_infer.bulk.ray import run_ray

                run_ray(*work, workers, progress)
            else:
                run_local(*work, workers or 1, progress)
        except SarInferError:
            job.abandon()
            raise
        finally:
            progress.close()
        return job.finish(progress.inputs, progress.seconds)
