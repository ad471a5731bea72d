"""``sar-classify SOURCE... --out PLACE``: options, signals and the last line of a bulk run."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from sar_infer.errors import SarInferError
from sar_infer.options import Refusal, option

if TYPE_CHECKING:
    from sar_infer.bulk.outputs.finish import Summary
    from sar_infer.bulk.run import Engine, Plan
    from sar_infer.cli.classify import Options

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_OPTIONS = (
    option("--out", help="Write rows to FILE.parquet, FILE.jsonl, or a folder of parts, local or s3://, gs://, az://."),
    option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Processes here, or a cluster.",
    ),
    option("--address", default="auto", show_default=True, help="Of the Ray cluster; local starts one."),
    option("--workers", type=click.IntRange(min=1), help="Processes, or Ray tasks.  [default: one a core]"),
    option("--shard", metavar="I/N", help="Work off every N-th piece from the I-th on; I of 1 to N."),
    option("--resume", is_flag=True, help="Go on where an interrupted run was."),
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
        "--piece-size", type=click.IntRange(min=1), default=4096, show_default=True, help="Listed images of a part."
    ),
    option("--progress", is_flag=True, help="Progress on stderr even where that is no terminal."),
)


_BATCHES = {False: 4, True: 64}
"""On a GPU or not. On a CPU convolutions are quickest alone and transformers in eights; four costs either little."""


def bulk_options(command: Decorated) -> Decorated:
    """Add the options of a bulk run to a command."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


@dataclass(frozen=True)
class BulkOptions:
    """What the command line says of a bulk run; every field is the option of that name."""

    out: str | None
    engine: Literal["local", "ray"]
    address: str
    workers: int | None
    shard: str | None
    resume: bool
    embeddings: Literal["float32", "float16"] | None
    column: str
    key_column: str | None
    piece_size: int
    progress: bool

    @classmethod
    def taken(cls, values: dict[str, Any]) -> BulkOptions:
        """Those among a command's values, which are taken out.

        Raises:
            Refusal: one is given that means nothing without ``--out``.
        """
        options = cls(**{field.name: values.pop(field.name) for field in dataclasses.fields(cls)})
        for name in ("shard", "resume", "embeddings"):
            if options.out is None and getattr(options, name):
                raise Refusal(f"--{name} needs --out")
        return options


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
    from sar_infer.bulk.progress import Progress
    from sar_infer.bulk.run import run

    plan = _plan(options, bulk)
    engine = _engine(options, bulk)
    signal.signal(signal.SIGTERM, _terminate)
    progress = Progress(bulk.progress)
    try:
        summary = run(plan, engine, progress)
    except SarInferError as error:
        if not progress.inputs:
            raise
        click.echo(f"Error: {error}; what is finished stays: the same command with --resume goes on", err=True)
        return 1
    except KeyboardInterrupt as stop:
        click.echo(
            f"interrupted; what is finished stays: the same command with --resume goes on ({bulk.out})", err=True
        )
        return 143 if isinstance(stop, _Terminated) else 130
    _tell(summary, plan)
    return 1 if summary.rejected else 0


def _plan(options: Options, bulk: BulkOptions) -> Plan:
    from sar_infer.bulk.answers import Recipe
    from sar_infer.bulk.outputs.job import WHOLE, Shard
    from sar_infer.bulk.run import Plan
    from sar_infer.bulk.sources.listing import Sources

    if options.format not in ("text", "jsonl", "parquet"):
        raise Refusal(f"--out: expected --format parquet or jsonl, got {options.format}")
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
    )
    return Plan(
        sources=Sources(options.images, bulk.column, bulk.key_column, bulk.piece_size),
        recipe=recipe,
        out=str(bulk.out),
        form="jsonl" if options.format == "jsonl" else "parquet",
        shard=Shard.parse(bulk.shard) if bulk.shard else WHOLE,
        resume=bulk.resume,
    )


def _read_classes(path: str | None) -> Mapping[str, tuple[str, ...]] | None:
    from sar_infer.names import read_class_file

    if path is None:
        return None
    file = read_class_file(Path(path))
    for warning in file.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return file.classes


def _engine(options: Options, bulk: BulkOptions) -> Engine:
    from sar_infer.bulk.run import Engine
    from sar_infer.sessions import expects_cuda, usable_cores

    workers = bulk.workers
    if workers is None and bulk.engine == "local":
        workers = max(1, usable_cores() // (options.threads or 1))
    batch_size = options.batch_size or _BATCHES[expects_cuda(options.device)]
    return Engine(bulk.engine, workers, batch_size, bulk.address)


def _terminate(*_: object) -> None:
    raise _Terminated


def _tell(summary: Summary, plan: Plan) -> None:
    rejected = f"{plan.out}.rejected.jsonl" if plan.file else str(Path(plan.out) / plan.shard.named("_rejected.jsonl"))
    text = f"classified {summary.classified:,} of {summary.inputs:,}"
    if summary.rate:
        text += f" ({summary.rate:,.1f} a second)"
    click.echo(text + (f"; {summary.rejected:,} set aside, see {rejected}" if summary.rejected else ""), err=True)
