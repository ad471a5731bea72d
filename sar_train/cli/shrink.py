"""``sar-bundle shrink``: write a bundle with smaller graphs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from sar_infer.cli.options import BUNDLE_ARGUMENT, Number
from sar_infer.errors import one_line
from sar_train.cli.common import guarded, option


@click.command("shrink")
@BUNDLE_ARGUMENT
@option(
    "--photos",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder, or quoted glob pattern, of at least 40 typical photos to calibrate and compare with.",
)
@option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the new bundle.")
@option(
    "--precision",
    type=click.Choice(["fp16", "int8"]),
    multiple=True,
    required=True,
    help="Add smaller graphs, if they pass their checks; may be repeated.",
)
@option(
    "--min-cosine",
    type=Number(0, 1),
    help="Least cosine of the worst photo or name.  [default: 0.9999 for fp16, 0.97 for int8]",
)
@option(
    "--min-agreement",
    type=Number(0, 1),
    help="Least share with the same answer.  [default: 0.995 for fp16, 0.98 for int8]",
)
@option("--overwrite", is_flag=True, help="Replace a bundle in --out, which may be BUNDLE.")
@option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@guarded
def main(
    bundle: str | None,
    photos: Path,
    out: Path,
    precision: tuple[str, ...],
    form: str,
    *,
    overwrite: bool,
    quiet: bool,
    **bounds: float | None,
) -> None:
    """Write a bundle with smaller graphs that answer like float32.

    Exit code 1 if one that was asked for did not pass; those that passed are written all the same.
    """
    from sar_infer.bundle.bundle import default_bundle
    from sar_infer.bundle.writing import check_target
    from sar_infer.images.inputs import expand
    from sar_train.errors import ExportError

    check_target(out, overwrite=overwrite)
    from sar_train.export.precision.derive import derive
    from sar_train.export.precision.gate import GATES
    from sar_train.export.precision.samples import split
    from sar_train.export.report import plain

    samples = split([Path(path) for path in expand([str(photos)])], photos)
    manifest, outcome = derive(
        bundle or default_bundle(),
        out,
        samples,
        gates={name: GATES[name].with_least(bounds["min_cosine"], bounds["min_agreement"]) for name in precision},
        command=shlex.join(["sar-bundle", *sys.argv[1:]]),
        overwrite=overwrite,
        tell=lambda line: None if quiet else click.echo(one_line(line), err=True),
    )
    if form == "json":
        click.echo(plain(out, manifest, outcome))
    else:
        following = f"sar-classify PHOTO --bundle {shlex.quote(str(out))} --precision"
        use = [f"next       {following} {name}" for name in outcome.runs]
        click.echo("\n".join([*outcome.lines, f"bundle     {out}", *use]))
    if outcome.missing:
        raise ExportError(f"left out: {'; '.join(outcome.missing)}; {out} was written without")
