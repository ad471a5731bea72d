"""Options of ``sar-classify`` but those of bulk runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from sar_infer.classify.output import FORMATS
from sar_infer.cli.options import option, together
from sar_infer.results import DecisionOptions, Unknown

if TYPE_CHECKING:
    from sar_infer.encoders.precision import PrecisionChoice
    from sar_infer.encoders.sessions import Device

classify_options = together(
    option("--classes", type=click.Path(), help="Text file with further class names, one a line."),
    option("--only", is_flag=True, help="Choose from the names of --classes alone."),
    option("--bundle", type=click.Path(), help="Bundle folder.  [default: the one that ships with sar-clip]"),
    option("--bank", type=click.Path(), help="Bank file to use in place of the bundle's."),
    option(
        "--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Classes to print for each image."
    ),
    option(
        "--format",
        type=click.Choice([*FORMATS, "parquet"]),
        default="text",
        show_default=True,
        help="Form of the output; of parts, parquet (the default) or jsonl.",
    ),
    option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to run."
    ),
    option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "int8", "auto"]),
        default="fp32",
        show_default=True,
        help="Smaller graphs that the bundle has; auto: int8 on a CPU, fp16 on a GPU, where it has them.",
    ),
    option("--threads", type=click.IntRange(min=1), help="Threads of the encoder.  [default: chosen by onnxruntime]"),
    option(
        "--batch-size",
        type=click.IntRange(min=1),
        help="Images encoded together.  [default: 16; with --out 4, on a GPU 64]",
    ),
    option("--unknown", is_flag=True, help="Say of a photo whether it is none of the classes."),
    option(
        "--unknown-by",
        type=click.Choice(["score", "energy"]),
        help="The same, by the best score or by the energy of all classes.  [default: score]",
    ),
    option(
        "--threshold", type=float, metavar="X", help="With --unknown: least score or largest energy of a known photo."
    ),
    option(
        "--coverage",
        type=float,
        metavar="P",
        help="Give the prediction set: the classes among which the true one is so often, as 0.9.",
    ),
    option("--explain", is_flag=True, help="Say how sure the best class is, and what it is nearest to."),
    option("--profile", is_flag=True, help="Print to stderr where the time goes, and what the encoder runs on."),
)


@dataclass(frozen=True)
class Options:
    """What the command line says; every field is the option of that name."""

    images: tuple[str, ...]
    classes: str | None
    only: bool
    bundle: str | None
    bank: str | None
    top_k: int
    format: str
    device: Device
    precision: PrecisionChoice
    threads: int | None
    batch_size: int | None
    profile: bool
    info: bool
    unknown: bool
    unknown_by: Unknown | None
    threshold: float | None
    coverage: float | None
    explain: bool

    @property
    def judging(self) -> DecisionOptions:
        """What is asked for beside the classes.

        Raises:
            InputError: it cannot be meant.
        """
        by: Unknown | None = self.unknown_by or ("score" if self.unknown else None)
        return DecisionOptions(by, self.threshold, self.coverage, self.explain)
