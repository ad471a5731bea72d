"""Options of ``sar-classify`` but for those of bulk runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sar_infer.classify.output import FORMATS
from sar_infer.cli.options import model_options, option, together
from sar_infer.results import DecisionOptions

if TYPE_CHECKING:
    from sar_infer.encoders.precision import PrecisionChoice
    from sar_infer.encoders.sessions import Device

classify_options = together(
    option("--classes", type=click.Path(), help="Text file with further class names, one per line."),
    option(
        "--examples", type=click.Path(), help="Folder with example photos for this call, one folder for each class."
    ),
    option("--only", is_flag=True, help="Choose from the classes of --classes and --examples alone."),
    model_options,
    option("--bank", type=click.Path(), help="Bank file to use in place of the bundle's."),
    option(
        "--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Classes to print for each image."
    ),
    click.option(
        "--format",
        type=click.Choice([*FORMATS, "parquet"]),
        default="text",
        show_default=True,
        envvar="SAR_CLASSIFY_FORMAT",  # SAR_FORMAT is text or json, for the commands that know these two alone
        show_envvar=True,
        help="Output format; with --out parquet (the default) or jsonl.",
    ),
    option("--threads", type=click.IntRange(min=1), help="Threads of the encoder.  [default: chosen by onnxruntime]"),
    option(
        "--batch-size",
        type=click.IntRange(min=1),
        help="Images encoded together.  [default: 16; with --out 4, on a GPU 64]",
    ),
    option("--unknown", is_flag=True, help="Give no class to an image that seems to be none of the classes."),
    option(
        "--threshold",
        type=float,
        metavar="X",
        help="With --unknown: probability from which an image is unknown.  [default: the class model's own]",
    ),
    option(
        "--coverage",
        type=float,
        metavar="P",
        help="Give a set of classes that contains the true one with this probability, such as 0.9.",
    ),
    option("--explain", is_flag=True, help="Give reasons: the margin, and the classes nearest to the best one."),
    option(
        "--evaluate", is_flag=True, help="IMAGE is a folder with one folder for each class: say how many are right."
    ),
    option("--html", type=click.Path(path_type=Path), help="With --evaluate: also write one HTML page."),
    option("--strict", is_flag=True, help="With --evaluate: refuse if a photo looks like another class than its own."),
    option("--profile", is_flag=True, help="Print to stderr where the time goes, and what the encoder runs on."),
)


@dataclass(frozen=True)
class ClassifyArguments:
    """The command line but for bulk runs; every field is the option of that name."""

    images: tuple[str, ...]
    classes: str | None
    examples: str | None
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
    threshold: float | None
    coverage: float | None
    explain: bool
    evaluate: bool
    html: Path | None
    strict: bool

    @property
    def decision(self) -> DecisionOptions:
        """Return what to report beside the classes.

        Raises:
            InputError: the options contradict each other, or a number is out of range.
        """
        return DecisionOptions(self.unknown, self.threshold, self.coverage, self.explain)
