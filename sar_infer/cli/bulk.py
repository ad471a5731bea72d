"""``sar-classify SOURCE... --out PLACE``: options of bulk runs, signals, refusals and the last line."""

from __future__ import annotations

import dataclasses
import posixpath
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from sar_infer.cli.options import Refusal, option, read_classes, together
from sar_infer.errors import SarInferError, one_line
from sar_infer.images.formats import IMAGE_SECONDS

if TYPE_CHECKING:
    from sar_infer.bulk.items import FlawKind
    from sar_infer.bulk.outputs.finish import Summary
    from sar_infer.bulk.run import BulkPlan, EngineOptions
    from sar_infer.cli.classify_options import ClassifyArguments

bulk_options = together(
    option("--out", help="Write rows to FILE.parquet, FILE.jsonl, or a folder of parts, local or s3://, gs://, az://."),
    option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Run processes on this machine, or on a Ray cluster.",
    ),
    option("--address", default="auto", show_default=True, help="Address of the Ray cluster; local starts one."),
    option(
        "--workers", type=click.IntRange(min=1), help="Processes, or Ray tasks.  [default: one per core; on a GPU 2]"
    ),
    option("--shard", metavar="I/N", help="Process every N-th piece from the I-th on; I is 1 to N."),
    option(
        "--image-timeout",
        type=click.IntRange(1, 86_400),
        metavar="SECONDS",
        default=IMAGE_SECONDS,
        show_default=True,
        help="Set aside an image that takes longer to decode.",
    ),
    option("--resume", is_flag=True, help="Continue an interrupted run."),
    option(
        "--retry",
        type=click.Choice(["format", "size", "unreadable", "source", "crash", "timeout"]),
        multiple=True,
        help="With --resume, after the run's end: write the parts again in which images have errors of this kind.",
    ),
    option(
        "--embeddings",
        type=click.Choice(["float32", "float16"]),
        is_flag=False,
        flag_value="float32",
        help="Write image embeddings too, as float32 or float16.",
    ),
    option("--column", default="image", show_default=True, help="Column of the images in Parquet sources."),
    option("--key-column", help="Column of the keys.  [default: FILE#ROW]"),
    option(
        "--piece-size",
        type=click.IntRange(min=1),
        default=4096,
        show_default=True,
        help="Listed images in one part.",
    ),
    option("--progress", is_flag=True, help="Show progress on stderr even if that is no terminal."),
)
_ON_GPU = 2
"""Sessions that share a GPU: one encodes while another decodes."""
_BATCHES = {False: 4, True: 64}
"""Batch size without and with a GPU. On a CPU convolutions are quickest one at a time and transformers in eights; four
costs either little."""
_CONTAINERS = (".tar", ".parquet", ".txt", ".lst")
"""Suffixes of files that hold or list images."""
_NO_OUTPUT = (".arrow", ".csv", ".feather", ".gz", ".json", ".ndjson", ".pq", ".tsv", ".txt", ".zip", ".zst")
"""Suffixes of file types that a user may ask for and that are not written."""


@dataclass(frozen=True)
class BulkOptions:
    """The command line's part about bulk runs; every field is the option of that name."""

    out: str | None
    engine: Literal["local", "ray"]
    address: str
    workers: int | None
    shard: str | None
    image_timeout: int
    resume: bool
    retry: tuple[FlawKind, ...]
    embeddings: Literal["float32", "float16"] | None
    column: str
    key_column: str | None
    piece_size: int
    progress: bool

    @classmethod
    def pop_from(cls, values: dict[str, Any]) -> BulkOptions:
        """Move these options out of a command's values.

        Raises:
            Refusal: an option is given that needs ``--out``, without it.
        """
        options = cls(**{field.name: values.pop(field.name) for field in dataclasses.fields(cls)})
        for name in ("shard", "resume", "retry", "embeddings"):
            if options.out is None and getattr(options, name):
                raise Refusal(f"--{name} needs --out")
        if options.retry and not options.resume:
            raise Refusal("--retry needs --resume")
        return options


def check_without_out(images: Iterable[str]) -> None:
    """Refuse arguments that are not images or folders of images.

    Raises:
        Refusal: an argument can only be read with ``--out``.
    """
    for image in images:
        if image.startswith(("http://", "https://")):
            raise Refusal(f"{image}: {image.partition(':')[0]} is not fetched; download it")
        if "://" in image or image.lower().endswith(_CONTAINERS):
            raise Refusal(
                f"{image}: a tar shard, Parquet file, list or URL needs --out FILE.parquet, FILE.jsonl or DIR"
            )


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def classify_in_bulk(options: ClassifyArguments, bulk: BulkOptions) -> int:
    """Run in bulk and return the exit code.

    Args:
        options: The options of ``sar-classify``.
        bulk: The options of the bulk run, with ``out``.

    Raises:
        SarInferError: something in the call is wrong; nothing was done.
    """
    signal.signal(signal.SIGTERM, _terminate)
    sys.argv = sys.argv[:1]  # each worker would get all of it at its start, and a shell may have listed a folder in it
    try:
        return _run(options, bulk)
    except KeyboardInterrupt as stop:
        click.echo(
            f"interrupted; what is finished is kept; the same command with --resume continues "
            f"({one_line(str(bulk.out))})",
            err=True,
        )
        return 143 if isinstance(stop, _Terminated) else 130


def _run(options: ClassifyArguments, bulk: BulkOptions) -> int:
    from sar_infer.processes.signals import waiting

    with waiting(signal.SIGINT, signal.SIGTERM):  # raised inside an import they would become an ImportError
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
        click.echo(f"Error: {error}; what is finished is kept; the same command with --resume continues", err=True)
        return 1
    _report(summary, plan, nothing_new=bulk.resume and not progress.inputs)
    return 1 if summary.rejected or (summary.pieces and not summary.inputs) else 0


def _plan(options: ClassifyArguments, bulk: BulkOptions) -> BulkPlan:
    from sar_infer.bulk.outputs.job import WHOLE, Shard
    from sar_infer.bulk.run import BulkPlan
    from sar_infer.bulk.sources.listing import InputSources
    from sar_infer.bulk.worker import WorkerOptions

    out = str(bulk.out)
    form = _form(options.format, out)
    if options.profile:
        raise Refusal("--profile is for runs without --out")
    worker_options = WorkerOptions(
        bundle=options.bundle,
        bank=options.bank,
        classes=None if options.classes is None else read_classes(options.classes),
        only=options.only,
        top_k=options.top_k,
        decision=options.decision,
        embedding=bulk.embeddings,
        device=options.device,
        threads=options.threads or 1,
        precision=options.precision,
        offset=options.offset,
        image_timeout=bulk.image_timeout,
    )
    return BulkPlan(
        sources=InputSources(options.images, bulk.column, bulk.key_column, bulk.piece_size),
        options=worker_options,
        out=out,
        form=form,
        shard=Shard.parse(bulk.shard) if bulk.shard else WHOLE,
        resume=bulk.resume,
        retry=bulk.retry,
    )


def _form(format_option: str, out: str) -> Literal["parquet", "jsonl"]:
    """Return the form of the output, by the suffix of a file, else by ``--format``."""
    chosen = click.get_current_context().get_parameter_source("format") is not ParameterSource.DEFAULT
    if chosen and format_option not in ("jsonl", "parquet"):
        raise Refusal(f"--out: expected --format parquet or jsonl, got {format_option}")
    suffix = posixpath.splitext(out)[1].lower()
    if suffix in _NO_OUTPUT:
        raise Refusal(f"--out {out}: expected FILE.parquet, FILE.jsonl, or a folder for parts")
    if chosen and suffix in (".parquet", ".jsonl") and suffix[1:] != format_option:
        raise Refusal(f"--out {out}: is {suffix[1:]}, but --format {format_option} was given; leave one out")
    return "jsonl" if (suffix == ".jsonl" or format_option == "jsonl") else "parquet"


def _engine(options: ClassifyArguments, bulk: BulkOptions) -> EngineOptions:
    from sar_infer.bulk.run import EngineOptions
    from sar_infer.encoders.sessions import expects_cuda, usable_cores

    workers, on_gpu = bulk.workers, expects_cuda(options.device)
    if workers is None and bulk.engine == "local":
        workers = max(1, usable_cores() // (options.threads or 1))
        workers = min(workers, _ON_GPU) if on_gpu else workers
    batch_size = options.batch_size or _BATCHES[on_gpu]
    return EngineOptions(bulk.engine, workers, batch_size, bulk.address)


def _terminate(*_: object) -> None:
    raise _Terminated


def _report(summary: Summary, plan: BulkPlan, *, nothing_new: bool) -> None:
    from sar_infer.bulk.progress import say

    folder = f"{plan.out.rstrip('/')}/{plan.shard.named('_rejected.jsonl')}"
    rejected = f"{plan.out}.rejected.jsonl" if plan.file else folder
    text = f"{'already complete: ' if nothing_new else ''}classified {summary.classified:,} of {summary.inputs:,}"
    if summary.rate and not nothing_new:
        text += f" ({summary.rate:,.1f} a second)"
    if summary.pieces and not summary.inputs:
        text += "; there is no image in what was named"
    say(text + (f"; {summary.rejected:,} set aside, see {one_line(rejected)}" if summary.rejected else "") + "\n")
