"""``sar-bank freeze``: a bundle of its own for a bank."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from sar_infer.cli.bank.common import Place, on_bank, opened, own_option, shared_options
from sar_infer.cli.bank.printing import emit


@click.command()
@on_bank
@own_option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the new bundle.")
@own_option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@shared_options
def freeze(place: Place, out: Path, *, overwrite: bool) -> None:
    """Write a bundle like the one of --bundle, with BANK_FILE as its own bank."""
    from sar_infer.artefact.freeze import freeze as write
    from sar_infer.artefact.writing import check_target

    check_target(out, overwrite=overwrite)
    found = opened(place, whole=True)
    command = shlex.join(["sar-bank", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode()
    manifest = write(found.bundle, found.bank, out, overwrite=overwrite, command=command)
    content = {"bundle": str(out), "digest": manifest.digest, "classes": len(found.bank.names)}
    emit(
        place.form,
        lambda: content,
        [f"{out}: {len(found.bank.names):,} classes; next: sar-classify PHOTO --bundle {shlex.quote(str(out))}"],
    )
