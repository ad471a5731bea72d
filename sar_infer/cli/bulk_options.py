"""Options of ``sar-classify`` that are about bulk runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import click

from sar_infer.cli.options import Refusal, option, together

bulk_options = together(
    option("--out", help="Write rows to FILE.parquet, FILE.jsonl, or a folder of parts, local or s3://, gs://, az://."),
    option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Processes here, or a cluster.",
    ),
    option("--address", default="auto", show_default=True, help="Of the Ray cluster; local starts one."),
    option("--workers", type=click.IntRange(min=1), help="Processes, or Ray tasks.  [default: one a core; on a GPU 2]"),
    option("--shard", metavar="I/N", help="Work off every N-th piece from the I-th on; I of 1 to N."),
    option(
        "--image-timeout",
        type=click.IntRange(1, 86_400),
        metavar="SECONDS",
        default=60,
        show_default=True,
        help="Set an image aside that takes longer to decode.",
    ),
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


@dataclass(frozen=True)
class BulkOptions:
    """What the command line says of a bulk run; every field is the option of that name."""

    out: str | None
    engine: Literal["local", "ray"]
    address: str
    workers: int | None
    shard: str | None
    image_timeout: int
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
