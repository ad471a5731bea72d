"""A bulk run from start to end, on one machine or on a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sar_infer import __version__
from sar_infer.bulk.chunks import Chunk
from sar_infer.bulk.engine import run_local
from sar_infer.bulk.items import printable
from sar_infer.bulk.job import Job, Summary, alone
from sar_infer.bulk.listing import InputSources
from sar_infer.bulk.locations import is_url
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.rows import JsonLines, Parquet, RowFormat, check_parquet
from sar_infer.bulk.store import LocalFolder, open_store
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
        resume: Continue an earlier run.
    """

    sources: InputSources
    options: WorkerOptions
    out: str
    form: Literal["parquet", "jsonl"] = "parquet"
    resume: bool = False

    @property
    def file(self) -> Path | None:
        """Return the output if it is a single file, else None."""
        return Path(self.out) if self.out.lower().endswith(SUFFIXES) else None


def run(plan: BulkPlan, engine: EngineOptions, progress: Progress) -> Summary:
    """Classify everything that has no answer yet, then finish the output.

    Raises:
        InputError: the plan contradicts itself or names something that does not exist; nothing was changed.
        WriteError: the output cannot be written; finished parts stay.
        SarInferError: see ``Answerer`` and ``run_local``.
    """
    parquet = plan.out.lower().endswith(".parquet") if plan.file else plan.form == "parquet"
    if parquet:
        check_parquet()
    if plan.file is None:
        store = open_store(plan.out)
        if isinstance(store, LocalFolder) and store.folder.exists() and not store.folder.is_dir():
            raise InputError(f"{plan.out}: is a file; name a folder, FILE.parquet or FILE.jsonl as --out")
    elif is_url(plan.out):
        raise InputError(f"{plan.out}: in storage the output is a folder of parts; leave out {plan.file.suffix}")
    elif plan.file.is_dir():
        raise InputError(f"{plan.out}: is a folder; choose another --out")
    else:
        store = LocalFolder(plan.file.with_name(f".{plan.file.name}.parts"))
    answerer = Answerer(plan.options)
    if caution := answerer.caution:
        progress.warn(caution)
    sources = plan.sources
    settings = answerer.settings() | {
        "sources": [printable(argument) for argument in sources.arguments],
        "column": sources.column,
        "key_column": sources.key_column,
        "chunk_size": sources.chunk_size,
        "format": "parquet" if parquet else "jsonl",
    }
    settings = json.loads(json.dumps(settings))
    metadata = settings | {"version": __version__, "encoder": answerer.encoder_digest}
    form: RowFormat = Parquet(answerer.columns, metadata) if parquet else JsonLines()
    job = Job(settings, store, form, plan.file)
    with alone(job, plan.out):
        if engine.kind == "ray":
            from sar_infer.processes.cluster import connect

            connect(engine.address, "--address", "--engine ray needs Ray: pip install '.[ray]'")
        if summary := job.begin(sources, progress.warn, resume=plan.resume):
            return summary
        progress.total = job.inputs

        def remaining() -> Iterator[Chunk]:
            for chunk in job.chunks():
                if chunk.number in job.done:
                    progress.keep(chunk.count or 0, before=True)
                else:
                    yield chunk

        work = job, remaining(), answerer.options, answerer.columns
        try:
            if engine.kind == "ray":
                from sar_infer.bulk.ray import run_ray

                run_ray(*work, engine.workers, engine.batch_size, progress)
            else:
                run_local(*work, engine.workers or 1, engine.batch_size, progress)
        except SarInferError:
            job.abandon()
            raise
        finally:
            progress.close()
        return job.finish(progress.inputs, progress.seconds)
