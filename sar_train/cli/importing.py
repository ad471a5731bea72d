"""``sar-bundle import``: published ONNX towers become a bundle, without torch."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from sar_infer.cli.bundle import print_bundle
from sar_infer.cli.command import Command
from sar_infer.cli.options import Number, format_option, read_classes
from sar_train.cli.common import PATH, ProgressLine, guarded, option

GROUPS = {
    "Options": "out precision template classes overwrite no_check form",
    "Files one by one": "image text tokenizer preprocess",
}
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("import", cls=Command, groups=GROUPS)
@click.argument("source", required=False)
@option("--out", required=True, type=PATH, help="Folder of the new bundle.")
@option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", help="Which of the publisher's graphs.")
@option("--template", default="a photo of a {}.", help="Text that class names are embedded in.")
@option("--classes", type=PATH, help="Text file of class names, one per line.  [default: no classes]")
@option(
    "--logit-scale",
    type=Number(min=0, min_open=True),
    default=100.0,
    help="Multiplier of the cosine. The trained one is not published with ONNX towers.",
)
@option("--no-check", is_flag=True, help="Do not require that shipped photos find their names.")
@option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@option("--image", type=FILE, help="Image tower, without SOURCE.")
@option("--text", help="Text tower: a file, without SOURCE; with SOURCE, the folder or repository of its own.")
@option("--tokenizer", type=FILE, help="tokenizer.json of the text tower.")
@option(
    "--preprocess", type=FILE, help="preprocess_cfg.json of open_clip, or preprocessor_config.json of transformers."
)
@format_option
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@guarded
def main(
    source: str | None, out: Path, precision: Any, classes: Path | None, form: str, *, quiet: bool, **options: Any
) -> None:
    """Make a bundle of published ONNX towers.

    SOURCE is a folder or hf://USER/NAME@REVISION in the layout of Immich, transformers.js, optimum or fastembed. The
    preprocessing and the tokens are those of its configuration.

    Exit code 1 if a check failed; 2 if SOURCE cannot be used. Nothing is written then.
    """
    from sar_infer.bundle.writing import check_target, staged
    from sar_train.errors import ConfigError

    overwrite, check = options.pop("overwrite"), not options.pop("no_check")
    image, text, tokenizer, preprocess = (options.pop(key) for key in ("image", "text", "tokenizer", "preprocess"))
    check_target(out, overwrite=overwrite)
    names = read_classes(classes) if classes is not None else {}
    from sar_train.export.importing.bundle import import_bundle
    from sar_train.export.importing.sources import from_files, open_source, recognise

    if source is not None and not (image or tokenizer or preprocess):
        towers = recognise(open_source(source), text, precision)
    elif source is None and image and preprocess:
        towers = from_files(image, preprocess, Path(text) if text else None, tokenizer)
    else:
        raise ConfigError("expected SOURCE, or --image and --preprocess (and --text and --tokenizer) without SOURCE")
    progress = ProgressLine(quiet=quiet)
    progress(f"{towers.images.label}: {towers.layout}")
    command = shlex.join(["sar-bundle", *sys.argv[1:]])
    with staged(out, overwrite=overwrite) as folder:
        import_bundle(towers, folder, classes=names, check=check, command=command, tell=progress, **options)
    print_bundle(out, form)
    if form == "text":
        click.echo(f"{'next':<14}sar-bank create FILE --photos FOLDER --bundle {shlex.quote(str(out))}")
