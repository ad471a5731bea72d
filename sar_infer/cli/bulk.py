"""``sar-classify SOURCE... --out PLACE``: signals, refusals and the last line of a bulk run."""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

from sar_infer.cli.bulk_options import BulkOptions
from sar_infer.cli.options import Refusal
from sar_infer.errors import SarInferError

if TYPE_CHECKING:
    from sar_infer.bulk.outputs.finish import Summary
    from sar_infer.bulk.run import Engine, Plan
    from sar_infer.cli.classify_options import Options

_ON_GPU = 2
"""Sessions that share a GPU: one encodes while the other decodes."""
_BATCHES = {False: 4, True: 64}
"""On a GPU or not. On a CPU convolutions are quickest alone and transformers in eights; four costs either little."""
_CONTAINERS = (".tar", ".parquet", ".txt", ".lst")
"""Suffixes of what holds or names images."""
_NO_OUTPUT = (".arrow", ".csv", ".feather", ".gz", ".json", ".ndjson", ".pq", ".tsv", ".txt", ".zip", ".zst")
"""Suffixes of files that somebody may expect, and that are not written."""


def check_without_out(images: Iterable[str]) -> None:
    """See that all arguments are images, or folders of them.

    Raises:
        Refusal: one can only be read with ``--out``.
    """
    for image in images:
        if "://" in image or image.lower().endswith(_CONTAINERS):
            raise Refusal(
                f"{image}: a tar shard, Parquet file, list or URL needs --out FILE.parquet, FILE.jsonl or DIR"
            )


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def classify_in_bulk(options: Options, bulk: BulkOptions) -> int:
    """Do the work and return the exit code.

    Args:
        options: Of ``sar-classify``.
        bulk: Of the bulk run, with ``out``.

    Raises:
        SarInferError: something in the call is wrong; nothing was done.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(options, bulk)
    except KeyboardInterrupt as stop:
        click.echo(
            f"interrupted; what is finished stays: the same command with --resume goes on ({bulk.out})", err=True
        )
        return 143 if isinstance(stop, _Terminated) else 130


def _run(options: Options, bulk: BulkOptions) -> int:
    from sar_infer.bulk.signals import waiting

    with waiting(signal.SIGINT, signal.SIGTERM):  # in the middle of an import they would be an ImportError
        import onnxruntime  # noqa: F401

        from sar_infer.bulk.progress import Progress
        from sar_infer.bulk.run import run

    plan = _plan(options, bulk)
    progress = Progress(bulk.progress)
    try:
        summary = run(plan, _engine(options, bulk), progress)
    except SarInferError as error:
        if not progress.inputs:
            raise
        click.echo(f"Error: {error}; what is finished stays: the same command with --resume goes on", err=True)
        return 1
    _tell(summary, plan)
    return 1 if summary.rejected or (summary.pieces and not summary.inputs) else 0


def _plan(options: Options, bulk: BulkOptions) -> Plan:
    from sar_infer.bulk.answers import Recipe
    from sar_infer.bulk.outputs.job import WHOLE, Shard
    from sar_infer.bulk.run import Plan
    from sar_infer.bulk.sources.listing import Sources

    out = str(bulk.out)
    form = _form(options.format, out)
    if options.profile:
        raise Refusal("--profile is for runs without --out")
    recipe = Recipe(
        bundle=options.bundle,
        bank=options.bank,
        classes=_read_classes(options.classes),
        only=options.only,
        top_k=options.top_k,
        judging=options.judging,
        embedding=bulk.embeddings,
        device=options.device,
        threads=options.threads or 1,
        precision=options.precision,
        image_timeout=bulk.image_timeout,
    )
    return Plan(
        sources=Sources(options.images, bulk.column, bulk.key_column, bulk.piece_size),
        recipe=recipe,
        out=out,
        form=form,
        shard=Shard.parse(bulk.shard) if bulk.shard else WHOLE,
        resume=bulk.resume,
    )


def _form(given: str, out: str) -> Literal["parquet", "jsonl"]:
    """Of the output: by the suffix of a file, else by ``--format``."""
    chosen = click.get_current_context().get_parameter_source("format") is not ParameterSource.DEFAULT
    if chosen and given not in ("jsonl", "parquet"):
        raise Refusal(f"--out: expected --format parquet or jsonl, got {given}")
    suffix = posixpath.splitext(out)[1].lower()
    if suffix in _NO_OUTPUT:
        raise Refusal(f"--out {out}: expected FILE.parquet, FILE.jsonl, or a folder for parts")
    if chosen and suffix in (".parquet", ".jsonl") and suffix[1:] != given:
        raise Refusal(f"--out {out}: is {suffix[1:]}, but --format {given} was given; leave one out")
    return "jsonl" if (suffix == ".jsonl" or given == "jsonl") else "parquet"


def _read_classes(path: str | None) -> Mapping[str, tuple[str, ...]] | None:
    from sar_infer.text.names import read_class_file

    if path is None:
        return None
    file = read_class_file(Path(path))
    for warning in file.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return file.classes


def _engine(options: Options, bulk: BulkOptions) -> Engine:
    from sar_infer.bulk.run import Engine
    from sar_infer.encoders.sessions import expects_cuda, usable_cores

    workers, on_gpu = bulk.workers, expects_cuda(options.device)
    if workers is None and bulk.engine == "local":
        workers = max(1, usable_cores() // (options.threads or 1))
        workers = min(workers, _ON_GPU) if on_gpu else workers
    batch_size = options.batch_size or _BATCHES[on_gpu]
    return Engine(bulk.engine, workers, batch_size, bulk.address)


def _terminate(*_: object) -> None:
    raise _Terminated


def _tell(summary: Summary, plan: Plan) -> None:
    from sar_infer.bulk.progress import say

    folder = f"{plan.out.rstrip('/')}/{plan.shard.named('_rejected.jsonl')}"
    rejected = f"{plan.out}.rejected.jsonl" if plan.file else folder
    text = f"classified {summary.classified:,} of {summary.inputs:,}"
    if summary.rate:
        text += f" ({summary.rate:,.1f} a second)"
    if summary.pieces and not summary.inputs:
        text += "; there is no image in what was named"
    say(text + (f"; {summary.rejected:,} set aside, see {rejected}" if summary.rejected else "") + "\n")
