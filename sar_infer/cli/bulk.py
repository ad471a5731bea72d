"""``sar-classify SOURCE... --out PLACE``: options of bulk runs, signals, refusals and the last line."""

from __future__ import annotations

import posixpath
import signal
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

from sar_infer.cli.command import Key
from sar_infer.cli.options import COUNT, Number, Refusal, option, read_classes, together
from sar_infer.errors import SarInferError, one_line
from sar_infer.images.formats import IMAGE_SECONDS
from sar_infer.images.inputs import CONTAINERS, LISTS

if TYPE_CHECKING:
    from sar_infer.bulk.progress import Progress
    from sar_infer.results import DecisionOptions

bulk_options = together(
    option("--out", help="Write rows to a folder of parts, local or s3://, gs://, az://."),
    option(
        "--resume",
        is_flag=True,
        help="Continue a run. Retry images that a crash, a timeout or an unreachable file set aside.",
    ),
    option("--workers", type=COUNT, help="Processes or Ray tasks.  [default: one per core; 2 on a GPU]"),
    option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Run processes on this machine, or on a Ray cluster.",
    ),
    option(
        "--embeddings",
        type=click.Choice(["float32", "float16"]),
        is_flag=False,
        flag_value="float32",
        help="Write image embeddings too, as float32 or float16.",
    ),
    option("--address", default="auto", help="Address of the Ray cluster. local: start one."),
    option(
        "--image-timeout",
        cls=Key,
        type=Number(min=0.01, max=86_400),
        default=IMAGE_SECONDS,
        help="Seconds to decode an image. One that takes longer is set aside.",
    ),
    option("--column", default="image", help="Column of the images in Parquet files."),
    option("--key-column", help="Column of the keys in Parquet files.  [default: FILE#ROW]"),
    option("--chunk-size", type=COUNT, help="Listed images in one chunk.  [default: 64, up to 4096 in a long run]"),
    option("--progress", cls=Key, is_flag=True, help="Show progress even if stderr is no terminal."),
)
_UNCHANGED = (
    *("bundle", "bank", "banks", "only", "top_k", "device", "precision"),
    *("image_timeout", "column", "key_column"),
)
"""Options that workers have by the same name."""
_ON_GPU = 2
"""Sessions that share a GPU: one encodes while another decodes."""
_BATCHES = {False: 4, True: 64}
"""Batch size without and with a GPU. On a CPU convolutions are quickest one at a time and transformers in eights; four
costs either little."""
_CONTINUE = "the same command with --resume continues"
_FILES = (".arrow", ".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".tsv", ".txt")
"""Suffixes of files that a user may expect to be written."""


def check_without_out(images: Iterable[str]) -> None:
    """Refuse arguments that are not images or folders of images.

    Raises:
        Refusal: an argument can only be read with ``--out``.
    """
    for image in images:
        if image.startswith(("http://", "https://")):
            raise Refusal(f"{image}: {image.partition(':')[0]} is not fetched; download it")
        if "://" in image or image.lower().endswith((*CONTAINERS, *LISTS)):
            raise Refusal(f"{image}: a tar shard, Parquet file, list or URL needs --out FOLDER")


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def classify_in_bulk(options: SimpleNamespace, decision: DecisionOptions) -> int:
    """Run in bulk and return the exit code.

    Args:
        options: The options of ``sar-classify``, with ``out``.
        decision: What to report about each image.

    Raises:
        SarInferError: something in the call is wrong; nothing was done.
    """

    def terminate(*_: object) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    sys.argv = sys.argv[:1]  # each worker would get all of it at its start, and a shell may have listed a folder in it
    kept = ""
    try:
        from sar_infer.processes.signals import waiting

        with waiting(signal.SIGINT, signal.SIGTERM):  # raised inside an import they would become an ImportError
            import onnxruntime  # noqa: F401

            from sar_infer.bulk.listing import InputSources
            from sar_infer.bulk.progress import Progress, say
            from sar_infer.bulk.run import run
            from sar_infer.bulk.worker import WorkerOptions
            from sar_infer.encoders.sessions import is_accelerator, usable_cores

        out = str(options.out)
        form = _form(options.format, out)
        if options.profile:
            raise Refusal("--profile and --out cannot be combined; leave one out")
        workers, on_gpu = options.workers, is_accelerator(options.device)
        if workers is None and options.engine == "local":
            workers = max(1, usable_cores() // (options.threads or 1))
            workers = min(workers, _ON_GPU) if on_gpu else workers
        worker_options = WorkerOptions(
            classes=None if options.classes is None else read_classes(options.classes),
            decision=decision,
            embedding=options.embeddings,
            batch_size=options.batch_size or _BATCHES[on_gpu],
            threads=options.threads or 1,
            **{name: getattr(options, name) for name in _UNCHANGED},
        )
        progress = Progress(options.progress)
        try:
            summary = run(
                InputSources(options.images, options.column, options.key_column, options.chunk_size),
                worker_options,
                out,
                progress,
                parquet=form == "parquet",
                resume=options.resume,
                workers=workers,
                ray_address=options.address if options.engine == "ray" else None,
            )
        except SarInferError as error:
            if not progress.inputs:
                raise
            click.echo(f"Error: {error}; {_kept(progress)}", err=True)
            return 1
        except KeyboardInterrupt:
            kept = _kept(progress)
            raise
    except KeyboardInterrupt as stop:
        click.echo(f"interrupted; {kept or _CONTINUE} ({one_line(str(options.out))})", err=True)
        return 143 if isinstance(stop, _Terminated) else 130
    old = options.resume and not progress.inputs
    text = f"{'already complete: ' if old else ''}classified {summary['classified']:,} of {summary['inputs']:,}"
    if summary["rate"] and not old:
        text += f" ({summary['rate']:,.1f} a second)"
    if not summary["inputs"]:
        text += "; there is no image in what was named"
    if summary["rejected"]:
        text += f"; {summary['rejected']:,} set aside, see {one_line(out.rstrip('/'))}/_rejected.jsonl"
    say(text + "\n")
    return 1 if summary["rejected"] or not summary["inputs"] else 0


def _kept(progress: Progress) -> str:
    """Return how many images are kept, and how to continue."""
    of = "" if progress.total is None else f" of {progress.total:,}"
    return f"{progress.kept:,}{of} images are kept; {_CONTINUE}"


def _form(format_option: str, out: str) -> Literal["parquet", "jsonl"]:
    chosen = click.get_current_context().get_parameter_source("format") is not ParameterSource.DEFAULT
    if chosen and format_option not in ("jsonl", "parquet"):
        raise Refusal(f"--out: expected --format parquet or jsonl, got {format_option}")
    suffix = posixpath.splitext(out)[1]
    if suffix.lower() in _FILES:
        raise Refusal(
            f"--out {out}: expected a folder for parts, which pandas, pyarrow and Spark read as one table; leave out "
            f"{suffix}, or write one file: sar-classify IMAGE... --format csv > FILE.csv"
        )
    return "jsonl" if format_option == "jsonl" else "parquet"
