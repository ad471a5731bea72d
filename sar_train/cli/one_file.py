"""``sar-bundle onnx``: write one ONNX file from pixels to scores."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path

import click

from sar_infer.cli.command import Command
from sar_infer.cli.options import BUNDLE_ARGUMENT, emit, format_option
from sar_train.cli.common import PATH, guarded, option


@click.command("onnx", cls=Command, groups={"Options": "bank out precision batch several overwrite"})
@BUNDLE_ARGUMENT
@option("--bank", type=PATH, help="Bank file with the classes.  [default: the bundle's classes]")
@option("--out", required=True, type=PATH, help="The file, such as shop.onnx.")
@option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    help="Image encoder, if the bundle has it.",
)
@option("--batch", is_flag=True, help="The input is several images of one size (N, H, W, 3), not one (H, W, 3).")
@option("--several", is_flag=True, help="Output each class that an image shows, or none, as sar-classify --several.")
@option("--overwrite", is_flag=True, help="Replace a file in --out.")
@format_option
@guarded
def main(
    bundle: str | None,
    bank: Path | None,
    out: Path,
    precision: str,
    form: str,
    *,
    batch: bool,
    several: bool,
    overwrite: bool,
) -> None:
    """Write one ONNX file from pixels to scores.

    Any onnxruntime runs it. Its input is an image as uint8 RGB; its outputs are scores, answer, unknown, embedding and
    logits. With --several, labels and crops replace answer.

    Exit code 1 if the file does not agree with sar-classify on generated images; then nothing is written.
    """
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bundle import open_bundle
    from sar_train.errors import ConfigError

    if os.path.lexists(out) and not (overwrite and out.is_file()):
        raise ConfigError(f"{out}: exists; choose another --out, or replace a file with --overwrite")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder; make it first")
    from sar_train.export.one_file import write_one_file

    opened = open_bundle(bundle)
    classes = opened.bank if bank is None else ClassBank.load(bank, opened.manifest.encoder_digest, opened.bank)
    file = write_one_file(opened, classes, out, precision=precision, batch=batch, several=several)  # type: ignore[arg-type]
    shape = "(N, H, W, 3)" if batch else "(H, W, 3)"
    content = {
        "file": str(out),
        "classes": file.classes,
        "bytes": file.size,
        "precision": precision,
        "input": shape,
        "checks": [dataclasses.asdict(check) for check in file.checks],
    }
    lines = [
        f"{out}: {file.classes:,} classes, {file.size / 1e6:.1f} MB, input image: uint8 {shape}",
        *(f"  {check}" for check in file.checks),
        f"next: python examples/browser/prepare.py {shlex.quote(str(out))} page",
    ]
    emit(form, lambda: content, lines)
